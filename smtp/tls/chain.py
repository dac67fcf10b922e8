"""The certificates that a server has sent, its own first."""

import ssl
from typing import Any

from cryptography import x509

MOST_CERTIFICATES = 10


def sent_chain(connection: ssl.SSLObject) -> tuple[x509.Certificate, ...]:
    """What the server sent, as it sent it, nothing checked; certificates that cannot be read end it.

    Python has the whole chain in its public interface since 3.13, and the same one step below it since 3.10.
    """
    chain: list[x509.Certificate] = []
    for der in _encoded(connection)[:MOST_CERTIFICATES]:
        try:
            chain.append(x509.load_der_x509_certificate(der))
        except ValueError:
            break
    return tuple(chain)


def _encoded(connection: Any) -> list[bytes]:  # Any: the stubs know neither of the two
    if hasattr(connection, "get_unverified_chain"):
        return list(connection.get_unverified_chain())
    below = getattr(connection, "_sslobj", None)
    if below is not None and hasattr(below, "get_unverified_chain"):
        return [one.public_bytes(_DER) for one in below.get_unverified_chain() or ()]
    leaf = connection.getpeercert(binary_form=True)
    return [leaf] if leaf else []


_DER = 2  # _ssl.ENCODING_DER

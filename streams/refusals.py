"""Why Kafka does not take us: what a first connection fails by, in a sentence that names the setting.

aiokafka's clients log such a cause and go on trying; a wrong password or authority does not become right by that.
"""

import asyncio
import contextlib
import ssl

from aiokafka.conn import AIOKafkaConnection, collect_hosts
from aiokafka.errors import (
    IllegalSaslStateError,
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)
from aiokafka.protocol.metadata import MetadataRequest

from streams.kafka_security import Secured, security_arguments

WITHIN_S = 5.0
_GOODBYE_S = 1.0  # a TLS connection ends by an exchange


async def refusal(bootstrap: str, *, within_s: float = WITHIN_S) -> str | None:
    """Why Kafka at these servers refuses us; None if one takes us, or if none says anything at all."""
    said: str | None = None
    for host, port, _ in collect_hosts(bootstrap):
        try:
            async with asyncio.timeout(within_s):
                said = await _refused_by(bootstrap, host, port, within_s)
        except (TimeoutError, ConnectionRefusedError):
            continue  # away
        except (OSError, KafkaError) as failed:
            said = await _sentence(bootstrap, f"{host}:{port}", failed, within_s)
        if said is None:
            return None
    return said


async def _refused_by(bootstrap: str, host: str, port: int, within_s: float) -> str | None:
    made = AIOKafkaConnection(host, port, request_timeout_ms=int(within_s * 1000), **security_arguments(bootstrap))
    try:
        await made.connect()
        await made.send(MetadataRequest([]))  # with TLS 1.3 a certificate of ours is judged after the handshake
    finally:
        closed = made.close()
        if made._protocol is not None:  # noqa: SLF001 - else there is nothing to close, and this would never be done
            await asyncio.wait({closed}, timeout=_GOODBYE_S)
    return None


async def _sentence(bootstrap: str, where: str, failed: Exception, within_s: float) -> str | None:
    cause = _cause(failed)
    security = bootstrap.security if isinstance(bootstrap, Secured) else None
    match cause:
        case ssl.SSLCertVerificationError():
            why = f"its certificate is not valid for us ({cause.verify_message}): see kafka_ca_file"
        case ssl.SSLError() if "WRONG_VERSION_NUMBER" in str(cause) or "RECORD_LAYER" in str(cause):
            why = "it does not speak TLS on this port: see kafka, kafka_tls"
        case ssl.SSLError():
            why = f"TLS failed ({cause.reason}): see kafka_cert_file, kafka_key_file"
        case SaslAuthenticationFailed():
            assert security is not None, "nobody else logs in"  # noqa: S101 - narrows the type
            why = f"it does not let {security.user} in: see kafka_user, kafka_password_file"
        case UnsupportedSaslMechanismError():
            why = "it has not this way to log in: see kafka_mechanism"
        case IllegalSaslStateError():
            why = "it asks nobody to log in on this port: see kafka, kafka_mechanism"
        case _ if security is None and await _speaks_tls(where, within_s):
            why = "it speaks TLS on this port: set kafka_tls or kafka_ca_file"
        case _ if security is None:
            return None  # it may be about to end
        case _ if security.context is None:
            why = "it hangs up: see kafka_tls, kafka_mechanism"
        case _:
            why = "it hangs up before it knows us: see kafka_tls, kafka_cert_file, kafka_mechanism"
    return f"Kafka at {where} cannot be used: {why}"


def _cause(failed: BaseException) -> BaseException:
    """The TLS error below, if there is one: aiokafka wraps what ends a connection."""
    below: BaseException | None = failed
    while below is not None:
        if isinstance(below, ssl.SSLError):
            return below
        below = below.__cause__ or below.__context__
    return failed


async def _speaks_tls(where: str, within_s: float) -> bool:
    """Whether a TLS handshake comes to anything there; nothing is sent, so nothing need be trusted."""
    host, _, port = where.rpartition(":")
    anything = ssl.create_default_context()
    anything.check_hostname, anything.verify_mode = False, ssl.CERT_NONE
    try:
        async with asyncio.timeout(within_s):
            _, writer = await asyncio.open_connection(host, int(port), ssl=anything)
    except (OSError, TimeoutError):
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True

"""Contexts to encrypt with, and the verdict over who is on the other side."""

import datetime as dt
import functools
import ssl
from pathlib import Path
from typing import assert_never

from smtp.tls.chain import sent_chain
from smtp.tls.demand import Dane, Demand, Encrypt, May, Names
from smtp.tls.names import named, names_others
from smtp.tls.secure_dns import in_ascii
from smtp.tls.tlsa import why_not


def context_for(demand: Demand, ca_file: Path | None = None) -> ssl.SSLContext:
    """What to shake hands with; ``ca_file`` holds authorities that are trusted beside the public ones.

    For names the handshake itself fails when no authority vouches for the certificate, so that the server is told;
    the name is looked at afterwards, in :func:`verdict`, which can say what was wrong with it.
    """
    return _context(isinstance(demand, Names), ca_file)


@functools.cache
def _context(verifies: bool, ca_file: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    if not verifies:
        context.verify_mode = ssl.CERT_NONE
    elif ca_file is not None:
        context.load_verify_locations(ca_file)
    return context


def asks_for(demand: Demand, host: str) -> str:
    """The name that the server is asked for in the handshake (SNI; RFC 7672 8.1, RFC 8461 7)."""
    return demand.names[0] if isinstance(demand, Dane) else in_ascii(host) or host


def verdict(demand: Demand, connection: ssl.SSLObject, host: str, *, now: dt.datetime) -> str | None:
    """Why the encrypted connection does not prove what is demanded; None when it does."""
    match demand:
        case May() | Encrypt():
            return None
        case Names():
            chain, hosts = sent_chain(connection), (in_ascii(host) or host,)
            if not chain:
                return "the server sent no certificate that can be read"
            return None if named(chain[0], hosts) else names_others(chain[0], hosts)
        case Dane():
            return why_not(demand.records, sent_chain(connection), names=demand.names, now=now)
        case _:
            assert_never(demand)


def failed_handshake(failed: BaseException) -> str:
    """What a failed handshake says, in the words of OpenSSL where it has some."""
    cause: BaseException | None = failed
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"certificate is not valid: {cause.verify_message}"
        if isinstance(cause, ssl.SSLError):
            return f"the handshake failed: {cause.reason or cause}"
        cause = cause.__cause__ or cause.__context__
    return f"the handshake failed: {str(failed) or type(failed).__name__}"

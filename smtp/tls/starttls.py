"""STARTTLS on an open connection, as the demand asks for it (RFC 3207)."""

import datetime as dt
import ssl
from pathlib import Path

import aiosmtplib

from smtp.tls.demand import Demand
from smtp.tls.verdict import asks_for, context_for, failed_handshake, verdict


async def encrypt(client: aiosmtplib.SMTP, host: str, demand: Demand, *, ca_file: Path | None = None) -> str | None:
    """Encrypt and prove; a sentence says why that failed, and the connection is of no use then.

    What a server sends behind its 220 in plain text is dropped by aiosmtplib, before the handshake, and everything
    that the server said of itself is forgotten: EHLO is to be said again (RFC 3207 4.2).
    """
    if not client.supports_extension("starttls"):
        return "the server does not offer STARTTLS"
    try:
        await client.starttls(
            server_hostname=asks_for(demand, host), tls_context=context_for(demand, ca_file), cert_bundle=None
        )
    except aiosmtplib.SMTPResponseException as refused:
        if refused.code < 200:
            return f"the answer to STARTTLS is no reply: {refused.message}"
        return f"STARTTLS was answered with {refused.code} {refused.message}"
    except (aiosmtplib.SMTPException, OSError, ValueError) as failed:
        return failed_handshake(failed)
    connection = client.get_transport_info("ssl_object")
    if not isinstance(connection, ssl.SSLObject):
        return "the connection is not encrypted"
    return verdict(demand, connection, host, now=dt.datetime.now(dt.UTC))

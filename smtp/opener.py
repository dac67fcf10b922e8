"""How a session begins: connect, greet, encrypt if the server can.  aiosmtplib does the talking."""

import asyncio
import functools
import ssl
from dataclasses import dataclass, field

import aiosmtplib
import structlog

from smtp.attempts import Reply, Stage, enhanced_code, shown
from smtp.mx import Target
from smtp.session import Session, Timeouts

log = structlog.get_logger()

_TIMEOUTS = Timeouts()


@functools.cache
def opportunistic_tls() -> ssl.SSLContext:
    """Encryption without knowing to whom: the rule between mail servers, where certificates often name no one."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@dataclass(frozen=True, slots=True, kw_only=True)
class Opener:
    """Opens sessions: ``hostname`` is what EHLO says, ``bind`` the address that connections come from."""

    hostname: str
    bind: str | None = None
    timeouts: Timeouts = _TIMEOUTS
    _plain_until: dict[str, float] = field(default_factory=dict)  # hosts whose TLS is broken

    async def open(self, target: Target) -> Session | Reply:
        """Connect, greet, and encrypt if the server can; a failure is an answer.

        A host that offers STARTTLS and then fails at it gets its mail unencrypted for the next days: that is what
        opportunistic means, and mail that does not arrive is no safer.
        """
        now = asyncio.get_running_loop().time()
        plain = self._plain_until.get(target.host, 0.0) > now
        opened = await self._open(target, try_tls=not plain)
        if opened != _TLS_FAILED:
            return opened
        if len(self._plain_until) >= _MOST_PLAIN_HOSTS:
            self._plain_until.pop(next(iter(self._plain_until)))
        self._plain_until[target.host] = now + _PLAIN_FOR_S
        log.info("server fails at STARTTLS, sending without", mx=target.host)
        return await self._open(target, try_tls=False)

    async def _open(self, target: Target, *, try_tls: bool) -> Session | Reply:
        began = asyncio.get_running_loop().time()
        client = aiosmtplib.SMTP(
            hostname=target.address,
            port=target.port,
            local_hostname=self.hostname,
            source_address=(self.bind, 0) if self.bind else None,
            timeout=self.timeouts.command_s,
            start_tls=False,
            tls_context=opportunistic_tls(),
        )
        stage: Stage = "connect"
        code: int | None = None
        encrypting = False
        try:
            await client.connect(timeout=self.timeouts.connect_s)
            stage = "ehlo"
            await self._greet(client)
            if try_tls and client.supports_extension("starttls"):
                encrypting = True
                await client.starttls(server_hostname=target.host)
                encrypting = False
                await self._greet(client)
            return Session(client, target=target, timeouts=self.timeouts)
        except aiosmtplib.SMTPResponseException as refused:
            code = refused.code if 400 <= refused.code < 600 else None
            text = refused.message
        except (aiosmtplib.SMTPException, OSError, ValueError) as failed:
            text = str(failed) or type(failed).__name__
        except asyncio.CancelledError:
            client.close()
            raise
        client.close()
        if encrypting:
            return _TLS_FAILED
        text = shown(text)
        took_ms = round((asyncio.get_running_loop().time() - began) * 1000)
        return Reply(stage=stage, code=code, enhanced=enhanced_code(text), text=text, mx=target.host, took_ms=took_ms)

    @staticmethod
    async def _greet(client: aiosmtplib.SMTP) -> None:
        try:
            await client.ehlo()
        except aiosmtplib.SMTPHeloError as refused:
            if refused.code == 421 or not client.is_connected:
                raise
            await client.helo()


_TLS_FAILED = Reply(stage="ehlo", text="STARTTLS failed")
_PLAIN_FOR_S = 3 * 86_400.0
_MOST_PLAIN_HOSTS = 10_000

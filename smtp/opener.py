"""How a session begins: connect, greeting, EHLO, STARTTLS, AUTH.  aiosmtplib does the talking, over our own socket.

Each step has its deadline and its name in the reply.  What fails on our side of the way - proxy, source address,
the smarthost's password - is :class:`OurFault`, and holds back everything instead of one next hop.
"""

import asyncio
import ssl
from dataclasses import dataclass, field
from pathlib import Path

import aiosmtplib
import structlog

from policy.settings import Endpoint
from smtp.attempts import Reply, Stage, enhanced_code, shown
from smtp.egress.outage import OurFault, Outage
from smtp.egress.ways import Connected, Egress, NotConnected
from smtp.mx import Target
from smtp.session import Session, Timeouts
from smtp.smarthost import Smarthost
from smtp.tls.demand import ENCRYPT, MAY, NAMES, TESTING, Demand, May, label, stronger
from smtp.tls.metrics import TlsMetrics
from smtp.tls.starttls import encrypt
from smtp.tls.verdict import context_for

log = structlog.get_logger()

_TIMEOUTS = Timeouts()


class Unproved(aiosmtplib.SMTPException):
    """The connection does not prove what is demanded of it."""


@dataclass(slots=True, kw_only=True)
class Opener:
    """Opens sessions: ``hostname`` is what EHLO says, ``egress`` the way that connections take.

    ``smarthost`` is told user and password where a target is the smarthost, and nobody else is.  ``ca_file`` holds
    certificate authorities that mail servers may have beside the public ones.
    """

    hostname: str
    egress: Egress = field(default_factory=lambda: Egress(allow_private=True))
    smarthost: Smarthost | None = None
    timeouts: Timeouts = _TIMEOUTS
    outage: Outage = field(default_factory=Outage)
    ca_file: Path | None = None
    tls_metrics: TlsMetrics = field(default_factory=TlsMetrics)
    _plain_until: dict[str, float] = field(default_factory=dict)  # hosts whose TLS is broken

    async def open(self, target: Target) -> Session | Reply:
        """Begin a session; a failure is an answer."""
        relay = self._relay(target)
        if relay is None and isinstance(target.tls, May):
            opened = await self._opportunistic(target)
        else:
            opened = await self._open(target, relay, target.tls)
        now = asyncio.get_running_loop().time()
        if isinstance(opened, OurFault):
            self.outage.failed(opened.text, now_s=now)
        elif isinstance(opened, Session):
            self.outage.worked()
            self.tls_metrics.opened(opened.tls_policy, opened.tls)
        return opened

    async def _opportunistic(self, target: Target) -> Session | Reply:
        """Encrypt if the server can.

        A host that offers STARTTLS and then fails at it gets its mail unencrypted for the next days: that is what
        opportunistic means, and mail that does not arrive is no safer.
        """
        now = asyncio.get_running_loop().time()
        if self._plain_until.get(target.host, 0.0) > now:
            return await self._open(target, None, None)
        if target.tls == TESTING:
            opened = await self._open(target, None, NAMES, testing=True)
            if not _failed_at_tls(opened):
                return opened
        opened = await self._open(target, None, MAY)
        if not _failed_at_tls(opened):
            return opened
        if len(self._plain_until) >= _MOST_PLAIN_HOSTS:
            self._plain_until.pop(next(iter(self._plain_until)))
        self._plain_until[target.host] = now + _PLAIN_FOR_S
        log.info("server fails at STARTTLS, sending without", mx=target.host)
        return await self._open(target, None, None)

    def held_for_s(self) -> float:
        """Seconds for which nothing should be sent to anybody, because our own way out failed."""
        return self.outage.held_for_s(now_s=asyncio.get_running_loop().time())

    def _relay(self, target: Target) -> Smarthost | None:
        is_relay = self.smarthost is not None and Endpoint(target.host, target.port) == self.smarthost.where
        return self.smarthost if is_relay else None

    async def _open(
        self, target: Target, relay: Smarthost | None, demand: Demand | None, *, testing: bool = False
    ) -> Session | Reply:
        """One connection; without ``demand`` it is not encrypted, nor with MAY where the server does not offer it."""
        began = asyncio.get_running_loop().time()
        connected = await self.egress.connect(
            target.address, target.port, host=target.host, within_s=self.timeouts.connect_s
        )
        is_way_open = not isinstance(connected, NotConnected) or not (connected.ours or connected.is_untried)
        if is_way_open and self.smarthost is None:  # a smarthost has to let us in, too
            self.outage.worked()
        if isinstance(connected, NotConnected):
            return _reply("connect", connected.text, target, began, ours=connected.ours)
        client = self._client(connected, target, relay)
        stage: Stage = "connect"
        code: int | None = None
        try:
            await client.connect(timeout=self.timeouts.greeting_s)
            stage = "ehlo"
            await self._greet(client)
            if _is_to_be_encrypted(client, relay, demand):
                stage = "tls"
                await self._encrypt(client, target, relay, demand or MAY)
                stage = "ehlo"
                await self._greet(client)
            if relay is not None and relay.credentials is not None:
                stage = "auth"
                await client.login(relay.credentials.user, relay.credentials.password)
            session = Session(client, target=target, timeouts=self.timeouts)
        except aiosmtplib.SMTPResponseException as refused:
            code = refused.code if 400 <= refused.code < 600 else None
            text = refused.message
        except (aiosmtplib.SMTPException, OSError, ValueError) as failed:
            stage = "tls" if client.use_tls and _failed_to_shake_hands(failed, stage) else stage
            text = self._said(failed, stage)
        except asyncio.CancelledError:
            client.close()
            raise
        else:
            session.ip = connected.ip
            if _must_encrypt(relay):
                session.tls_policy = label(stronger(target.tls, ENCRYPT))
            return session
        client.close()
        if stage == "tls" and relay is None and demand is not None:
            self.tls_metrics.testing_failed() if testing else self.tls_metrics.failed(demand)
        if relay is None or stage not in _STEPS:
            return _reply(stage, text, target, began, code=code, ip=connected.ip)
        said = f"{code} {text}" if code is not None else text
        text = f"smarthost {relay.where}, {_STEPS[stage]}: {said}"
        return _reply(stage, text, target, began, code=code, ip=connected.ip, ours=True)

    async def _encrypt(self, client: aiosmtplib.SMTP, target: Target, relay: Smarthost | None, demand: Demand) -> None:
        if _must_encrypt(relay):
            await client.starttls(server_hostname=target.host)
        elif (why_not := await encrypt(client, target.host, demand, ca_file=self.ca_file)) is not None:
            raise Unproved(why_not)

    def _client(self, connected: Connected, target: Target, relay: Smarthost | None) -> aiosmtplib.SMTP:
        return aiosmtplib.SMTP(
            sock=connected.sock,
            hostname=target.host,
            local_hostname=self.hostname,
            timeout=self.timeouts.command_s,
            start_tls=False,
            use_tls=relay is not None and relay.implicit_tls,
            tls_context=relay.context() if relay is not None and relay.must_encrypt else context_for(MAY),
        )

    def _said(self, failed: Exception, stage: Stage) -> str:
        if stage == "connect" and isinstance(failed, aiosmtplib.SMTPConnectTimeoutError):
            return f"no greeting within {self.timeouts.greeting_s:g} s"
        if stage == "connect" and isinstance(failed, aiosmtplib.SMTPConnectError):
            return "the connection ended before the greeting"
        cause = failed.__cause__ if isinstance(failed.__cause__, ssl.SSLError) else failed
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"certificate not valid: {cause.verify_message}"
        return str(cause) or type(cause).__name__

    @staticmethod
    async def _greet(client: aiosmtplib.SMTP) -> None:
        """EHLO, and HELO where that is not known; what comes beyond the answer belongs to nothing we said."""
        try:
            await client.ehlo()
        except aiosmtplib.SMTPHeloError as refused:
            if refused.code == 421 or not client.is_connected:
                raise
            await client.helo()
        if getattr(client.protocol, "_buffer", b""):
            raise aiosmtplib.SMTPException("the server answers what was not asked")


_PLAIN_FOR_S = 3 * 86_400.0
_MOST_PLAIN_HOSTS = 10_000
_STEPS: dict[Stage, str] = {"tls": "TLS", "auth": "AUTH"}  # of a smarthost: what fails here is ours to mend


def _failed_to_shake_hands(failed: Exception, stage: Stage) -> bool:
    """With TLS from the first byte, was there no encrypted connection over which a greeting could come?"""
    waited = isinstance(failed.__cause__, aiosmtplib.SMTPServerDisconnected | aiosmtplib.SMTPTimeoutError)
    return stage == "connect" and not waited


def _failed_at_tls(opened: Session | Reply) -> bool:
    return isinstance(opened, Reply) and opened.stage == "tls" and not isinstance(opened, OurFault)


def _is_to_be_encrypted(client: aiosmtplib.SMTP, relay: Smarthost | None, demand: Demand | None) -> bool:
    if client.use_tls:
        return False  # it is already
    if _must_encrypt(relay):
        return True
    return demand is not None and (not isinstance(demand, May) or client.supports_extension("starttls"))


def _must_encrypt(relay: Smarthost | None) -> bool:
    return relay is not None and relay.must_encrypt


def _reply(
    stage: Stage,
    text: str,
    target: Target,
    began: float,
    *,
    code: int | None = None,
    ip: str | None = None,
    ours: bool = False,
) -> Reply:
    text = shown(text)
    kind = OurFault if ours else Reply
    took_ms = round((asyncio.get_running_loop().time() - began) * 1000)
    return kind(
        stage=stage,
        code=code,
        enhanced=enhanced_code(text),
        text=text,
        mx=target.host,
        ip=ip,
        tls_policy=label(target.tls) if stage == "tls" else None,
        took_ms=took_ms,
    )

"""One simulated provider at work: it listens, answers by behaviour and load, keeps its log, and sends things back."""

import asyncio
import contextlib
import hashlib
import itertools
import re
import ssl
import time
from collections.abc import Sequence
from functools import partial

import structlog

from policy.settings import Endpoint
from smtp.simulate import reports
from smtp.simulate.behaviour import Name, Traffic, behaviour_of
from smtp.simulate.config import ANY_DOMAIN, Config, Provider
from smtp.simulate.log import Event, Log, Seen
from smtp.simulate.outbox import Outbox, Parcel
from smtp.simulate.reports import ReportKind, Taken
from smtp.simulate.session import Ending, Session, Transaction
from smtp.simulate.texts import Answer, code_of, text, wire

_log = structlog.get_logger()
_MESSAGE_ID = re.compile(rb"(?:\A|\r\n)Message-ID:\s{0,10}<([^<>@\s]{1,400})@", re.IGNORECASE)
_MARK = re.compile(r"[a-z2-7]{16}").fullmatch
_OK = b"250 2.1.0 Ok\r\n"
_OK_RCPT = b"250 2.1.5 Ok\r\n"
_TROUBLE = b"451 4.3.0 The message could not be stored, try again\r\n"
_REFUSES: dict[Name, Answer] = {"unknown": "unknown", "disabled": "disabled", "full": "full", "block": "block"}
_REMEMBERED = 200_000
_IDLE_S = 300.0
_SWEEP_S = 15.0
_GOODBYE_S = 2.0


class ProviderServer:
    """A :class:`Provider` that runs.  It is the desk of its sessions."""

    def __init__(self, provider: Provider, config: Config, tls: ssl.SSLContext | None) -> None:
        self.provider = provider
        self.hostname = provider.hostname
        self.max_message_bytes = config.max_message_bytes
        self.tls = tls
        self.outbox: Outbox | None = None
        self._config = config
        self._domains = frozenset(one.lower() for one in provider.domains)
        self._traps = frozenset(one.lower() for one in config.trap_domains)
        self._traffic = Traffic(provider.load)
        self._log = Log(config.logs, provider.name)
        self._sessions: set[Session] = set()
        self._empty = asyncio.Event()
        self._empty.set()
        self._server: asyncio.Server | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._first_tried: dict[tuple[str, str], int] = {}
        self._dropped: set[tuple[str, str]] = set()
        self._numbers = itertools.count(1)
        self._run = f"{time.time_ns():x}"

    async def start(self) -> None:
        """Listen."""
        if self._config.return_path is not None:
            self.outbox = Outbox(
                self._config.logs, self.provider.name, self._config.return_path, hostname=self.hostname
            )
            self.outbox.start()
        loop = asyncio.get_running_loop()
        listen = self.provider.listen
        self._server = await loop.create_server(partial(Session, self), listen.host, listen.port, backlog=1024)
        self._sweeper = loop.call_later(_SWEEP_S, self._sweep)

    async def stop(self) -> None:
        """Hang up; what has still to be sent back stays on disk."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        if self._server is not None:
            self._server.close()
        for session in list(self._sessions):
            session.close(b"421 4.3.2 The simulation ends\r\n")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._empty.wait(), _GOODBYE_S)
        for session in list(self._sessions):
            session.abort()
        if self.outbox is not None:
            await self.outbox.stop()
        self._log.close()

    @property
    def endpoint(self) -> Endpoint:
        """Where it listens, with the port that it got."""
        assert self._server is not None  # noqa: S101 - asked for after start
        host, port = self._server.sockets[0].getsockname()[:2]
        return Endpoint(host, port)

    # what a session asks

    def opened(self, session: Session) -> bytes:
        """The greeting."""
        self._sessions.add(session)
        self._empty.clear()
        if not self._traffic.connect(session.ip):
            return wire(text(self.provider.kind, "too_many", ip=session.ip))
        return f"220 {self.hostname} ESMTP, a simulation\r\n".encode()

    def closed(self, session: Session) -> None:
        """The connection is gone."""
        self._sessions.discard(session)
        if not self._sessions:
            self._empty.set()
        self._traffic.release(session.ip)

    def mail(self, ip: str, mail_from: str) -> tuple[bytes, int]:
        """Take a sender, unless there were too many complaints or there is too much mail."""
        now = _now_ms()
        kind = self.provider.kind
        if self._traffic.is_listed(ip, _domain(mail_from)):
            return wire(text(kind, "listed", ip=ip)), now
        if not self._traffic.message(ip, now):
            return wire(text(kind, "too_fast", ip=ip)), now
        return _OK, now

    def rcpt(self, transaction: Transaction, rcpt: str) -> bytes:
        """Take a recipient, or do as its local part says."""
        local, _, domain = rcpt.rpartition("@")
        domain = domain.lower()
        say = partial(text, self.provider.kind, rcpt=rcpt, ip=transaction.ip)
        if domain in self._traps:
            return _OK_RCPT
        if domain not in self._domains and ANY_DOMAIN not in self._domains:
            return wire(say("relay"))
        behaviour = behaviour_of(local)
        if behaviour in _REFUSES:
            return wire(say(_REFUSES[behaviour]))
        if behaviour == "grey" and not self._has_waited(transaction.ip, rcpt):
            return wire(say("grey"))
        return _OK_RCPT

    def message(self, transaction: Transaction, content: bytes) -> Ending:
        """Take a message: what belongs to it is on disk before the reply is known."""
        now = _now_ms()
        behaviours = {rcpt: self._behaviour(rcpt) for rcpt in transaction.accepted}
        said = text(self.provider.kind, "content", ip=transaction.ip) if "content" in behaviours.values() else None
        if said is not None:
            refused = [(rcpt, code_of(said)) for rcpt in transaction.accepted]
            self._note(transaction, now, refused=transaction.refused + refused, tokens=_tokens(content))
            return Ending(wire(said))
        is_silent = self._drops(behaviours, content)
        try:
            for rcpt, behaviour in behaviours.items():
                if behaviour in {"late", "complain", "trap"}:
                    self._send_back(behaviour, Taken(
                        mail_from=transaction.mail_from, rcpt=rcpt, ip=transaction.ip, taken_at=now, content=content
                    ))  # fmt: skip
        except OSError:
            return Ending(_TROUBLE)
        code = None if is_silent else 250
        if not self._note(
            transaction, now, accepted=transaction.accepted, refused=transaction.refused, code=code,
            tokens=_tokens(content),
        ):  # fmt: skip
            return Ending(_TROUBLE)
        if is_silent:
            return Ending(None)
        delay_s = self._config.slow_s if "slow" in behaviours.values() else 0.0
        return Ending(f"250 2.0.0 Ok: queued as {next(self._numbers):X}\r\n".encode(), delay_s)

    def abandoned(self, transaction: Transaction, code: int | None) -> None:
        """Note a transaction that came to nothing."""
        refused: list[tuple[str | None, int]] = list(transaction.refused)
        if code is not None:
            refused += [(rcpt, code) for rcpt in transaction.accepted] or [(None, code)]
        self._note(transaction, _now_ms(), refused=refused)

    # the rest

    def _behaviour(self, rcpt: str) -> Name:
        local, _, domain = rcpt.rpartition("@")
        return "trap" if domain.lower() in self._traps else behaviour_of(local)

    def _has_waited(self, ip: str, rcpt: str) -> bool:
        if len(self._first_tried) > _REMEMBERED:
            self._first_tried.clear()
        now = _now_ms()
        return now - self._first_tried.setdefault((ip, rcpt.lower()), now) >= self._config.grey_s * 1000

    def _drops(self, behaviours: dict[str, Name], content: bytes) -> bool:
        if "dropalways" in behaviours.values():
            return True
        dropping = [rcpt for rcpt, behaviour in behaviours.items() if behaviour == "drop"]
        if not dropping:
            return False
        key = (dropping[0].lower(), _tokens(content)[0] or "")
        if key in self._dropped:
            return False
        self._dropped.add(key)
        return True

    def _send_back(self, behaviour: Name, taken: Taken) -> None:
        """Keep what has to be sent back for this recipient."""
        if behaviour == "complain":
            self._traffic.complain(taken.ip, _domain(taken.mail_from))
        if self.outbox is None:
            return
        if not taken.mail_from and behaviour != "trap":
            return  # nothing is ever sent back to the null return path (RFC 5321 4.5.5)
        number = next(self._numbers)
        id_ = f"{self.provider.name}-{self._run}-{number:x}"
        chance = self._chance(behaviour, taken)
        kind: ReportKind
        match behaviour:
            case "late":
                kind, delay_s, mail_from, rcpt = "bounce", self._config.late_s, "", taken.mail_from
                raw = reports.bounce(
                    taken, hostname=self.hostname, kind=self.provider.kind, id_=id_, now=taken.taken_at
                )
            case "complain":
                kind, delay_s, rcpt = "complaint", self._config.complain_s, taken.mail_from
                mail_from = f"feedback@{self.hostname}"
                raw = reports.complaint(
                    taken, hostname=self.hostname, kind=self.provider.kind, id_=id_, now=taken.taken_at
                )
            case _:
                kind, delay_s, mail_from, rcpt, raw = "trap", 0.0, taken.mail_from, taken.rcpt, taken.content
        due = taken.taken_at + round(delay_s * 1000 * (0.9 + 0.2 * chance))
        self.outbox.add(Parcel(id=id_, kind=kind, due=due, mail_from=mail_from, rcpt=rcpt, raw=raw))

    def _chance(self, behaviour: Name, taken: Taken) -> float:
        """A number from 0 to 1 that depends on the seed and the message alone, not on the order of arrival."""
        token = _tokens(taken.content)[0] or ""
        seen = f"{self._config.seed}\0{self.provider.name}\0{behaviour}\0{taken.rcpt}\0{token}"
        digest = hashlib.blake2b(seen.encode("utf-8", "surrogatepass"), digest_size=4).digest()
        return int.from_bytes(digest, "big") / 0xFFFFFFFF

    def _note(
        self,
        transaction: Transaction,
        now: int,
        *,
        accepted: Sequence[str] = (),
        refused: Sequence[tuple[str | None, int]] = (),
        code: int | None = None,
        tokens: tuple[str | None, str | None] = (None, None),
    ) -> bool:
        """Write the log; False when the disk did not take it, and then the sender must not hear 250."""

        def seen(event: Event, rcpt: str | None, code: int | None, accepted_at: int | None = None) -> Seen:
            return Seen(
                at=now, event=event, provider=self.provider.name, mail_from=transaction.mail_from,
                mail_from_at=transaction.mail_from_at, rcpt=rcpt, code=code, accepted_at=accepted_at,
                campaign_name=tokens[1], message_token=tokens[0], ip=transaction.ip,
            )  # fmt: skip

        lines = [seen("accepted", rcpt, code, now) for rcpt in accepted]
        lines += [seen("rejected", rcpt, refused_with) for rcpt, refused_with in refused]
        try:
            self._log.write(lines or [seen("mail_from", None, None)])
        except OSError as failure:
            _log.error("log of the simulation not written", provider=self.provider.name, error=str(failure))
            return False
        return True

    def _sweep(self) -> None:
        """Hang up on connections that say nothing."""
        loop = asyncio.get_running_loop()
        for session in [one for one in self._sessions if loop.time() - one.heard_at > _IDLE_S]:
            session.close(b"421 4.4.2 Nothing was heard for five minutes; closing\r\n")
        self._sweeper = loop.call_later(_SWEEP_S, self._sweep)


def _tokens(content: bytes) -> tuple[str | None, str | None]:
    """Message token and campaign name out of ``Message-ID: <TOKEN.CAMPAIGN-NAME.MARK@domain>``; the mark may lack."""
    end = content.find(b"\r\n\r\n")
    found = _MESSAGE_ID.search(content, 0, end if end >= 0 else len(content))
    if found is None:
        return None, None
    pieces = found[1].decode("utf-8", "replace").split(".")
    if len(pieces) > 2 and _MARK(pieces[-1]):
        del pieces[-1]
    return (".".join(pieces[:-1]), pieces[-1]) if len(pieces) > 1 else (pieces[0], None)


def _domain(address: str) -> str:
    return address.rpartition("@")[2].lower()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000

"""What the return path does at each step of a transaction: whom it takes mail for, and when it says 250."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol, assert_never

import msgspec
import structlog

from policy.unsubscribing import is_for_unsubscribing
from schemas.dead_letters import DeadLetter
from schemas.feedback import Feedback
from smtp.egress.mirror import literal
from smtp.findings import Finding, clean
from smtp.gate import Gate, Limits
from smtp.reader_process import Unreadable
from smtp.return_path_metrics import Metrics
from smtp.return_path_session import NULL_SENDER, Envelope, ReturnPathSession, Session
from smtp.returned import Context, Meaning, Noted, Returned, dead_letter, meanings, replay_key, trap_hit
from smtp.unsubscribing import unsubscribed_by_mail

_Key = tuple[str, str, str, str]

_log = structlog.get_logger()
_REMEMBERED = 100_000
_HONEST_REPEAT_MS = 60_000  # our 250 was lost and the peer tries again; what comes later was kept to be used again
_SIGNATURES = ("return_path_", "message_id_", "unsubscribe_link_")
_RELAY_MARKS = frozenset('%!@:"\\')
_TRY_LATER = "451 4.3.0 The message could not be stored; try again later"


class Publish(Protocol):
    """How a record gets to Kafka: it returns when the broker has acknowledged it, and raises when it has not."""

    async def __call__(self, record: Feedback | DeadLetter, /) -> None:
        """Publish one record, feedback keyed by its campaign."""


class Understand(Protocol):
    """What takes messages apart; it raises :class:`OSError` when that cannot be done now."""

    async def __call__(self, raw: bytes, /) -> list[Finding] | Unreadable:
        """Everything that the message says, or why nobody could tell."""


class Hooks:
    """What aiosmtpd asks at each step of a transaction."""

    def __init__(
        self,
        context: Context,
        understand: Understand,
        publish: Publish,
        limits: Limits,
        gate: Gate,
        metrics: Metrics,
        now: Callable[[], int],
    ) -> None:
        self._context = context
        self._understand = understand
        self._publish = publish
        self._limits = limits
        self._gate = gate
        self._metrics = metrics
        self._now = now
        self._in_hand = 0
        self.idle = asyncio.Event()
        self.idle.set()
        self._published: OrderedDict[_Key, int] = OrderedDict()

    async def handle_EHLO(  # noqa: N802 - aiosmtpd finds hooks by these names
        self, _server: ReturnPathSession, session: Session, _envelope: Envelope, hostname: str, responses: list[str]
    ) -> list[str]:
        """Whom we see (senders learn by it where their mail leaves), and what is offered: no AUTH, no HELP."""
        session.host_name = hostname
        words = [line[4:] for line in responses if not line[4:].startswith(("AUTH", "HELP"))]
        if (client := literal(session.peer)) is not None:
            words[0] = f"{words[0]} greets you, {client}"
        return [f"250{'-' if word is not words[-1] else ' '}{word}" for word in words]

    async def handle_MAIL(  # noqa: N802
        self, server: ReturnPathSession, _session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Any sender, the null sender above all; but not too often."""
        server.messages += 1
        if server.messages > self._limits.messages_per_connection:
            self._metrics.refused("messages_per_connection")
            return "452 4.5.3 Enough messages on this connection; open another"
        if self._in_hand >= self._limits.messages_in_hand:
            self._metrics.refused("messages_in_hand")
            return "452 4.3.1 Too much is in hand; try again later"
        if not self._gate.message(server.client, self._now()):
            self._metrics.refused("messages_per_minute")
            return "450 4.7.1 Too many messages; try again later"
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 2.1.0 Ok"

    async def handle_RCPT(  # noqa: N802
        self, _server: ReturnPathSession, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        """Our own domains and traps; nothing is ever handed on to anybody else."""
        if len(envelope.rcpt_tos) >= self._limits.recipients:
            self._metrics.refused("too_many_recipients")
            return "452 4.5.3 Too many recipients; send the message again to the rest"
        local, _, domain = address.rpartition("@")
        if not self._context.known.is_trap(address):
            if address.lower() == "postmaster":
                pass  # RFC 5321 4.5.1: without a domain, always
            elif not local or not self._context.known.is_own(domain, self._now()):
                self._metrics.refused("not_our_domain")
                return "550 5.7.1 This server takes mail for its own domains only and relays for nobody"
            elif _RELAY_MARKS & set(local):
                self._metrics.refused("relay_in_local_part")
                return "550 5.7.1 The local part names another host; this server relays for nobody"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 Ok"

    async def handle_DATA(self, server: ReturnPathSession, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        """Answer 250 when Kafka has everything that the message means."""
        began = time.perf_counter()
        self._in_hand += 1
        server.is_busy = True
        self.idle.clear()
        try:
            async with asyncio.timeout(self._limits.publish_s):
                for meaning in await self._meanings(envelope):
                    await self._keep(meaning)
        except Exception as failure:  # noqa: BLE001 - whatever kept it from Kafka: the peer still has it, and tries again
            _log.warning("message not stored, the peer keeps it", failure=type(failure).__name__)
            self._metrics.message("try_later")
            return _TRY_LATER
        finally:
            server.is_busy = False
            self._in_hand -= 1
            if not self._in_hand:
                self.idle.set()
        self._metrics.published_in(time.perf_counter() - began)
        self._metrics.message("accepted")
        return "250 2.0.0 Ok: stored"

    async def handle_exception(self, error: Exception) -> str:
        """A mistake of ours is no reason for the peer to give up."""
        _log.error("session failed", failure=type(error).__name__)
        return "451 4.3.0 Internal trouble; try again later"

    async def _meanings(self, envelope: Envelope) -> list[Meaning]:
        """What the message means for each of its recipients; at most one dead letter, for all whom it concerns."""
        raw = envelope.content if isinstance(envelope.content, bytes) else b""  # we asked for bytes
        mail_from = "" if envelope.mail_from == NULL_SENDER else envelope.mail_from or ""
        rcpts = dict.fromkeys(envelope.rcpt_tos)
        is_read = any(self._must_be_read(rcpt) for rcpt in rcpts)
        findings: list[Finding] | Unreadable = await self._understand(raw) if is_read else []
        found: list[Meaning] = []
        letter: DeadLetter | None = None
        unread: list[str] = []
        for rcpt in rcpts:
            returned = Returned(mail_from=mail_from, rcpt=rcpt, raw=raw, at=self._now())
            try:
                if self._context.known.is_trap(rcpt):
                    meant = [trap_hit(returned, self._context)]
                elif is_for_unsubscribing(rcpt):
                    meant = [unsubscribed_by_mail(returned, self._context)]
                elif isinstance(findings, Unreadable):
                    meant = [dead_letter(returned, findings.reason, findings.explain)]
                else:
                    meant = meanings(returned, findings, self._context)
            except Exception as failure:  # noqa: BLE001 - no message may be lost to a mistake in reading it
                _log.error("message could not be read", failure=type(failure).__name__)
                meant = [dead_letter(returned, "reader_failed", f"reading it failed: {type(failure).__name__}")]
            for one in (self._unless_replayed(returned, meaning) for meaning in meant):
                if isinstance(one, DeadLetter):
                    self._count_disbelieved(one.reason)
                    letter = letter or one
                    unread.append(rcpt)
                else:
                    found.append(one)
        if letter is not None:
            headers = letter.headers | {"rcpt_to": ", ".join(clean(rcpt) for rcpt in unread)}
            found.append(msgspec.structs.replace(letter, headers=headers))
        return found

    def _must_be_read(self, rcpt: str) -> bool:
        return not self._context.known.is_trap(rcpt) and not is_for_unsubscribing(rcpt)

    def _unless_replayed(self, returned: Returned, meaning: Meaning) -> Meaning:
        """The meaning; or a dead letter, when Kafka has had the same for so long that no honest peer says it again."""
        if not isinstance(meaning, Feedback):
            return meaning
        key = replay_key(meaning)
        first = self._published.get(key) if key is not None else None
        if first is None or returned.at - first <= _HONEST_REPEAT_MS:
            return meaning
        return dead_letter(returned, "replayed", f"the same {meaning.kind} of this message was believed before")

    def _count_disbelieved(self, reason: str) -> None:
        if reason == "replayed":
            self._metrics.disbelieved(reason)
        for proof in _SIGNATURES:
            if reason.startswith(proof):
                self._metrics.disbelieved(reason.removeprefix(proof))

    async def _keep(self, meaning: Meaning) -> None:
        match meaning:
            case Noted():
                self._metrics.noted(meaning.what)
            case DeadLetter():
                await self._publish(meaning)
                self._metrics.dead_letter(meaning.reason)
            case Feedback():
                key = replay_key(meaning)
                if key in self._published:
                    self._metrics.repeat()
                    return
                await self._publish(meaning)
                if key is not None:
                    self._published[key] = meaning.at
                if len(self._published) > _REMEMBERED:
                    self._published.popitem(last=False)
                self._metrics.feedback(meaning.kind)
                if meaning.kind == "trap_hit":
                    _log.info("trap hit", campaign=meaning.campaign, message_id=meaning.message_id)
            case _:
                assert_never(meaning)

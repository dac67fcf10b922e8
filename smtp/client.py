"""The delivery client: sends messages over the sessions that it keeps, within the limits of each provider.

A message takes an idle session of its next hop, else a new one if limits allow, else it goes with another message on a
busy session, else it waits (:mod:`smtp.sessions`).

Each session carries a bounded number of messages, and rests only so long.  A hop that cannot be reached or says 421 is
left alone for a while, longer each time; an address that does not answer is not tried by every message; a provider
that says we are too fast is given less (:mod:`policy.pressure`).  What happens within a session is
:mod:`smtp.session`; another session type can take its place (``opener``) without anybody noticing.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol, assert_never

import structlog

from policy.shaping import Shaping
from smtp.attempts import TIMED_OUT, Attempt, Envelope, Impossible, Reply, Standing, Withheld
from smtp.egress.outage import OurFault
from smtp.mx import Found, NextHop, NextHops, Target
from smtp.pools import UNREACHED, DeadAddresses, Group, Hop, Pools, is_no
from smtp.session import CUT_BEFORE
from smtp.sessions import Session, Sessions, Slot, Step
from smtp.tls.demand import ENCRYPT, label

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What is never exceeded, whatever a provider's shape says, and for how long a next hop is left alone.

    ``sessions`` in all; ``messages`` per session and ``idle_s`` of rest only if they are less than the shape's.
    """

    sessions: int = 20
    messages: int = 10_000
    idle_s: float = 600.0
    back_off_s: float = 1.0
    back_off_most_s: float = 300.0
    hops: int = 10_000


class Opener(Protocol):
    """Opens sessions."""

    async def open(self, target: Target) -> Session | Reply:
        """A new session, or why there is none."""

    def held_for_s(self) -> float:
        """Seconds for which nobody should be sent anything, because our own way out fails."""


class SmtpMailer:
    """Delivers over SMTP; one per process, used by many tasks at once."""

    def __init__(
        self,
        next_hops: NextHops,
        opener: Opener,
        *,
        bounds: Bounds = Bounds(),
        shaping: Shaping | None = None,
    ) -> None:
        self._next_hops = next_hops
        self._opener = opener
        self._bounds = bounds
        self._pools = Pools(shaping or Shaping(), most=bounds.hops)
        self._dead = DeadAddresses()
        self._sessions = Sessions(most=bounds.sessions, messages=bounds.messages, idle_s=bounds.idle_s)
        self._opening: set[asyncio.Task[Session | Reply]] = set()
        self._closed_until = 0.0  # no next hop and no group is closed after that

    async def send(self, envelope: Envelope, *, go: Callable[[], bool]) -> Attempt:
        """Try once to deliver; never raises for what servers do."""
        found: Found | None = self._next_hops.known(envelope.domain)
        if found is None:
            found = await self._next_hops.find(envelope.domain)
        if not isinstance(found, NextHop):
            return found
        if envelope.must_encrypt:
            found = self._pools.encrypted(found)
        hop = self._pools.hop(found)
        party = self._party(hop.group.key, envelope.domain)
        for tries_left in (2, 1, 0):
            slot = self._sessions.at_hand(hop, party) or await self._slot(hop, found, party)
            if not isinstance(slot, Slot):
                return Withheld(slot.text) if isinstance(slot, OurFault) else slot
            reused = slot.session.used > 0
            self._sessions.begin(slot, party)
            try:
                attempt = await slot.session.send(envelope, go=go)
            except BaseException:  # cancelled in the middle of a transaction: nobody can go on with this session
                slot.session.cut()
                self._sessions.end(slot)
                raise
            category = self._heard(hop.group, attempt) if isinstance(attempt, Reply) and is_no(attempt) else ""
            self._judge(hop, attempt, category)
            self._sessions.end(slot)
            if not tries_left or not _may_try_again(attempt, category, reused=reused):
                break
        return attempt

    # ---- what a backlog asks

    def provider_of(self, domain: str) -> str:
        """Who takes the mail of a domain, as far as it is known."""
        return self._next_hops.provider_of(domain)

    def group_of(self, domain: str) -> str | None:
        """What limits a domain's mail; None while its servers are unknown and :meth:`look_up` should be called."""
        known = self._next_hops.known(domain)
        if known is not None:
            return self._party(self._pools.key_of(known), domain)
        return f"?{domain}" if self._next_hops.is_looked_up(domain) else None

    async def look_up(self, domain: str) -> None:
        """Find out where mail for a domain goes; afterwards it has a group."""
        await self._next_hops.find(domain)

    def admit(self, group: str) -> float:
        """Take one message's turn: 0 when it may be sent now, else the seconds after which to ask again."""
        known = self._group(group)
        held_s = self._opener.held_for_s()
        if known is None or held_s > 0:
            return held_s
        now = _now()
        limits = known.limits(now)
        until = max(limits.suspended_until, known.closed_until)
        if until > now:
            return until - now
        return known.bucket.take(per_second=limits.per_second, now_s=now)

    def capacity(self, group: str) -> int:
        """How many of a group's messages are worth being in hand: as many as its sessions have room for."""
        known = self._group(group)
        if known is None:
            return 2 * UNREACHED
        return max(1, 2 * min(self._sessions.most, known.limits(_now()).connections) - known.plain)

    @property
    def is_alone(self) -> bool:
        """Has all mail so far been for the same party, so that there is nobody to leave room for?"""
        return self._sessions.is_alone

    def _group(self, name: str) -> Group | None:
        return self._pools.groups.get(name.partition(" ")[0])

    def _party(self, group: str, domain: str) -> str:
        """Who may hang without holding up the others: a group, or a domain where all mail goes to the same next hop."""
        party = f"{group} {domain}" if self._next_hops.is_one else group
        self._sessions.meet(party)
        return party

    def closed_for_s(self, domain: str) -> float:
        """Seconds until this domain's servers should be tried again."""
        held_s = self._opener.held_for_s()
        known = self._next_hops.known(domain) if self._closed_until > _now() else None
        if known is None:
            return held_s
        key = self._pools.key_of(known)
        hops = [self._pools.hops.get((key, name)) for name in (known.name, f"{known.name}/{label(ENCRYPT)}")]
        until = max((hop.closed_until for hop in hops if hop is not None), default=0.0)
        now = _now()
        if (group := self._pools.groups.get(key)) is not None:
            until = max(until, group.limits(now).suspended_until)
        return max(held_s, until - now) if until else held_s

    def standings(self) -> Iterator[Standing]:
        """How each group stands, for metrics."""
        now = _now()
        for group in self._pools.groups.values():
            limits = group.limits(now)
            suspended = limits.why if limits.suspended_until > now else None
            yield Standing(
                group.provider, group.sessions, limits.connections, limits.per_second, suspended, group.back_offs
            )

    def dry_runs(self) -> Mapping[tuple[str, str], int]:
        """How many replies each rule in dry run, and its category, would have decided."""
        return self._pools.dry_runs

    def limit(self, connections: int) -> None:
        """Open no more sessions than these from now on."""
        if connections != self._sessions.most:
            self._sessions.most = connections
            self._sessions.freed()

    def cut(self) -> None:
        """Cut every session: what is under way answers at once, what comes later opens new ones."""
        self._sessions.cut()
        for opening in list(self._opening):
            opening.cancel()

    async def close(self) -> None:
        """Say goodbye on the sessions that rest, cut the others, and open none any more."""
        await self._sessions.say_goodbye()
        self.cut()
        self._sessions.dismiss()
        await self._next_hops.close()

    # ---- a session for a message

    async def _slot(self, hop: Hop, found: NextHop, party: str) -> Slot | Reply | Withheld:
        """An idle session, a new one, one that has room behind another message, or whatever comes first."""
        while not self._sessions.has_ended:
            now = _now()
            limits = hop.group.limits(now)
            if limits.suspended_until > now:
                self._sessions.freed()  # whoever waits behind this message hears it, too
                return Withheld(f"{hop.group.key} is suspended: {limits.why}")
            match self._sessions.best(hop, party, now):
                case Slot() as slot:
                    return slot
                case Step.WAIT:
                    await self._sessions.wait(hop, party)
                case Step.OPEN:
                    opened = await self._new_session(hop, found, party)
                    if opened is not None:
                        return opened
                case never:
                    assert_never(never)
        return _ENDED

    async def _new_session(self, hop: Hop, found: NextHop, party: str) -> Slot | Reply | None:
        """A new session, or why there is none; None if the hop has others that the message had better wait for."""
        self._sessions.opening(hop, party)
        opened: Session | Reply = _ENDED
        try:
            opened = await self._reached(hop, found)
        finally:
            if isinstance(opened, Reply):
                self._sessions.not_opened(hop, party)
        if not isinstance(opened, Reply):
            return self._sessions.opened(opened, hop, party)
        if self._sessions.has_ended or opened is _CUT or isinstance(opened, OurFault):
            return opened
        if opened.code in {None, 421} and self._sessions.is_in_use(hop):
            hop.opens_from = _now() + _OPENS_AGAIN_AFTER_S
            return None
        self._leave_alone(hop)
        return opened

    async def _reached(self, hop: Hop, found: NextHop) -> Session | Reply:
        """A session with the first of the targets that gives one, else what the last one said."""
        opened: Session | Reply = _ENDED
        for target in self._worth_trying(found):
            opened = await self._opened(target)
            if not isinstance(opened, Reply):
                hop.is_reached = True
                self._dead.worked(target.address)
                break
            if self._sessions.has_ended or opened is _CUT or isinstance(opened, OurFault):
                break
            if opened.code is not None:
                self._heard(hop.group, opened)
            elif opened.stage == "connect":
                self._dead.failed(target.address, _now())
        return opened

    def _worth_trying(self, found: NextHop) -> list[Target]:
        now = _now()
        alive = [target for target in found.targets if self._dead.until(target.address) <= now]
        return alive or [min(found.targets, key=lambda target: self._dead.until(target.address))]

    async def _opened(self, target: Target) -> Session | Reply:
        opening = asyncio.create_task(self._opener.open(target))
        self._opening.add(opening)
        try:
            return await opening
        except asyncio.CancelledError:
            if opening.cancelled() and not _is_cancelled_itself():
                return _CUT
            opening.cancel()
            opening.add_done_callback(_cut_unused)  # it may have been opened at this very moment
            raise
        finally:
            self._opening.discard(opening)

    # ---- what a hop is thought of

    def _judge(self, hop: Hop, attempt: Attempt, category: str) -> None:
        if isinstance(attempt, Reply) and attempt.code == 421:
            if category != _SESSION_LIMIT and hop.sessions <= 1:  # else its other sessions go on
                self._leave_alone(hop)
        elif not isinstance(attempt, Withheld | Impossible) and getattr(attempt, "code", None) is not None:
            hop.troubles = 0

    def _heard(self, group: Group, said: Reply) -> str:
        """A server's no is taken notice of; answers its category."""
        now = _now()
        category = group.heard(said, now)
        self._closed_until = max(self._closed_until, group.limits(now).suspended_until)
        return category

    def _leave_alone(self, hop: Hop) -> None:
        """Back off; twenty sessions that meet the same trouble at the same time count as one."""
        now = _now()
        if self._sessions.has_ended or hop.closed_until > now:
            return
        wait_s = min(self._bounds.back_off_s * 2.0**hop.troubles, self._bounds.back_off_most_s)
        hop.troubles = min(hop.troubles + 1, 30)
        hop.is_reached = False
        hop.closed_until = now + wait_s
        self._closed_until = max(self._closed_until, hop.closed_until)
        if hop.group.shape.limits == "next_hop":
            hop.group.closed_until = hop.closed_until
        hop.group.back_offs += 1
        log.info("next hop is left alone for a while", hop=hop.name, wait_s=wait_s)


_now = time.monotonic
_CUT = Reply(stage="connect", text="cut off while connecting: the sender is stopping")
_ENDED = Reply(stage="connect", text="not tried: the sender is stopping")
_SESSION_LIMIT = "session_limit"
_OPENS_AGAIN_AFTER_S = 5.0


def _may_try_again(attempt: Attempt, category: str, *, reused: bool) -> bool:
    """Nothing was sent, and it was not the message: a server may close a session that rested or has had its fill."""
    if not isinstance(attempt, Reply) or attempt.stage != "mail":
        return False
    if attempt.code is None:
        return attempt.text == CUT_BEFORE or (reused and attempt.text != TIMED_OUT)
    return reused and attempt.code == 421 and category == _SESSION_LIMIT


def _cut_unused(opening: asyncio.Task[Session | Reply]) -> None:
    """Nobody waits for this session any more."""
    if not opening.cancelled() and opening.exception() is None and not isinstance(opened := opening.result(), Reply):
        opened.cut()


def _is_cancelled_itself() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0

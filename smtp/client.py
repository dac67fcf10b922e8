"""The delivery client: sends messages over sessions that it keeps, within the limits of each provider.

A message takes an idle session of its next hop, else a new one if limits allow, else it goes with another message on a
busy session, else it waits.  No party (a provider, one next hop, or one domain where a smarthost takes all mail) may
keep more than three quarters of the sessions busy that the others leave, so that several of them can hang and there is
still one for the next.  Idle sessions make room for those who have none.

Each session carries a bounded number of messages, and rests only so long.  A hop that cannot be reached or says 421 is
left alone for a while, longer each time; an address that does not answer is not tried by every message; a provider
that says we are too fast is given less (:mod:`policy.pressure`).  What happens within a session is
:mod:`smtp.session`; another session type can take its place (``opener``) without anybody noticing.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import structlog

from policy.shaping import Shaping
from smtp.attempts import TIMED_OUT, Attempt, Envelope, Impossible, Reply, Standing, Withheld
from smtp.egress.outage import OurFault
from smtp.mx import Found, NextHop, NextHops, Target
from smtp.pools import UNREACHED, DeadAddresses, Group, Hop, Pools, is_no
from smtp.session import CUT_BEFORE
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


class Session(Protocol):
    """An open session with a server."""

    used: int
    load: int

    @property
    def room(self) -> int:
        """How many more transactions can be handed to it now?"""

    @property
    def is_open(self) -> bool:
        """Can another transaction be tried on it?"""

    async def send(self, envelope: Envelope, *, go: Callable[[], bool]) -> Attempt:
        """One transaction."""

    def rest(self, idle_s: float, then: Callable[["Session"], None]) -> None:
        """Wait for the next transaction."""

    async def quit(self) -> None:
        """Say goodbye and close."""

    def cut(self) -> None:
        """Close at once."""


class Opener(Protocol):
    """Opens sessions."""

    async def open(self, target: Target) -> Session | Reply:
        """A new session, or why there is none."""

    def held_for_s(self) -> float:
        """Seconds for which nobody should be sent anything, because our own way out fails."""


@dataclass(slots=True, eq=False)
class _Slot:
    """A session that is open.

    ``given`` counts the transactions handed to it, ``most`` is how many it had room for; ``party`` is on whose account
    it is busy.
    """

    session: Session
    hop: Hop
    most: int
    party: str
    given: int = 0
    in_process: int = 0
    rested_at: float = 0.0


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
        self._resting: dict[_Slot, None] = {}  # the one that has rested longest first
        self._resting_of: dict[Hop, dict[_Slot, None]] = {}
        self._in_use: dict[Hop, dict[_Slot, None]] = {}
        self._roomy: dict[Hop, dict[_Slot, None]] = {}  # in use, and with room behind what is in process
        self._waiting: dict[tuple[Hop, str], deque[asyncio.Future[None]]] = {}
        self._sessions = 0
        self._busy: Counter[str] = Counter()  # sessions with a message, or being opened, by party
        self._busy_in_all = 0
        self._parties: set[str] = set()  # those seen; nobody needs to know of more than two
        self._opening: set[asyncio.Task[Session | Reply]] = set()
        self._leaving: set[asyncio.Task[None]] = set()
        self._ended = False
        self._most = bounds.sessions
        self._closed_until = 0.0  # no next hop and no group is closed after that

    async def send(self, envelope: Envelope, *, go: Callable[[], bool]) -> Attempt:
        """Try once to deliver; never raises for what servers do."""
        found: Found | None = self._next_hops.known(envelope.domain)
        if found is None:
            found = await self._next_hops.find(envelope.domain)
        if not isinstance(found, NextHop):
            return found
        if envelope.must_encrypt:
            found = found.at_least(ENCRYPT)
        hop = self._pools.hop(found)
        party = self._party(hop.group.key, envelope.domain)
        for tries_left in (2, 1, 0):
            slot = self._slot_at_hand(hop, party) or await self._slot(hop, found, party)
            if not isinstance(slot, _Slot):
                return Withheld(slot.text) if isinstance(slot, OurFault) else slot
            reused = slot.session.used > 0
            self._begin(slot, party)
            try:
                attempt = await slot.session.send(envelope, go=go)
            except BaseException:  # cancelled in the middle of a transaction: nobody can go on with this session
                slot.session.cut()
                self._end(slot)
                raise
            category = self._heard(hop.group, attempt) if isinstance(attempt, Reply) and is_no(attempt) else ""
            self._after(slot, attempt, category)
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
        return max(1, 2 * min(self._most, known.limits(_now()).connections) - known.plain)

    @property
    def is_alone(self) -> bool:
        """Has all mail so far been for the same party, so that there is nobody to leave room for?"""
        return len(self._parties) < 2

    def _group(self, name: str) -> Group | None:
        return self._pools.groups.get(name.partition(" ")[0])

    def _party(self, group: str, domain: str) -> str:
        """Who may hang without holding up the others: a group, or a domain where all mail goes to the same next hop."""
        party = f"{group} {domain}" if self._next_hops.is_one else group
        if len(self._parties) < 2:
            self._parties.add(party)
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

    def limit(self, connections: int) -> None:
        """Open no more sessions than these from now on."""
        if connections != self._most:
            self._most = connections
            self._freed()

    def cut(self) -> None:
        """Cut every session: what is under way answers at once, what comes later opens new ones."""
        for slots in list(self._in_use.values()):
            for slot in list(slots):
                slot.session.cut()
        for slot in list(self._resting):
            slot.session.cut()
        for opening in list(self._opening):
            opening.cancel()

    async def close(self) -> None:
        """Say goodbye on the sessions that rest, cut the others, and open none any more."""
        self._ended = True
        for slot in list(self._resting):
            self._leave(slot)
        if self._leaving:
            await asyncio.wait(set(self._leaving), timeout=3.0)
        self.cut()
        while self._waiting:
            self._freed()
        await self._next_hops.close()

    # ---- a session for a message

    def _slot_at_hand(self, hop: Hop, party: str) -> _Slot | None:
        """An idle session, or room on a busy one if no more may be opened: what nearly all messages get."""
        now = _now()
        limits = hop.group.limits(now)
        if self._ended or limits.suspended_until > now:
            return None
        if hop in self._resting_of:
            return self._idle(hop) if self._has_share(party) else None
        if self._sessions >= self._most or hop.group.sessions >= limits.connections:
            return self._with_room(hop, party, now) if not self._resting else None
        return None

    async def _slot(self, hop: Hop, found: NextHop, party: str) -> _Slot | Reply | Withheld:
        """An idle session, a new one, one that has room behind another message, or whatever comes first."""
        while not self._ended:
            now = _now()
            limits = hop.group.limits(now)
            if limits.suspended_until > now:
                self._freed()  # whoever waits behind this message hears it, too
                return Withheld(f"{hop.group.key} is suspended: {limits.why}")
            is_allowed = self._has_share(party)
            slot = self._idle(hop) if is_allowed else None
            if slot is not None:
                return slot
            if is_allowed and (self._may_open(hop, now) or self._made_room(hop, now, rested_s=_RESTED_S)):
                may_open = True
            else:
                slot = self._with_room(hop, party, now)
                if slot is not None:
                    return slot
                may_open = is_allowed and self._made_room(hop, now, rested_s=0.0)
            if not may_open:
                await self._wait(hop, party)
                continue
            opened = await self._new_session(hop, found, party)
            if opened is not None:
                return opened
        return _ENDED

    def _has_share(self, party: str) -> bool:
        """May it keep one more session busy?  Three quarters of what the others leave are the most."""
        mine = self._busy[party]
        most = self._most if self.is_alone else (self._most - (self._busy_in_all - mine)) * 3 // 4
        return mine < max(1, most)

    def _idle(self, hop: Hop) -> _Slot | None:
        while resting := self._resting_of.get(hop):
            slot = next(reversed(resting))
            if slot.session.is_open:
                return slot
            self._gone(slot)
        return None

    def _with_room(self, hop: Hop, party: str, now: float) -> _Slot | None:
        messages = self._messages(hop.group, now)
        for slot in self._roomy.get(hop, ()):
            if slot.party == party and slot.session.room > 0 and slot.given < messages:
                return slot
        return None

    def _has_room(self, slot: _Slot, *, room: bool) -> None:
        roomy = self._roomy.get(slot.hop)
        if room:
            if roomy is None:
                roomy = self._roomy[slot.hop] = {}
            roomy[slot] = None
        elif roomy is not None:
            roomy.pop(slot, None)
            if not roomy:
                del self._roomy[slot.hop]

    def _may_open(self, hop: Hop, now: float) -> bool:
        if hop.sessions and hop.opens_from > now:
            return False
        if not hop.is_reached and hop.sessions >= UNREACHED:
            return False
        return self._sessions < self._most and hop.group.sessions < hop.group.limits(now).connections

    def _made_room(self, hop: Hop, now: float, *, rested_s: float) -> bool:
        """End sessions that rest elsewhere, as many as it takes for this hop to open one."""
        connections = hop.group.limits(now).connections
        for slot in list(self._resting):
            group_is_full = hop.group.sessions >= connections
            if not group_is_full and self._sessions < self._most:
                return False  # something else is in the way
            if now - slot.rested_at < rested_s:
                return False
            if slot.hop is not hop and (slot.hop.group is hop.group or not group_is_full):
                self._leave(slot)
                if self._may_open(hop, now):
                    return True
        return False

    async def _wait(self, hop: Hop, party: str) -> None:
        freed = asyncio.get_running_loop().create_future()
        self._waiting.setdefault((hop, party), deque()).append(freed)
        hop.waiting += 1
        try:
            await freed
        except asyncio.CancelledError:
            if freed.done():
                self._freed()  # the turn was ours; it is somebody else's now
            raise
        finally:
            hop.waiting -= 1

    def _freed(self) -> None:
        """Something may be possible now that was not: the first one of each party that waits looks again."""
        for key in list(self._waiting):
            waiting = self._waiting[key]
            while waiting:
                waiter = waiting.popleft()
                if not waiter.done():
                    waiter.set_result(None)
                    break
            if not waiting:
                del self._waiting[key]

    async def _new_session(self, hop: Hop, found: NextHop, party: str) -> _Slot | Reply | None:
        """A new session, or why there is none; None if the hop has others that the message had better wait for."""
        self._count(hop, 1)
        self._use(party, 1)
        opened: Session | Reply = _ENDED
        try:
            opened = await self._reached(hop, found)
        finally:
            if isinstance(opened, Reply):
                self._use(party, -1)
                self._count(hop, -1)
                self._freed()
        if not isinstance(opened, Reply):
            slot = _Slot(opened, hop, opened.room, party)
            hop.group.plain += slot.most < 2
            self._in_use.setdefault(hop, {})[slot] = None
            return slot
        if self._ended or opened is _CUT or isinstance(opened, OurFault):
            return opened
        if opened.code in {None, 421} and hop in self._in_use:
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
            if self._ended or opened is _CUT or isinstance(opened, OurFault):
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

    # ---- what becomes of a session

    def _begin(self, slot: _Slot, party: str) -> None:
        slot.given += 1
        slot.in_process += 1
        self._has_room(slot, room=slot.in_process < slot.most)
        if self._rests_no_more(slot):
            self._in_use.setdefault(slot.hop, {})[slot] = None
            slot.party = party
            self._use(party, 1)
        if slot.in_process < slot.most:
            self._freed()  # there is room behind this message

    def _end(self, slot: _Slot) -> None:
        slot.in_process -= 1
        if not slot.session.is_open:
            self._gone(slot)
        elif slot.in_process:
            self._has_room(slot, room=True)

    def _after(self, slot: _Slot, attempt: Attempt, category: str) -> None:
        hop = slot.hop
        if isinstance(attempt, Reply) and attempt.code == 421:
            if category != _SESSION_LIMIT and hop.sessions <= 1:  # else its other sessions go on
                self._leave_alone(hop)
        elif not isinstance(attempt, Withheld | Impossible) and getattr(attempt, "code", None) is not None:
            hop.troubles = 0
        self._end(slot)
        if not slot.session.is_open:
            return
        if slot.in_process:
            self._freed()
        elif self._has_had_enough(slot) or self._ended:
            self._leave(slot)
        else:
            self._rest(slot)

    def _has_had_enough(self, slot: _Slot) -> bool:
        """Has it carried its messages, or are there more sessions than there may be by now?"""
        group = slot.hop.group
        now = _now()
        too_many = self._sessions > self._most or group.sessions > group.limits(now).connections
        return too_many or slot.given >= self._messages(group, now)

    def _rest(self, slot: _Slot) -> None:
        self._out_of_use(slot)
        slot.rested_at = _now()
        self._resting[slot] = None
        self._resting_of.setdefault(slot.hop, {})[slot] = None
        idle_s = min(self._bounds.idle_s, slot.hop.group.shape.idle_s)
        slot.session.rest(idle_s, lambda _: self._rested(slot))
        self._freed()

    def _rests_no_more(self, slot: _Slot) -> bool:
        if slot not in self._resting:
            return False
        del self._resting[slot]
        resting = self._resting_of[slot.hop]
        del resting[slot]
        if not resting:
            del self._resting_of[slot.hop]
        return True

    def _rested(self, slot: _Slot) -> None:
        if slot not in self._resting:
            return
        if slot.session.is_open:
            self._leave(slot)
        else:
            self._gone(slot)

    def _leave(self, slot: _Slot) -> None:
        self._gone(slot)
        leaving = asyncio.create_task(slot.session.quit())
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)

    def _gone(self, slot: _Slot) -> None:
        """The session is not counted any more; every message on it finds that out, the first one counts."""
        if not self._rests_no_more(slot) and not self._out_of_use(slot):
            return
        slot.hop.group.plain -= slot.most < 2
        self._count(slot.hop, -1)
        self._freed()

    def _out_of_use(self, slot: _Slot) -> bool:
        in_use = self._in_use.get(slot.hop, {})
        if slot not in in_use:
            return False
        self._has_room(slot, room=False)
        del in_use[slot]
        if not in_use:
            del self._in_use[slot.hop]
        self._use(slot.party, -1)
        return True

    def _use(self, party: str, change: int) -> None:
        self._busy[party] += change
        if not self._busy[party]:
            del self._busy[party]
        self._busy_in_all += change

    def _count(self, hop: Hop, change: int) -> None:
        hop.sessions += change
        hop.group.sessions += change
        self._sessions += change

    def _messages(self, group: Group, now: float) -> int:
        return min(self._bounds.messages, group.limits(now).messages)

    def _heard(self, group: Group, said: Reply) -> str:
        """A server's no is taken notice of; answers its category."""
        now = _now()
        category = group.heard(said, now)
        self._closed_until = max(self._closed_until, group.limits(now).suspended_until)
        return category

    def _leave_alone(self, hop: Hop) -> None:
        """Back off; twenty sessions that meet the same trouble at the same time count as one."""
        now = _now()
        if self._ended or hop.closed_until > now:
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
_RESTED_S = 2.0  # a session that has rested so long is not about to be used again
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

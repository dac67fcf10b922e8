"""The sessions that the delivery client keeps: which are open, rest or have room, who may have one, and who waits.

No party (a provider, one next hop, or one domain where a smarthost takes all mail) may keep more than three quarters
of the sessions busy that the others leave, so that several of them can hang and there is still one for the next.  Idle
sessions make room for those who have none.

Counts and order only: who opens sessions, sends over them and judges answers is :mod:`smtp.client`.
"""

import asyncio
import enum
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from smtp.attempts import Attempt, Envelope
from smtp.pools import UNREACHED, Group, Hop


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


@dataclass(slots=True, eq=False)
class Slot:
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


class Step(enum.Enum):
    """What a message does for which there is no session now."""

    OPEN = "open"
    WAIT = "wait"


class Sessions:
    """All sessions of one mailer; ``most`` in all, ``messages`` over each and ``idle_s`` of rest are upper bounds."""

    def __init__(self, *, most: int, messages: int, idle_s: float) -> None:
        self.most = most
        self.has_ended = False
        self._most_messages = messages
        self._idle_s = idle_s
        self._resting: dict[Slot, None] = {}  # the one that has rested longest first
        self._resting_of: dict[Hop, dict[Slot, None]] = {}
        self._in_use: dict[Hop, dict[Slot, None]] = {}
        self._roomy: dict[Hop, dict[Slot, None]] = {}  # in use, and with room behind what is in process
        self._waiting: dict[tuple[Hop, str], deque[asyncio.Future[None]]] = {}
        self._in_all = 0
        self._busy: Counter[str] = Counter()  # sessions with a message, or being opened, by party
        self._busy_in_all = 0
        self._parties: set[str] = set()  # those seen; nobody needs to know of more than two
        self._leaving: set[asyncio.Task[None]] = set()

    # ---- which one a message takes

    def at_hand(self, hop: Hop, party: str) -> Slot | None:
        """An idle session, or room on a busy one if no more may be opened: what nearly all messages get."""
        now = _now()
        limits = hop.group.limits(now)
        if self.has_ended or limits.suspended_until > now:
            return None
        if hop in self._resting_of:
            return self._idle(hop) if self._has_share(party) else None
        if self._in_all >= self.most or hop.group.sessions >= limits.connections:
            return self._with_room(hop, party, now) if not self._resting else None
        return None

    def best(self, hop: Hop, party: str, now: float) -> Slot | Step:
        """An idle session, leave to open one, one that has room behind another message, or waiting."""
        has_share = self._has_share(party)
        slot = self._idle(hop) if has_share else None
        if slot is not None:
            return slot
        if has_share and (self._may_open(hop, now) or self._made_room(hop, now, rested_s=_RESTED_S)):
            return Step.OPEN
        slot = self._with_room(hop, party, now)
        if slot is not None:
            return slot
        return Step.OPEN if has_share and self._made_room(hop, now, rested_s=0.0) else Step.WAIT

    def is_in_use(self, hop: Hop) -> bool:
        """Has it a session with a message?"""
        return hop in self._in_use

    @property
    def is_alone(self) -> bool:
        """Has there been no more than one party so far?"""
        return len(self._parties) < 2

    def meet(self, party: str) -> None:
        """Somebody who wants sessions."""
        if len(self._parties) < 2:
            self._parties.add(party)

    def _has_share(self, party: str) -> bool:
        """May it keep one more session busy?  Three quarters of what the others leave are the most."""
        mine = self._busy[party]
        most = self.most if self.is_alone else (self.most - (self._busy_in_all - mine)) * 3 // 4
        return mine < max(1, most)

    def _idle(self, hop: Hop) -> Slot | None:
        while resting := self._resting_of.get(hop):
            slot = next(reversed(resting))
            if slot.session.is_open:
                return slot
            self._gone(slot)
        return None

    def _with_room(self, hop: Hop, party: str, now: float) -> Slot | None:
        messages = self._messages(hop.group, now)
        for slot in self._roomy.get(hop, ()):
            if slot.party == party and slot.session.room > 0 and slot.given < messages:
                return slot
        return None

    def _may_open(self, hop: Hop, now: float) -> bool:
        if hop.sessions and hop.opens_from > now:
            return False
        if not hop.is_reached and hop.sessions >= UNREACHED:
            return False
        return self._in_all < self.most and hop.group.sessions < hop.group.limits(now).connections

    def _made_room(self, hop: Hop, now: float, *, rested_s: float) -> bool:
        """End sessions that rest elsewhere, as many as it takes for this hop to open one."""
        connections = hop.group.limits(now).connections
        for slot in list(self._resting):
            group_is_full = hop.group.sessions >= connections
            if not group_is_full and self._in_all < self.most:
                return False  # something else is in the way
            if now - slot.rested_at < rested_s:
                return False
            if slot.hop is not hop and (slot.hop.group is hop.group or not group_is_full):
                self._leave(slot)
                if self._may_open(hop, now):
                    return True
        return False

    # ---- who waits

    async def wait(self, hop: Hop, party: str) -> None:
        """Until something may be possible that is not possible now."""
        freed = asyncio.get_running_loop().create_future()
        self._waiting.setdefault((hop, party), deque()).append(freed)
        hop.waiting += 1
        try:
            await freed
        except asyncio.CancelledError:
            if freed.done():
                self.freed()  # the turn was ours; it is somebody else's now
            raise
        finally:
            hop.waiting -= 1

    def freed(self) -> None:
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

    # ---- what becomes of one

    def opening(self, hop: Hop, party: str) -> None:
        """One is being opened, and counts already."""
        self._count(hop, 1)
        self._use(party, 1)

    def not_opened(self, hop: Hop, party: str) -> None:
        """It was not."""
        self._use(party, -1)
        self._count(hop, -1)
        self.freed()

    def opened(self, session: Session, hop: Hop, party: str) -> Slot:
        """It was."""
        slot = Slot(session, hop, session.room, party)
        hop.group.plain += slot.most < 2
        self._in_use.setdefault(hop, {})[slot] = None
        return slot

    def begin(self, slot: Slot, party: str) -> None:
        """A message is handed to it."""
        slot.given += 1
        slot.in_process += 1
        self._has_room(slot, room=slot.in_process < slot.most)
        if self._rests_no_more(slot):
            self._in_use.setdefault(slot.hop, {})[slot] = None
            slot.party = party
            self._use(party, 1)
        if slot.in_process < slot.most:
            self.freed()  # there is room behind this message

    def end(self, slot: Slot) -> None:
        """A message on it is done with: it goes on with others, rests, leaves, or is gone."""
        slot.in_process -= 1
        if not slot.session.is_open:
            self._gone(slot)
        elif slot.in_process:
            self._has_room(slot, room=True)
            self.freed()
        elif self.has_ended or self._has_had_enough(slot):
            self._leave(slot)
        else:
            self._rest(slot)

    def cut(self) -> None:
        """Cut all of them."""
        for slots in list(self._in_use.values()):
            for slot in list(slots):
                slot.session.cut()
        for slot in list(self._resting):
            slot.session.cut()

    async def say_goodbye(self) -> None:
        """There will be no more of them; those that rest end politely."""
        self.has_ended = True
        for slot in list(self._resting):
            self._leave(slot)
        if self._leaving:
            await asyncio.wait(set(self._leaving), timeout=_GOODBYE_S)

    def dismiss(self) -> None:
        """Let everybody who waits see that there are no more."""
        while self._waiting:
            self.freed()

    def _has_had_enough(self, slot: Slot) -> bool:
        """Has it carried its messages, or are there more sessions than there may be by now?"""
        group = slot.hop.group
        now = _now()
        too_many = self._in_all > self.most or group.sessions > group.limits(now).connections
        return too_many or slot.given >= self._messages(group, now)

    def _messages(self, group: Group, now: float) -> int:
        return min(self._most_messages, group.limits(now).messages)

    def _rest(self, slot: Slot) -> None:
        self._out_of_use(slot)
        slot.rested_at = _now()
        self._resting[slot] = None
        self._resting_of.setdefault(slot.hop, {})[slot] = None
        idle_s = min(self._idle_s, slot.hop.group.shape.idle_s)
        slot.session.rest(idle_s, lambda _: self._rested(slot))
        self.freed()

    def _rested(self, slot: Slot) -> None:
        if slot not in self._resting:
            return
        if slot.session.is_open:
            self._leave(slot)
        else:
            self._gone(slot)

    def _rests_no_more(self, slot: Slot) -> bool:
        if slot not in self._resting:
            return False
        del self._resting[slot]
        resting = self._resting_of[slot.hop]
        del resting[slot]
        if not resting:
            del self._resting_of[slot.hop]
        return True

    def _leave(self, slot: Slot) -> None:
        self._gone(slot)
        leaving = asyncio.create_task(slot.session.quit())
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)

    def _gone(self, slot: Slot) -> None:
        """The session is not counted any more; every message on it finds that out, the first one counts."""
        if not self._rests_no_more(slot) and not self._out_of_use(slot):
            return
        slot.hop.group.plain -= slot.most < 2
        self._count(slot.hop, -1)
        self.freed()

    def _out_of_use(self, slot: Slot) -> bool:
        in_use = self._in_use.get(slot.hop, {})
        if slot not in in_use:
            return False
        self._has_room(slot, room=False)
        del in_use[slot]
        if not in_use:
            del self._in_use[slot.hop]
        self._use(slot.party, -1)
        return True

    def _has_room(self, slot: Slot, *, room: bool) -> None:
        roomy = self._roomy.get(slot.hop)
        if room:
            if roomy is None:
                roomy = self._roomy[slot.hop] = {}
            roomy[slot] = None
        elif roomy is not None:
            roomy.pop(slot, None)
            if not roomy:
                del self._roomy[slot.hop]

    def _use(self, party: str, change: int) -> None:
        self._busy[party] += change
        if not self._busy[party]:
            del self._busy[party]
        self._busy_in_all += change

    def _count(self, hop: Hop, change: int) -> None:
        hop.sessions += change
        hop.group.sessions += change
        self._in_all += change


_now = time.monotonic
_RESTED_S = 2.0  # a session that has rested so long is not about to be used again
_GOODBYE_S = 3.0

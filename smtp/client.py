"""The delivery client: sends one message at a time over sessions that it keeps and reuses, per next hop.

Each next hop has a bounded number of sessions, each session carries a bounded number of messages, and rests only
so long.  A hop that cannot be reached or says 421 is left alone for a while, longer each time.  What happens within
a session is :mod:`smtp.session`; another session type can take its place (``opener``) without anybody noticing.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from smtp.attempts import TIMED_OUT, Attempt, Envelope, Impossible, Reply, Withheld
from smtp.egress.outage import OurFault
from smtp.mx import NextHop, NextHops, Target
from smtp.tls.demand import ENCRYPT, label

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What one next hop is given: sessions, messages per session, seconds of rest, seconds of being left alone."""

    sessions: int = 20
    messages: int = 100
    idle_s: float = 30.0
    back_off_s: float = 1.0
    back_off_most_s: float = 300.0
    hops: int = 10_000


class Session(Protocol):
    """An open session with a server."""

    used: int

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


@dataclass(slots=True)
class _Hop:
    name: str
    resting: list[Session] = field(default_factory=list)
    sessions: int = 0  # resting, in use, or being opened
    waiting: deque["asyncio.Future[None]"] = field(default_factory=deque)
    closed_until: float = 0.0
    troubles: int = 0


class SmtpMailer:
    """Delivers over SMTP; one per process, used by many tasks at once."""

    def __init__(self, next_hops: NextHops, opener: Opener, *, bounds: Bounds = Bounds()) -> None:
        self._next_hops = next_hops
        self._opener = opener
        self._bounds = bounds
        self._hops: dict[str, _Hop] = {}
        self._open: set[Session] = set()
        self._opening: set[asyncio.Task[Session | Reply]] = set()
        self._leaving: set[asyncio.Task[None]] = set()
        self._ended = False
        self._most = bounds.sessions

    async def send(self, envelope: Envelope, *, go: Callable[[], bool]) -> Attempt:
        """Try once to deliver; never raises for what servers do."""
        found = await self._next_hops.find(envelope.domain)
        if not isinstance(found, NextHop):
            return found
        if envelope.must_encrypt:
            found = found.at_least(ENCRYPT)
        hop = self._hop(found.name)
        for may_try_again in (True, False):
            session = await self._session(hop, found)
            if isinstance(session, OurFault):
                return Withheld(session.text)
            if isinstance(session, Reply):
                return session
            reused = session.used > 0
            try:
                attempt = await session.send(envelope, go=go)
            except BaseException:  # cancelled in the middle of a transaction: nobody can go on with this session
                session.cut()
                self._gone(hop, session)
                raise
            self._after(hop, session, attempt)
            if not (reused and may_try_again and _closed_before_it_began(attempt)):
                break
        return attempt

    def closed_for_s(self, domain: str) -> float:
        """Seconds until this domain's servers should be tried again."""
        held_s = self._opener.held_for_s()
        known = self._next_hops.known(domain)
        if known is None:
            return held_s
        hops = (self._hops.get(known.name), self._hops.get(f"{known.name}/{label(ENCRYPT)}"))
        until = max((hop.closed_until for hop in hops if hop is not None), default=0.0)
        return max(held_s, until - asyncio.get_running_loop().time()) if until else held_s

    def limit(self, connections: int) -> None:
        """Open no more sessions than these from now on."""
        self._most = connections

    def cut(self) -> None:
        """Cut every session: what is under way answers at once, what comes later opens new ones."""
        for session in list(self._open):
            session.cut()
        for opening in list(self._opening):
            opening.cancel()

    async def close(self) -> None:
        """Say goodbye on the sessions that rest, cut the others, and open none any more."""
        self._ended = True
        for hop in self._hops.values():
            while hop.resting:
                self._leave(hop, hop.resting.pop())
        if self._leaving:
            await asyncio.wait(set(self._leaving), timeout=3.0)
        self.cut()
        for hop in self._hops.values():
            _wake(hop, len(hop.waiting))

    def _hop(self, name: str) -> _Hop:
        hop = self._hops.get(name)
        if hop is None:
            if len(self._hops) >= self._bounds.hops:
                self._forget_one()
            hop = self._hops[name] = _Hop(name)
        return hop

    def _forget_one(self) -> None:
        for name, hop in self._hops.items():
            if not hop.sessions and not hop.waiting:
                del self._hops[name]
                return

    async def _session(self, hop: _Hop, found: NextHop) -> Session | Reply:
        while not self._ended:
            while hop.resting:
                session = hop.resting.pop()
                if session.is_open:
                    return session
                self._gone(hop, session)
            if hop.sessions < min(self._bounds.sessions, self._most):
                return await self._new_session(hop, found)
            freed = asyncio.get_running_loop().create_future()
            hop.waiting.append(freed)
            try:
                await freed
            except asyncio.CancelledError:
                if freed.done():
                    _wake(hop, 1)  # the turn was ours; it is somebody else's now
                raise
        return _ENDED

    async def _new_session(self, hop: _Hop, found: NextHop) -> Session | Reply:
        hop.sessions += 1
        opened: Session | Reply = _ENDED
        try:
            for target in found.targets:
                opened = await self._opened(target)
                if not isinstance(opened, Reply):
                    self._open.add(opened)
                    return opened
                if self._ended or opened is _CUT or isinstance(opened, OurFault):
                    return opened
        finally:
            if isinstance(opened, Reply):
                hop.sessions -= 1
                _wake(hop, 1)
        self._leave_alone(hop)
        return opened

    async def _opened(self, target: Target) -> Session | Reply:
        opening = asyncio.create_task(self._opener.open(target))
        self._opening.add(opening)
        try:
            return await opening
        except asyncio.CancelledError:
            if opening.cancelled() and not _is_cancelled_itself():
                return _CUT
            opening.cancel()
            raise
        finally:
            self._opening.discard(opening)

    def _after(self, hop: _Hop, session: Session, attempt: Attempt) -> None:
        if isinstance(attempt, Reply) and attempt.code == 421:
            self._leave_alone(hop)
        elif not isinstance(attempt, Withheld | Impossible) and getattr(attempt, "code", None) is not None:
            hop.troubles = 0
        if not session.is_open:
            self._gone(hop, session)
        elif session.used >= self._bounds.messages or self._ended:
            self._leave(hop, session)
        else:
            hop.resting.append(session)
            session.rest(self._bounds.idle_s, lambda rested: self._rested(hop, rested))
            _wake(hop, 1)

    def _rested(self, hop: _Hop, session: Session) -> None:
        if session in hop.resting:
            hop.resting.remove(session)
            self._leave(hop, session)

    def _leave(self, hop: _Hop, session: Session) -> None:
        self._gone(hop, session)
        leaving = asyncio.create_task(session.quit())
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)

    def _gone(self, hop: _Hop, session: Session) -> None:
        self._open.discard(session)
        hop.sessions -= 1
        _wake(hop, 1)

    def _leave_alone(self, hop: _Hop) -> None:
        """Back off; twenty sessions that meet the same trouble at the same time count as one."""
        now = asyncio.get_running_loop().time()
        if self._ended or hop.closed_until > now:
            return
        wait_s = min(self._bounds.back_off_s * 2.0**hop.troubles, self._bounds.back_off_most_s)
        hop.troubles = min(hop.troubles + 1, 30)
        hop.closed_until = now + wait_s
        log.info("next hop is left alone for a while", hop=hop.name, wait_s=wait_s)


_CUT = Reply(stage="connect", text="cut off while connecting: the sender is stopping")
_ENDED = Reply(stage="connect", text="not tried: the sender is stopping")


def _closed_before_it_began(attempt: Attempt) -> bool:
    """A server may close a session that rested; then nothing was sent, and a new session is opened at once."""
    return isinstance(attempt, Reply) and attempt.stage == "mail" and attempt.code is None and attempt.text != TIMED_OUT


def _wake(hop: _Hop, count: int) -> None:
    while count and hop.waiting:
        waiter = hop.waiting.popleft()
        if not waiter.done():
            waiter.set_result(None)
            count -= 1


def _is_cancelled_itself() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0

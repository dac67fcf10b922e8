"""The next hops of the delivery client, by group, with the sessions that they have and what each group may ask for now.

A group is what limits hold for: a provider with all its servers, or one next hop.  Values and counts only; who opens
and sends is :mod:`smtp.client`, which session a message takes is :mod:`smtp.sessions`.
"""

from collections import Counter
from dataclasses import dataclass, field

import structlog

from policy.pressure import Limits, Pressure, Trouble
from policy.replies import classify
from policy.shaping import Shape, Shaping
from smtp.attempts import Attempt, Reply
from smtp.mx import NextHop
from smtp.sending.pace import Bucket
from smtp.tls.demand import ENCRYPT

log = structlog.get_logger()

UNREACHED = 5  # sessions opened at once with servers that have not answered yet
DEAD_S = 60.0
DEAD_MOST_S = 600.0
_MOST_DEAD = 10_000
_TOGETHER_S = 1.0  # connections to an address that fail within so long


@dataclass(slots=True, eq=False)
class Group:
    """Limits, and the sessions that there are."""

    key: str
    provider: str
    shape: Shape
    pressure: Pressure = field(default_factory=Pressure)
    hops: int = 0
    sessions: int = 0
    plain: int = 0  # sessions without PIPELINING
    back_offs: int = 0
    closed_until: float = 0.0
    bucket: Bucket = field(default_factory=Bucket)
    dry_runs: Counter[tuple[str, str]] = field(default_factory=Counter)
    _limits: Limits | None = None

    def limits(self, now: float) -> Limits:
        """What holds now."""
        if self._limits is None or now >= self._limits.until:
            self._limits = self.pressure.limits(self.shape, now)
        return self._limits

    def heard(self, reply: Reply, now: float) -> str:
        """Take notice of a server's no; answers its category."""
        reading = classify(code=reply.code, enhanced=reply.enhanced, text=reply.text, provider=self.provider)
        if reading.would is not None:
            self.dry_runs[reading.would] += 1
        trouble = Trouble(category=reading.category, code=reply.code or 0, text=reply.text.lower())
        before = self.limits(now)
        self.pressure, change = self.pressure.after(trouble, self.shape, now, in_use=max(1, self.sessions))
        self._limits = None
        after = self.limits(now)
        if change is not None or after.connections < before.connections:
            self.back_offs += 1
        if change is not None:
            log.warning("provider is given less", group=self.key, what=change.sentence)
        elif after.connections < before.connections:
            log.info(
                "fewer connections for a while",
                group=self.key,
                connections=after.connections,
                before=before.connections,
                because=reading.category,
            )
        return reading.category


@dataclass(slots=True, eq=False)
class Hop:
    """One next hop; ``sessions`` are resting, in use, or being opened."""

    name: str
    group: Group
    sessions: int = 0
    waiting: int = 0
    closed_until: float = 0.0
    troubles: int = 0
    is_reached: bool = False
    opens_from: float = 0.0

    @property
    def is_idle(self) -> bool:
        """Can it be forgotten?"""
        return not self.sessions and not self.waiting


class Pools:
    """The groups and next hops of one mailer."""

    def __init__(self, shaping: Shaping, *, most: int) -> None:
        self._shaping = shaping
        self._most = most
        self.groups: dict[str, Group] = {}
        self.dry_runs: Counter[tuple[str, str]] = Counter()  # replies that a rule in dry run, and its category, fit
        self.hops: dict[tuple[str, str], Hop] = {}
        self._met: dict[int, tuple[NextHop, Hop]] = {}  # by identity: a next hop is the same value for many messages
        self._encrypted: dict[int, tuple[NextHop, NextHop]] = {}  # by identity, too

    def shape_of(self, found: NextHop) -> Shape:
        """A fixed next hop is shaped as a provider only if it stands for one that is known."""
        if found.is_fixed and found.provider not in self._shaping.named:
            return self._shaping.route
        return self._shaping.of(found.provider)

    def key_of(self, found: NextHop) -> str:
        """The name of the group that a next hop belongs to."""
        if self.shape_of(found).limits == "provider":
            return found.provider
        return f"{found.provider}/{found.site or found.name}"

    def hop(self, found: NextHop) -> Hop:
        """A next hop, new if it was not known."""
        met = self._met.get(id(found))
        if met is not None and met[0] is found:
            return met[1]
        if len(self._met) >= self._most:
            self._met.clear()
        hop = self._hop(found)
        self._met[id(found)] = (found, hop)
        return hop

    def encrypted(self, found: NextHop) -> NextHop:
        """The same next hop with connections that are encrypted at least."""
        known = self._encrypted.get(id(found))
        if known is not None and known[0] is found:
            return known[1]
        if len(self._encrypted) >= self._most:
            self._encrypted.clear()
        demanded = found.at_least(ENCRYPT)
        self._encrypted[id(found)] = (found, demanded)
        return demanded

    def _hop(self, found: NextHop) -> Hop:
        key = self.key_of(found)
        hop = self.hops.get((key, found.name))
        if hop is None:
            if len(self.hops) >= self._most:
                self._forget_one()
            group = self.groups.get(key)
            if group is None:
                group = self.groups[key] = Group(key, found.provider, self.shape_of(found), dry_runs=self.dry_runs)
            group.hops += 1
            hop = self.hops[key, found.name] = Hop(found.name, group)
        return hop

    def _forget_one(self) -> None:
        for key, hop in self.hops.items():
            if hop.is_idle:
                self._met.clear()
                del self.hops[key]
                hop.group.hops -= 1
                if not hop.group.hops and hop.group.pressure == Pressure():
                    del self.groups[hop.group.key]
                break
        if len(self.groups) >= 2 * self._most:  # those that were in trouble are known a little longer
            oldest = next((key for key, group in self.groups.items() if not group.hops), None)
            if oldest is not None:
                del self.groups[oldest]


class DeadAddresses:
    """Addresses that did not answer: not tried for a while, so that no message pays for what is known."""

    def __init__(self) -> None:
        self._until: dict[str, tuple[float, float]] = {}

    def failed(self, address: str, now: float) -> None:
        """Nobody could be reached there; longer each time, and many that find it out together count as one."""
        until, pause_s = self._until.get(address, (0.0, DEAD_S / 2))
        if now < until - pause_s + _TOGETHER_S:
            return
        self._until.pop(address, None)
        if len(self._until) >= _MOST_DEAD:
            self._until.pop(next(iter(self._until)))
        pause_s = min(DEAD_MOST_S, pause_s * 2)
        self._until[address] = (now + pause_s, pause_s)

    def worked(self, address: str) -> None:
        """Somebody is there."""
        self._until.pop(address, None)

    def until(self, address: str) -> float:
        """When it may be tried again; 0 if nothing is known against it."""
        return self._until.get(address, (0.0, 0.0))[0]


def is_no(attempt: Attempt) -> bool:
    """Has a server refused something?"""
    return isinstance(attempt, Reply) and attempt.code is not None and attempt.code >= 400

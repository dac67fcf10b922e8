"""What campaigns share, in the replay: the sums of tenants, sending domains and addresses, and what they allow.

The parts of each shared scope are told and judged by the code of the workers (:mod:`policy.sharing`); what the
campaigns are told then is answered as the commands that workers give each other.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from policy.ladder import start
from policy.retained import as_decided
from policy.sharing import KINDS, PART, Member, Parts, Shared, Sums, look
from policy.standing import Standing
from schemas.reputation import Command, Decision, State
from schemas.sending import Campaign


@dataclass(slots=True)
class Scope:
    """One shared scope: where it stands, what was decided of it here and really, and whom that touched since when."""

    held: Shared | None = None
    decisions: list[Decision] = field(default_factory=list)
    really: list[Decision] = field(default_factory=list)
    touched: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class Sharing:
    """The shared scopes of a replay that anything was ever held against."""

    scopes: dict[str, Scope] = field(default_factory=dict)
    _parts: Parts = field(default_factory=Parts)
    _sums: Sums = field(default_factory=Sums)

    def look(
        self, members: Iterable[Member], campaigns: Mapping[str, Campaign], *, now: int, is_stopped: bool
    ) -> tuple[list[Command], bool]:
        """Judge the parts that are due; answers what campaigns are told, and whether nothing is counted any more."""
        commands: list[Command] = []
        is_first = self._parts.is_empty
        due = self._parts.due(members, now)
        if is_first:  # where the workers judge, all parts were known long before
            for part in due:
                self._sums.take(part, now)
        for part in due:
            name = part.scope.partition(PART)[0]
            scope = self.scopes.get(name)
            held = None if scope is None else scope.held
            looked = look(name, held, self._sums.take(part, now), campaigns, now=now, is_stopped=is_stopped)
            if looked.is_nothing:
                continue
            scope = self.scopes.setdefault(name, Scope())
            scope.held = looked.after
            if looked.decision is not None:
                scope.decisions.append(looked.decision)
            for one in looked.commands:
                scope.touched.setdefault(one.campaign, now)
            commands += looked.commands
        return commands, self._parts.is_empty

    def decided(self, decision: Decision) -> None:
        """What was really decided of a shared scope, in the time that is replayed."""
        really = self.scopes.setdefault(decision.scope, Scope()).really
        if all(known.epoch != decision.epoch for known in really):
            really.append(decision)

    def begin_with(self, decision: Decision) -> None:
        """What was decided of a scope before that time: it stands so in the beginning."""
        scope = self.scopes.setdefault(decision.scope, Scope())
        held = scope.held
        standing = as_decided(None if held is None else held.standing, decision)
        scope.held = Shared(standing, {} if held is None else held.told)

    def knows(self, decision: Decision, standing: Standing) -> None:
        """A campaign that has decided so because of a scope knows what that allows it.

        It may be read before what was decided of the scope, which lies in a partition of its own.
        """
        source = decision.evidence.get("source")
        if decision.rule != "ceiling" or not isinstance(source, str) or not source.startswith(KINDS):
            return
        scope = self.scopes.setdefault(source, Scope())
        held = scope.held or Shared(start(decision.at))
        told: dict[str, State] = {name: one for name, one in held.told.items() if name != decision.campaign}
        ceiling = standing.ceilings.get(source)
        if ceiling is not None:
            told[decision.campaign] = ceiling.state
            scope.touched.setdefault(decision.campaign, ceiling.at)
        scope.held = Shared(held.standing, told)

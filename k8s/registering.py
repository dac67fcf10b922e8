"""Campaigns that people made in the place where senders run, on their way to the topic."""

from typing import Protocol

import structlog

from k8s.cluster import Cluster, SenderSpec, Unfit
from policy.registering import Flaw
from schemas.camel import spelled
from schemas.sending import Campaign

log = structlog.get_logger()


class Registrar(Protocol):
    """Where campaigns are registered."""

    def completed(self, made: Campaign) -> Campaign:
        """The campaign as it would be registered."""
        ...

    def flaw(self, made: Campaign) -> Flaw | None:
        """Why it cannot be registered."""
        ...

    async def register(self, made: Campaign) -> None:
        """Register one that has no flaw, and return when it is safe."""
        ...


class Registering:
    """Registers what differs from the record that is known, once for each pair of the two.

    Once, because the record that is known lags behind what was published; and because a second owner, who registers
    the same campaign with something else, must not be overwritten in a loop, but only once for each of his words.
    """

    def __init__(self, cluster: Cluster, registrar: Registrar | None) -> None:
        self._cluster, self._registrar = cluster, registrar
        self._asked: dict[str, tuple[Campaign | Unfit, Campaign | None]] = {}

    def is_due(self, spec: SenderSpec) -> bool:
        """Has somebody made something of this campaign that is not registered?"""
        return self._due(spec) is not None

    def unfit(self, spec: SenderSpec) -> Unfit | None:
        """Why what people have made of this campaign last is not registered, until they mend it."""
        made = self._made(spec)
        return made if isinstance(made, Unfit) else None

    async def register(self, spec: SenderSpec) -> None:
        """Register what is due; the truth tells of it in a moment.  Whoever made nonsense sees why it is none."""
        asked = self._due(spec)
        if asked is None or self._registrar is None:
            return
        if isinstance(asked, Unfit):
            log.warning("campaign resource not registered", campaign=spec.campaign, why=asked.explain)
            await self._cluster.refuse(spec, asked)
        else:
            await self._cluster.claim(spec)  # first: a record that nobody here has claimed belongs to the topic
            await self._registrar.register(asked)
        self._asked[spec.campaign] = (asked, spec.record)

    def _due(self, spec: SenderSpec) -> Campaign | Unfit | None:
        asked = self._made(spec)
        is_known = asked == spec.record or self._asked.get(spec.campaign) == (asked, spec.record)
        return None if is_known else asked

    def _made(self, spec: SenderSpec) -> Campaign | Unfit | None:
        """What people have made of this campaign, as it would be registered."""
        made = None if self._registrar is None else self._cluster.definition(spec)
        if made is None or self._registrar is None or isinstance(made, Unfit):
            return made
        asked = self._registrar.completed(made)
        flaw = self._registrar.flaw(asked)
        return asked if flaw is None else Unfit(f"{in_resource(flaw.field)}: {flaw.explain}")


def in_resource(field: str) -> str:
    """Where a person finds a record's field in the resource."""
    return "spec." + ".".join(spelled(name) for name in field.split("."))

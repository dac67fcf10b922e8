"""Campaigns that people made in the place where senders run, on their way to the topic."""

from typing import Protocol

import structlog

from k8s.cluster import Cluster, SenderSpec, Unfit
from policy.registering import Flaw
from schemas.sending import Campaign

log = structlog.get_logger()


class Registrar(Protocol):
    """Where campaigns are registered."""

    def completed(self, made: Campaign) -> Campaign:
        """The campaign as it would be registered."""
        ...

    async def register(self, made: Campaign) -> Flaw | None:
        """Register it, and return when it is safe; or the flaw, and nothing was done."""
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

    async def register(self, spec: SenderSpec) -> None:
        """Register what is due; the truth tells of it in a moment.  Whoever made nonsense sees why it is none."""
        asked = self._due(spec)
        if asked is None or self._registrar is None:
            return
        flaw = asked if isinstance(asked, Unfit) else await self._registrar.register(asked)
        if flaw is not None:
            unfit = Unfit(f"{flaw.field}: {flaw.explain}") if isinstance(flaw, Flaw) else flaw
            log.warning("campaign resource not registered", campaign=spec.campaign, why=unfit.explain)
            await self._cluster.refuse(spec, unfit)
        self._asked[spec.campaign] = (asked, spec.record)

    def _due(self, spec: SenderSpec) -> Campaign | Unfit | None:
        made = None if self._registrar is None else self._cluster.definition(spec)
        if made is None or self._registrar is None:
            return None
        asked = made if isinstance(made, Unfit) else self._registrar.completed(made)
        is_known = asked == spec.record or self._asked.get(spec.campaign) == (asked, spec.record)
        return None if is_known else asked

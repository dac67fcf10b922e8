"""The place where senders run, as the core sees it: what it needs, what it tells, and how it fails.

Two places exist, ``k8s.process`` and ``k8s.kubernetes``; both keep the same promises (one contract suite runs
against both):

* Every act carries the campaign's Control.  Its epoch is the fence: the place remembers the newest epoch that it
  was told and answers an older one with :class:`Stale`, also after everything was restarted.
* Every act may be done twice, and may be interrupted between any two of its calls: doing it again finishes it.
* Only ``release`` opens a sender that was isolated or retired; ``ensure`` never does.
* ``isolate`` and ``retire`` do what can be done now and do not wait for mail in flight: call them again until
  ``read`` says that nothing runs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from schemas.reputation import Control
from schemas.sending import Campaign

CLOSED_STATES = frozenset({"isolated", "retired"})
MAX_REASON = 1000


@dataclass(frozen=True, slots=True)
class SourceAddress:
    """The address that a campaign's mail is to leave from, and the name that EHLO says with it, if one was given."""

    address: str
    helo_name: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SenderSpec:
    """What one campaign's sender needs, wherever it runs.

    The pace is not part of it: the sender reads it from ``mail.control``, and a new pace must not restart anybody.
    Image, namespace and command line belong to the place, not to the campaign.  ``labels`` are the owner's own
    words; a place that has rules for labels makes them legal.  ``record`` is the campaign as it is registered, for a
    place that shows it.  ``source`` is None for whatever address the place gives.
    """

    campaign: str
    name: str
    replicas: int = 1
    grace_s: int = 20
    tenant: str | None = None
    labels: tuple[tuple[str, str], ...] = ()
    record: Campaign | None = None
    source: SourceAddress | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SenderStatus:
    """What is there of a sender now.

    ``exists``: all of its parts are there.  ``wanted`` and ``running`` count replicas; one that is still finishing
    its mail counts as running.  ``egress_open``: mail could leave.  ``epoch`` is the fence, 0 when none was set.
    ``agreed``: all parts tell the same epoch and state; they differ while an act is half done.
    ``shape`` is the :meth:`Cluster.fingerprint` that it was made from, empty when somebody else has changed it.
    ``asked`` is how many replicas people or autoscalers ask for, None where they have no place to say so, and
    ``source`` which address people ask for; ``ready`` counts the replicas that say of themselves that they can work.
    ``leaves_from`` are the addresses that one of those has been told to send from.  ``refused``: why the place makes no
    more of them, a quota that is used up most often; empty when it does.
    """

    campaign: str
    name: str
    exists: bool
    wanted: int
    running: int
    egress_open: bool
    epoch: int
    state: str
    reason: str
    agreed: bool = True
    shape: str = ""
    asked: int | None = None
    source: SourceAddress | None = None
    ready: int = field(default=0, compare=False)
    leaves_from: frozenset[str] = field(default=frozenset(), compare=False)
    refused: str = field(default="", compare=False)

    @property
    def closed(self) -> bool:
        """Was it isolated or retired, wholly or in part?"""
        return self.state in CLOSED_STATES


@dataclass(frozen=True, slots=True)
class Unfit:
    """Why what people asked for in the place itself is no campaign: a sentence, and a word for programs."""

    explain: str
    reason: Literal["Invalid", "DuplicateCampaign", "OwnedByTopic"] = "Invalid"


def kept_reason(control: Control) -> str:
    """The decision's sentence as a place keeps it: bounded, because the sum of all annotations is."""
    return control.reason if len(control.reason) <= MAX_REASON else control.reason[: MAX_REASON - 1] + "…"


class ClusterError(Exception):
    """The place did not do what it was asked."""


class Temporary(ClusterError):  # noqa: N818 - the caller reads it as an answer
    """It may work later; ``retry_after_s`` is the delay that the place itself asks for, if it does."""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Permanent(ClusterError):  # noqa: N818 - the caller reads it as an answer
    """It will not work until somebody changes something; the message says what."""


class Stale(ClusterError):  # noqa: N818 - the caller reads it as an answer
    """What was asked is older than what the place knows; whoever asked must read the truth again."""

    def __init__(self, name: str, *, asked: int, fence: int, why: str = "") -> None:
        super().__init__(why or f"{name}: epoch {asked} is older than {fence}, which was applied before")
        self.name, self.asked, self.fence = name, asked, fence


def check_fence(name: str, *, asked: int, fence: int) -> None:
    """Refuse an epoch that is older than the fence; the same epoch again is a replay and welcome."""
    if asked < fence:
        raise Stale(name, asked=asked, fence=fence)


def check_may_ensure(status: SenderStatus | None, control: Control) -> None:
    """Refuse to make whole what was closed: whoever asks has not read what is there."""
    if status is not None and status.closed:
        why = f"{status.name}: was {status.state} by epoch {status.epoch}; only a release opens it"
        raise Stale(status.name, asked=control.epoch, fence=status.epoch, why=why)


class Cluster(Protocol):
    """What the core asks of a place where senders run.  Every method may raise Temporary, Permanent or Stale."""

    def fingerprint(self, spec: SenderSpec) -> str:
        """What a sender of this spec is made from here; it changes with the image, the command, the labels."""
        ...

    async def read(self, spec: SenderSpec) -> SenderStatus | None:
        """What is there of this sender; None when there is nothing at all."""
        ...

    async def list(self) -> Sequence[SenderStatus]:
        """Every sender that is there, also those that nobody asked for."""
        ...

    async def ensure(self, spec: SenderSpec, control: Control) -> None:
        """Let an open sender exist in this shape with so many replicas; refuses a closed one."""
        ...

    async def release(self, spec: SenderSpec, control: Control) -> None:
        """Open a sender that was closed: first its way out, then its replicas."""
        ...

    async def isolate(self, spec: SenderSpec, control: Control, *, cut: bool = False) -> None:
        """Stop a sender: no replicas, then no way out; with ``cut`` at once, whatever is still in flight."""
        ...

    async def retire(self, spec: SenderSpec, control: Control, *, cut: bool = False) -> None:
        """Stop a sender for good; what stays keeps the fence."""
        ...

    def shows(self, spec: SenderSpec, control: Control, *, paused: bool, unfit: Unfit | None = None) -> bool:
        """Do people see there what holds?  A place that shows nothing has nothing to add."""
        ...

    async def show(self, spec: SenderSpec, control: Control, *, paused: bool, unfit: Unfit | None = None) -> None:
        """Let people see there what was decided and what is; ``paused``: nothing that policy decides follows.

        ``unfit``: why what they have made of the campaign there is not what it sends by.
        It changes nothing for the sender, says each decision once, and tells nothing that is older than what is known.
        """
        ...

    def definition(self, spec: SenderSpec) -> Campaign | Unfit | None:
        """What people made of this campaign in the place itself, to be registered; None when it is not theirs."""
        ...

    def defined(self) -> Sequence[str]:
        """The campaigns that people made in the place itself."""
        ...

    async def refuse(self, spec: SenderSpec, unfit: Unfit) -> None:
        """Let whoever made it see why it is not registered."""
        ...

    async def claim(self, spec: SenderSpec) -> None:
        """Let what people made of this campaign speak for it from now on; said before it is registered.

        Until then :meth:`definition` answers that a campaign whose record is known is somebody else's.
        """
        ...

    async def watch(self, changed: Callable[[str], None]) -> None:
        """Say the campaigns whose senders others have changed, or that changed by themselves, until cancelled."""
        ...

    def notes(self) -> Sequence[str]:
        """What this place lacks for some of what we do, and the fix; senders are started and stopped without it."""
        ...

    async def close(self) -> None:
        """Let go of connections and tasks; senders go on."""
        ...

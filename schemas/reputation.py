"""Rates, verdicts, decisions, control: what is known about a campaign and what follows from it."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from schemas.base import CampaignId, Millis, Part, Record
from schemas.feedback import Trap
from schemas.sending import Pace

Answer = Literal["within", "breach", "too_few"]
State = Literal["healthy", "watched", "throttled", "paused", "isolated", "retired"]
OperatorState = Literal["enabled", "isolated", "overridden"]
CommandName = Literal["isolate", "release", "retire", "review", "override", "ceiling"]
BrakeName = Literal["automation", "sending"]


class Counts(Part, frozen=True, kw_only=True):
    """Events of one scope in one window.

    ``trap_hit_pristine`` and ``trap_hit_recycled`` are the parts of ``trap_hit`` that hit confirmed traps of these
    kinds, ``trap_hit_typo`` the part that hit typo traps; ``trap_weight`` is what all of them weigh, in hundredths of a
    pristine hit.  ``accepted_heard`` is the part of ``accepted`` at providers that pass complaints on (feedback loops),
    ``complaint_unheard`` the part of ``complaint`` from elsewhere.  ``attempts`` are answers of receiving servers,
    deferrals included; ``soft_bounce`` are final failures that are no fault of the address.
    """

    accepted: int = 0
    hard_bounce: int = 0
    soft_bounce: int = 0
    block: int = 0
    deferral: int = 0
    complaint: int = 0
    trap_hit: int = 0
    trap_hit_pristine: int = 0
    unsubscribe: int = 0
    attempts: int = 0
    trap_weight: int = 0
    trap_hit_recycled: int = 0
    trap_hit_typo: int = 0
    accepted_heard: int = 0
    complaint_unheard: int = 0


class Verdict(Part, frozen=True, kw_only=True):
    """The answer for one metric: rate and interval, events out of trials, and the limit.

    ``evidence`` is the strength of the case against the limit (an e-value; 1 means nothing is known).
    """

    answer: Answer
    rate: float
    low: float
    high: float
    limit: float
    events: int = 0
    trials: int = 0
    window: str = "24h"
    evidence: float = 1.0


class Reference(Part, frozen=True, kw_only=True):
    """Where an event that counts can be looked up; of a trap hit also what was hit."""

    topic: str
    partition: int
    offset: int
    message_id: str | None = None
    kind: str | None = None
    at: Millis | None = None
    trap: Trap | None = None


class Prior(Part, frozen=True, kw_only=True):
    """What other campaigns show at a provider: their mean ``rate``, worth ``mails`` mails of a campaign's own."""

    rate: float
    mails: float
    campaigns: int


class RatesSnapshot(Record, frozen=True, kw_only=True, tag_field="v", tag=1):
    """Live windows of one scope.  Topic ``mail.reputation.rates``.

    ``scope`` is ``campaign:ID``, ``campaign:ID/provider:NAME``, ``campaign:ID/source:NAME`` (a source of its list, as
    requests name it) or ``ip:ADDRESS/provider:NAME/partition:N`` (readers sum an address over partitions).  ``recent``
    are the newest signals against the sender, newest last.  ``providers`` are the same windows by provider, given when
    servers turn the campaign away.  What several campaigns share (``tenant:NAME``, ``domain:NAME``, ``ip:ADDRESS``,
    each with ``/partition:N``) is counted over the ``campaigns`` that nothing is held against.  ``priors`` are what
    other campaigns show, by provider (``*``: the campaign's mix of them) and metric, when its limits ask for them.
    """

    scope: str
    at: Millis
    windows: dict[str, Counts]
    verdicts: dict[str, Verdict] = {}
    recent: list[Reference] = []
    applied: list[int] = []
    providers: dict[str, dict[str, Counts]] = {}
    campaigns: list[str] = []
    priors: dict[str, dict[str, Prior]] = {}


class Decision(Record, frozen=True, kw_only=True, tag_field="v", tag=1):
    """A change of state, with everything that explains it.  Topic ``mail.reputation.decisions``.

    ``epoch`` only grows, per scope.  ``reason`` is one sentence with the numbers; it stands unchanged in the log,
    the Kubernetes annotation and the page.  ``by`` is ``policy`` or ``operator:NAME``.
    """

    scope: str
    campaign: CampaignId
    from_: State = msgspec.field(name="from")
    to: State
    at: Millis
    epoch: Annotated[int, Meta(ge=1)]
    rule: str
    reason: str
    evidence: dict[str, Any] = {}
    until: Millis | None = None
    by: str = "policy"
    dry_run: bool = False
    command_id: str | None = None


class Narrowed(Part, frozen=True, kw_only=True):
    """What a campaign's sender may do at one provider, less than elsewhere."""

    may_send: bool
    pace: Pace
    state: State
    reason: str
    until: Millis | None = None


class Control(Record, frozen=True, kw_only=True, tag_field="v", tag=1):
    """What a campaign's sender may do now.  Topic ``mail.control``; the newest epoch wins.

    ``state`` is what holds: of what the policy says (``system``) and what an operator says (``operator``) the stricter,
    except that an operator may have overridden the policy for a while.  ``engaged_since``: only recipients who were
    seen since then get mail, because the campaign has to show first that it is well.  ``rule`` is what led here, in a
    word: a metric, ``pristine_trap``, ``ceiling`` or a command; empty when nothing is held against the campaign.
    """

    campaign: CampaignId
    epoch: Annotated[int, Meta(ge=1)]
    may_send: bool
    pace: Pace
    state: State
    reason: str
    at: Millis
    system: State | None = None
    operator: OperatorState = "enabled"
    by: str = "policy"
    providers: dict[str, Narrowed] = {}
    engaged_since: Millis | None = None
    rule: str = ""


class Brake(Record, frozen=True, kw_only=True, tag_field="v", tag=1):
    """A brake on all campaigns, pulled or let go by an operator.  Topic ``mail.brakes``.

    ``automation``: the policy decides, and says what it would do, but nothing follows.  ``sending``: no sender sends.
    """

    brake: BrakeName
    on: bool
    reason: Annotated[str, Meta(max_length=500)]
    by: str
    at: Millis


class Command(Record, frozen=True, kw_only=True, tag_field="v", tag=1):
    """What an operator (or the judge's own clock: ``review``) asks of the judge.  Topic ``mail.commands``.

    ``override`` lets a campaign send until ``until`` although the policy stopped it; against a confirmed pristine trap
    it needs ``approved_by``, somebody else.  A ``release`` begins with a tenth of the pace and engaged recipients,
    unless ``at_once``.  ``ceiling`` is the judge's own: ``source``, a scope that the campaign is part of, allows it no
    more than ``ceiling``.
    """

    id: Annotated[str, Meta(min_length=1, max_length=64)]
    scope: str
    campaign: CampaignId
    command: CommandName
    reason: Annotated[str, Meta(max_length=500)]
    by: str
    at: Millis
    until: Millis | None = None
    approved_by: Annotated[str, Meta(min_length=1, max_length=128)] | None = None
    at_once: bool = False
    ceiling: State | None = None
    source: Annotated[str, Meta(max_length=300)] | None = None

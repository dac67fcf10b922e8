"""The account that must close: every recipient asked for ends in exactly one final record.

It trusts nobody's counters: recipients come from the requests, finals from the topics, and what was really
delivered from the receiving servers' own logs.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from policy.naming import campaign_name
from policy.tokens import message_token
from schemas.delivery import FINAL, DeliveryFrame
from schemas.reputation import Control, Decision
from schemas.sending import OutboundFrame, Refused


@dataclass(slots=True)
class Books:
    """What the topics say of one campaign so far; repeats of a record change nothing."""

    campaign: str
    final: dict[str, str] = field(default_factory=dict)  # message id -> outcome
    contradictions: dict[str, tuple[str, str]] = field(default_factory=dict)
    deferred: set[str] = field(default_factory=set)
    waiting: set[str] = field(default_factory=set)  # message ids that reached the outbound topic
    decisions: dict[int, Decision] = field(default_factory=dict)  # by epoch
    control: Control | None = None

    def add(self, record: object) -> None:
        """Take one record into the books."""
        match record:
            case DeliveryFrame():
                for result in record.results:
                    if result.outcome in FINAL:
                        self._finish(result.message_id, result.outcome)
                    else:
                        self.deferred.add(result.message_id)
            case Refused(message_id=str(message_id)):
                self._finish(message_id, "refused")
            case OutboundFrame():
                self.waiting.update(message.message_id for message in record.messages)
            case Decision() if record.rule != "refused":
                self.decisions[record.epoch] = record
            case Control():
                if self.control is None or record.epoch >= self.control.epoch:
                    self.control = record

    def _finish(self, message_id: str, outcome: str) -> None:
        before = self.final.setdefault(message_id, outcome)
        if before != outcome:
            self.contradictions[message_id] = (before, outcome)

    @property
    def stopped(self) -> bool:
        """May the campaign's sender not send now?"""
        return self.control is not None and not self.control.may_send


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message that a receiving server accepted, or one MAIL FROM that it heard, by the server's own log."""

    campaign_name: str | None
    message_token: str | None  # None where the message itself was never sent
    mail_from_at: int
    accepted: bool


@dataclass(frozen=True, slots=True)
class Account:
    """The account of one campaign."""

    requested: int
    final: Mapping[str, int]
    missing: int
    doubled: int
    contradictory: Mapping[str, tuple[str, str]]  # message id -> two final records that cannot both be true
    state: str
    isolated_at: int | None
    reason: str | None
    last_mail_from: int | None
    deciding_event_at: int | None

    @property
    def closes(self) -> bool:
        """Is every recipient accounted for, once?"""
        return self.missing == 0 and self.doubled == 0 and not self.contradictory

    def as_report(self) -> dict[str, object]:
        """The form that others read."""
        return {
            "requested": self.requested,
            "final": dict(self.final),
            "missing": self.missing,
            "doubled": self.doubled,
            "contradictory": len(self.contradictory),
            "contradictions": {one: list(two) for one, two in sorted(self.contradictory.items())[:20]},
            "state": self.state,
            "isolated_at": self.isolated_at,
            "reason": self.reason,
        }


def draw_up(requested: Iterable[str], books: Books, deliveries: Iterable[Delivery]) -> Account:
    """The account of a campaign: ``requested`` are message ids, each counted once."""
    wanted = set(requested)
    outcomes = Counter(outcome for message_id, outcome in books.final.items() if message_id in wanted)
    held = (wanted & books.waiting) - books.final.keys() if books.stopped else set()
    if held:
        outcomes["held"] = len(held)
    name = campaign_name(books.campaign)
    tokens = {message_token(message_id) for message_id in wanted}
    seen = [one for one in deliveries if one.campaign_name == name]
    copies = Counter(one.message_token for one in seen if one.accepted and one.message_token in tokens)
    isolation = _isolation(books)
    return Account(
        requested=len(wanted),
        final=dict(sorted(outcomes.items())),
        missing=len(wanted) - sum(outcomes.values()),
        doubled=sum(1 for count in copies.values() if count > 1),
        contradictory=dict(books.contradictions),
        state=books.control.state if books.control else "unknown",
        isolated_at=isolation.at if isolation else None,
        reason=isolation.reason if isolation else None,
        last_mail_from=max((one.mail_from_at for one in seen), default=None),
        deciding_event_at=deciding_event_at(isolation) if isolation else None,
    )


def _isolation(books: Books) -> Decision | None:
    found = [one for one in books.decisions.values() if one.to in ("isolated", "paused") and not one.dry_run]
    return max(found, key=lambda one: one.epoch, default=None)


def deciding_event_at(decision: Decision) -> int:
    """When the newest event happened that the decision rests on, as its evidence says; else its own time."""
    newest = [
        reference["at"]
        for reference in decision.evidence.get("recent", [])
        if isinstance(reference, dict) and isinstance(reference.get("at"), int)
    ]
    return max(newest, default=decision.at)

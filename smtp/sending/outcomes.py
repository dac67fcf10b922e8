"""From the answer to an attempt to the result that is told: accepted, deferred, bounced, expired, in doubt.

Pure: time and chance come in as arguments.  What a reply means is said by ``policy.replies``, when to try again by
``policy.retries``.
"""

from collections.abc import Sequence
from typing import assert_never

import msgspec

from policy.replies import classify
from policy.retries import PLAN_S, next_attempt
from schemas.delivery import DeliveryResult, Outcome
from schemas.sending import InDoubt
from smtp.attempts import Impossible, Reply, Uncertain

UNCERTAIN = "uncertain"
"""The class of an attempt whose fate is unknown."""
UNPROVED = "tls_failure"
"""The class of an attempt whose connection did not prove what was demanded of it."""
INTERNAL = "internal_error"
"""The class of an attempt that we failed at ourselves."""


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What is said about trying again; ``starts_at`` is when the message's age began to count (ms).

    ``plan_s`` are the pauses between attempts.
    """

    starts_at: int
    expires_at: int | None
    max_age_s: int
    in_doubt: InDoubt
    plan_s: Sequence[int] = PLAN_S

    def has_expired(self, now: int) -> bool:
        """Is it too late to send the message?"""
        if self.expires_at is not None and now >= self.expires_at:
            return True
        return now - self.starts_at >= self.max_age_s * 1000


class Known(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What stands in every result of a message; ``number`` counts its attempts from 1, ``now`` is in ms."""

    message_id: str
    address_hash: str
    number: int
    provider: str
    now: int
    domain: str = ""
    flags: tuple[str, ...] = ()
    list_source: str | None = None

    def result(
        self,
        outcome: Outcome,
        attempt: Reply | Uncertain | Impossible | None = None,
        *,
        category: str | None = None,
        next_attempt_at: int | None = None,
        text: str | None = None,
    ) -> DeliveryResult:
        """The result with this outcome."""
        answered = attempt if isinstance(attempt, Reply) else None
        spoke = None if isinstance(attempt, Impossible) else attempt
        return DeliveryResult(
            message_id=self.message_id,
            outcome=outcome,
            at=self.now,
            attempt=self.number,
            provider=self.provider,
            ip=spoke.ip if spoke else None,
            mx=attempt.mx if attempt else None,
            code=answered.code if answered else None,
            enhanced=answered.enhanced if answered else None,
            text=attempt.text if attempt else text,
            class_=category,
            tls=spoke.tls if spoke else None,
            tls_policy=spoke.tls_policy if spoke else None,
            took_ms=attempt.took_ms if attempt else None,
            address_hash=self.address_hash,
            next_attempt_at=next_attempt_at,
            domain=self.domain,
            flags=self.flags,
            list_source=self.list_source,
        )


def result_of(attempt: Reply | Uncertain | Impossible, known: Known, *, terms: Terms, jitter: float) -> DeliveryResult:
    """What is told of one attempt; ``jitter`` is chance from -1 to 1."""
    match attempt:
        case Impossible():
            return known.result("bounced", attempt, category=attempt.category)
        case Uncertain():
            if terms.in_doubt == "hold":
                return known.result("in_doubt", attempt, category=UNCERTAIN)
            return tried_again(known, attempt, UNCERTAIN, terms, jitter)
        case Reply():
            if attempt.accepted:
                return known.result("accepted", attempt)
            category, is_final = _read(attempt, known.provider)
            if is_final:
                return known.result("bounced", attempt, category=category)
            return tried_again(known, attempt, category, terms, jitter)
        case _:
            assert_never(attempt)


def _read(reply: Reply, provider: str) -> tuple[str, bool]:
    """The category, and whether it is final; a connection that failed says nothing about the recipient."""
    if reply.stage == "tls":  # however a server puts it: what was demanded may be there the next time
        return UNPROVED, False
    if reply.code is None:
        return ("dns_routing" if reply.stage == "resolve" else "connection"), False
    reading = classify(code=reply.code, enhanced=reply.enhanced, text=reply.text, provider=provider)
    return reading.category, reading.final


def tried_again(known: Known, attempt: Reply | Uncertain, category: str, terms: Terms, jitter: float) -> DeliveryResult:
    """Deferred to the next attempt, or expired if that would come too late."""
    due = next_attempt(
        attempt=known.number,
        category=category,
        first_at=terms.starts_at,
        now=known.now,
        max_age_s=terms.max_age_s,
        jitter=jitter,
        plan_s=terms.plan_s,
    )
    if due is None or (terms.expires_at is not None and due >= terms.expires_at):
        return known.result("expired", attempt, category=category)
    return known.result("deferred", attempt, category=category, next_attempt_at=due)

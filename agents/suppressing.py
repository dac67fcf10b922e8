"""Which results and signals leave a suppression behind, and where it holds.

A dead address is dead for everybody, and a trap is a trap for everybody: they are suppressed on the platform.  Who
complains or unsubscribes has had enough of one sender: the tenant, whatever the campaign is called next time; a
recipient whose own rules refuse that sender likewise.  What others merely report to us (a webhook, an import) is only
believed for the tenant it came for, and what is only suspected to be a trap is suppressed nowhere.

A domain that does not exist is suppressed as a whole, for a week: it may be a mistake of a name server.  When it is
over, it is remembered: one that comes back after months may be run by somebody who waits for old lists.
"""

from collections.abc import Callable, Iterable

import msgspec

from policy import providers
from policy.replies import category_of
from policy.strikes import of_feedback, of_result
from policy.trap_signals import DAY_MS, is_dead
from policy.traps import is_confirmed
from schemas.delivery import DeliveryResult
from schemas.feedback import FeedbackEvent, Suppression
from schemas.sending import Campaign

PLATFORM = "platform"
DOMAIN_FOR_MS = 7 * DAY_MS
_SEEN_OURSELVES = "return_path"


class Suppressing:
    """Whom results and feedback suppress; who is dead, for ``dead_days``, or for good if that is 0.

    ``domain_hash`` says what stands for a whole domain.
    """

    def __init__(self, domain_hash: Callable[[str], str], *, dead_days: int = 0) -> None:
        self._domain_hash = domain_hash
        self._dead_ms = dead_days * DAY_MS

    def after_results(
        self, name: str, refused: Iterable[DeliveryResult], campaign: Campaign | None
    ) -> list[Suppression]:
        """What refusals of a campaign leave behind: suppressions and strikes."""
        found: list[Suppression] = []
        tenant = tenant_scope(campaign)
        for result in refused:
            found += map(self._with_end, from_result(result, tenant, self._domain_hash))
            if (strike := of_result(name, result)) is not None:
                found.append(strike)
        return found

    def after_feedback(self, events: Iterable[FeedbackEvent], campaign: Campaign | None) -> list[Suppression]:
        """What signals leave behind."""
        both = ((from_feedback(event, campaign), of_feedback(event)) for event in events)
        return [self._with_end(one) for pair in both for one in pair if one is not None]

    def _with_end(self, one: Suppression) -> Suppression:
        if not self._dead_ms or one.until is not None or not is_dead(one.reason):
            return one
        return msgspec.structs.replace(one, until=one.since + self._dead_ms)


def from_result(result: DeliveryResult, tenant: str | None, domain_hash: Callable[[str], str]) -> list[Suppression]:
    """The suppressions that a refusal leaves behind.

    ``tenant`` is the scope of the campaign's tenant, ``domain_hash`` what stands for a whole domain.  A category that
    asks for more than one event leaves none by itself, but a strike.
    """
    category = category_of(result.class_)
    if result.outcome != "bounced" or not category.scope or category.after_campaigns or result.address_hash is None:
        return []
    scope = PLATFORM if category.scope != "tenant" else tenant
    if scope is None:
        return []
    reason = result.class_ or "hard_bounce"
    found = [Suppression(address_hash=result.address_hash, scope=scope, reason=reason, since=result.at)]
    if category.scope == "domain" and result.domain and result.domain not in providers.shipped():
        hashed, until = domain_hash(result.domain), result.at + DOMAIN_FOR_MS
        found.append(Suppression(address_hash=hashed, scope=PLATFORM, reason=reason, since=result.at, until=until))
    return found


def from_feedback(event: FeedbackEvent, campaign: Campaign | None) -> Suppression | None:
    """The suppression that a signal leaves behind; None if it leaves none."""
    if event.address_hash is None:
        return None
    own = tenant_scope(campaign) or f"campaign:{event.campaign}"
    everywhere = PLATFORM if event.source == _SEEN_OURSELVES else own
    match event.kind:
        case "complaint" | "unsubscribe":
            scope = own
        case "trap_hit" if is_confirmed(event.trap):
            scope = everywhere
        case "hard_bounce" if event.class_ is None:
            scope = everywhere
        case "hard_bounce" | "soft_bounce" if event.class_ is not None:
            category = category_of(event.class_)
            if not category.scope or category.after_campaigns:
                return None
            scope = own if category.scope == "tenant" else everywhere
        case _:
            return None
    reason = event.kind if event.kind == "trap_hit" else event.class_ or event.kind
    return Suppression(address_hash=event.address_hash, scope=scope, reason=reason, since=event.at)


def tenant_scope(campaign: Campaign | None) -> str | None:
    """The scope of a campaign's tenant."""
    return None if campaign is None else f"tenant:{campaign.tenant}"


def key_of(suppression: Suppression) -> str:
    """The key of a suppression in its topic."""
    return f"{suppression.address_hash}|{suppression.scope}"

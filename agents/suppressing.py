"""Which results and signals leave a suppression behind, and where it holds.

A dead address is dead for everybody, and a trap is a trap for everybody: they are suppressed on the platform.  Who
complains or unsubscribes has had enough of one sender: the tenant, whatever the campaign is called next time.  What
others merely report to us (a webhook, an import) is only believed for the tenant it came for.
"""

from policy.replies import category_of
from schemas.delivery import DeliveryResult
from schemas.feedback import FeedbackEvent, Suppression
from schemas.sending import Campaign

PLATFORM = "platform"
_SEEN_OURSELVES = "return_path"


def from_result(result: DeliveryResult) -> Suppression | None:
    """The suppression that a refusal leaves behind; None if its category does not ask for one."""
    if result.outcome != "bounced" or result.address_hash is None or not category_of(result.class_).suppress:
        return None
    return Suppression(
        address_hash=result.address_hash,
        scope=PLATFORM,
        reason=result.class_ or "hard_bounce",
        since=result.at,
    )


def from_feedback(event: FeedbackEvent, campaign: Campaign | None) -> Suppression | None:
    """The suppression that a signal leaves behind; None if it leaves none."""
    if event.address_hash is None:
        return None
    own = f"tenant:{campaign.tenant}" if campaign is not None else f"campaign:{event.campaign}"
    match event.kind:
        case "complaint" | "unsubscribe":
            scope = own
        case "trap_hit":
            scope = PLATFORM if event.source == _SEEN_OURSELVES else own
        case "hard_bounce" if event.class_ is None or category_of(event.class_).suppress:
            scope = PLATFORM if event.source == _SEEN_OURSELVES else own
        case _:
            return None
    return Suppression(address_hash=event.address_hash, scope=scope, reason=event.class_ or event.kind, since=event.at)


def key_of(suppression: Suppression) -> str:
    """The key of a suppression in its topic."""
    return f"{suppression.address_hash}|{suppression.scope}"

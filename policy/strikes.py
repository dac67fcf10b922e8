"""Strikes: soft failures that prove nothing alone, and a suppression when they happened in enough campaigns.

A strike is a record of ``mail.suppressions`` under a scope of its own, ``strike:CATEGORY:CAMPAIGN``, which no look-up
asks for: campaigns that are counted on different workers do not overwrite each other's, and the newest of a campaign
takes the place of the one before.  A repeat of a result writes the same strike again, so nothing is counted twice.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from policy.replies import category_of
from policy.trap_signals import DAY_MS
from schemas.delivery import DeliveryResult
from schemas.feedback import FeedbackEvent, Suppression

_SCOPE = "strike:"
_EXPIRED = "expired"
_BELIEVED = "return_path"  # what others report would suppress for everybody


@dataclass(frozen=True, slots=True)
class Strike:
    """When, and of which campaign."""

    campaign: str
    at: int


def is_strike(scope: str) -> bool:
    """Is this the scope of a strike, which suppresses nobody?"""
    return scope.startswith(_SCOPE)


def read_scope(scope: str) -> tuple[str, str] | None:
    """The category and the campaign of a strike's scope."""
    if not is_strike(scope):
        return None
    category, colon, campaign = scope.removeprefix(_SCOPE).partition(":")
    return (category, campaign) if category and colon and campaign else None


def of_result(campaign: str, result: DeliveryResult) -> Suppression | None:
    """The strike that a result leaves.

    Mail that expired is one of the category ``expired`` when their server had answered each time; that we had no time
    for it, or reached nobody, is not the recipient's doing.
    """
    name = result.class_ or ""
    if result.outcome == "expired" and name == _EXPIRED:
        return None
    if result.outcome == "expired" and result.code is not None and category_of(name).kind == "transient":
        name = _EXPIRED
    return _strike(campaign, name, result.address_hash, result.at) if result.outcome in ("bounced", "expired") else None


def of_feedback(event: FeedbackEvent) -> Suppression | None:
    """The strike that a bounce leaves which came by mail to a return path that we signed."""
    if event.kind != "soft_bounce" or event.source != _BELIEVED:
        return None
    return _strike(event.campaign, event.class_ or "", event.address_hash, event.at)


def _strike(campaign: str, name: str, hashed: str | None, at: int) -> Suppression | None:
    category = category_of(name)
    if hashed is None or not category.scope or not category.after_campaigns:
        return None
    return Suppression(
        address_hash=hashed,
        scope=f"{_SCOPE}{name}:{campaign}",
        reason=name,
        since=at,
        until=at + category.after_days * DAY_MS,
    )


def enough(
    category_name: str, strikes: Iterable[Strike], tenants: Mapping[str, str], ended: Mapping[str, int]
) -> dict[str, int]:
    """The scopes in which an address has enough strikes of a category, and when it had its last one there.

    ``tenants`` are those of the campaigns; ``ended`` says of a scope when a suppression there ended or was lifted, and
    what had happened by then is forgiven.
    """
    category = category_of(category_name)
    by_scope: dict[str, list[Strike]] = {}
    for strike in strikes:
        scope = "platform"
        if category.scope == "tenant":
            if strike.campaign not in tenants:
                continue
            scope = f"tenant:{tenants[strike.campaign]}"
        if strike.at > ended.get(scope, -1):
            by_scope.setdefault(scope, []).append(strike)
    found: dict[str, int] = {}
    for scope, own in by_scope.items():
        last = max(one.at for one in own)
        near = {one.campaign for one in own if one.at >= last - category.after_days * DAY_MS}
        if category.after_campaigns and len(near) >= category.after_campaigns:
            found[scope] = last
    return found

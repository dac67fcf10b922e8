"""What pages say of a campaign, from the catalogue alone: whichever worker is asked, the answer is the same."""

from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from policy.naming import campaign_scope, outbound_topic, sender_name
from schemas.reputation import Control, RatesSnapshot
from schemas.sending import Campaign

View = dict[str, Any]  # Any: written as JSON, never read back


class Copy(Protocol):
    """The catalogue, as far as pages need it."""

    @property
    def campaigns(self) -> Mapping[str, Campaign]:
        """By campaign id."""

    @property
    def controls(self) -> Mapping[str, Control]:
        """By campaign id."""

    @property
    def rates(self) -> Mapping[str, RatesSnapshot]:
        """By scope."""


def all_campaigns(copy: Copy) -> View:
    """Every campaign, by id."""
    return {"campaigns": [_summary(copy, campaign) for _, campaign in sorted(copy.campaigns.items())]}


def one_campaign(copy: Copy, name: str) -> View | None:
    """Everything about one campaign; None if it is not known."""
    campaign = copy.campaigns.get(name)
    if campaign is None:
        return None
    rates = copy.rates.get(campaign_scope(name))
    return _summary(copy, campaign) | {
        "recent": msgspec.to_builtins(rates.recent) if rates else [],
        "providers": _within(copy, f"{campaign_scope(name)}/provider:"),
        "sources": _within(copy, f"{campaign_scope(name)}/source:"),
        "topic": outbound_topic(name),
        "sender": sender_name(name),
        "record": msgspec.to_builtins(campaign),
    }


def _within(copy: Copy, prefix: str) -> View:
    """What is known of the scopes within a campaign."""
    return {
        scope.removeprefix(prefix): {"windows": _plain(found.windows), "verdicts": _plain(found.verdicts)}
        for scope, found in sorted(copy.rates.items())
        if scope.startswith(prefix)
    }


def _summary(copy: Copy, campaign: Campaign) -> View:
    control = copy.controls.get(campaign.campaign)
    rates = copy.rates.get(campaign_scope(campaign.campaign))
    return {
        "campaign": campaign.campaign,
        "tenant": campaign.tenant,
        "state": control.state if control else "unknown",
        "may_send": control.may_send if control else False,
        "system": control.system if control else None,
        "operator": control.operator if control else None,
        "narrowed": _plain(control.providers) if control else {},
        "engaged_since": control.engaged_since if control else None,
        "epoch": control.epoch if control else None,
        "since": control.at if control else None,
        "reason": control.reason if control else "no control record yet",
        "pace": _plain(control.pace if control else campaign.pace),
        "dry_run": campaign.dry_run,
        "limits": _plain(campaign.limits),
        "windows": _plain(rates.windows) if rates else {},
        "verdicts": _plain(rates.verdicts) if rates else {},
        "rates_at": rates.at if rates else None,
    }


def _plain(value: object) -> Any:  # Any: JSON
    return msgspec.to_builtins(value)

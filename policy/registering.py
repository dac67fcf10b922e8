"""Registering: what a campaign must be before it is made known, whoever asks for it."""

from dataclasses import dataclass

import msgspec

from policy.addresses import BadAddress, check
from policy.naming import campaign_scope
from policy.unsubscribing import flaw_of_base
from schemas.reputation import Command
from schemas.sending import Campaign


@dataclass(frozen=True, slots=True)
class Flaw:
    """What is wrong with a campaign: the field of its record, and the sentence."""

    field: str
    explain: str


def with_link(one: Campaign, unsubscribe_url: str | None) -> Campaign:
    """The campaign with the installation's unsubscribe link, if it has none of its own."""
    return one if one.unsubscribe_url is not None else msgspec.structs.replace(one, unsubscribe_url=unsubscribe_url)


def look_at(campaign: str, *, by: str, at: int) -> Command:
    """What asks the judge to look at a campaign that was just made known; ``at`` in milliseconds."""
    return Command(
        id=f"apply-{at}",
        scope=campaign_scope(campaign),
        campaign=campaign,
        command="review",
        reason="the campaign was applied",
        by=by,
        at=at,
    )


def flaw_of(one: Campaign) -> Flaw | None:
    """The first thing that the record's own types let pass and that would never work."""
    address = check(one.from_.address)
    if isinstance(address, BadAddress):
        return Flaw("from.address", address.explain)
    for field, domain in (
        ("return_path_domain", one.return_path_domain),
        *((f"sending_domains[{number}]", name) for number, name in enumerate(one.sending_domains)),
    ):
        if isinstance(check(f"postmaster@{domain}"), BadAddress):
            return Flaw(field, f"{domain!r} is no domain name")
    if one.unsubscribe_url is not None and (flaw := flaw_of_base(one.unsubscribe_url)) is not None:
        return Flaw("unsubscribe_url", flaw)
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in one.campaign + one.from_.name):
        return Flaw("campaign or from.name", "must not hold control characters")
    return None

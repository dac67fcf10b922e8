"""What a campaign must be before it is made known."""

import msgspec
import pytest

from policy.registering import flaw_of, with_link
from schemas.sending import Campaign, Mailbox

GOOD = Campaign(campaign="c", from_=Mailbox(address="news@shop.example"), return_path_domain="b.shop.example")


def test_a_good_one_has_no_flaw() -> None:
    assert flaw_of(GOOD) is None


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"from_": Mailbox(address="news")}, "from.address"),
        ({"return_path_domain": "b..example"}, "return_path_domain"),
        ({"sending_domains": ["shop.example", "no domain"]}, "sending_domains[1]"),
        ({"unsubscribe_url": "http://u.shop.example/u"}, "unsubscribe_url"),
        ({"campaign": "c\n"}, "campaign or from.name"),
        ({"from_": Mailbox(address="news@shop.example", name="\x7f")}, "campaign or from.name"),
    ],
)
def test_a_flaw_names_its_field(changes: dict[str, object], field: str) -> None:
    flaw = flaw_of(msgspec.structs.replace(GOOD, **changes))

    assert flaw is not None
    assert flaw.field == field
    assert flaw.explain


@pytest.mark.parametrize(
    ("own", "becomes"), [(None, "https://all.example/u"), ("https://own.example/u", "https://own.example/u")]
)
def test_a_campaign_without_a_link_gets_the_installations(own: str | None, becomes: str) -> None:
    one = msgspec.structs.replace(GOOD, unsubscribe_url=own)

    assert with_link(one, "https://all.example/u").unsubscribe_url == becomes

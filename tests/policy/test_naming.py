"""Names made from campaign ids: legal everywhere, never shared, never changed."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy import naming

DNS_1123_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?\Z")
KAFKA_TOPIC = re.compile(r"[a-zA-Z0-9._-]{1,249}\Z")

anything = st.text(max_size=200) | st.text(st.characters(), max_size=128)
close = st.text("aA-_. !é", max_size=8)


@given(campaign=anything)
def test_a_name_is_a_dns_label(campaign: str) -> None:
    for name in (naming.campaign_name(campaign), naming.sender_name(campaign)):
        assert len(name) <= 63
        assert DNS_1123_LABEL.match(name)


@given(campaign=anything)
def test_a_topic_is_legal_in_kafka(campaign: str) -> None:
    for topic in (naming.outbound_topic(campaign), naming.ledger_topic(campaign)):
        assert KAFKA_TOPIC.match(topic)


@given(campaign=anything, replica=st.integers(0, 999))
def test_a_pods_host_name_still_fits(campaign: str, replica: int) -> None:
    assert len(f"{naming.sender_name(campaign)}-{replica}") <= 63


@given(one=close, other=close)
def test_different_campaigns_never_share_a_name(one: str, other: str) -> None:
    assert (naming.campaign_name(one) == naming.campaign_name(other)) == (one == other)


@given(campaigns=st.sets(anything, max_size=50))
def test_many_campaigns_have_as_many_names(campaigns: set[str]) -> None:
    assert len({naming.campaign_name(campaign) for campaign in campaigns}) == len(campaigns)


@given(one=anything, other=anything)
def test_no_topic_of_one_campaign_is_a_topic_of_another(one: str, other: str) -> None:
    topics = {
        naming.outbound_topic(one),
        naming.ledger_topic(one),
        naming.outbound_topic(other),
        naming.ledger_topic(other),
    }

    assert len(topics) == (2 if one == other else 4)


@pytest.mark.parametrize(
    ("campaign", "name"),
    [
        pytest.param("spring-sale", "spring-sale-e22abe2bc7ea", id="already legal"),
        pytest.param("Spring Sale!", "spring-sale-c2426152e070", id="capitals and signs"),
        pytest.param("", "c-e3b0c44298fc", id="nothing"),
        pytest.param("…", "c-b4935894c8ce", id="no letter at all"),
        pytest.param("x" * 128, "x" * 40 + "-24da1b81d0b1", id="longer than a label"),
        pytest.param("a" * 39 + "--b", "a" * 39 + "-b6dedf2d1fe5", id="cut at a hyphen"),
        pytest.param("../../etc", "etc-74ccf3c5b4c1", id="a path"),
        pytest.param("Été", "t-adca3dd5be16", id="other alphabets"),
    ],
)
def test_a_name_can_be_read(campaign: str, name: str) -> None:
    """Names are in topics and clusters that exist: what this table says must not change."""
    assert naming.campaign_name(campaign) == name


@pytest.mark.parametrize("suffix", ["", "\ud800"], ids=["plain", "half a surrogate pair"])
def test_an_id_that_is_no_unicode_has_a_name(suffix: str) -> None:
    assert DNS_1123_LABEL.match(naming.campaign_name("spring" + suffix))


def test_everything_of_a_campaign_carries_its_name() -> None:
    name = naming.campaign_name("spring-sale")

    assert naming.outbound_topic("spring-sale") == f"mail.outbound.{name}"
    assert naming.ledger_topic("spring-sale") == f"mail.ledger.{name}"
    assert naming.sender_name("spring-sale") == f"sender-{name}"
    assert naming.sender_group("spring-sale") == f"mailcordon.sender.{name}"


def test_a_scope_keeps_the_campaign_id_as_it_is() -> None:
    assert naming.campaign_scope("Spring Sale!") == "campaign:Spring Sale!"

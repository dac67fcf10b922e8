"""What each provider is asked for, as shipped and as an operator wants it."""

import pytest

from policy.providers import shipped, shipped_suffixes
from policy.shaping import Shaping, WrongShaping

SHIPPED = [
    # provider, connections, messages, tls, limits
    ("google", 5, 50, "require", "provider"),
    ("microsoft", 5, 50, "opportunistic", "provider"),
    ("yahoo", 10, 20, "opportunistic", "provider"),
    ("apple", 10, 5, "opportunistic", "provider"),
    ("comcast", 25, 1000, "require", "provider"),
    ("gmx", 4, 20, "require", "provider"),
    ("orange", 2, 100, "require", "provider"),
    ("qq", 4, 8, "require", "provider"),
    ("netease", 4, 7, "require", "provider"),
    ("mimecast", 10, 100, "opportunistic", "next_hop"),
    ("other", 10, 100, "opportunistic", "next_hop"),
    ("never-heard-of", 10, 100, "opportunistic", "next_hop"),
]


@pytest.mark.parametrize(("provider", "connections", "messages", "tls", "limits"), SHIPPED, ids=[s[0] for s in SHIPPED])
def test_what_a_provider_is_asked_for(provider: str, connections: int, messages: int, tls: str, limits: str) -> None:
    shape = Shaping().of(provider)
    assert (shape.connections, shape.messages, shape.tls, shape.limits) == (connections, messages, tls, limits)


def test_every_provider_that_is_shaped_is_known() -> None:
    assert Shaping().named.keys() <= {*shipped().values(), *shipped_suffixes().values()}


def test_the_operators_own_next_hops_are_not_held_back() -> None:
    route = Shaping().route
    assert (route.connections, route.per_second) == (1000, 0)


def test_an_operators_field_replaces_the_field_and_nothing_else() -> None:
    shipped_one, own = Shaping().of("google"), Shaping("[provider.google]\nconnections = 8").of("google")
    assert own.connections == 8
    assert (own.messages, own.tls, own.reactions) == (shipped_one.messages, shipped_one.tls, shipped_one.reactions)


def test_an_operators_default_reaches_the_providers_that_say_nothing_else() -> None:
    shaping = Shaping("[default]\nidle_s = 7\nconnections = 3")
    assert (shaping.of("google").idle_s, shaping.of("google").connections) == (7, 5)
    assert (shaping.of("anybody").idle_s, shaping.of("anybody").connections) == (7, 3)


def test_a_providers_reaction_stands_for_the_default_one_of_its_categories() -> None:
    own = """
        [[provider.x.reaction]]
        on = ["rate_limited_ip"]
        suspend_s = 60
        """
    reactions = Shaping(own).of("x").reactions
    assert [one.suspend_s for one in reactions if one.fits("rate_limited_ip", "")] == [60]
    assert [one.on for one in reactions if one.fits("rate_limited_domain", "")] == [("rate_limited_domain",)]


def test_a_reaction_to_words_leaves_the_default_one_for_other_words() -> None:
    fits = [one for one in Shaping().of("yahoo").reactions if one.fits("reputation_ip", "4.7.0 [tss04] messages from")]
    assert fits[0].suspend_s == 7200
    assert not any(one.texts for one in Shaping().of("yahoo").reactions if one.fits("reputation_ip", "anything"))


@pytest.mark.parametrize(
    ("file", "says"),
    [
        ("connections", "not TOML"),
        ("[provider.x]\n\nconnections = \nmessages = 1", "line 3"),
        ("[providers.x]\nconnections = 1", "providers: unknown; tables are [default], [route] and [provider.NAME]"),
        ("provider = 5", "[provider.NAME]"),
        ("[provider.x]\nconnection = 1", "provider.x: Object contains unknown field `connection`"),
        ("[provider.x]\nconnections = 0", "provider.x.connections: Expected `int` >= 1"),
        ("[provider.x]\nconnections = '5'", "provider.x.connections: Expected `int"),
        ("[provider.x]\nper_second = -1", "provider.x.per_second"),
        ("[provider.x]\ntls = 'always'", "provider.x.tls: Invalid enum value"),
        ("[[default.reaction]]\non = ['busy']\nsuspend_s = 1", "default, reaction 1: on: there is no category busy"),
        ("[[provider.x.reaction]]\nsuspend_s = 1", "provider.x, reaction 1: it fits every reply"),
        ("[[default.reaction]]\ntexts = ['Slow']\nsuspend_s = 1", "texts: replies are compared in lower case"),
        ("[[default.reaction]]\non = ['transient']", "it does nothing"),
        ("[[default.reaction]]\non = ['transient']\nconnections = 1", "for_s is missing"),
        ("[[default.reaction]]\non = ['transient']\nsuspend_s = 1\nfor_s = 1", "for_s without a limit"),
        ("[[default.reaction]]\non = ['transient']\nsuspend_s = 9999999", "suspend_s: Expected `int` <= 604800"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_place(file: str, says: str) -> None:
    with pytest.raises(WrongShaping) as refused:
        Shaping(file)
    assert says in str(refused.value)

"""Results beside their past: which of them are a trap signal, and which show that nothing was wrong."""

from typing import Any

import pytest

from agents.history import LOOK_ALIKES_REMEMBERED, TEXTS_AT_ONCE, Found, History, identity
from policy.tokens import Keys, address_hash
from policy.traps import TrapFact, domain_hash
from schemas.delivery import DeliveryResult
from schemas.feedback import FeedbackEvent, Trap
from streams.suppressed import Suppressed
from tests.agents.doubles import campaign

KEYS = Keys(address=b"a" * 32, return_path=b"r" * 32)
DAY = 86_400_000
NOW = 1_764_000_000_000
ANN = address_hash(KEYS, "ann@shop.example")
LIKELY = {"gmial.com": "gmail.com", "gmal.com": "gmail.com", "yaho.com": "yahoo.com", "hotmial.com": "hotmail.com"}
PROVIDERS = {"mx.google.example": "google"}


class Bench:
    def __init__(self) -> None:
        self.past = Suppressed()
        self.traps: dict[str, TrapFact] = {}
        self.history = History(
            self.past, keys=KEYS, trap=self.traps.get, likely=LIKELY.get, provider_of_host=PROVIDERS.get
        )

    def bounced(self, hashed: str, since: int, until: int | None = None, **more: Any) -> None:
        self.past.add(
            hashed,
            more.get("scope", "platform"),
            reason=more.get("reason", "invalid_recipient"),
            since=since,
            until=until,
        )

    def look_at(self, *results: DeliveryResult) -> Found:
        return look_at(self.history, *results)

    def told(self, *results: DeliveryResult) -> list[tuple[str | None, Trap | None]]:
        return [(one.class_, one.trap) for one in self.look_at(*results).signals]


def accepted(number: int = 1, **fields: Any) -> DeliveryResult:
    basic: dict[str, Any] = {
        "message_id": f"m-{number}",
        "outcome": "accepted",
        "at": NOW,
        "provider": "other",
        "ip": "192.0.2.1",
        "mx": "mx.shop.example",
        "address_hash": ANN,
        "domain": "shop.example",
    }
    return DeliveryResult(**(basic | fields))


def refused(number: int = 1, text: str = "550 5.7.1 your host has hit a spam trap", **fields: Any) -> DeliveryResult:
    basic: dict[str, Any] = {"outcome": "bounced", "code": 550, "enhanced": "5.7.1", "class_": "policy_block"}
    return accepted(number, text=text, **(basic | fields))


def look_at(history: History, *results: DeliveryResult) -> Found:
    return history.look_at("spring", results, [one for one in results if one.outcome != "accepted"], campaign())


@pytest.mark.parametrize(("days", "strength"), [(1, 0.2), (29, 0.2), (30, 0.5), (179, 0.5), (180, 0.8), (900, 0.8)])
def test_an_address_that_bounced_as_dead_and_takes_mail_again(days: int, strength: float) -> None:
    bench = Bench()
    bench.bounced(ANN, NOW - days * DAY, until=NOW - 1)
    [signal] = bench.look_at(accepted()).signals

    assert signal.trap == Trap(kind="recycled", strength=strength)
    assert (signal.kind, signal.class_, signal.source) == ("trap_hit", "recycled_signature", "worker")
    assert (signal.campaign, signal.message_id, signal.at, signal.sent_at) == ("spring", "m-1", NOW, NOW)
    assert (signal.address_hash, signal.ip, signal.provider) == (ANN, "192.0.2.1", "other")


NO_SIGNAL = {
    "nothing_known": {},
    "suppressed_for_another_reason": {"reason": "complaint", "since": NOW - 200 * DAY, "until": NOW - 1},
    "of_another_tenant": {"scope": "tenant:other", "since": NOW - 200 * DAY, "until": NOW - 1},
    "bounced_later": {"since": NOW + 1},
    "bounced_at_the_same_time": {"since": NOW},
}


@pytest.mark.parametrize("known", NO_SIGNAL.values(), ids=NO_SIGNAL.keys())
def test_what_says_nothing(known: dict[str, Any]) -> None:
    bench = Bench()
    if known:
        bench.bounced(ANN, **known)
    found = bench.look_at(accepted(), accepted(2, address_hash=None, domain=""))

    assert (found.signals, found.lifted) == ([], [])


def test_a_bounce_that_only_the_tenant_knows_of_counts_for_it() -> None:
    bench = Bench()
    bench.bounced(ANN, NOW - 200 * DAY, until=NOW, scope="tenant:shop", reason="hard_bounce")

    assert bench.told(accepted()) == [("recycled_signature", Trap(kind="recycled", strength=0.8))]


@pytest.mark.parametrize(("days", "strength"), [(8, None), (29, None), (31, 0.5), (400, 0.8)])
def test_a_domain_that_did_not_exist_and_takes_mail_now(days: int, strength: float | None) -> None:
    bench = Bench()
    since = NOW - days * DAY
    bench.bounced(domain_hash(KEYS, "shop.example"), since, until=since + 7 * DAY, reason="bad_domain")
    found = bench.look_at(accepted())

    if strength is None:
        assert found.signals == []
        assert [one.reason for one in found.lifted] == ["alive_again"]
    else:
        assert [one.trap for one in found.signals] == [Trap(kind="recycled", strength=strength)]
        assert [one.class_ for one in found.signals] == ["domain_resurrection"]
        assert found.lifted == []


def test_a_domain_is_looked_at_again_when_it_is_suppressed() -> None:
    bench = Bench()
    assert bench.look_at(accepted(), accepted(2, domain="other.example")) == Found()
    bench.bounced(domain_hash(KEYS, "shop.example"), NOW - 40 * DAY, until=NOW - 33 * DAY, reason="bad_domain")

    told = bench.look_at(accepted(), accepted(2, domain="other.example"), accepted(3, at=NOW + 1)).signals
    assert [one.message_id for one in told] == ["m-1", "m-3"]


def test_of_domains_without_a_past_only_some_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agents.history.DOMAINS_REMEMBERED", 10)
    bench = Bench()
    for number in range(100):
        bench.look_at(accepted(domain=f"d{number}.example"))
    bench.bounced(domain_hash(KEYS, "d99.example"), NOW - 40 * DAY, until=NOW - 33 * DAY, reason="bad_domain")
    bench.bounced(domain_hash(KEYS, "d1.example"), NOW - 40 * DAY, until=NOW - 33 * DAY, reason="bad_domain")

    assert len(bench.look_at(accepted(domain="d99.example"), accepted(2, domain="d1.example")).signals) == 2


def test_what_is_alive_again_within_a_month_is_no_trap_later() -> None:
    bench = Bench()
    bench.bounced(ANN, NOW - 20 * DAY, until=NOW - 10 * DAY)
    [lifted] = bench.look_at(accepted()).lifted
    bench.past.add(lifted.address_hash, lifted.scope, reason=lifted.reason, since=lifted.since, until=lifted.until)

    assert bench.look_at(accepted(2, at=NOW + 300 * DAY)) == Found()


@pytest.mark.parametrize("until", [None, NOW + 1], ids=["for_ever", "until_later"])
def test_mail_that_was_on_its_way_when_the_address_was_suppressed_says_nothing(until: int | None) -> None:
    bench = Bench()
    bench.bounced(ANN, NOW - 1_000, until)

    assert bench.look_at(accepted()) == Found()


@pytest.mark.parametrize("trap", [ANN, domain_hash(KEYS, "shop.example")], ids=["address", "domain"])
def test_our_own_traps_tell_of_themselves(trap: str) -> None:
    bench = Bench()
    bench.bounced(ANN, NOW - 200 * DAY, until=NOW - DAY)
    bench.traps[trap] = TrapFact()

    assert bench.look_at(accepted()) == Found()


def test_what_became_a_trap_of_ours_later_did_not_tell_of_this_mail() -> None:
    bench = Bench()
    bench.bounced(ANN, NOW - 200 * DAY, until=NOW - DAY)
    bench.traps[ANN] = TrapFact(since=NOW + 1)

    assert [one.class_ for one in bench.look_at(accepted()).signals] == ["recycled_signature"]


def test_a_look_alike_at_a_server_that_is_not_the_providers() -> None:
    bench = Bench()

    assert bench.told(accepted(domain="gmial.com", mx="mx.parked.example")) == [
        ("typo_domain", Trap(kind="typo", strength=0.5))
    ]
    assert bench.told(accepted(domain="gmial.com", mx="mx.google.example.")) == []
    assert bench.told(accepted(domain="gmial.com", mx="alt1.gmail.com")) == []
    assert bench.told(accepted(domain="gmial.com", mx=None)) == []


def test_several_look_alikes_behind_one_server_are_a_cluster() -> None:
    bench = Bench()
    for domain in ("gmial.com", "gmal.com", "gmial.com"):
        bench.look_at(accepted(domain=domain, mx="MX.parked.example."))

    assert bench.told(accepted(domain="yaho.com", mx="mx.parked.example")) == [
        ("mx_cluster", Trap(kind="typo", strength=0.8))
    ]
    assert bench.told(accepted(domain="hotmial.com", mx="other.example")) == [
        ("typo_domain", Trap(kind="typo", strength=0.5))
    ]


def test_one_message_is_one_signal_the_strongest() -> None:
    bench = Bench()
    bench.bounced(ANN, NOW - 200 * DAY, until=NOW - DAY)
    bench.bounced(domain_hash(KEYS, "gmial.com"), NOW - 40 * DAY, until=NOW - 33 * DAY, reason="bad_domain")

    assert bench.told(accepted(domain="gmial.com")) == [("recycled_signature", Trap(kind="recycled", strength=0.8))]


def test_a_reply_that_speaks_of_traps_is_one_signal_a_day_for_each_of_our_addresses_and_provider() -> None:
    bench = Bench()
    told = bench.look_at(
        refused(1),
        refused(2),
        refused(3, ip="192.0.2.2"),
        refused(4, provider="google"),
        refused(5, at=NOW + DAY),
        refused(6, text="550 5.7.1 go away"),
        refused(7, class_="invalid_recipient", ip="192.0.2.9"),
        refused(8, outcome="deferred", ip="192.0.2.3"),
        refused(9, outcome="expired", ip="192.0.2.4"),
    ).signals

    assert [one.message_id for one in told] == ["m-1", "m-3", "m-4", "m-5", "m-8"]
    assert {one.class_ for one in told} == {"reply_text"}
    assert all(one.trap is not None and one.trap.kind == "suspected" and 0 < one.trap.strength < 0.9 for one in told)


def test_a_storm_of_refusals_is_not_read_to_the_end() -> None:
    bench = Bench()
    storm = [refused(number, text="550 5.7.1 go away") for number in range(TEXTS_AT_ONCE)]

    assert bench.look_at(*storm, refused(999)).signals == []


def test_what_a_server_answers_for_is_remembered_within_bounds() -> None:
    history = History(
        Suppressed(), keys=KEYS, trap=lambda _: None, likely=lambda _: "gmail.com", provider_of_host=lambda _: None
    )
    for number in range(3 * LOOK_ALIKES_REMEMBERED):
        look_at(history, accepted(domain=f"d{number}.com"))

    assert len(look_at(history, accepted(domain="last.com")).signals) == 1


def event(**fields: Any) -> FeedbackEvent:
    basic: dict[str, Any] = {"kind": "trap_hit", "campaign": "spring", "at": NOW, "message_id": "m-1"}
    return FeedbackEvent(**(basic | fields))


def test_what_is_the_same_feedback() -> None:
    suspicion = event(source="worker", trap=Trap(kind="recycled", strength=0.8), class_="recycled_signature")
    confirmed = event(source="return_path", trap=Trap(kind="recycled"))
    text = {"source": "worker", "class_": "reply_text", "ip": "192.0.2.1", "provider": "google"}
    reply = event(trap=Trap(kind="suspected", strength=0.3), **text)

    assert identity(suspicion) == identity(event(source="worker", trap=Trap(kind="typo", strength=0.5)))
    assert identity(suspicion) != identity(confirmed)
    assert identity(confirmed) == identity(event())
    assert identity(reply) == identity(event(trap=Trap(kind="suspected", strength=0.1), message_id="m-2", **text))
    assert identity(reply) not in (None, identity(suspicion), identity(confirmed))
    assert identity(event(kind="complaint")) == ("m-1", "complaint")
    assert identity(event(message_id=None)) is None

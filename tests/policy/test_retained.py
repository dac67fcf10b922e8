"""What is known of a standing from its decisions alone is what the judge knew that made them."""

from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy.judging import TRIAL, judge
from policy.ladder import Around, Standing, control, start
from policy.obeying import in_force_since
from policy.retained import as_decided, campaign_as_decided
from policy.signals import PAUSE_MS
from policy.verdicts import verdicts
from schemas.codec import decode, encode
from schemas.reputation import Command, Counts, Decision, RatesSnapshot, State
from schemas.sending import Campaign, Limits
from tests.policy.test_judging import REFUSES, TOGETHER, WELCOMES, split
from tests.policy.test_ladder import (
    CAMPAIGN,
    CLEAN,
    GRAVE,
    HOUR,
    MINUTE,
    SCOPE,
    T0,
    asks,
    campaign_of,
    counts_of,
    rates,
)
from tests.schemas.strategies import records

TRIED = campaign_of(shadow_limits=Limits(hard_bounce=0.005))
CAMPAIGNS = (CAMPAIGN, TRIED, campaign_of(dry_run=True))
AROUND = (Around(), Around(is_stopped=True), Around(capped="enough were isolated"))


class Given(NamedTuple):
    """What one look is given."""

    rates: RatesSnapshot | None = None
    command: Command | None = None
    campaign: Campaign = CAMPAIGN
    around: Around = Around()


class Both:
    """A standing as the judge has it, and as it is read from the judge's decisions.

    What changes without a decision is known of the second, too: the rates that it sees.
    """

    def __init__(self) -> None:
        self.now = T0
        self.live = start(T0)
        self.read = start(T0)
        self.decisions: list[Decision] = []

    def look(self, later: int, given_: Given) -> None:
        """Time is seen first; rates are told again until nothing follows from them any more, as they soon would be."""
        self.now += later
        while self._decide(given_._replace(rates=None, command=None)):
            pass
        while self._decide(given_):
            given_ = given_._replace(command=None)
        self.read = with_kept_of(self.live, self.read)

    def _decide(self, given_: Given) -> list[Decision]:
        self.live, decisions = self._judged(self.live, given_)
        if not decisions:
            self.read, none = self._judged(self.read, given_)
            assert none == []
        for one in decisions:
            written = decode(Decision, encode(one))
            assert isinstance(written, Decision)
            self.read = campaign_as_decided(self.read, SCOPE, written, given_.rates)
        self.decisions += decisions
        return decisions

    def _judged(self, standing: Standing, given_: Given) -> tuple[Standing, list[Decision]]:
        rates_, command, campaign, around = given_
        return judge(
            standing, scope=SCOPE, campaign=campaign, now=self.now, rates=rates_, command=command, around=around
        )


looks = st.tuples(
    st.sampled_from([0, MINUTE, MINUTE, 10 * MINUTE, 40 * MINUTE, 3 * HOUR]),
    st.one_of(
        counts_of,
        counts_of,
        st.sampled_from([REFUSES, WELCOMES]),
        st.sampled_from(["isolate", "release", "release_slowly", "retire", "override", "override_by_two", "review"]),
        st.sampled_from(["healthy", "throttled", "paused"]),
    ),
    st.sampled_from(CAMPAIGNS) | st.just(CAMPAIGN) | st.just(CAMPAIGN),
    st.sampled_from(AROUND) | st.just(AROUND[0]),
)


def told(snapshot: RatesSnapshot, campaign: Campaign) -> RatesSnapshot:
    """As the tally tells them: with the verdicts."""
    return msgspec.structs.replace(snapshot, verdicts=verdicts(snapshot.windows, campaign.limits))


def with_kept_of(live: Standing, read: Standing) -> Standing:
    """What was seen last is of no use to a healthy standing; whether it is kept all the same is not asked."""
    providers = {name: with_kept_of(live.providers.get(name, one), one) for name, one in read.providers.items()}
    read = msgspec.structs.replace(read, providers=providers)
    if live.trial is not None and read.trial is not None:
        read = msgspec.structs.replace(read, trial=with_kept_of(live.trial, read.trial))
    if live.state == live.judged == "healthy":
        read = msgspec.structs.replace(read, windows=live.windows, seen_at=live.seen_at, applied=live.applied)
    return read


def differing(one: Standing, other: Standing) -> dict[str, Any]:
    """The fields that differ; of the evidence that of the rate by which it stands there."""
    pairs = {name: (getattr(one, name), getattr(other, name)) for name in Standing.__struct_fields__}
    if one.trial is not None and other.trial is not None:
        pairs["trial"] = (differing(one.trial, other.trial), {})
    pairs["evidence"] = (one.evidence.get(one.rule), other.evidence.get(one.rule))
    if one.rule == "trap_hit":  # a decision by one pristine hit says that it is enough, and nothing of the rate
        del pairs["evidence"]
    pairs["providers"] = (one.providers.keys(), other.providers.keys())
    for name in one.providers.keys() & other.providers.keys():
        pairs[name] = (differing(one.providers[name], other.providers[name]), {})
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def given_of(what: Any, number: int, now: int, campaign: Campaign, around: Around) -> Given:
    if what in (REFUSES, WELCOMES):
        whole = TOGETHER if what is REFUSES else WELCOMES
        return Given(told(split(now, whole=whole, google=what, yahoo=WELCOMES), campaign), None, campaign, around)
    if isinstance(what, Counts):
        return Given(told(rates(what, now), campaign), None, campaign, around)
    if what in ("healthy", "throttled", "paused"):
        command = asks("isolate", now, number=f"c-{number}", by="policy")
        told_so = msgspec.structs.replace(command, command="ceiling", ceiling=what, source="tenant:shop", at_once=False)
        return Given(None, told_so, campaign, around)
    word, _, how = what.partition("_")
    by_two = {"approved_by": "bob"} if how == "by_two" else {}
    fields = {"until": now + 4 * HOUR, **by_two} if word == "override" else {"at_once": how == ""}
    return Given(None, asks(word, now, number=str(number), **fields), campaign, around)


@settings(max_examples=400, deadline=None)
@given(st.lists(looks, max_size=25))
def test_a_standing_read_from_its_decisions_is_the_one_that_made_them(history: list[Any]) -> None:
    both = Both()
    for number, (later, what, campaign, around) in enumerate(history):
        both.look(later, given_of(what, number, both.now + later, campaign, around))

        assert differing(both.read, both.live) == {}


histories = st.lists(looks, min_size=3, max_size=15)


def decisions_of(history: list[Any]) -> list[Decision]:
    both = Both()
    for number, (later, what, campaign, around) in enumerate(history):
        both.look(later, given_of(what, number, both.now + later, campaign, around))
    return both.decisions


def folded(decisions: list[Decision]) -> Standing | None:
    standing = None
    for one in decisions:
        standing = campaign_as_decided(standing, SCOPE, one)
    return standing


@settings(deadline=None)
@given(histories, st.data())
def test_a_decision_that_comes_again_changes_nothing(history: list[Any], data: st.DataObject) -> None:
    decisions = decisions_of(history)
    again = list(decisions)
    for _ in range(4 if decisions else 0):
        what = data.draw(st.integers(0, len(decisions) - 1))
        after = again.index(decisions[what]) + 1
        again.insert(data.draw(st.integers(after, len(again))), decisions[what])

    assert folded(again) == folded(decisions)


@settings(deadline=None)
@given(st.lists(records(Decision), max_size=6), st.sampled_from(["", TRIAL, "/provider:google"]))
def test_whatever_decisions_say_there_is_a_standing_that_can_be_acted_on(decisions: list[Decision], part: str) -> None:
    standing = start(T0)
    for one in decisions:
        standing = campaign_as_decided(standing, SCOPE, msgspec.structs.replace(one, scope=SCOPE + part))

        assert decode(type(said := control(standing, CAMPAIGN, T0)), encode(said)) == said
        judge(standing, scope=SCOPE, campaign=CAMPAIGN, now=T0, rates=rates(GRAVE))


# -- a table of what is read from single decisions


def decision(rule: str, to: State, *, epoch: int = 5, at: int = T0, **fields: Any) -> Decision:
    return Decision(
        **{
            "scope": SCOPE,
            "campaign": "spring-sale",
            "from_": "healthy",
            "to": to,
            "at": at,
            "epoch": epoch,
            "rule": rule,
            "reason": "so it is",
            **fields,
        }
    )


def test_a_refused_command_and_an_older_decision_move_nothing() -> None:
    held = as_decided(None, decision("hard_bounce", "isolated"))
    assert as_decided(held, decision("refused", "healthy", epoch=6)) == held
    assert as_decided(held, decision("release", "healthy", epoch=4)) == held
    assert campaign_as_decided(held, SCOPE, decision("refused", "healthy", epoch=6), rates(CLEAN)) == held


@pytest.mark.parametrize(
    ("evidence", "to", "ceilings"),
    [
        ({"source": "tenant:shop", "ceiling": "throttled"}, "throttled", {"tenant:shop": "throttled"}),
        ({"source": "tenant:shop", "ceiling": "healthy"}, "healthy", {}),
        ({"source": "tenant:shop", "ceiling": "healthy"}, "throttled", {}),
        ({"source": "tenant:shop", "ceiling": "paused"}, "isolated", {"tenant:shop": "paused"}),
        ({"source": "tenant:shop"}, "throttled", {"tenant:shop": "throttled"}),  # as decisions were written once
        ({"source": "tenant:shop", "ceiling": "nonsense"}, "watched", {}),
    ],
)
def test_what_a_wider_scope_allows_is_read_from_the_evidence(
    evidence: dict[str, Any], to: State, ceilings: dict[str, State]
) -> None:
    held = as_decided(None, decision("ceiling", to, reason="tenant:shop: too much of it", evidence=evidence))
    assert {source: one.state for source, one in held.ceilings.items()} == ceilings
    assert {one.reason for one in held.ceilings.values()} <= {"too much of it"}
    assert (held.state, held.epoch, held.since, in_force_since(held)) == ("healthy", 5, T0, T0)


def test_a_pause_that_nobody_knows_the_end_of_ends_as_the_first_would() -> None:
    held = as_decided(None, decision("block", "paused"))
    _, decisions = judge(held, scope=SCOPE, campaign=CAMPAIGN, now=T0 + PAUSE_MS)
    assert [one.to for one in decisions] == ["throttled"]


@pytest.mark.parametrize("stage", [None, "2", -1, 3, 10**30, 1.5])
def test_a_stage_that_does_not_exist_is_the_first(stage: object) -> None:
    held = as_decided(None, decision("warmed", "throttled", from_="throttled", evidence={"stage": stage}))
    assert (held.state, held.stage) == ("throttled", 0)

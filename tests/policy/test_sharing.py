"""The smallest scope that explains the trouble answers for it: what it answers for is left out of every wider sum."""

from collections.abc import Iterable, Mapping

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.counts import VECTOR, Cells, Rolling, cell_key
from policy.narrowing import answers_of, is_narrowed, without
from policy.sharing import PART, Looked, Member, Parts, Windows, look
from schemas.reputation import Control, Counts, Narrowed, RatesSnapshot, State
from schemas.sending import Campaign, Mailbox, Pace

MINUTE = 29_400_000
NOW = MINUTE * 60_000
IPS = ("192.0.2.1", "192.0.2.2")
SCOPES = ("tenant:shop", "domain:shop.example", *(f"ip:{ip}" for ip in IPS))
WELL = Counts(accepted=1_000, attempts=1_000)
REFUSES = Counts(accepted=200, block=300, deferral=300, attempts=500)
BOUNCES = Counts(accepted=140, hard_bounce=120, block=240, attempts=500)


def campaign(name: str) -> Campaign:
    return Campaign(
        campaign=name,
        tenant="shop",
        from_=Mailbox(address="news@shop.example"),
        return_path_domain="b.shop.example",
    )


def control(name: str, *, system: State = "healthy", **providers: State) -> Control:
    narrowed = {
        provider: Narrowed(may_send=state == "throttled", pace=Pace(), state=state, reason="it refuses")
        for provider, state in providers.items()
    }
    return Control(
        campaign=name,
        epoch=2,
        may_send=True,
        pace=Pace(),
        state=system,
        reason="so",
        at=NOW,
        system=system,
        providers=narrowed,
    )


def counted(places: Mapping[tuple[str, str], Counts]) -> Rolling:
    rolling = Rolling()
    cells: Cells = {
        cell_key(provider, ip): [getattr(counts, name) for name in VECTOR] for (provider, ip), counts in places.items()
    }
    rolling.add(MINUTE, cells)
    return rolling


def member(name: str, said: Control | None = None, **providers: Counts) -> Member:
    rolling = counted({(provider, IPS[0]): counts for provider, counts in providers.items()})
    return Member(campaign(name), said, rolling, 0)


def parts_of(*members: Member) -> dict[str, RatesSnapshot]:
    return {one.scope.removesuffix(f"{PART}0"): one for one in Parts().due(members, NOW)}


def judged(*members: Member) -> Looked:
    """How the tenant of these campaigns is judged."""
    known = {one.campaign.campaign: one.campaign for one in members}
    return look("tenant:shop", None, [parts_of(*members)["tenant:shop"]], known, now=NOW)


def test_a_provider_at_which_one_campaign_is_stopped_does_not_stop_its_tenant() -> None:
    others = [member(name, google=WELL) for name in ("autumn", "winter")]
    assert judged(member("spring", google=WELL, yahoo=REFUSES), *others).after.standing.state == "paused"
    stopped = member("spring", control("spring", yahoo="paused"), google=WELL, yahoo=REFUSES)
    assert judged(stopped, *others).is_nothing


@pytest.mark.parametrize("state", ["throttled", "paused"])
def test_what_else_it_does_at_that_provider_counts(state: State) -> None:
    said = control("spring", yahoo=state)
    found = judged(member("spring", said, google=WELL, yahoo=BOUNCES), member("autumn", google=WELL))
    assert found.decision is not None
    assert (found.decision.rule, found.decision.to) == ("hard_bounce", "throttled")
    assert {one.campaign for one in found.commands} == {"spring", "autumn"}


def test_campaigns_that_a_provider_does_not_want_are_judged_together_until_each_is_narrowed_there() -> None:
    slightly = Counts(accepted=184, block=20, attempts=204)
    names = ("autumn", "spring", "winter")
    assert judged(*(member(name, yahoo=slightly) for name in names)).decision is not None
    assert judged(*(member(name, control(name, yahoo="throttled"), yahoo=slightly) for name in names)).is_nothing


def test_a_part_is_told_at_once_when_a_provider_is_narrowed_and_when_it_comes_back() -> None:
    parts = Parts()
    one = member("spring", google=WELL, yahoo=REFUSES)
    narrowed = control("spring", yahoo="throttled")

    def attempts(said: Control | None, later: int) -> dict[str, int]:
        due = parts.due([Member(one.campaign, said, one.rolling, 0)], NOW + later)
        return {part.scope: part.windows["24h"].attempts for part in due if part.scope.startswith("tenant:")}

    assert list(attempts(None, 0).values()) == [1_500]
    assert list(attempts(narrowed, 10_000).values()) == [1_000]
    assert list(attempts(narrowed, 20_000).values()) == []
    assert list(attempts(control("spring"), 30_000).values()) == [1_500]


@pytest.mark.parametrize(
    ("state", "narrowed"),
    [
        ("healthy", False),
        ("watched", False),
        ("throttled", True),
        ("paused", True),
        ("isolated", True),
        ("retired", True),
    ],
)
def test_which_states_answer_for_themselves(state: State, narrowed: bool) -> None:
    assert is_narrowed(state) is narrowed


# -- laws

PROVIDERS = ("google", "yahoo", "other")
counts = st.builds(
    Counts,
    **{name: st.integers(0, 50) for name in ("accepted", "hard_bounce", "block", "deferral", "complaint", "attempts")},
)
places = st.dictionaries(st.tuples(st.sampled_from(PROVIDERS), st.sampled_from(IPS)), counts, max_size=6)
narrowed_at = st.sets(st.sampled_from(PROVIDERS))


def shares(told: Mapping[tuple[str, str], Counts], narrowed: Iterable[str] = ()) -> dict[str, Windows]:
    said = control("spring", **dict.fromkeys(narrowed, "paused"))
    return {scope: part.windows for scope, part in parts_of(Member(campaign("spring"), said, counted(told), 0)).items()}


@given(places, narrowed_at)
def test_a_sum_is_as_if_nobody_had_been_asked_where_the_campaign_is_narrowed(
    told: dict[tuple[str, str], Counts], narrowed: set[str]
) -> None:
    unasked = {
        place: msgspec.structs.replace(one, block=0, attempts=0) if place[0] in narrowed else one
        for place, one in told.items()
    }
    nothing = dict.fromkeys(("5m", "1h", "24h", "7d"), Counts())
    here, there = shares(told, narrowed), shares(unasked)
    assert {scope: here.get(scope, nothing) for scope in SCOPES} == {
        scope: there.get(scope, nothing) for scope in SCOPES
    }


@given(places, narrowed_at, st.sampled_from(PROVIDERS))
def test_to_narrow_one_more_never_adds_a_block_and_moves_nothing_else(
    told: dict[tuple[str, str], Counts], narrowed: set[str], another: str
) -> None:
    before, after = shares(told, narrowed), shares(told, narrowed | {another})
    assert before.keys() == after.keys()
    for scope, windows in after.items():
        for name, one in windows.items():
            held = before[scope][name]
            assert one.block <= held.block
            assert one.attempts <= held.attempts
            assert msgspec.structs.replace(one, block=0, attempts=0) == msgspec.structs.replace(
                held, block=0, attempts=0
            )


@given(st.lists(counts, max_size=4), counts)
def test_left_out_answers_are_a_sum_and_never_leave_less_than_nothing(parts: list[Counts], whole: Counts) -> None:
    answers = answers_of({"24h": one} for one in parts)
    left = without({"24h": whole, "1h": whole}, answers)
    assert left["1h"] == whole
    assert left["24h"].block == max(0, whole.block - sum(one.block for one in parts))
    assert left["24h"].attempts == max(0, whole.attempts - sum(one.attempts for one in parts))

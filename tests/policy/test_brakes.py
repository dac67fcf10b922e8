"""How many the policy may isolate by itself before it asks a person."""

from policy.brakes import WITHIN_MS, capped, is_pulled
from schemas.reputation import Brake, Control, State
from schemas.sending import Pace

NOW = 1_764_000_000_000


def control(state: State, at: int = NOW - 60_000, by: str = "policy") -> Control:
    return Control(
        campaign="c", epoch=2, may_send=state == "healthy", pace=Pace(), state=state, reason="so", at=at, by=by
    )


def asked(controls: dict[str, Control], recent: dict[str, int] | None = None, campaign: str = "new") -> str | None:
    return capped(controls, campaign=campaign, now=NOW, share=0.2, at_least=3, recent=recent or {})


def fleet(isolated: int, of: int, **fields: object) -> dict[str, Control]:
    return {
        f"c-{number}": control("isolated", **fields) if number < isolated else control("healthy")  # type: ignore[arg-type]
        for number in range(of)
    }


def test_a_fifth_of_all_campaigns_is_the_most() -> None:
    assert asked(fleet(9, 50)) is None
    assert asked(fleet(10, 50)) == ("the policy has isolated 10 of 50 campaigns within an hour, the most it may")


def test_a_small_fleet_has_its_handful() -> None:
    assert asked(fleet(2, 4)) is None
    assert asked(fleet(3, 4)) is not None


def test_what_people_isolated_and_what_is_long_ago_does_not_count() -> None:
    assert asked(fleet(40, 50, by="operator:ann")) is None
    assert asked(fleet(40, 50, at=NOW - WITHIN_MS)) is None


def test_retired_campaigns_make_the_fleet_no_larger() -> None:
    assert asked(fleet(3, 5) | {f"old-{number}": control("retired") for number in range(100)}) is not None


def test_what_was_isolated_just_now_counts_before_its_control_is_heard_of() -> None:
    recent = {f"c-{number}": NOW - 10 for number in range(3)}
    assert asked(fleet(0, 10), recent) is not None
    assert asked(fleet(3, 10), recent) is not None, "and once"
    assert asked(fleet(0, 10), dict.fromkeys(recent, NOW - WITHIN_MS)) is None


def test_a_campaign_does_not_count_against_itself() -> None:
    assert asked(fleet(3, 10), campaign="c-0") is None


def test_a_brake_is_off_until_somebody_pulls_it() -> None:
    brake = Brake(brake="automation", on=True, reason="so", by="ann", at=1)
    assert not is_pulled({}, "automation")
    assert is_pulled({"automation": brake}, "automation")
    assert not is_pulled({"automation": brake}, "sending")
    assert not is_pulled({"automation": Brake(brake="automation", on=False, reason="", by="ann", at=2)}, "automation")

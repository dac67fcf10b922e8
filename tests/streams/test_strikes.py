"""The strikes that a worker remembers."""

from policy.strikes import Strike
from streams.strikes import CAMPAIGNS_REMEMBERED, Strikes

ANN, BOB = "ab" * 32, "cd" * 32


def test_the_newest_of_a_campaign_counts_and_a_tombstone_removes_it() -> None:
    strikes = Strikes()
    assert strikes.apply(ANN, "strike:mailbox_full:a", 1, 9)
    assert strikes.apply(ANN, "strike:mailbox_full:a", 2, 10)
    assert not strikes.apply(ANN, "platform", 2, None)
    assert strikes.of(ANN, "mailbox_full") == [Strike("a", 2)]
    assert (list(strikes.over(9)), list(strikes.over(10))) == ([], [f"{ANN}|strike:mailbox_full:a"])

    strikes.apply(ANN, "strike:mailbox_full:a", None, None)
    strikes.apply(BOB, "strike:mailbox_full:a", None, None)
    assert (strikes.of(ANN, "mailbox_full"), len(strikes)) == ([], 0)


def test_due_are_those_with_enough_campaigns_until_they_are_judged() -> None:
    strikes = Strikes()
    for name in "ab":
        strikes.apply(ANN, f"strike:mailbox_full:{name}", 1, 9)
        strikes.apply(ANN, f"strike:expired:{name}", 1, 9)
        strikes.apply(BOB, f"strike:relay_denied:{name}", 1, 9)
    assert strikes.due(9) == [(BOB, "relay_denied")]  # two will do for that one

    strikes.apply(ANN, "strike:mailbox_full:c", 1, 9)
    assert strikes.due(9) == [(BOB, "relay_denied"), (ANN, "mailbox_full")]
    assert strikes.due(1) == [(BOB, "relay_denied")]

    strikes.judged((ANN, "mailbox_full"))
    strikes.apply(BOB, "strike:relay_denied:a", None, None)
    assert strikes.due(9) == []
    strikes.apply(ANN, "strike:mailbox_full:a", 2, 9)
    assert strikes.due(9) == [(ANN, "mailbox_full")]


def test_of_too_many_the_oldest_are_forgotten() -> None:
    strikes = Strikes(remembered=10)
    for number in range(50):
        for name in "ab":
            strikes.apply(f"{number:064x}", f"strike:relay_denied:{name}", 1, 9)
    for number in range(1_000):
        strikes.apply(ANN, f"strike:relay_denied:{number}", 1, 9)

    assert (len(strikes), len(strikes.of(ANN, "relay_denied"))) == (10, CAMPAIGNS_REMEMBERED)
    assert len(strikes.due(99)) == 10
    assert (f"{0:064x}", "relay_denied") not in strikes.due(99)


def test_a_category_that_nobody_has_is_never_due() -> None:
    strikes = Strikes()
    for name in "abc":
        strikes.apply(ANN, f"strike:nonsense:{name}", 1, 9)

    assert strikes.due(9) == []

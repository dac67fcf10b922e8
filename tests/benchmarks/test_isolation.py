"""The account of ``benchmarks/isolation.py``, which needs no cluster."""

from typing import Any

import pytest

from benchmarks._isolation_account import SIGHTS, Shown, Trial, figures
from k8s import labels


def event(what: str, kind: str = "MODIFIED", *, state: str = "isolated", uid: str = "1") -> dict[str, Any]:
    marks = {labels.CAMPAIGN: "trial-1", labels.STATE: state}
    return {"type": kind, "object": {"kind": what, "metadata": {"annotations": marks, "uid": uid}, "spec": {}}}


def test_a_sender_that_has_never_been_open_is_not_isolated() -> None:
    shown = Shown()
    closed = event("Deployment", state="healthy")
    closed["object"]["spec"]["replicas"] = 0

    shown.take("Deployment", closed, 5)

    assert shown.at == {}


def test_pods_are_gone_when_the_last_of_them_is() -> None:
    shown = Shown()
    for uid in "12":
        shown.take("Pod", event("Pod", "ADDED", uid=uid), 1)
    shown.take("Pod", event("Pod", "DELETED", uid="1"), 2)
    assert shown.at == {}

    shown.take("Pod", event("Pod", "DELETED", uid="2"), 3)

    assert shown.at["trial-1"] == {"pods_gone": 3}


def test_the_first_sight_counts() -> None:
    shown = Shown()
    for at in (7, 9):
        shown.take("NetworkPolicy", event("NetworkPolicy"), at)

    assert shown.at["trial-1"] == {"policy_emptied": 7}


def test_the_guard_is_armed_by_the_decision_and_isolation_said_by_the_condition() -> None:
    shown = Shown()
    campaign = event("Campaign")
    campaign["object"]["spec"] = {"campaign": "trial-1", "decision": {"state": "isolated"}}
    shown.take("Campaign", campaign, 1)
    campaign["object"]["status"] = {"conditions": [{"type": "Isolated", "status": "True"}]}
    shown.take("Campaign", campaign, 2)

    assert shown.at["trial-1"] == {"guard": 1, "isolated": 2}


def trial(**more: Any) -> Trial:
    shown = {sight: 1_100_000 + 10_000 * number for number, sight in enumerate(SIGHTS)}
    return Trial(**{"hit_at": 1_000_000, "decision_at": 1_050_000, "shown": shown, "mail_from": [900_000]} | more)


def test_stages_begin_at_the_decision_and_the_objects_are_the_last_of_them() -> None:
    told = figures([trial()])

    assert (told["event_to_decision_p50_ms"], told["decision_to_guard_p99_ms"]) == (50.0, 50.0)
    assert (told["event_to_replicas_0_p50_ms"], told["event_to_objects_p50_ms"]) == (110.0, 140.0)
    assert told["event_to_last_mail_from_p50_ms"] == 0.0


@pytest.mark.parametrize(
    ("wrong", "failure"),
    [
        ({"mail_from": []}, "was not sending when it was hit"),
        ({"decision_at": None}, "was never isolated"),
        ({"shown": {"guard": 1}}, "never shown: replicas_0, pods_gone, policy_emptied, isolated"),
    ],
)
def test_a_trial_that_shows_nothing_is_no_part_of_the_figures(wrong: dict[str, Any], failure: str) -> None:
    assert trial(**wrong).failure == failure
    assert figures([trial(**wrong)]) == {"trials": 1, "failed": 1}

"""What people see of a decision: the Event's word and sentence, and when the status says it already."""

import json

import msgspec
import pytest

from k8s.objects import Condition, Metadata, Thing, _Spec, _Status
from k8s.patches import Site
from k8s.showing import event_body, is_shown, refusal_body, shown
from schemas.reputation import State
from tests.k8s.builders import NOW, control, spec

SITE = Site()


def campaign(*conditions: tuple[str, str, str], announced: int = 0) -> Thing:
    told = tuple(
        Condition(type=kind, status=status, reason=reason, last_transition_time="2026-01-01T00:00:00Z")
        for kind, status, reason in conditions
    )
    return Thing(
        metadata=Metadata(name="mine", uid="u", generation=4, resource_version="9"),
        spec=_Spec(campaign="spring-sale", replicas=1),
        status=_Status(conditions=told, announced_epoch=announced),
    )


@pytest.mark.parametrize(
    ("before", "state", "word", "kind"),
    [
        (("False", "NotIsolated"), "healthy", "Healthy", "Normal"),
        (("False", "NotIsolated"), "isolated", "Isolated", "Warning"),
        (("False", "NotIsolated"), "throttled", "Throttled", "Warning"),
        (("False", "NotIsolated"), "paused", "Paused", "Warning"),
        (("True", "Isolated"), "watched", "Released", "Normal"),
        (("True", "Isolated"), "throttled", "Released", "Warning"),
        (("False", "Draining"), "watched", "Released", "Normal"),
        (("True", "Isolated"), "isolated", "Isolated", "Warning"),
        (("True", "Isolated"), "retired", "Retired", "Warning"),
    ],
)
def test_the_word_of_an_event(before: tuple[str, str], state: State, word: str, kind: str) -> None:
    told = event_body(control(state, epoch=7), campaign(("Isolated", *before)), namespace="mail", now=NOW)

    assert (told["reason"], told["type"]) == (word, kind)


def test_an_event_is_the_decisions_own_whoever_writes_it() -> None:
    one = event_body(control("isolated", epoch=7, reason="3 trap hits"), campaign(), namespace="mail", now=NOW)
    other = event_body(control("isolated", epoch=7, reason="3 trap hits"), campaign(), namespace="mail", now=NOW + 5000)

    assert one["metadata"] == other["metadata"] == {"name": "mine.7", "namespace": "mail"}
    assert one["message"] == "3 trap hits"
    assert one["involvedObject"]["uid"] == "u"


def test_the_sentence_of_an_event_is_cut_to_what_kubernetes_takes() -> None:
    assert len(refusal_body("x" * 5000, campaign(), namespace="mail", now=NOW)["message"]) == 1024


def told_of(live: Thing, now: int = NOW) -> dict[str, object]:
    left = {"Deployment": "u/g3"}
    return shown(spec(), SITE, control(epoch=7), None, live, left=left, now=now, paused=False)


def after(live: Thing, now: int = NOW) -> Thing:
    """The Campaign when its status was applied."""
    body = json.loads(json.dumps(told_of(live, now)))
    return msgspec.structs.replace(live, status=msgspec.convert(body["status"], _Status))


def test_what_was_applied_is_shown_and_stays_so() -> None:
    live = after(campaign())

    assert is_shown(told_of(live, NOW + 60_000), live), "times stay where the status does"


@pytest.mark.parametrize("changed", ["parts", "announced_epoch", "selector", "sender", "replicas", "conditions"])
def test_whatever_is_missing_of_it_is_not_shown(changed: str) -> None:
    live = after(campaign())
    empty = {"parts": {}, "announced_epoch": 1, "selector": "", "sender": "", "replicas": 9, "conditions": ()}
    less = msgspec.structs.replace(live, status=msgspec.structs.replace(live.status, **{changed: empty[changed]}))

    assert not is_shown(told_of(live), less)


def test_an_announced_epoch_never_goes_back() -> None:
    assert told_of(campaign(announced=9))["status"]["announcedEpoch"] == 9  # type: ignore[index]  # JSON

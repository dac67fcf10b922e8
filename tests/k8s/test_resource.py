"""The resource of a campaign: golden files, nothing lost between record and resource, and what its conditions say."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from k8s import labels, resource
from k8s.cluster import CLOSED_STATES, SenderStatus
from k8s.conditions import Condition, Seen, conditions
from k8s.patches import Body, Site
from k8s.resource import Refused
from policy.naming import sender_name
from schemas.camel import spelled, to_camel
from schemas.custom_resource import definition
from schemas.reputation import Control, Narrowed, State
from schemas.sending import AdmissionPolicy, Campaign, Limits, Mailbox, Pace
from tests.k8s.builders import NOW, campaign, control, spec
from tests.schemas.strategies import records

GOLDEN = Path(__file__).parent / "golden" / "resource"
BASE = Path(__file__).parents[2] / "k8s" / "manifests" / "base"
SITE = Site()
RUNNING = msgspec.structs.replace(control("healthy", epoch=1, reason="first control"), at=0)
WHY = "3 trap hits in 1,204 accepted mails; limit 0.02 %"
ISOLATED = msgspec.structs.replace(control("isolated", epoch=7, reason=WHY), rule="trap_hit")
MADE_HERE = "autumn"

EVERYTHING = Campaign(
    campaign="spring-sale",
    from_=Mailbox(address="news@shop.example", name="Shop"),
    return_path_domain="bounces.shop.example",
    unsubscribe_url="https://u.shop.example/u",
    tenant="shop",
    sending_domains=["shop.example"],
    in_doubt="resend",
    tls="require",
    max_age_s=86_400,
    pace=Pace(per_second=2.5, connections=4),
    limits=Limits(complaint=0.0005, judging="fixed"),
    shadow_limits=Limits(block=0.01),
    pristine_trap="judge",
    admission=AdmissionPolicy(sunset="hold", deny_domains=("example.net",)),
    dry_run=True,
    labels={"team": "growth", "snake_case": "stays"},
)


def status(
    state: str = "healthy", *, epoch: int = 1, wanted: int = 1, running: int = 1, is_open: bool = True, **more: Any
) -> SenderStatus:
    fields = {"campaign": "spring-sale", "name": spec().name, "exists": True, "reason": "", "egress_open": is_open}
    return SenderStatus(**(fields | {"state": state, "epoch": epoch, "wanted": wanted, "running": running} | more))


BODIES: dict[str, Body] = {
    "running": resource.campaign_body(spec(), SITE, RUNNING, EVERYTHING),
    "isolated": resource.campaign_body(spec(), SITE, ISOLATED, campaign()),
    "isolated-unregistered": resource.campaign_body(spec(), SITE, ISOLATED, None),
    "isolated-made-here": resource.campaign_body(spec(), SITE, ISOLATED, campaign(), name=MADE_HERE),
    "status-running": resource.status_body(
        spec(),
        SITE,
        status(leaves_from=frozenset({"192.0.2.7"})),
        RUNNING,
        observed_generation=3,
        now=NOW,
        ready=1,
        egress_address="192.0.2.7",
    ),
    "status-isolated": resource.status_body(
        spec(),
        SITE,
        status("isolated", epoch=7, wanted=0, running=0, is_open=False),
        ISOLATED,
        observed_generation=4,
        now=NOW,
        ready=0,
        name=MADE_HERE,
        automation_paused=True,
    ),
}


@pytest.mark.parametrize("name", BODIES)
def test_the_golden_file(name: str) -> None:
    assert BODIES[name] == json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))


def test_every_golden_file_is_checked() -> None:
    assert {file.stem for file in GOLDEN.glob("*.json")} == set(BODIES)


@pytest.mark.parametrize("name", [name for name in BODIES if "status" not in name])
def test_replicas_and_the_address_are_never_ours(name: str) -> None:
    assert not {"replicas", "egress"} & BODIES[name]["spec"].keys()


@pytest.mark.parametrize("state", get_args(State))
def test_the_labels_that_arm_the_guard_follow_the_decision(state: State) -> None:
    told = resource.campaign_body(spec(), SITE, control(state), campaign())["metadata"]["labels"]

    assert told[labels.STATE] == state
    assert (labels.STOPPED in told) is (state in CLOSED_STATES)
    assert f"sender-{told[labels.CAMPAIGN]}" == sender_name("spring-sale"), "the guard puts the name together so"


def test_a_long_reason_is_cut_so_that_the_resource_takes_it() -> None:
    told = resource.campaign_body(spec(), SITE, control(reason="why " * 1000), None)["spec"]["decision"]

    assert len(told["reason"]) == 1000


# The definition.


def asked(record: Campaign) -> Body:
    """A resource as a person writes it who wants this record."""
    return {"spec": to_camel(record) | {"replicas": 3, "egress": {"address": "192.0.2.7"}}}


@given(records(Campaign))
def test_a_record_comes_back_from_its_resource(record: Campaign) -> None:
    body = resource.campaign_body(spec(record.campaign), SITE, RUNNING, record)

    assert resource.record_of(asked(record)) == record
    assert resource.record_of(body) == record


def test_a_resource_that_says_only_who_sends_is_a_record_with_all_defaults() -> None:
    said = {"campaign": "c", "from": {"address": "a@b.example"}, "returnPathDomain": "b.example"}

    assert resource.record_of({"spec": said}) == Campaign(
        campaign="c", from_=Mailbox(address="a@b.example"), return_path_domain="b.example"
    )


REFUSED = {
    "no_spec": ({"spec": None}, "spec.campaign", "expected `str`, got `null`"),
    "no_sender": ({"spec": {"campaign": "c"}}, "spec.from", "the field is missing"),
    "no_address": ({"from": {}}, "spec.from.address", "the field is missing"),
    "no_campaign": ({"campaign": None}, "spec.campaign", "expected `str`, got `null`"),
    "too_many": ({"pace": {"connections": 1001}}, "spec.pace.connections", "expected `int` <= 1000"),
    "too_short": ({"maxAgeSeconds": 1}, "spec.maxAgeSeconds", "expected `int` >= 60"),
    "of_another_kind": ({"limits": {"hardBounce": "2 %"}}, "spec.limits.hardBounce", "expected `float`, got `str`"),
    "of_many": ({"sendingDomains": ["a", 1]}, "spec.sendingDomains[1]", "expected `str`, got `int`"),
    "no_choice": ({"inDoubt": "guess"}, "spec.inDoubt", "invalid enum value 'guess'"),
    "of_a_later_version": ({"colour": "red"}, "spec.colour", "this version of mailcordon does not know the field"),
    "spelled_as_in_the_topic": (
        {"return_path_domain": "x"},
        "spec.return_path_domain",
        "this version of mailcordon does not know the field",
    ),
}


@pytest.mark.parametrize(("change", "field", "explain"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_wrong_is_said_in_the_resources_words(change: Body, field: str, explain: str) -> None:
    good = {"campaign": "c", "from": {"address": "a@b.example"}, "returnPathDomain": "b.example"}
    thing = change if "spec" in change else {"spec": good | change}

    assert resource.record_of(thing) == Refused(field, explain)


def test_who_owns_the_definition() -> None:
    assert resource.origin_of(BODIES["running"]) == "Topic"
    assert resource.origin_of({"spec": {"campaign": "c"}}) == "Resource"


# Its schema.


def schema() -> dict[str, Any]:
    [version] = yaml.safe_load((BASE / "crd.yaml").read_text(encoding="utf-8"))["spec"]["versions"]
    whole: dict[str, Any] = version["schema"]["openAPIV3Schema"]
    return whole


def strict(of: Any) -> Any:
    """A structural schema as a JSON Schema that refuses what the API server refuses."""
    if not isinstance(of, dict):
        return of
    found = {key: strict(value) for key, value in of.items() if key != "properties"}
    if "properties" in of:
        found["properties"] = {name: strict(one) for name, one in of["properties"].items()}
        found["additionalProperties"] = False
    if found.pop("nullable", False):
        return {"anyOf": [found, {"type": "null"}]}
    return found


SPEC = Draft202012Validator(strict(schema()["properties"]["spec"]))
STATUS = Draft202012Validator(strict(schema()["properties"]["status"]))


def test_the_definition_is_the_one_that_the_record_makes() -> None:
    told = schema()["properties"]["spec"]["properties"]

    assert {name: one for name, one in told.items() if name in definition()} == definition()
    assert {spelled(one.encode_name) for one in msgspec.structs.fields(Campaign)} < told.keys()
    assert told.keys() - definition().keys() == resource._OURS


@given(records(Campaign))
def test_every_record_fits_the_schema(record: Campaign) -> None:
    body = resource.campaign_body(spec(), SITE, RUNNING, record)

    assert [error.message for error in SPEC.iter_errors(body["spec"])] == []


@pytest.mark.parametrize("change", ["too_many", "too_short", "of_another_kind", "of_many", "no_choice", "no_address"])
def test_what_the_codec_refuses_the_schema_refuses(change: str) -> None:
    assert not SPEC.is_valid(to_camel(campaign()) | REFUSED[change][0])


# Conditions.


def told(control: Control, seen: Seen) -> dict[str, tuple[str, str]]:
    return {one.type: (one.status, one.reason) for one in conditions(control, seen, generation=1, now=NOW)}


def seen(status: SenderStatus | None, *, ready: int = 1, **more: Any) -> Seen:
    return Seen(status=status, ready=ready, **more)


DRAINING = status("healthy", epoch=1, wanted=1, running=2)
SHUT = status("isolated", epoch=7, wanted=0, running=0, is_open=False)

READY = {
    "well": (RUNNING, seen(status()), ("True", "Sending")),
    "throttled_and_well": (control("throttled"), seen(status("throttled")), ("True", "Sending")),
    "no_sender": (RUNNING, seen(None, ready=0), ("False", "NotInPlace")),
    "parts_are_missing": (RUNNING, seen(status(exists=False)), ("False", "NotInPlace")),
    "way_out_closed": (RUNNING, seen(status(is_open=False)), ("False", "Opening")),
    "an_older_decision": (control(epoch=2), seen(status()), ("False", "Opening")),
    "half_done": (RUNNING, seen(status(agreed=False)), ("False", "Opening")),
    "nobody_wants_any": (RUNNING, seen(status(wanted=0, running=0), ready=0, wanted=0), ("False", "NoReplicasWanted")),
    "not_all_ready": (RUNNING, seen(status(wanted=3, running=3), ready=1, wanted=3), ("False", "Starting")),
    "pods_are_refused": (
        RUNNING,
        seen(status(wanted=2, refused="exceeded quota: mailcordon"), wanted=2),
        ("False", "PodsRefused"),
    ),
    "refused_once_and_well": (RUNNING, seen(status(refused="exceeded quota: mailcordon")), ("True", "Sending")),
    "paused": (control("paused"), seen(status("paused")), ("False", "Paused")),
    "isolated": (ISOLATED, seen(SHUT, ready=0), ("False", "Isolated")),
    "retired": (control("retired"), seen(None, ready=0), ("False", "Retired")),
}


@pytest.mark.parametrize(("control", "seen", "said"), READY.values(), ids=READY.keys())
def test_ready(control: Control, seen: Seen, said: tuple[str, str]) -> None:
    assert told(control, seen)["Ready"] == said


EDITED = seen(status(), unfit="spec.from.address: has no domain")


def test_an_edit_that_is_not_registered_is_told_by_ready_and_changes_no_status() -> None:
    before = conditions(RUNNING, seen(status()), generation=4, now=NOW)
    ready, *others = conditions(RUNNING, EDITED, generation=5, now=NOW + 1, before=before)

    assert (ready.status, ready.reason, ready.observed_generation) == ("True", "EditRefused", 4)
    assert "spec.from.address: has no domain" in ready.message
    assert RUNNING.reason in ready.message
    assert {one.observed_generation for one in others} == {5}
    assert ready.last_transition_time == before[0].last_transition_time


@pytest.mark.parametrize(("control", "seen", "said"), READY.values(), ids=READY.keys())
def test_where_no_mail_leaves_that_stays_the_reason_and_the_edit_is_in_the_sentence(
    control: Control, seen: Seen, said: tuple[str, str]
) -> None:
    edited = dataclasses.replace(seen, unfit="spec.tenant: is odd")
    ready = conditions(control, edited, generation=1, now=NOW)[0]

    assert (ready.status, ready.reason) == (("True", "EditRefused") if said[0] == "True" else said)
    assert "spec.tenant: is odd" in ready.message


def test_a_mended_edit_is_observed() -> None:
    refused = conditions(RUNNING, EDITED, generation=5, now=NOW)
    ready = conditions(RUNNING, seen(status()), generation=6, now=NOW, before=refused)[0]

    assert (ready.status, ready.reason, ready.observed_generation) == ("True", "Sending", 6)


CLOSING = {
    "open": (RUNNING, status(), ("False", "NotIsolated")),
    "paused": (control("paused"), status("paused"), ("False", "NotIsolated")),
    "mail_in_flight": (ISOLATED, DRAINING, ("False", "Draining")),
    "scaled_to_0_and_finishing": (ISOLATED, status("isolated", epoch=7, wanted=0, running=1), ("False", "Draining")),
    "nothing_runs_and_the_way_is_open": (
        ISOLATED,
        status("isolated", epoch=7, wanted=0, running=0),
        ("False", "Draining"),
    ),
    "replicas_are_wanted": (ISOLATED, status("isolated", epoch=7, running=0, is_open=False), ("False", "Draining")),
    "by_an_older_decision": (
        ISOLATED,
        status("isolated", epoch=6, wanted=0, running=0, is_open=False),
        ("False", "Draining"),
    ),
    "shut": (ISOLATED, SHUT, ("True", "Isolated")),
    "there_is_nothing": (ISOLATED, None, ("True", "Isolated")),
    "retired": (
        control("retired", epoch=8),
        status("retired", epoch=8, wanted=0, running=0, is_open=False),
        ("True", "Retired"),
    ),
}


@pytest.mark.parametrize(("control", "status", "said"), CLOSING.values(), ids=CLOSING.keys())
def test_isolated_only_when_nothing_runs_and_nothing_could_leave(
    control: Control, status: SenderStatus | None, said: tuple[str, str]
) -> None:
    assert told(control, seen(status))["Isolated"] == said


NARROWED = {"google": Narrowed(may_send=False, pace=Pace(), state="paused", reason="turned away")}
THROTTLED = {
    "full": (RUNNING, ("False", "FullPace")),
    "throttled": (control("throttled"), ("True", "Throttled")),
    "at_google": (msgspec.structs.replace(RUNNING, providers=NARROWED), ("True", "AtProviders")),
    "stopped": (ISOLATED, ("False", "Stopped")),
}


@pytest.mark.parametrize(("control", "said"), THROTTLED.values(), ids=THROTTLED.keys())
def test_throttled(control: Control, said: tuple[str, str]) -> None:
    assert told(control, seen(status()))["Throttled"] == said


def test_the_address_is_verified_by_a_sender_that_is_ready() -> None:
    assert told(RUNNING, seen(status()))["EgressIPVerified"] == ("Unknown", "NotAsked")
    here = status(leaves_from=frozenset({"192.0.2.7"}))
    assert told(RUNNING, seen(here, address="192.0.2.7"))["EgressIPVerified"] == ("True", "Verified")
    assert told(RUNNING, seen(here, address="192.0.2.8"))["EgressIPVerified"] == ("False", "NotVerified")
    blind = seen(here, address="192.0.2.7", can_see=False)
    assert told(RUNNING, blind)["EgressIPVerified"] == ("Unknown", "NoMirror")


def test_the_automation_is_paused_by_the_brake_an_override_or_a_dry_run() -> None:
    overridden = msgspec.structs.replace(RUNNING, operator="overridden")

    assert told(RUNNING, seen(status()))["AutomationPaused"] == ("False", "Running")
    assert told(RUNNING, seen(status(), dry_run=True))["AutomationPaused"] == ("True", "DryRun")
    assert told(RUNNING, seen(status(), paused=True, dry_run=True))["AutomationPaused"] == ("True", "Brake")
    assert told(overridden, seen(status()))["AutomationPaused"] == ("True", "Overridden")


def test_the_sentence_is_the_decisions_own() -> None:
    by_type = {one.type: one.message for one in conditions(ISOLATED, seen(SHUT), generation=1, now=NOW)}
    still = {one.type: one.message for one in conditions(ISOLATED, seen(DRAINING), generation=1, now=NOW)}

    assert by_type["Ready"] == by_type["Isolated"] == WHY
    assert still["Isolated"] == f"2 still finish their mail; {WHY}"


def test_a_condition_keeps_its_time_while_its_status_stays() -> None:
    first = conditions(RUNNING, seen(status()), generation=1, now=NOW)
    later = conditions(ISOLATED, seen(SHUT), generation=2, now=NOW + 60_000, before=first)
    times = {one.type: (one.last_transition_time, one.observed_generation) for one in later}

    assert times["Isolated"] == ("2025-11-24T16:01:00.000Z", 2)
    assert times["Throttled"] == ("2025-11-24T16:00:00.000Z", 2), "no longer at full pace, and still not throttled"


STATUSES = st.none() | st.builds(
    status,
    st.sampled_from(get_args(State)),
    epoch=st.integers(1, 3),
    wanted=st.integers(0, 2),
    running=st.integers(0, 2),
    is_open=st.booleans(),
    agreed=st.booleans(),
    exists=st.booleans(),
)
SEEN = st.builds(
    Seen,
    status=STATUSES,
    ready=st.integers(0, 2),
    wanted=st.integers(0, 2),
    address=st.none() | st.just("192.0.2.7"),
    paused=st.booleans(),
    dry_run=st.booleans(),
)
CONTROLS = st.builds(
    lambda state, epoch, why, narrowed: msgspec.structs.replace(
        control(state, epoch=epoch, reason=why), providers=narrowed
    ),
    st.sampled_from(get_args(State)),
    st.integers(1, 3),
    st.text(max_size=1200),
    st.dictionaries(st.text(max_size=8), records(Narrowed), max_size=2),
)
_REASON = re.compile(r"[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?\Z")


@given(CONTROLS, SEEN)
def test_conditions_are_legal_and_do_not_contradict_each_other(control: Control, seen: Seen) -> None:
    by_type = {one.type: one for one in conditions(control, seen, generation=1, now=NOW)}

    assert list(by_type) == ["Ready", "Isolated", "Throttled", "EgressIPVerified", "AutomationPaused"]
    assert all(_REASON.match(one.reason) and len(one.message) <= 2000 for one in by_type.values())
    assert not by_type["Ready"].status == by_type["Isolated"].status == "True"
    if by_type["Isolated"].status == "True":
        assert control.state in CLOSED_STATES
        assert seen.status is None or (seen.status.running, seen.status.wanted, seen.status.egress_open) == (
            0,
            0,
            False,
        )
    if by_type["Ready"].status == "True":
        assert control.may_send
        assert seen.status is not None
        assert (seen.status.epoch, seen.status.egress_open) == (control.epoch, True)


@given(CONTROLS, SEEN, CONTROLS, SEEN)
def test_a_time_moves_exactly_when_a_status_does(one: Control, first: Seen, other: Control, then: Seen) -> None:
    before = conditions(one, first, generation=1, now=NOW)
    after = conditions(other, then, generation=2, now=NOW + 1000, before=before)

    for was, now in zip(before, after, strict=True):
        assert (was.last_transition_time == now.last_transition_time) is (was.status == now.status)


@given(CONTROLS, SEEN)
def test_every_status_fits_the_schema_and_is_read_back(control: Control, seen: Seen) -> None:
    body = resource.status_body(
        spec(), SITE, seen.status, control, observed_generation=1, now=NOW, ready=seen.ready, replicas=seen.wanted
    )["status"]

    assert [error.message for error in STATUS.iter_errors(body)] == []
    assert msgspec.convert(body["conditions"], tuple[Condition, ...]) == conditions(
        control, Seen(status=seen.status, ready=seen.ready, wanted=seen.wanted), generation=1, now=NOW
    )

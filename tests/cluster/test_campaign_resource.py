"""The resource of a campaign on a real API server: what it takes, what it refuses, who owns which field."""

import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from k8s import resource
from k8s.patches import Site
from tests.cluster.conftest import Given, until
from tests.cluster.installed import CAMPAIGNS, install, manifests
from tests.control_plane.plane import ControlPlane
from tests.control_plane.rest import Body, Rest
from tests.k8s.builders import NOW, campaign, control, spec
from tests.k8s.test_resource import EVERYTHING, SHUT, WHY

NAME = spec().name
RUNNING = control("healthy", epoch=3)
ISOLATED = msgspec.structs.replace(control("isolated", epoch=7, reason=WHY), rule="trap_hit", by="operator:kim")
SINCE = "2025-11-24T16:00:00.000Z"
MANAGER = "mailcordon-controller"


@dataclass(frozen=True, slots=True)
class Place:
    """A namespace with the resource in it, and two who write: an administrator and the controller."""

    plane: ControlPlane | Given
    rest: Rest
    controller: Rest
    namespace: str

    @property
    def site(self) -> Site:
        return Site(namespace=self.namespace)

    def path(self, name: str = NAME, part: str = "") -> str:
        return f"{CAMPAIGNS}/namespaces/{self.namespace}/campaigns/{name}{part}"

    async def project(self, told: Any = RUNNING, record: Any = EVERYTHING, *, name: str | None = None) -> Body:
        body = resource.campaign_body(spec(), self.site, told, record, name=name)
        answer = await self.controller.apply(self.path(name or NAME), body, manager=MANAGER)
        return dict(answer.wanted())

    async def tell(self, **more: Any) -> Body:
        fields = {"observed_generation": 1, "now": NOW, "ready": 0} | more
        body = resource.status_body(spec(), self.site, SHUT, ISOLATED, **fields)
        answer = await self.controller.apply(self.path(part="/status"), body, manager=MANAGER)
        return dict(answer.wanted())

    def kubectl(self, *arguments: str, stdin: str = "") -> str:
        return self.plane.run_kubectl(f"--namespace={self.namespace}", *arguments, stdin=stdin)

    @contextlib.contextmanager
    def refused(self, *words: str) -> Iterator[None]:
        with pytest.raises(AssertionError) as said:
            yield
        assert [word for word in words if word not in str(said.value)] == [], str(said.value)


@pytest.fixture
async def place(plane: ControlPlane | Given, rest: Rest, namespace: str) -> AsyncIterator[Place]:
    await install(rest, namespace)
    async with Rest(plane.kubeconfig("controller")) as controller:
        yield Place(plane, rest, controller, namespace)


async def test_the_definition_is_taken_as_it_is(place: Place) -> None:
    [body] = manifests("crd.yaml")
    crd = place.plane.run_kubectl(
        *("apply", "--server-side", "--force-conflicts", "--validate=strict", "--output=json", "--filename=-"),
        stdin=json.dumps(body),
    )

    stored = json.loads(crd)
    assert {one["type"]: one["status"] for one in stored["status"]["conditions"]} == {
        "NamesAccepted": "True",
        "Established": "True",  # and no NonStructuralSchema
    }
    assert stored["spec"]["versions"][0]["schema"] == body["spec"]["versions"][0]["schema"]


async def test_kubectl_tells_state_verdict_since_and_reason(place: Place) -> None:
    await place.project(msgspec.structs.replace(ISOLATED, at=0), campaign())
    await place.tell()

    header, row = place.kubectl("get", "mc").splitlines()

    assert header.split() == ["NAME", "STATE", "VERDICT", "SINCE", "REPLICAS", "REASON"]
    assert row.split(maxsplit=4) == [NAME, "isolated", "trap_hit", "0", WHY]
    await place.project(ISOLATED, campaign())
    header, row = place.kubectl("get", "campaigns", "--output=wide").splitlines()
    assert header.split()[6:] == ["CAMPAIGN", "READY", "ISOLATED", "ADDRESS", "ORIGIN", "BY", "AGE"]
    assert row.split()[3].endswith(("d", "y")), "since the decision, however old the resource is"
    assert row.split(WHY)[1].split()[:-1] == ["spring-sale", "False", "Isolated", "Topic", "operator:kim"]


async def test_it_is_found_by_state_and_by_campaign(place: Place) -> None:
    await place.project(ISOLATED)

    async def found() -> bool:
        asked = ("get", "mc", "--output=name")
        return (
            place.kubectl(*asked, "--field-selector=spec.decision.state=isolated,spec.campaign=spring-sale")
            == place.kubectl(*asked, "--selector=mailcordon.dev/stopped=true")
            == f"campaign.mailcordon.dev/{NAME}\n"
        )

    await until(found, what="found by fields and by label")


async def test_one_may_wait_for_a_condition(place: Place) -> None:
    await place.project(ISOLATED)
    await place.tell()

    assert "condition met" in place.kubectl("wait", "--for=condition=Isolated", "--timeout=10s", f"mc/{NAME}")


GOOD = {"campaign": "autumn", "from": {"address": "news@shop.example"}, "returnPathDomain": "bounces.shop.example"}
NOT_TAKEN = {
    "nobody_sends": ({"campaign": "autumn"}, "a campaign that is made here says who sends"),
    "no_campaign": ({"from": {"address": "news@shop.example"}, "returnPathDomain": "b.example"}, "spec.campaign"),
    "too_many_connections": (GOOD | {"pace": {"connections": 1001}}, "spec.pace.connections"),
    "a_rate_above_one": (GOOD | {"limits": {"complaint": 1.5}}, "spec.limits.complaint"),
    "no_choice": (GOOD | {"inDoubt": "guess"}, "spec.inDoubt"),
    "no_address": (GOOD | {"egress": {"address": "192.0.2"}}, "expected an IPv4 or IPv6 address, such as 192.0.2.7"),
    "no_name": (GOOD | {"egress": {"address": "192.0.2.7", "heloName": "mail_7"}}, "spec.egress.heloName"),
    "negative_replicas": (GOOD | {"replicas": -1}, "spec.replicas"),
    "unknown_field": (GOOD | {"colour": "red"}, 'unknown field "spec.colour"'),
}


@pytest.mark.parametrize(("asked", "words"), NOT_TAKEN.values(), ids=NOT_TAKEN.keys())
async def test_what_is_no_campaign_is_refused(place: Place, asked: Body, words: str) -> None:
    body = {"apiVersion": resource.API_VERSION, "kind": "Campaign", "metadata": {"name": "autumn"}, "spec": asked}

    answer = await place.rest.create(place.path("").rstrip("/"), body, fieldValidation="Strict")

    assert answer.status in {400, 422}
    assert words in answer.message


NOT_CHANGED = {
    "another_campaign": ({"campaign": "autumn"}, "the campaign of a resource never changes"),
    "another_origin": ({"origin": "Resource"}, "origin never changes"),
    "no_decision": ({"decision": None}, "a decision is never taken away"),
    "an_older_decision": (
        {"decision": {"epoch": 6, "state": "isolated", "reason": "late"}},
        "stale decision: its epoch is older than that by which the campaign is isolated",
    ),
    "more_replicas": (
        {"replicas": 5},
        f"campaign spring-sale is isolated since {SINCE}: {WHY}; its replicas are not raised until somebody says",
    ),
}


@pytest.mark.parametrize(("change", "words"), NOT_CHANGED.values(), ids=NOT_CHANGED.keys())
async def test_what_must_not_change_is_refused_in_its_own_words(place: Place, change: Body, words: str) -> None:
    await place.project(ISOLATED)

    answer = await place.rest.merge(place.path(), {"spec": change})

    assert (answer.status, words in answer.message) == (422, True), answer.message


async def test_the_same_decision_again_is_welcome_and_writes_nothing(place: Place) -> None:
    first = await place.project(ISOLATED)
    again = await place.project(ISOLATED)

    assert again["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]


async def test_a_state_may_change_at_the_same_epoch(place: Place) -> None:
    """A sender whose campaign is gone is closed at its own epoch, and opened at it when the campaign is back."""
    for told in (control("healthy", epoch=7), ISOLATED, control("healthy", epoch=7)):
        assert (await place.project(told))["spec"]["decision"]["state"] == told.state


async def test_a_retired_campaign_stays_retired_at_its_epoch(place: Place) -> None:
    await place.project(control("retired", epoch=7))

    with place.refused("stale decision: a retired campaign stays retired"):
        await place.project(control("healthy", epoch=7))
    assert (await place.project(control("isolated", epoch=7)))["spec"]["decision"]["state"] == "isolated"


async def test_replicas_belong_to_whoever_scales_it(place: Place) -> None:
    await place.project()
    await place.tell()

    place.kubectl("scale", "mc", NAME, "--replicas=3")
    await place.project(control("throttled", epoch=4))

    scale = (await place.rest.get(place.path(part="/scale"))).wanted()
    assert scale["spec"]["replicas"] == 3
    assert scale["status"] == {"replicas": 0, "selector": resource.pods_of(spec())}


async def test_an_isolated_campaign_is_scaled_down_and_never_up(place: Place) -> None:
    await place.project()
    place.kubectl("scale", "mc", NAME, "--replicas=3")
    await place.project(ISOLATED)

    place.kubectl("scale", "mc", NAME, "--replicas=1")
    with place.refused("is isolated since", "mailcordon release spring-sale"):
        place.kubectl("scale", "mc", NAME, "--replicas=2")

    assert (await place.rest.get(place.path())).wanted()["spec"]["replicas"] == 1


async def test_a_reason_of_several_lines_is_told_in_one(place: Place) -> None:
    """A message with a line break would be dropped by the API server."""
    await place.project(msgspec.structs.replace(ISOLATED, reason="many\nwords"))

    with place.refused("is isolated since", "many words"):
        place.kubectl("scale", "mc", NAME, "--replicas=2")


async def test_a_definition_that_somebody_edits_is_put_right_with_the_next_apply(place: Place) -> None:
    before = await place.project(record=campaign(labels={"team": "growth"}))
    change = {
        "shadowLimits": {"block": 0.01},
        "labels": {"team": "x", "more": "y"},
        "unsubscribeUrl": "https://u.example",
    }
    edited = (await place.rest.merge(place.path(), {"spec": change})).wanted()

    after = await place.project(record=campaign(labels={"team": "growth"}))

    assert edited["spec"]["labels"] == {"team": "x", "more": "y"}
    assert after["spec"] == before["spec"]


async def test_the_record_comes_back_as_it_was(place: Place) -> None:
    stored = await place.project(record=EVERYTHING)

    assert resource.record_of(stored) == EVERYTHING
    assert resource.origin_of(stored) == "Topic"


async def test_a_persons_campaign_keeps_its_definition_and_gets_the_decision(place: Place) -> None:
    body = {"apiVersion": resource.API_VERSION, "kind": "Campaign", "metadata": {"name": "autumn"}}
    mine = body | {"spec": GOOD | {"campaign": "spring-sale"}}
    place.kubectl("apply", "--filename=-", stdin=json.dumps(mine))

    stored = await place.project(ISOLATED, EVERYTHING, name="autumn")
    place.kubectl("apply", "--filename=-", stdin=json.dumps(mine | {"spec": mine["spec"] | {"tenant": "other"}}))

    after = (await place.rest.get(place.path("autumn"))).wanted()
    assert after["spec"] == stored["spec"] | {"tenant": "other"}
    assert resource.record_of(after) == campaign(tenant="other")
    assert after["spec"]["decision"]["state"] == "isolated"
    assert resource.origin_of(after) == "Resource"


async def test_a_persons_campaign_that_was_deleted_does_not_come_back_as_half_of_one(place: Place) -> None:
    with place.refused("spec.campaign: Required value"):
        await place.project(ISOLATED, name="autumn")


async def test_status_is_the_controllers_and_changes_no_spec(place: Place) -> None:
    before = await place.project()

    after = await place.tell(ready=1, egress_address="192.0.2.7")

    assert after["spec"] == before["spec"]
    assert after["metadata"]["generation"] == before["metadata"]["generation"]
    assert {one["type"]: one["status"] for one in after["status"]["conditions"]} == {
        "Ready": "False",
        "Isolated": "True",
        "Throttled": "False",
        "EgressIPVerified": "False",
        "AutomationPaused": "False",
    }


async def test_a_decision_about_an_unregistered_campaign_is_shown_without_a_definition(place: Place) -> None:
    await place.project()

    stored = await place.project(ISOLATED, None)

    assert stored["spec"].keys() == {"campaign", "origin", "replicas", "decision"}

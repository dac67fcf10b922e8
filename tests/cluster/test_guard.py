"""The guard on a real API server: nothing wakes a stopped sender but a release, and each that tries is told why."""

import asyncio
import copy
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import pytest

from k8s import labels, patches, resource
from k8s.patches import Site
from policy.naming import campaign_name
from schemas.reputation import Control
from tests.cluster.conftest import Given, until
from tests.cluster.installed import CAMPAIGNS, install
from tests.control_plane.plane import ControlPlane
from tests.control_plane.rest import Answer, Body, Rest
from tests.k8s.builders import campaign, control, spec

NAME = spec().name
WHY = "3 trap hits in 1,204 accepted mails; limit 0.02 %"
RUNNING = control("healthy", epoch=6)
ISOLATED = control("isolated", epoch=7, reason=WHY)
RELEASED = control("throttled", epoch=8)
SINCE = "2025-11-24T16:00:00.000Z"
MANAGER = "mailcordon-controller"
BY_CAMPAIGN = (
    f"campaign spring-sale is isolated since {SINCE}: {WHY}; nothing starts or opens its sender until somebody says: "
    "mailcordon release spring-sale"
)
BY_ITSELF = (
    f"Deployment {NAME} is isolated since {SINCE}: {WHY}; it has 0 replicas until somebody says: "
    "mailcordon release spring-sale"
)


@dataclass(frozen=True, slots=True)
class Place:
    """A guarded namespace; an administrator, the controller and a person with edit rights in it."""

    plane: ControlPlane | Given
    admin: Rest
    controller: Rest
    person: Rest
    namespace: str

    @property
    def site(self) -> Site:
        return Site(namespace=self.namespace, image="registry.k8s.io/pause:3.10")

    def path(self, plural: str, name: str = NAME) -> str:
        groups = {
            "deployments": "/apis/apps/v1",
            "networkpolicies": "/apis/networking.k8s.io/v1",
            "campaigns": CAMPAIGNS,
            "horizontalpodautoscalers": "/apis/autoscaling/v2",
        }
        return f"{groups.get(plural, '/api/v1')}/namespaces/{self.namespace}/{plural}/{name}".rstrip("/")

    def campaign(self, told: Control) -> Body:
        return resource.campaign_body(spec(), self.site, told, campaign())

    def deployment(self, told: Control, replicas: int) -> Body:
        body = patches.deployment(spec(), self.site, told, replicas=replicas)
        del body["spec"]["template"]["spec"]["serviceAccountName"]  # it is not what is tested, and has to be made first
        return body

    def policy(self, told: Control, *, is_open: bool) -> Body:
        return patches.network_policy(spec(), self.site, told, is_open=is_open)

    async def apply(self, plural: str, body: Body, by: Rest | None = None) -> Answer:
        return await (by or self.controller).apply(self.path(plural), body, manager=MANAGER)

    async def running(self) -> None:
        (await self.apply("campaigns", self.campaign(RUNNING))).wanted()
        (await self.apply("networkpolicies", self.policy(RUNNING, is_open=True))).wanted()
        (await self.apply("deployments", self.deployment(RUNNING, 1))).wanted()

    async def decided(self) -> None:
        """The decision stands in the resource, and the guard goes by it."""
        (await self.apply("campaigns", self.campaign(ISOLATED))).wanted()

        async def armed() -> bool:
            path = self.path("deployments") + "/scale"
            return not (await self.admin.merge(path, {"spec": {"replicas": 9}}, dryRun="All")).ok

        await until(armed, what="the guard has seen the decision")

    async def isolated(self) -> None:
        await self.running()
        await self.decided()
        (await self.apply("deployments", self.deployment(ISOLATED, 0))).wanted()
        (await self.apply("networkpolicies", self.policy(ISOLATED, is_open=False))).wanted()

        async def settled() -> bool:
            seen = (await self.admin.get(self.path("deployments"))).wanted()
            told = seen.get("status", {})
            return told.get("observedGeneration") == seen["metadata"]["generation"] and not told.get("replicas")

        await until(settled, what="the Deployment has no pods, and its controller writes no more")

    async def replicas(self) -> int:
        return int((await self.admin.get(self.path("deployments"))).wanted()["spec"]["replicas"])

    async def kubectl(self, *arguments: str, stdin: Body | None = None) -> Answer:
        """A command of an administrator, as an answer."""
        try:
            told = await asyncio.to_thread(
                self.plane.run_kubectl, f"--namespace={self.namespace}", *arguments, stdin=json.dumps(stdin or {})
            )
        except AssertionError as complaint:
            return Answer(422, {"message": str(complaint)})
        return Answer(200, {"message": told})


@pytest.fixture
async def place(plane: ControlPlane | Given, rest: Rest, namespace: str) -> AsyncIterator[Place]:
    await install(rest, namespace)
    async with Rest(plane.kubeconfig("controller")) as controller, Rest(plane.kubeconfig("viewer")) as person:
        yield Place(plane, rest, controller, person, namespace)


def manifest(body: Body) -> Body:
    """A Deployment as it stands in somebody's repository: without a word of any decision."""
    plain = copy.deepcopy(body)
    plain["metadata"] = {"name": NAME, "labels": {"app.kubernetes.io/name": "mailcordon"}}
    return plain


# Whoever tries to wake it.


async def kubectl_scale(place: Place) -> Answer:
    return await place.kubectl("scale", "deployment", NAME, "--replicas=1")


async def scale(place: Place) -> Answer:
    return await place.admin.merge(place.path("deployments") + "/scale", {"spec": {"replicas": 1}})


async def patch(place: Place) -> Answer:
    return await place.admin.merge(place.path("deployments"), {"spec": {"replicas": 1}})


async def strategic_patch(place: Place) -> Answer:
    return await place.admin.strategic(place.path("deployments"), {"spec": {"replicas": 2}})


async def apply_the_original(place: Place) -> Answer:
    return await place.kubectl("apply", "--filename=-", stdin=manifest(place.deployment(RUNNING, 1)))


async def replace_by_the_original(place: Place) -> Answer:
    return await place.kubectl("replace", "--filename=-", stdin=manifest(place.deployment(RUNNING, 1)))


async def forced_apply_of_the_original(place: Place) -> Answer:
    return await place.apply("deployments", manifest(place.deployment(RUNNING, 1)), by=place.admin)


async def apply_of_a_fence_from_the_future(place: Place) -> Answer:
    """Somebody who writes annotations of his own, without the right to decide."""
    return await place.apply("deployments", place.deployment(control("healthy", epoch=99), 1), by=place.person)


async def stale_controller(place: Place) -> Answer:
    return await place.apply("deployments", place.deployment(RUNNING, 1))


async def stale_controller_that_isolates(place: Place) -> Answer:
    return await place.apply("deployments", place.deployment(control("isolated", epoch=6), 0))


async def stale_controller_at_the_policy(place: Place) -> Answer:
    return await place.apply("networkpolicies", place.policy(RUNNING, is_open=True))


async def stale_controller_at_the_campaign(place: Place) -> Answer:
    return await place.apply("campaigns", place.campaign(RUNNING))


async def a_fence_taken_away(place: Place) -> Answer:
    return await place.admin.merge(place.path("deployments"), {"metadata": {"annotations": {labels.FENCE: None}}})


async def an_opened_policy(place: Place) -> Answer:
    return await place.admin.merge(place.path("networkpolicies"), {"spec": {"egress": [{}]}})


async def a_policy_that_stops_caring_about_egress(place: Place) -> Answer:
    return await place.admin.merge(place.path("networkpolicies"), {"spec": {"policyTypes": ["Ingress"]}})


async def a_deployment_of_another_name(place: Place) -> Answer:
    body = place.deployment(RUNNING, 1)
    return await place.admin.create(place.path("deployments", ""), body | {"metadata": {"name": "other"}})


async def made_anew_after_a_delete(place: Place) -> Answer:
    (await place.admin.delete(place.path("deployments"))).wanted()
    answer = await place.admin.create(place.path("deployments", ""), manifest(place.deployment(RUNNING, 1)))
    (await place.apply("deployments", place.deployment(ISOLATED, 0))).wanted()
    return answer


async def a_policy_made_anew_after_a_delete(place: Place) -> Answer:
    (await place.admin.delete(place.path("networkpolicies"))).wanted()
    body = place.policy(RUNNING, is_open=True)
    return await place.admin.create(place.path("networkpolicies", ""), body | {"metadata": {"name": NAME}})


async def the_guards_label_taken_away(place: Place) -> Answer:
    return await place.kubectl("label", "mc", NAME, f"{labels.STOPPED}-")


async def the_campaign_deleted_first(place: Place) -> Answer:
    """An administrator may; then the Deployment's own annotations still speak."""
    (await place.admin.delete(place.path("campaigns"))).wanted()
    return await patch(place)


async def another_policy_for_its_pods(place: Place) -> Answer:
    body = place.policy(RUNNING, is_open=True)
    return await place.admin.create(place.path("networkpolicies", ""), body | {"metadata": {"name": "other"}})


STALE = "stale decision: epoch 6 is older than 7"
FENCED = "is fenced by epoch 7, and a fence is never taken away"
NOT_YOURS = "decisions are written by mailcordon's controller alone"
SHUT = (
    f"NetworkPolicy {NAME} is isolated since {SINCE}: {WHY}; it lets nothing out until somebody says: "
    "mailcordon release spring-sale"
)
WAKERS: dict[str, tuple[Callable[[Place], Awaitable[Answer]], str]] = {
    "kubectl_scale": (kubectl_scale, BY_CAMPAIGN),
    "scale_subresource": (scale, BY_CAMPAIGN),
    "merge_patch": (patch, BY_ITSELF),
    "strategic_patch": (strategic_patch, BY_ITSELF),
    "kubectl_apply": (apply_the_original, BY_ITSELF),
    "kubectl_replace": (replace_by_the_original, FENCED),
    "forced_server_side_apply": (forced_apply_of_the_original, FENCED),
    "fence_from_the_future": (apply_of_a_fence_from_the_future, NOT_YOURS),
    "stale_controller": (stale_controller, STALE),
    "stale_controller_that_isolates": (stale_controller_that_isolates, STALE),
    "stale_controller_policy": (stale_controller_at_the_policy, STALE),
    "stale_controller_campaign": (
        stale_controller_at_the_campaign,
        "stale decision: its epoch is older than that by which the campaign is isolated",
    ),
    "fence_taken_away": (a_fence_taken_away, FENCED),
    "policy_opened": (an_opened_policy, SHUT),
    "policy_without_egress": (a_policy_that_stops_caring_about_egress, SHUT),
    "another_name": (a_deployment_of_another_name, BY_CAMPAIGN),
    "made_anew": (made_anew_after_a_delete, BY_CAMPAIGN),
    "policy_made_anew": (a_policy_made_anew_after_a_delete, BY_CAMPAIGN),
    "another_policy": (another_policy_for_its_pods, BY_CAMPAIGN),
    "label_taken_away": (the_guards_label_taken_away, "say what spec.decision says; leave them as they are"),
    "campaign_deleted": (the_campaign_deleted_first, BY_ITSELF),
}


@pytest.mark.parametrize(("attempt", "words"), WAKERS.values(), ids=WAKERS.keys())
async def test_nobody_wakes_an_isolated_sender_and_each_is_told_why(
    place: Place, attempt: Callable[[Place], Awaitable[Answer]], words: str
) -> None:
    await place.isolated()

    answer = await attempt(place)

    assert not answer.ok
    assert words in answer.message
    assert await place.replicas() == 0


# Autoscalers.


def autoscaler(kind: str, version: str) -> Body:
    target = {"apiVersion": version, "kind": kind, "name": NAME}
    utilization = {"type": "Utilization", "averageUtilization": 50}
    metric = {"type": "Resource", "resource": {"name": "cpu", "target": utilization}}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": NAME},
        "spec": {"scaleTargetRef": target, "minReplicas": 2, "maxReplicas": 5, "metrics": [metric]},
    }


async def said_by_the_autoscaler(place: Place, condition: str, reason: str) -> str:
    """Its message, once it is for this reason: its controller needs a moment to learn of a new kind of object."""

    async def told() -> str:
        found = (await place.admin.get(place.path("horizontalpodautoscalers"))).wanted()
        conditions = found.get("status", {}).get("conditions", [])
        said = (condition, "False", reason)
        return next((one["message"] for one in conditions if (one["type"], one["status"], one["reason"]) == said), "")

    return await until(told, what=f"the autoscaler says {condition}=False, {reason}")


async def test_an_autoscaler_does_not_add_replicas_while_the_sender_drains(place: Place) -> None:
    await place.running()
    await place.decided()
    (await place.apply("horizontalpodautoscalers", autoscaler("Deployment", "apps/v1"), by=place.admin)).wanted()

    assert BY_CAMPAIGN in await said_by_the_autoscaler(place, "AbleToScale", "FailedUpdateScale")
    assert await place.replicas() == 1


async def test_an_autoscaler_leaves_an_isolated_sender_alone(place: Place) -> None:
    await place.isolated()
    (await place.apply("horizontalpodautoscalers", autoscaler("Deployment", "apps/v1"), by=place.admin)).wanted()

    assert await said_by_the_autoscaler(place, "ScalingActive", "ScalingDisabled")
    assert await place.replicas() == 0


async def test_an_autoscaler_of_the_campaign_is_told_why_it_may_not(place: Place) -> None:
    await place.isolated()
    status = {"status": {"replicas": 0, "selector": resource.pods_of(spec())}}
    (await place.admin.merge(place.path("campaigns") + "/status", status)).wanted()
    body = autoscaler("Campaign", resource.API_VERSION)
    (await place.apply("horizontalpodautoscalers", body, by=place.admin)).wanted()

    said = await said_by_the_autoscaler(place, "AbleToScale", "FailedUpdateScale")

    assert f"campaign spring-sale is isolated since {SINCE}: {WHY}; its replicas are not raised" in said
    assert (await place.admin.get(place.path("campaigns"))).wanted()["spec"]["replicas"] == 1


# Whatever closes, or changes nothing of it, passes.


async def test_closing_and_everything_else_passes(place: Place) -> None:
    await place.isolated()

    for plural, body in (
        ("campaigns", place.campaign(ISOLATED)),
        ("deployments", place.deployment(ISOLATED, 0)),
        ("networkpolicies", place.policy(ISOLATED, is_open=False)),
    ):
        assert (await place.apply(plural, body)).ok, f"a replay at {plural}"
        label = {"metadata": {"labels": {"team": "growth"}}}
        assert (await place.person.merge(place.path(plural), label)).ok, f"a label at {plural}"
    assert (await place.kubectl("scale", "deployment", NAME, "--replicas=0")).ok
    assert (await place.kubectl("rollout", "restart", f"deployment/{NAME}")).ok
    assert (await place.admin.delete(place.path("deployments"))).ok
    assert (await place.admin.create(place.path("deployments", ""), place.deployment(ISOLATED, 0))).ok


async def test_a_drain_is_not_disturbed(place: Place) -> None:
    """Between decision and scale-down the sender still has replicas, and others may still write to it."""
    await place.running()
    await place.decided()

    assert (await place.person.merge(place.path("deployments"), {"metadata": {"labels": {"team": "growth"}}})).ok
    assert (await place.person.merge(place.path("networkpolicies"), {"metadata": {"labels": {"a": "b"}}})).ok
    assert (await place.kubectl("scale", "deployment", NAME, "--replicas=0")).ok


async def test_other_campaigns_go_on(place: Place) -> None:
    await place.isolated()
    other = place.deployment(RUNNING, 1)
    for words in (other["metadata"]["labels"], other["spec"]["template"]["metadata"]["labels"]):
        words[labels.CAMPAIGN] = campaign_name("autumn")
    other["spec"]["selector"]["matchLabels"][labels.CAMPAIGN] = campaign_name("autumn")
    other["metadata"]["name"] = "sender-autumn"

    made = await place.admin.create(place.path("deployments", ""), other)
    scaled = await place.admin.merge(place.path("deployments", "sender-autumn") + "/scale", {"spec": {"replicas": 3}})

    assert (made.ok, scaled.ok) == (True, True)


async def test_a_release_passes_at_once_and_the_sender_runs(place: Place) -> None:
    """The guard may learn of the newer decision a moment later; what carries its epoch passes meanwhile."""
    await place.isolated()

    for plural, body in (
        ("campaigns", place.campaign(RELEASED)),
        ("networkpolicies", place.policy(RELEASED, is_open=True)),
        ("deployments", place.deployment(RELEASED, 1)),
    ):
        (await place.apply(plural, body)).wanted()

    async def runs() -> bool:
        pods = (await place.admin.get(place.path("pods", ""), labelSelector=resource.pods_of(spec()))).wanted()
        return bool(pods["items"])

    await until(runs, what="a pod of the released sender")
    assert (await place.kubectl("scale", "deployment", NAME, "--replicas=2")).ok


async def test_words_of_several_lines_do_not_silence_the_guard(place: Place) -> None:
    """A message with a line break would be dropped by the API server."""
    told = control("isolated", epoch=7, reason="many\r\nwords")
    await place.running()
    (await place.apply("campaigns", place.campaign(told))).wanted()
    (await place.apply("deployments", place.deployment(told, 0))).wanted()

    answer = await patch(place)

    assert "many  words" in answer.message


# People with edit rights.


async def test_a_person_cannot_decide(place: Place) -> None:
    await place.isolated()
    released = {"epoch": 8, "state": "healthy", "reason": "I say so", "sender": NAME}
    annotations = {labels.FENCE: "8", labels.STATE: "healthy"}

    of_campaign = await place.person.merge(place.path("campaigns"), {"spec": {"decision": released}})
    of_deployment = await place.person.merge(
        place.path("deployments"), {"metadata": {"annotations": annotations}, "spec": {"replicas": 1}}
    )
    of_policy = await place.person.merge(place.path("networkpolicies"), {"metadata": {"annotations": annotations}})
    in_words = await place.person.merge(
        place.path("deployments"), {"metadata": {"annotations": {labels.REASON: "nothing"}}}
    )

    assert "the decision about campaign spring-sale is written by the controller alone" in of_campaign.message
    assert all(NOT_YOURS in one.message for one in (of_deployment, of_policy, in_words))


MINE = {"campaign": "autumn", "from": {"address": "news@shop.example"}, "returnPathDomain": "bounces.shop.example"}
DECIDED = {"epoch": 1, "state": "healthy", "reason": "", "sender": "sender-autumn"}
MADE: dict[str, tuple[Body, dict[str, str], str]] = {
    "well": (MINE, {}, ""),
    "of_the_topic": (MINE | {"origin": "Topic"}, {}, "campaign autumn comes from the topic mail.campaigns"),
    "with_a_decision": (MINE | {"decision": DECIDED}, {labels.STATE: "healthy"}, "is written by the controller alone"),
    "with_a_label": (MINE, {labels.STOPPED: "true"}, "say what spec.decision says; leave them as they are"),
    "with_a_state": (MINE, {labels.STATE: "healthy"}, "say what spec.decision says; leave them as they are"),
}


@pytest.mark.parametrize(("asked", "labelled", "words"), MADE.values(), ids=MADE.keys())
async def test_what_a_person_may_make(place: Place, asked: Body, labelled: dict[str, str], words: str) -> None:
    metadata = {"name": "autumn", "labels": labelled}
    body = {"apiVersion": resource.API_VERSION, "kind": "Campaign", "metadata": metadata, "spec": asked}

    answer = await place.person.create(place.path("campaigns", ""), body)

    assert answer.ok is (not words)
    assert words in answer.message


async def test_a_stopped_campaign_is_deleted_only_with_its_namespace(place: Place) -> None:
    await place.isolated()

    refused = await place.person.delete(place.path("campaigns"))
    (await place.admin.delete(f"/api/v1/namespaces/{place.namespace}")).wanted()

    async def gone() -> bool:
        return (await place.admin.get(place.path("campaigns"))).status == 404

    assert "campaign spring-sale is isolated, and this resource keeps it so: it is not deleted" in refused.message
    await until(gone, what="a namespace that ends takes its campaigns along")


async def test_a_campaign_that_may_send_is_deleted_by_whoever_may_edit(place: Place) -> None:
    await place.running()

    assert (await place.person.delete(place.path("campaigns"))).ok


@pytest.mark.parametrize("change", [{"tenant": "other"}, {"labels": None}, {"limits": {"complaint": 0.5}}], ids=str)
async def test_a_definition_of_the_topic_is_no_persons(place: Place, change: Body) -> None:
    await place.running()

    answer = await place.person.merge(place.path("campaigns"), {"spec": change})

    assert "campaign spring-sale comes from the topic mail.campaigns: register it there anew" in answer.message


async def test_replicas_and_address_are_peoples(place: Place) -> None:
    await place.running()

    asked = {"spec": {"replicas": 2, "egress": {"address": "192.0.2.7", "heloName": "mail7.example.com"}}}

    assert (await place.person.merge(place.path("campaigns"), asked)).ok
    assert (await place.person.merge(place.path("campaigns") + "/scale", {"spec": {"replicas": 3}})).ok
    assert (await place.apply("campaigns", place.campaign(RUNNING))).wanted()["spec"]["replicas"] == 3


async def test_the_controller_may_neither_delete_nor_read_secrets_nor_scale(place: Place) -> None:
    await place.running()

    for plural in ("campaigns", "deployments", "networkpolicies"):
        assert (await place.controller.delete(place.path(plural))).status == 403
    assert (await place.controller.get(place.path("secrets", ""))).status == 403
    assert (await place.controller.merge(place.path("campaigns") + "/scale", {"spec": {"replicas": 3}})).status == 403

"""Edits of a campaign's resource that cannot be registered: told where their maker looks, until he mends them."""

import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from policy.registering import Flaw, flaw_of
from schemas.sending import Campaign
from tests.cluster.conftest import Given, until
from tests.cluster.controlling import CAMPAIGN, NAME, Field, furnished
from tests.control_plane.plane import ControlPlane
from tests.control_plane.rest import Rest
from tests.k8s.builders import Decided, campaign, control

MADE = {
    "apiVersion": "mailcordon.dev/v1alpha1",
    "kind": "Campaign",
    "metadata": {"name": "mine"},
    "spec": {
        "campaign": CAMPAIGN,
        "from": {"address": "news@shop.example"},
        "returnPathDomain": "bounces.shop.example",
    },
}


@dataclass
class Topic:
    """Registers what is made, as the topic and its readers do, without them."""

    truth: Decided
    registered: list[Campaign] = field(default_factory=list)

    def completed(self, made: Campaign) -> Campaign:
        return made

    def flaw(self, made: Campaign) -> Flaw | None:
        return flaw_of(made)

    async def register(self, made: Campaign) -> None:
        self.registered.append(made)
        self.truth.campaigns[made.campaign] = made


@pytest.fixture
async def place(plane: ControlPlane | Given, rest: Rest, namespace: str) -> Field:
    return await furnished(plane, rest, namespace)


def apply(place: Field, name: str = "mine", **spec: Any) -> None:
    """As its maker does it."""
    body = MADE | {"metadata": {"name": name}, "spec": MADE["spec"] | spec}  # type: ignore[operator]  # JSON
    place.plane.run_kubectl(f"--namespace={place.namespace}", "apply", "--filename=-", stdin=json.dumps(body))


async def ready(place: Field, reason: str, name: str = "mine") -> tuple[Any, Any]:
    """The resource and its condition Ready, when that has this reason."""

    async def told() -> tuple[Any, Any] | None:
        live = await place.get("Campaign", name) or {}
        found = [one for one in live.get("status", {}).get("conditions", ()) if one["type"] == "Ready"]
        return (live, found[0]) if found and found[0]["reason"] == reason else None

    answer = await until(told, what=f"Ready says {reason}")
    assert answer is not None
    return answer


async def test_an_edit_that_cannot_be_registered_is_told_until_it_is_mended(place: Field) -> None:
    topic = Topic(place.truth)
    async with place.controller(registrar=topic) as one:
        apply(place)
        await until(lambda: registered(topic, 1), what="registered")
        place.truth.controls[CAMPAIGN] = control(epoch=1)
        one.wake(CAMPAIGN)
        good, _ = await ready(place, "Sending")

        apply(place, returnPathDomain="no domain")
        edited, condition = await ready(place, "EditRefused")
        assert condition["status"] == "True", "mail leaves by what was registered before"
        assert "spec.returnPathDomain: 'no domain' is no domain name" in condition["message"]
        assert edited["metadata"]["generation"] > good["status"]["observedGeneration"]
        assert edited["status"]["observedGeneration"] == good["status"]["observedGeneration"]
        others = {one["observedGeneration"] for one in edited["status"]["conditions"] if one["type"] != "Ready"}
        assert others == {edited["metadata"]["generation"]}, "one may wait for Isolated all the same"

    async with place.controller(registrar=Topic(place.truth)) as one:
        place.truth.controls[CAMPAIGN] = control("throttled", epoch=2, reason="a tenth of the pace")
        one.wake(CAMPAIGN)

        async def follows() -> bool:
            live = await place.get("Campaign", "mine")
            return bool(live["status"]["announcedEpoch"] == 2)

        await until(follows, what="the next decision is told")
        again, condition = await ready(place, "EditRefused")
        assert "a tenth of the pace" in condition["message"]
        assert again["status"]["observedGeneration"] == good["status"]["observedGeneration"]

        apply(place)
        mended, condition = await ready(place, "Sending")
        assert (condition["status"], condition["message"]) == ("True", "a tenth of the pace")
        assert mended["status"]["observedGeneration"] == mended["metadata"]["generation"]
    assert [made.return_path_domain for made in topic.registered] == ["bounces.shop.example"]


async def registered(topic: Topic, count: int) -> bool:
    return len(topic.registered) == count


async def test_a_resource_takes_over_no_campaign_that_the_topic_had_first(place: Field) -> None:
    """Also where nothing of the campaign is shown yet, because nothing is decided about it."""
    topic = Topic(place.truth)
    place.truth.campaigns[CAMPAIGN] = campaign()
    async with place.controller(registrar=topic) as one:
        apply(place, tenant="other")
        await ready(place, "OwnedByTopic")

        place.truth.controls[CAMPAIGN] = control(epoch=1)
        one.wake(CAMPAIGN)
        projected, _ = await ready(place, "Sending", NAME)
        assert (projected["spec"]["origin"], projected["spec"]["tenant"]) == ("Topic", "shop")
        refused, _ = await ready(place, "OwnedByTopic")
        assert "decision" not in refused["spec"]
    assert topic.registered == []


async def test_a_resource_may_be_edited_before_anything_is_decided_also_when_the_controller_was_away(
    place: Field,
) -> None:
    """Its claim is in the resource itself: the next controller does not take its record for somebody else's."""
    topic = Topic(place.truth)
    async with place.controller(registrar=topic):
        apply(place)
        await until(lambda: registered(topic, 1), what="registered")
        await ready(place, "Registering")
    apply(place, tenant="other")

    async with place.controller(registrar=topic):
        await until(lambda: registered(topic, 2), what="the edit is registered")

    assert topic.registered[-1].tenant == "other"

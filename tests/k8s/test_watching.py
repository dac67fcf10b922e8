"""Watches with the fake API server: who is woken, what a look costs, and what happens when a watch cannot go on."""

import asyncio
import contextlib
import dataclasses
import json
from collections.abc import AsyncIterator

import aiohttp
import pytest
import structlog
from aiohttp import web
from kubernetes.aio import client

from k8s import labels
from k8s.api import MAX_LINE, Api
from k8s.cluster import SenderSpec, Temporary, Unfit
from k8s.kubernetes import KubernetesCluster
from k8s.metrics import Metrics
from k8s.patches import Site
from policy.naming import sender_name
from schemas.sending import Campaign
from tests.doubles.fake_api import Called, FakeApi
from tests.k8s.builders import control, spec, until

NAME = sender_name("spring-sale")
REASON = ("metadata", "annotations", labels.REASON)
WATCHED = 7


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("k8s.watching.FIRST_PAUSE_S", 0.001)


class Watched:
    """A controller's cluster with its watches, and whom they have woken."""

    def __init__(self, url: str) -> None:
        settings = client.Configuration()
        settings.host = url
        self.metrics = Metrics()
        self.cluster = KubernetesCluster(Api(client.ApiClient(settings), "mailcordon"), Site(), metrics=self.metrics)
        self.woken: list[str] = []

    async def wakes(self, campaign: str = "spring-sale") -> None:
        await until(lambda: asyncio.sleep(0, campaign in self.woken), what=f"{campaign} is woken", within_s=10)

    def counted(self, name: str, **labelled: str) -> float:
        return self.metrics.registry.get_sample_value(f"mailcordon_controller_{name}_total", labelled) or 0


@contextlib.asynccontextmanager
async def watching(url: str) -> AsyncIterator[Watched]:
    one = Watched(url)
    task = asyncio.create_task(one.cluster.watch(one.woken.append))
    await asyncio.sleep(0)
    await one.cluster.list()
    try:
        yield one
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await one.cluster.close()


@pytest.fixture
async def api() -> AsyncIterator[FakeApi]:
    async with FakeApi() as server:
        yield server


async def settled(api: FakeApi, one: Watched) -> None:
    """Until a sender runs and nothing more happens."""

    async def runs() -> bool:
        there = await one.cluster.read(spec())
        return there is not None and there.ready == there.wanted > 0

    await until(runs, what="it runs")
    for _ in range(5):
        await asyncio.sleep(0.01)
    one.woken.clear()
    api.calls.clear()


async def test_a_look_costs_no_call(api: FakeApi) -> None:
    async with watching(api.url) as one:
        await one.cluster.ensure(spec(), control())
        await settled(api, one)

        await one.cluster.read(spec())
        await one.cluster.list()

        assert [call for call in api.calls if call.verb != "watch"] == []


async def test_what_is_as_it_was_left_is_not_applied_again(api: FakeApi) -> None:
    async with watching(api.url) as one:
        await one.cluster.ensure(spec(), control())
        await one.cluster.show(spec(), control(), paused=False)
        await settled(api, one)
        await one.cluster.show(spec(), control(), paused=False)
        api.calls.clear()

        await one.cluster.ensure(spec(), control())

        assert api.calls == []


async def test_the_next_controller_knows_what_is_as_it_was_left(api: FakeApi) -> None:
    async with watching(api.url) as one:
        await one.cluster.ensure(spec(), control())
        await settled(api, one)
        await one.cluster.show(spec(), control(), paused=False)
    api.calls.clear()

    async with watching(api.url) as second:
        [status] = await second.cluster.list()

        assert status.shape == second.cluster.fingerprint(spec())
        assert second.cluster.shows(spec(), control(), paused=False)
        assert {call.verb for call in api.calls} <= {"list", "watch"}


async def test_what_somebody_changed_while_nobody_watched_is_noticed(api: FakeApi) -> None:
    async with watching(api.url) as one:
        await one.cluster.ensure(spec(), control())
        await settled(api, one)
        await one.cluster.show(spec(), control(), paused=False)
    image = ("spec", "template", "spec", "containers", (("name", "sender"),), "image")
    api.write("deployments", NAME, {image: "evil"}, manager="kubectl")

    async with watching(api.url) as second:
        [status] = await second.cluster.list()

        assert status.shape == ""


async def test_our_own_writes_wake_nobody(api: FakeApi) -> None:
    async with watching(api.url) as one:
        await one.cluster.ensure(spec(), control())
        await settled(api, one)

        await one.cluster.ensure(spec(), control(epoch=2))
        await one.cluster.show(spec(), control(epoch=2), paused=False)
        for _ in range(10):
            await asyncio.sleep(0.005)

        # but for what Deployment and pods do by themselves, which here is nothing: only words have changed
        assert one.woken == []


@pytest.mark.parametrize("resource", ["campaigns", "deployments", "networkpolicies"])
async def test_the_writes_of_others_wake_their_campaign(api: FakeApi, resource: str) -> None:
    async with watching(api.url) as one:
        await one.cluster.ensure(spec(), control())
        await one.cluster.ensure(spec("other"), control(name="other"))
        await settled(api, one)

        api.write(resource, NAME, {REASON: "nothing to see"}, manager="kubectl")

        await one.wakes()
        assert set(one.woken) == {"spring-sale"}


async def test_a_deletion_wakes_its_campaign(api: FakeApi) -> None:
    async with watching(api.url) as one:
        await one.cluster.ensure(spec(), control())
        await settled(api, one)

        api.remove("services", NAME)

        await one.wakes()
        there = await one.cluster.read(spec())
        assert there is not None
        assert not there.exists


async def test_the_end_of_a_pod_wakes_its_campaign(api: FakeApi) -> None:
    async with watching(api.url) as one:
        await one.cluster.ensure(spec(), control())
        await settled(api, one)
        await one.cluster.isolate(spec(), control("isolated", epoch=2))

        await one.wakes()


async def test_before_the_way_out_closes_the_pods_are_asked_for_and_not_remembered(api: FakeApi) -> None:
    async with watching(api.url) as one:
        await one.cluster.ensure(spec(), control())
        await settled(api, one)

        async def shut() -> bool:
            await one.cluster.isolate(spec(), control("isolated", epoch=2))
            there = await one.cluster.read(spec())
            return there is not None and not there.egress_open

        await until(shut, what="the way out is closed")

        made = [(call.verb, call.resource) for call in api.calls if call.verb != "watch"]
        assert made[-2:] == [("list", "pods"), ("patch", "networkpolicies")]


async def test_a_version_that_is_too_old_leads_to_a_list_and_what_differs_is_told(api: FakeApi) -> None:
    async with watching(api.url) as one:
        await one.cluster.ensure(spec(), control())
        await settled(api, one)
        api.oldest = api._version + 1  # every watch ends, and none of their versions is remembered
        api.write("networkpolicies", NAME, {REASON: "nothing to see"}, manager="kubectl")

        await one.wakes()

        assert one.counted("watch_restarts", kind="NetworkPolicy") >= 1


async def test_never_more_than_one_list_of_a_kind_at_a_time(api: FakeApi) -> None:
    open_now: dict[str, int] = {}
    most: dict[str, int] = {}
    listing = Api.list

    async def counted(edge: Api, kind: str, labels: str = "") -> object:
        open_now[kind] = open_now.get(kind, 0) + 1
        most[kind] = max(most.get(kind, 0), open_now[kind])
        try:
            return await listing(edge, kind, labels)  # type: ignore[arg-type]  # passed through
        finally:
            open_now[kind] -= 1

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Api, "list", counted)
        async with watching(api.url) as one:
            api.oldest = api._version + 1
            await asyncio.gather(*(one.cluster.list() for _ in range(5)))

    assert set(most.values()) == {1}


async def test_without_the_right_to_watch_it_goes_on_by_asking_and_says_so(api: FakeApi) -> None:
    api.before_call = lambda call: api.refuse_next(403, when=lambda one: one is call) if call.verb == "watch" else None
    with structlog.testing.capture_logs() as logs:
        async with watching(api.url) as one:
            await until(lambda: asyncio.sleep(0, len(logs) >= WATCHED), what="said of each kind")
            await one.cluster.ensure(spec(), control())

            there = await one.cluster.read(spec())
            assert there is not None
            assert there.epoch == 1
            assert any("crd" in note for note in one.cluster.notes())

    kinds = [event["kind"] for event in logs if event["log_level"] == "warning"]
    assert sorted(kinds) == sorted(set(kinds)), "said once of each"


async def test_an_api_server_that_knows_no_roles_yet_is_no_lack_of_rights(api: FakeApi) -> None:
    """It has just started: for a moment it refuses everybody."""
    async with watching(api.url) as one:
        await one.cluster.ensure(spec(), control())
        await settled(api, one)
        refused: list[Called] = []

        def starting(call: Called) -> None:
            if len(refused) < 2 * WATCHED:
                refused.append(call)
                api.refuse_next(403, when=lambda other: other is call)

        api.before_call = starting
        api.oldest = api._version + 1  # all watches end
        await until(lambda: asyncio.sleep(0, len(refused) >= 2 * WATCHED), what="refused twice each")
        api.write("networkpolicies", NAME, {REASON: "nothing to see"}, manager="kubectl")

        await one.wakes()
        assert one.cluster.notes() == []


async def test_a_write_that_is_answered_ends_the_rest_of_a_broken_watch(
    api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an outage the first write says that the API server is back, and a sender that drains is watched again."""
    monkeypatch.setattr("k8s.watching.FIRST_PAUSE_S", 3600.0)
    monkeypatch.setattr("k8s.watching.LONGEST_PAUSE_S", 3600.0)
    monkeypatch.setattr("k8s.watching.STEADY_S", 0.0)  # every watch was a good one, and begins anew at once
    async with watching(api.url) as one:
        await one.cluster.ensure(spec(), control())
        await settled(api, one)
        broken: list[str] = []

        def away(call: Called) -> None:
            if call.verb == "watch" and call.resource not in broken:
                broken.append(call.resource)
                api.refuse_next(500, when=lambda other: other is call)

        api.before_call = away
        api.oldest = api._version + 1  # all watches end, and fail when they begin anew
        await until(lambda: asyncio.sleep(0, len(broken) == WATCHED), what="all are broken")
        api.oldest = 0

        await one.cluster.isolate(spec(), control("isolated", epoch=2))

        async def shut() -> bool:
            there = await one.cluster.read(spec())
            return there is not None and not there.running

        await until(shut, what="its end was seen")


async def test_an_installation_without_the_resource_is_told_once_and_does_its_work() -> None:
    async with FakeApi(crd=False) as api:
        with structlog.testing.capture_logs() as logs:
            async with watching(api.url) as one:
                await one.cluster.ensure(spec(), control())
                await settled(api, one)
                await one.cluster.show(spec(), control(), paused=False)

                there = await one.cluster.read(spec())
                assert there is not None
                assert there.exists
                assert there.shape == one.cluster.fingerprint(spec())
                assert len(one.cluster.notes()) == 1

    assert [event["kind"] for event in logs if event["log_level"] == "warning"] == ["Campaign"]


MADE = {
    "apiVersion": "mailcordon.dev/v1alpha1",
    "kind": "Campaign",
    "metadata": {"name": "mine"},
    "spec": {
        "campaign": "spring-sale",
        "from": {"address": "news@shop.example"},
        "returnPathDomain": "bounces.shop.example",
    },
}


def unregistered() -> SenderSpec:
    """The sender of a campaign that nobody has registered."""
    return dataclasses.replace(spec(), record=None)


async def made(api: FakeApi) -> None:
    """A person applies a resource."""
    path = f"{api.url}/apis/mailcordon.dev/v1alpha1/namespaces/mailcordon/campaigns/mine?fieldManager=kubectl"
    headers = {"Content-Type": "application/apply-patch+yaml"}
    async with aiohttp.ClientSession() as http, http.patch(path, json=MADE, headers=headers) as answer:
        assert answer.status == 201


async def test_a_resource_that_a_person_made_is_read_and_gets_the_decision(api: FakeApi) -> None:
    async with watching(api.url) as one:
        await made(api)
        await one.wakes()

        record = one.cluster.definition(unregistered())
        assert isinstance(record, Campaign)
        assert record.return_path_domain == "bounces.shop.example"
        assert one.cluster.defined() == ["spring-sale"]
        assert await one.cluster.read(spec()) is None, "nobody has decided anything yet"

        await one.cluster.claim(spec())
        await one.cluster.ensure(spec(), control())

        leaves = api.objects["campaigns", "mailcordon", "mine"].leaves
        assert leaves["spec", "decision"]["state"] == "healthy"
        assert leaves["spec", "from"] == {"address": "news@shop.example"}
        assert ("campaigns", "mailcordon", NAME) not in api.objects


async def test_a_resource_about_a_campaign_of_the_topic_takes_nothing_over(api: FakeApi) -> None:
    """Also before anything of the campaign is shown: its record is known, and nobody here has claimed it."""
    async with watching(api.url) as one:
        await made(api)
        await one.wakes()

        unfit = one.cluster.definition(spec())
        assert isinstance(unfit, Unfit)
        assert unfit.reason == "OwnedByTopic"
        await one.cluster.refuse(spec(), unfit)
        await one.cluster.ensure(spec(), control())
        await one.cluster.show(spec(), control(), paused=False)

        assert api.objects["campaigns", "mailcordon", NAME].leaves["spec", "origin"] == "Topic"
        assert ("spec", "decision") not in api.objects["campaigns", "mailcordon", "mine"].leaves


async def test_a_resource_that_was_claimed_is_so_for_the_next_controller_too(api: FakeApi) -> None:
    async with watching(api.url) as one:
        await made(api)
        await one.wakes()
        await one.cluster.claim(unregistered())

    async with watching(api.url) as one:
        assert isinstance(one.cluster.definition(spec()), Campaign)
        invalid = Unfit("spec.tenant: is odd")
        await one.cluster.refuse(spec(), invalid)
        assert isinstance(one.cluster.definition(spec()), Campaign), "also when an edit of it is refused"
        assert ready(api) == ["Invalid"]
        await one.cluster.claim(spec())
        assert ready(api) == ["Registering"], "and says so when it was mended"


def ready(api: FakeApi) -> list[str]:
    """What the person's resource says of itself."""
    told = api.objects["campaigns", "mailcordon", "mine"].body()["status"]["conditions"]
    return [one["reason"] for one in told if one["type"] == "Ready"]


async def test_who_looked_before_it_was_claimed_refuses_nothing(api: FakeApi) -> None:
    """Two controllers: one has claimed and registered it, the other knows the record and has not seen the claim."""
    async with watching(api.url) as one, watching(api.url) as other:
        await made(api)
        await other.wakes()
        await one.wakes()
        live = other.cluster._reading.made(spec())
        assert live is not None
        await one.cluster.claim(unregistered())

        with pytest.raises(Temporary):
            await other.cluster._refuse(live, Unfit("it is the topic's", "OwnedByTopic"))

    assert [call for call in api.calls if call.resource == "events"] == []


async def test_a_second_resource_about_a_campaign_is_refused_where_its_maker_looks(api: FakeApi) -> None:
    async with watching(api.url) as one:
        await one.cluster.ensure(spec(), control())
        await one.cluster.show(spec(), control(), paused=False)
        await settled(api, one)
        await made(api)
        await one.wakes()

        unfit = one.cluster.definition(spec())
        why = "campaign spring-sale comes from the topic mail.campaigns: use `mailcordon campaign apply`"
        assert unfit == Unfit(why, "OwnedByTopic")
        await one.cluster.refuse(spec(), unfit)
        await one.cluster.refuse(spec(), unfit)

    told = api.objects["campaigns", "mailcordon", "mine"].body()["status"]["conditions"]
    assert [(one["type"], one["status"], one["reason"]) for one in told] == [("Ready", "False", "OwnedByTopic")]
    [event] = [call.body for call in api.calls if call.resource == "events" and call.body][:1]
    assert event is not None
    assert (event["reason"], event["involvedObject"]["name"]) == ("Refused", "mine")


async def test_without_the_right_to_write_events_the_status_is_shown_all_the_same(api: FakeApi) -> None:
    async with watching(api.url) as one:
        await one.cluster.ensure(spec(), control())
        await settled(api, one)
        api.refuse_next(403, when=lambda call: call.resource == "events")

        await one.cluster.show(spec(), control(), paused=False)

        assert one.cluster.shows(spec(), control(), paused=False)


LINES = {
    "no JSON": b"{not json\n",
    "no event": b"[]\n",
    "no object": b'{"type": "ADDED"}\n',
    "a line without end": b'{"type": "ADD',
    "a line that is too long": b'{"type": "' + b"x" * (MAX_LINE + 100_000),
}


@pytest.mark.parametrize("line", LINES.values(), ids=LINES.keys())
async def test_a_line_that_cannot_be_read_begins_the_watch_anew(line: bytes) -> None:
    begun = 0

    async def answer(request: web.Request) -> web.StreamResponse:
        nonlocal begun
        if request.query.get("watch") != "true":
            return web.json_response({"items": [], "metadata": {"resourceVersion": "7"}})
        begun += request.path.endswith("deployments")
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(line)
        return response

    app = web.Application()
    app.router.add_route("GET", "/{path:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    async with watching(f"http://{host}:{port}") as one:
        await until(lambda: asyncio.sleep(0, begun >= 3), what="tried again")

        assert one.woken == []
    await runner.cleanup()


async def test_a_bookmark_moves_the_place_to_go_on_from() -> None:
    asked: list[str] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.query.get("watch") != "true":
            return web.json_response({"items": [], "metadata": {"resourceVersion": "7"}})
        if request.path.endswith("deployments"):
            asked.append(request.query["resourceVersion"])
        bookmark = {"metadata": {"resourceVersion": "99", "creationTimestamp": None}, "spec": {"replicas": None}}
        return web.Response(body=json.dumps({"type": "BOOKMARK", "object": bookmark}) + "\n")

    app = web.Application()
    app.router.add_route("GET", "/{path:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    async with watching(f"http://{host}:{port}"):
        await until(lambda: asyncio.sleep(0, len(asked) >= 2), what="went on")
    await runner.cleanup()

    assert asked[:2] == ["7", "99"]

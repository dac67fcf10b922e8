"""The Kubernetes backend where it can go wrong: others that write, an API that says no, order, and bounds."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import yaml
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from kubernetes.aio import client

from k8s import labels
from k8s.api import TRIES, Api, as_yaml
from k8s.cluster import Permanent, SenderStatus, Stale, Temporary
from k8s.kubernetes import CONFLICTS, KubernetesCluster
from k8s.patches import Site
from policy.naming import sender_name
from tests.doubles.fake_api import Called, FakeApi
from tests.k8s.builders import control, spec, until

NAME = sender_name("spring-sale")
REPLICAS = ("spec", "replicas")


@pytest.fixture
async def api() -> AsyncIterator[FakeApi]:
    async with FakeApi() as server:
        yield server


def controller(url: str, *, namespace: str = "mailcordon", **bounds: float) -> KubernetesCluster:
    settings = client.Configuration()
    settings.host = url
    edge = Api(client.ApiClient(settings), namespace, **bounds)  # type: ignore[arg-type]  # numbers by name
    return KubernetesCluster(edge, Site(namespace=namespace))


@pytest.fixture
async def cluster(api: FakeApi) -> AsyncIterator[KubernetesCluster]:
    one = controller(api.url)
    yield one
    await one.close()


async def status(cluster: KubernetesCluster) -> SenderStatus:
    found = await cluster.read(spec())
    assert found is not None
    return found


async def runs(cluster: KubernetesCluster, replicas: int) -> None:
    async def told() -> bool:
        return (await status(cluster)).running == replicas

    await until(told, what=f"{replicas} running")


async def isolated(cluster: KubernetesCluster, epoch: int = 2) -> None:
    async def shut() -> bool:
        await cluster.isolate(spec(), control("isolated", epoch=epoch))
        there = await status(cluster)
        return not there.running and not there.egress_open

    await until(shut, what="isolated")


def patched(api: FakeApi) -> list[str]:
    return [call.resource for call in api.calls if call.verb == "patch"]


def versions(api: FakeApi) -> dict[tuple[str, str, str], int]:
    """What changes when anybody writes; the status of a Deployment is its controller's."""
    return {
        key: held.generation if key[0] == "deployments" else held.version
        for key, held in api.objects.items()
        if key[0] != "pods"
    }


# What is said.


@given(st.text())
def test_an_apply_says_the_same_as_yaml_and_as_json(text: str) -> None:
    said = as_yaml({"reason": text})

    assert json.loads(said) == yaml.safe_load(said) == {"reason": text}


# Order.


async def test_the_way_out_is_there_before_the_pods(api: FakeApi, cluster: KubernetesCluster) -> None:
    await cluster.ensure(spec(), control())

    assert patched(api)[4:] == ["networkpolicies", "deployments"]
    assert set(patched(api)[1:4]) == {"serviceaccounts", "services", "poddisruptionbudgets"}
    assert patched(api)[0] == "campaigns", "the guard knows of it before anything starts"


async def test_a_release_opens_the_way_out_before_it_starts_pods(api: FakeApi, cluster: KubernetesCluster) -> None:
    await isolated(cluster)
    api.calls.clear()

    await cluster.release(spec(), control(epoch=3))

    assert [one for one in patched(api) if one in {"networkpolicies", "deployments"}] == [
        "networkpolicies",
        "deployments",
    ]


async def test_an_isolation_stops_the_pods_before_it_closes_the_way_out(
    api: FakeApi, cluster: KubernetesCluster
) -> None:
    await cluster.ensure(spec(), control())
    await runs(cluster, 1)
    api.calls.clear()

    await isolated(cluster)

    assert patched(api)[:2] == ["campaigns", "deployments"], "the guard is armed first"
    assert patched(api)[-1] == "networkpolicies"
    assert patched(api).count("networkpolicies") == 1


async def test_a_cut_closes_the_way_out_first(api: FakeApi, cluster: KubernetesCluster) -> None:
    await cluster.ensure(spec(), control())
    await runs(cluster, 1)
    api.calls.clear()

    await cluster.isolate(spec(), control("isolated", epoch=2), cut=True)

    assert patched(api) == ["campaigns", "networkpolicies", "deployments"]


async def test_no_pods_yet_is_not_no_pods(api: FakeApi, cluster: KubernetesCluster) -> None:
    """A Deployment whose controller has not seen the 0 may still start a pod: the way out stays until it has."""
    await cluster.ensure(spec(), control())
    await runs(cluster, 1)
    api.manager_is_down = True
    for key in [key for key in api.objects if key[0] == "pods"]:
        del api.objects[key]

    await cluster.isolate(spec(), control("isolated", epoch=2))

    assert (await status(cluster)).running == 1
    assert (await status(cluster)).egress_open
    api.manager_is_down = False
    await isolated(cluster)


async def test_a_deployment_that_nobody_has_seen_may_still_start_pods(api: FakeApi, cluster: KubernetesCluster) -> None:
    api.manager_is_down = True
    await cluster.ensure(spec(), control())

    await cluster.isolate(spec(), control("isolated", epoch=2))

    assert ((await status(cluster)).running, (await status(cluster)).egress_open) == (1, True)
    api.manager_is_down = False
    await isolated(cluster)


# Others that write.


async def test_applying_the_same_again_changes_no_version(api: FakeApi, cluster: KubernetesCluster) -> None:
    await cluster.ensure(spec(), control())
    before = versions(api)

    await cluster.ensure(spec(), control())
    second = controller(api.url)
    await second.ensure(spec(), control())

    assert versions(api) == before
    await second.close()


@pytest.mark.parametrize("manager", ["kube-controller-manager", "kubectl", "argocd"])
async def test_an_isolated_sender_that_somebody_scales_up_is_stopped_again(
    api: FakeApi, cluster: KubernetesCluster, manager: str
) -> None:
    await isolated(cluster)
    api.write("deployments", NAME, {REPLICAS: 4}, manager=manager)
    await runs(cluster, 4)
    assert (await status(cluster)).wanted == 4

    await isolated(cluster)

    assert (await status(cluster)).wanted == 0


async def test_what_somebody_changes_is_noticed_and_put_right(api: FakeApi, cluster: KubernetesCluster) -> None:
    await cluster.ensure(spec(), control())
    image = ("spec", "template", "spec", "containers", (("name", "sender"),), "image")
    api.write("deployments", NAME, {image: "evil"}, manager="kubectl")
    assert (await status(cluster)).shape == ""

    await cluster.ensure(spec(), control())

    assert api.objects["deployments", "mailcordon", NAME].leaves[image] == Site().image
    assert (await status(cluster)).shape == cluster.fingerprint(spec())


async def test_what_somebody_adds_beside_ours_stays(api: FakeApi, cluster: KubernetesCluster) -> None:
    await cluster.ensure(spec(), control())
    note, owned = ("metadata", "annotations", "team.example/note"), "mesh"
    api.write("deployments", NAME, {note: "keep"}, manager=owned)

    await cluster.ensure(spec(), control(epoch=2))

    assert api.objects["deployments", "mailcordon", NAME].leaves[note] == "keep"


async def test_a_new_controller_looks_once_at_what_it_did_not_make(api: FakeApi, cluster: KubernetesCluster) -> None:
    await cluster.ensure(spec(), control())
    second = controller(api.url)
    assert (await status(second)).shape == "", "nobody knows what happened meanwhile"
    before = versions(api)

    await second.ensure(spec(), control())

    assert (await status(second)).shape == second.fingerprint(spec())
    assert versions(api) == before
    await second.close()


@pytest.mark.parametrize("lost", ["campaigns", "deployments", "networkpolicies"])
async def test_a_deleted_part_does_not_take_the_fence_along(
    api: FakeApi, cluster: KubernetesCluster, lost: str
) -> None:
    await isolated(cluster, epoch=7)
    api.remove(lost, NAME)

    with pytest.raises(Stale):
        await cluster.release(spec(), control(epoch=6))

    assert (lost, "mailcordon", NAME) not in api.objects


@pytest.mark.parametrize(
    "lost", ["campaigns", "deployments", "networkpolicies", "services", "serviceaccounts", "poddisruptionbudgets"]
)
async def test_a_deleted_part_is_made_again(api: FakeApi, cluster: KubernetesCluster, lost: str) -> None:
    await cluster.ensure(spec(), control())
    before = api.state()
    api.remove(lost, NAME)
    assert not (await status(cluster)).exists

    await cluster.ensure(spec(), control())

    assert {k: v for k, v in api.state().items() if "pods" not in k} == {
        k: v for k, v in before.items() if "pods" not in k
    }


async def test_a_newer_decision_that_comes_between_reading_and_writing_wins(
    api: FakeApi, cluster: KubernetesCluster
) -> None:
    await cluster.ensure(spec(), control(epoch=5))
    await runs(cluster, 1)
    fence = ("metadata", "annotations", labels.FENCE)

    def interfere(call: Called) -> None:
        if call.verb == "patch" and call.resource == "deployments":
            api.before_call = None
            api.write("deployments", NAME, {fence: "7", REPLICAS: 0}, manager="mailcordon-controller")

    api.before_call = interfere
    with pytest.raises(Stale) as stale:
        await cluster.ensure(spec(replicas=2), control(epoch=6))

    assert stale.value.fence == 7
    assert api.objects["deployments", "mailcordon", NAME].leaves[REPLICAS] == 0


async def test_a_newer_decision_that_makes_the_object_first_wins(api: FakeApi, cluster: KubernetesCluster) -> None:
    """Both controllers have seen nothing; the one with the older epoch must not write over the newer one's object."""
    other = controller(api.url)
    made = asyncio.Event()

    def interfere(call: Called) -> None:
        if call.verb == "get" and call.resource == "deployments":
            api.before_call = None
            made.set()

    api.before_call = interfere
    slow = Api._call

    async def isolate_first() -> None:
        await made.wait()
        await other.isolate(spec(), control("isolated", epoch=7), cut=True)

    first = asyncio.create_task(isolate_first())

    async def late_apply(edge: Api, *call: object, **arguments: object) -> object:
        if edge is cluster._api and "body" in arguments:
            await first
        return await slow(edge, *call, **arguments)  # type: ignore[arg-type]  # passed through

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Api, "_call", late_apply)
        with pytest.raises(Stale):
            await cluster.ensure(spec(), control(epoch=6))

    there = await status(cluster)
    assert (there.epoch, there.state, there.wanted, there.egress_open) == (7, "isolated", 0, False)
    await other.close()


async def test_an_object_of_others_with_our_labels_is_not_taken_for_a_sender(
    api: FakeApi, cluster: KubernetesCluster
) -> None:
    await cluster.ensure(spec(), control())
    copied = api.objects["deployments", "mailcordon", NAME]
    api.objects["deployments", "mailcordon", "copy"] = copied.updated({}, "kubectl")
    api.objects["deployments", "mailcordon", "copy"].name = "copy"

    assert [one.name for one in await cluster.list()] == [NAME]


# An API that says no.


async def test_conflicts_are_tried_again(api: FakeApi, cluster: KubernetesCluster) -> None:
    api.refuse_next(409, times=CONFLICTS - 1, when=lambda call: (call.verb, call.resource) == ("patch", "deployments"))

    await cluster.ensure(spec(), control())

    assert (await status(cluster)).wanted == 1


async def test_conflicts_without_end_are_a_matter_of_time(api: FakeApi, cluster: KubernetesCluster) -> None:
    api.refuse_next(409, times=50, when=lambda call: call.verb == "patch")

    with pytest.raises(Temporary, match="others wrote"):
        await cluster.ensure(spec(), control())


@pytest.mark.parametrize("code", [401, 408, 429, 500, 503, 504])
async def test_what_may_pass_is_temporary(api: FakeApi, cluster: KubernetesCluster, code: int) -> None:
    api.refuse_next(code, times=99, retry_after_s=0)

    with pytest.raises(Temporary, match="told to refuse"):
        await cluster.read(spec())


@pytest.mark.parametrize("code", [401, 408, 429, 500, 503, 504])
async def test_what_passes_soon_is_not_even_noticed(api: FakeApi, cluster: KubernetesCluster, code: int) -> None:
    api.refuse_next(code, times=TRIES - 1, when=lambda call: call.resource == "deployments", retry_after_s=0)

    await cluster.ensure(spec(), control())

    assert (await status(cluster)).wanted == 1


async def test_an_idle_connection_that_was_closed_is_not_noticed(api: FakeApi, cluster: KubernetesCluster) -> None:
    await cluster.ensure(spec(), control())
    api.die_at = (api.requests + 1, "before")
    reading = asyncio.create_task(cluster.read(spec()))
    await until(lambda: asyncio.sleep(0, api.dead), what="hung up")

    api.revive()

    assert await reading is not None


@pytest.mark.parametrize("code", [400, 403, 405, 413, 415, 422])
async def test_what_will_not_pass_is_permanent(api: FakeApi, cluster: KubernetesCluster, code: int) -> None:
    api.refuse_next(code, when=lambda call: call.verb == "patch")

    with pytest.raises(Permanent, match="told to refuse"):
        await cluster.ensure(spec(), control())


@pytest.mark.parametrize(("header", "delay_s"), [(7, 7.0), (None, 1.0), (0, 0.0)])
async def test_the_patience_that_was_asked_for_is_passed_on(
    api: FakeApi,
    cluster: KubernetesCluster,
    header: int | None,
    delay_s: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("k8s.api.LONGEST_PAUSE_S", 0.5)
    api.refuse_next(429, times=99, retry_after_s=header)

    with pytest.raises(Temporary) as later:
        await cluster.isolate(spec(), control("isolated"))

    assert later.value.retry_after_s == delay_s


async def test_a_long_answer_is_cut(api: FakeApi, cluster: KubernetesCluster) -> None:
    api.refuse_next(422, message="x" * 100_000, when=lambda call: call.verb == "patch")

    with pytest.raises(Permanent) as refused:
        await cluster.ensure(spec(), control())

    assert len(str(refused.value)) < 500


async def test_a_missing_namespace_names_the_fix(api: FakeApi) -> None:
    elsewhere = controller(api.url, namespace="elsewhere")

    with pytest.raises(Permanent, match="elsewhere does not exist"):
        await elsewhere.ensure(spec(), control())
    await elsewhere.close()


async def test_no_server_is_temporary(unused_port: int) -> None:
    lost = controller(f"http://127.0.0.1:{unused_port}")

    with pytest.raises(Temporary, match="does not answer"):
        await lost.read(spec())
    await lost.close()


@pytest.fixture
async def unused_port() -> int:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port: int = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    return port


@contextlib.asynccontextmanager
async def answering(
    answer: Callable[[], web.StreamResponse], *, after: asyncio.Event | None = None
) -> AsyncIterator[str]:
    async def handle(_: web.Request) -> web.StreamResponse:
        if after is not None:
            await after.wait()
        return answer()

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    yield f"http://{host}:{port}"
    await runner.cleanup()


async def test_a_server_that_hangs_is_temporary() -> None:
    never = asyncio.Event()
    async with answering(web.Response, after=never) as url:
        hung = controller(url, timeout_s=0.05)

        with pytest.raises(Temporary, match="TimeoutError"):
            await hung.read(spec())

        never.set()
        await hung.close()


@pytest.mark.parametrize("body", ["", "<html>", "[]", '{"metadata": 3}', '{"kind": "Deployment"}'])
async def test_an_answer_that_is_none_is_temporary(body: str) -> None:
    async with answering(lambda: web.Response(text=body)) as url:
        odd = controller(url)

        with pytest.raises(Temporary, match="cannot be read"):
            await odd.read(spec())
        await odd.close()


async def test_an_error_that_is_no_status_is_told(api: FakeApi) -> None:
    async with answering(lambda: web.Response(status=502, text="<html>bad gateway")) as url:
        odd = controller(url)

        with pytest.raises(Temporary, match="bad gateway"):
            await odd.read(spec())
        await odd.close()


async def test_a_controller_that_is_newer_than_the_definition_shows_the_decision_all_the_same(
    api: FakeApi, cluster: KubernetesCluster
) -> None:
    older = ".spec.limits.something: field not declared in schema"

    def refuse(call: Called) -> None:
        if call.resource == "campaigns" and call.verb == "patch" and "from" in (call.body or {})["spec"]:
            api.refuse_next(500, when=lambda one: one is call, message=older)

    api.before_call = refuse
    await cluster.ensure(spec(), control())
    await isolated(cluster)

    held = api.objects["campaigns", "mailcordon", NAME]
    assert held.leaves[("spec", "decision")]["state"] == "isolated"
    assert cluster.shows(spec(), control("isolated", epoch=2), paused=False) is False
    await cluster.show(spec(), control("isolated", epoch=2), paused=False)
    assert cluster.shows(spec(), control("isolated", epoch=2), paused=False)
    assert ["older version" in note for note in cluster.notes()] == [True]


@pytest.mark.parametrize("code", [422, 403])
async def test_the_guards_word_on_an_old_decision_is_stale(api: FakeApi, cluster: KubernetesCluster, code: int) -> None:
    said = "ValidatingAdmissionPolicy 'mailcordon-fence' denied request: stale decision: epoch 1 is older than 2"
    api.refuse_next(code, when=lambda call: call.verb == "patch", message=said)

    with pytest.raises(Stale, match="older than 2"):
        await cluster.ensure(spec(), control())


async def test_what_the_guard_does_not_let_pass_yet_may_pass_later(api: FakeApi, cluster: KubernetesCluster) -> None:
    said = "ValidatingAdmissionPolicy 'mailcordon-stopped' denied request: campaign spring-sale is isolated"
    api.refuse_next(422, when=lambda call: call.resource == "deployments", message=said)

    with pytest.raises(Temporary, match="not let this pass yet"):
        await cluster.release(spec(), control())

    await cluster.release(spec(), control())
    assert (await status(cluster)).wanted == 1


async def test_what_goes_wrong_with_the_campaign_keeps_no_sender_open(api: FakeApi, cluster: KubernetesCluster) -> None:
    await cluster.ensure(spec(), control())
    await runs(cluster, 1)
    api.refuse_next(422, times=99, when=lambda call: call.verb == "patch" and call.resource == "campaigns")

    async def shut() -> bool:
        with pytest.raises(Permanent, match="told to refuse"):
            await cluster.isolate(spec(), control("isolated", epoch=2))
        there = await status(cluster)
        return there.wanted == there.running == 0 and not there.egress_open

    await until(shut, what="closed all the same")


# Bounds.


async def test_no_more_is_in_flight_than_allowed(api: FakeApi) -> None:
    narrow = controller(api.url, in_flight=3)
    api.answer_after_s = 0.002

    await asyncio.gather(*(narrow.ensure(spec(f"c{n}"), control(name=f"c{n}")) for n in range(8)))

    assert 1 < api.most_in_flight <= 3
    await narrow.close()


async def test_lists_are_read_to_their_end(api: FakeApi, cluster: KubernetesCluster) -> None:
    names = {f"c{n}" for n in range(7)}
    await asyncio.gather(*(cluster.ensure(spec(name), control(name=name)) for name in names))
    api.page = 2

    assert {one.campaign for one in await cluster.list()} == names


async def test_a_list_costs_one_call_per_kind(api: FakeApi, cluster: KubernetesCluster) -> None:
    await asyncio.gather(*(cluster.ensure(spec(f"c{n}"), control(name=f"c{n}")) for n in range(5)))
    api.calls.clear()

    await cluster.list()

    assert sorted(call.resource for call in api.calls) == [
        "campaigns",
        "deployments",
        "networkpolicies",
        "poddisruptionbudgets",
        "pods",
        "serviceaccounts",
        "services",
    ]


# Finding the API.


async def test_a_kubeconfig_file_leads_to_the_api(api: FakeApi, tmp_path: Path) -> None:
    file = tmp_path / "kubeconfig"
    named = {"name": "it", "cluster": {"server": api.url}}
    context = {"name": "it", "context": {"cluster": "it", "user": "me"}}
    users = [{"name": "me", "user": {"token": "t"}}]
    whole = {"clusters": [named], "contexts": [context], "users": users, "current-context": "it"}
    file.write_text(json.dumps({"apiVersion": "v1", "kind": "Config", **whole}), encoding="utf-8")

    cluster = await KubernetesCluster.connect(Site(), kubeconfig=str(file))

    assert await cluster.read(spec()) is None
    await cluster.close()


@pytest.mark.parametrize(
    ("kubeconfig", "said"), [(None, "service account"), ("/no/such/file", "/no/such/file")], ids=["pod", "file"]
)
async def test_no_way_to_the_api_is_told(kubeconfig: str | None, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)

    with pytest.raises(Permanent, match=said):
        await KubernetesCluster.connect(Site(), kubeconfig=kubeconfig)

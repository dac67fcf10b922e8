"""The manifests as a real API server takes them: every field known, pods admitted, rights as written down.

Kinds of other projects are tried where the cluster knows them; ``test_foreign_resources.py`` makes ours know them.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from cli.manifests import manifests
from k8s import labels, patches
from k8s.patches import Site
from tests.cluster.conftest import Given
from tests.cluster.kustomized import MANIFESTS, Body, Cluster, documents, namespaced
from tests.control_plane.plane import ControlPlane
from tests.k8s.builders import control, spec

GOLDEN = Path(__file__).parent / "golden"
CAMPAIGN = {
    "campaign": "spring-sale",
    "tenant": "shop",
    "from": {"address": "news@shop.example"},
    "return_path_domain": "bounces.shop.example",
}


@pytest.fixture(scope="module")
def cluster(plane: ControlPlane | Given, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The base in a namespace of its own, with roles that nobody starts."""
    with namespaced(plane) as one:
        replicas = [{"name": f"mailcordon-{role}", "count": 0} for role in ("worker", "controller", "return-path")]
        one.apply(one.rendered("base", tmp_path_factory.mktemp("base"), replicas=replicas))
        yield one


def known_here(cluster: Cluster, bodies: list[Body]) -> list[Body]:
    """Without the kinds whose definitions this cluster does not have; ours are always there."""
    listed = cluster("get", "customresourcedefinitions", "-o", "json")
    groups = {one["spec"]["group"] for one in json.loads(listed)["items"]}
    builtin = {"", "apps", "policy", "autoscaling", "mailcordon.dev"}

    def is_known(body: Body) -> bool:
        group = body["apiVersion"].rpartition("/")[0]
        return group in builtin | groups or group.endswith(".k8s.io")

    return [body for body in bodies if is_known(body)]


def moved(cluster: Cluster, bodies: list[Body]) -> list[Body]:
    """Into the test's namespace.  Kustomize cannot: an overlay with two namespaces would put all into one."""
    text = json.dumps(bodies)
    ours = text.replace('"namespace": "mailcordon"', f'"namespace": "{cluster.namespace}"')
    found: list[Body] = json.loads(ours)
    return found


@pytest.mark.parametrize("overlay", ["base", "overlays/kind", "overlays/production"])
def test_every_object_of_an_overlay_is_taken_strictly(cluster: Cluster, overlay: str) -> None:
    rendered = documents(cluster("kustomize", str(MANIFESTS / overlay)))
    bodies = moved(cluster, known_here(cluster, rendered))

    taken = cluster.apply(yaml.safe_dump_all(bodies), "--dry-run=server")

    assert taken.count("serverside-applied (server dry run)") == len(bodies)
    assert len(bodies) > 25


def test_a_field_that_nobody_knows_is_refused(cluster: Cluster) -> None:
    body = patches.service(spec(), Site(namespace=cluster.namespace))
    body["spec"]["sesionAffinity"] = "None"

    assert "sesionAffinity" in cluster.refusal(
        "apply", "--server-side", "--validate=strict", "--dry-run=server", "-f", "-", stdin=json.dumps(body)
    )


def test_what_a_campaign_owns_is_taken_strictly_as_it_is_printed(cluster: Cluster, tmp_path: Path) -> None:
    file = tmp_path / "campaign.json"
    file.write_text(json.dumps(CAMPAIGN), encoding="utf-8")
    printed = CliRunner().invoke(manifests, ["spring-sale", "--file", str(file), "--namespace", cluster.namespace])

    taken = cluster.apply(printed.stdout, "--dry-run=server")

    assert taken.count("serverside-applied (server dry run)") == 6


# Restricted.


def pods(cluster: Cluster, tmp_path: Path) -> dict[str, Body]:
    """A pod of each role, of the kind overlay's others and of a sender, made from their templates."""
    rendered = documents(cluster.rendered("overlays/kind", tmp_path / "manifests"))
    sender = patches.deployment(spec(), Site(namespace=cluster.namespace), control(), replicas=1)
    account = patches.service_account(spec(), Site(namespace=cluster.namespace))
    cluster.apply(json.dumps(account))
    return {
        one["metadata"]["name"]: {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": one["spec"]["template"]["metadata"] | {"name": f"pod-of-{one['metadata']['name']}"},
            "spec": one["spec"]["template"]["spec"],
        }
        for one in (*rendered, sender)
        if one["kind"] in {"Deployment", "StatefulSet"}
    }


def test_pods_of_every_role_and_of_senders_are_admitted_where_restricted_is_enforced(
    cluster: Cluster, tmp_path: Path
) -> None:
    switched = json.loads(cluster("get", "namespace", cluster.namespace, "-o", "json"))["metadata"]["labels"]
    assert switched["pod-security.kubernetes.io/enforce"] == "restricted"
    found = pods(cluster, tmp_path)
    assert found.keys() == {
        "mailcordon-worker",
        "mailcordon-controller",
        "mailcordon-return-path",
        "mailcordon-providers",
        "kafka",
        spec().name,
    }

    for body in found.values():
        assert cluster("create", "--dry-run=server", "-f", "-", "-o", "name", stdin=json.dumps(body))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"hostNetwork": True}, "host namespaces"),
        ({"securityContext": {}}, "runAsNonRoot"),
        ({"volumes": [{"name": "keys", "hostPath": {"path": "/"}}]}, "restricted volume types"),
    ],
)
def test_a_pod_that_could_do_more_is_refused(
    cluster: Cluster, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    body = pods(cluster, tmp_path)["mailcordon-worker"]
    if "volumes" in change:
        change = {"volumes": [*body["spec"]["volumes"], {"name": "host", "hostPath": {"path": "/"}}]}
    body["spec"] |= change

    refused = cluster.refusal("create", "--dry-run=server", "-f", "-", stdin=json.dumps(body))

    assert 'violates PodSecurity "restricted' in refused
    assert said in refused


# Drains.


@pytest.fixture
def without_replacements(cluster: Cluster) -> Iterator[Callable[[], None]]:
    """No pod is made any more once it is called, as on a cluster that is full."""

    def fill() -> None:
        cluster("create", "quota", "full", "--hard=pods=0")
        holds = ("get", "resourcequota", "full", "-o", "jsonpath={.status.hard.pods}")
        cluster.until(lambda: cluster(*holds) == "0", what=lambda: "the quota holds")

    yield fill
    cluster("delete", "resourcequota", "full", "--ignore-not-found")


@pytest.mark.usefixtures("own_plane")
@pytest.mark.parametrize("replicas", [1, 3])
def test_a_drain_takes_one_pod_of_a_sender_and_waits_for_another(
    cluster: Cluster, replicas: int, without_replacements: Callable[[], None]
) -> None:
    one = spec(f"drained-{replicas}")
    site = Site(namespace=cluster.namespace, image="registry.example/pause:1")
    bodies = [
        patches.service_account(one, site),
        patches.pod_disruption_budget(one, site),
        patches.deployment(one, site, control(name=one.campaign), replicas=replicas),
    ]
    cluster.apply(yaml.safe_dump_all(bodies))
    budget = ("get", "poddisruptionbudget", one.name, "-o", "jsonpath={.status.currentHealthy}")
    cluster.until(lambda: cluster(*budget) == str(replicas), what=lambda: cluster("get", "pods"))
    chosen = f"{labels.CAMPAIGN}={patches.selector(one)[labels.CAMPAIGN]}"
    names = cluster("get", "pods", "-l", chosen, "-o", "jsonpath={.items[*].metadata.name}").split()

    without_replacements()

    refused = [evicted(cluster, name) for name in names]

    assert len([said for said in refused if not said]) == 1
    assert all("disruption budget" in said for said in refused if said)


def evicted(cluster: Cluster, pod: str) -> str:
    """Ask for a pod's eviction, as a drain of its node does; why not, if it is refused."""
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": cluster.namespace}}
    path = f"/api/v1/namespaces/{cluster.namespace}/pods/{pod}/eviction"
    return cluster.refusal("create", "--raw", path, "-f", "-", stdin=json.dumps(body))


# Rights.


def rights(cluster: Cluster, account: str) -> list[str]:
    """What ``kubectl auth can-i --list`` tells of an account, without what everybody may."""
    user = f"system:serviceaccount:{cluster.namespace}:{account}"
    groups = ["--as-group=system:serviceaccounts", "--as-group=system:authenticated"]
    listed = cluster("auth", "can-i", "--list", f"--as={user}", *groups, "--no-headers").splitlines()
    rows = (line.rstrip("]").rpartition("[") for line in listed)
    return sorted(f"{' '.join(what.split())} {' '.join(sorted(verbs.split()))}" for what, _, verbs in rows)


@pytest.fixture(scope="module")
def identities(cluster: Cluster) -> list[str]:
    """The base's accounts, a sender's, and two that have one of the controller's roles each."""
    sender = patches.service_account(spec(), Site(namespace=cluster.namespace))
    cluster.apply(json.dumps(sender))
    for role in ("mailcordon-reconciler", "mailcordon-deployer"):
        cluster("create", "serviceaccount", role)
        who = f"--serviceaccount={cluster.namespace}:{role}"
        cluster("create", "rolebinding", f"alone-{role}", f"--role={role}", who)
    return [
        "mailcordon-controller",
        "mailcordon-reconciler",
        "mailcordon-deployer",
        "mailcordon-worker",
        "mailcordon-return-path",
        sender["metadata"]["name"],
    ]


def test_rights_are_as_written_down(cluster: Cluster, identities: list[str]) -> None:
    everybody = rights(cluster, "nobody")
    found = {name: [line for line in rights(cluster, name) if line not in everybody] for name in identities}

    assert found == json.loads((GOLDEN / "rights.json").read_text(encoding="utf-8"))


def test_workers_return_paths_and_senders_may_nothing(identities: list[str]) -> None:
    found = json.loads((GOLDEN / "rights.json").read_text(encoding="utf-8"))

    assert {name for name in identities if not found[name]} == {*identities[3:]}


@pytest.mark.parametrize("verb", ["get", "list", "watch"])
def test_nobody_of_ours_reads_secrets(cluster: Cluster, identities: list[str], verb: str) -> None:
    for name in identities:
        user = f"--as=system:serviceaccount:{cluster.namespace}:{name}"
        assert "ended with 1" in cluster.refusal("auth", "can-i", verb, "secrets", user)

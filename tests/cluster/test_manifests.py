"""The manifests as a real API server takes them: every field known, pods admitted, rights as written down.

Kinds of other projects are tried where the cluster knows them; elsewhere ``tests/k8s/test_overlays.py`` looks at them.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from cli.manifests import manifests
from k8s import patches
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
    """A pod of each role and of a sender, made from its Deployment's template."""
    rendered = documents(cluster.rendered("base", tmp_path / "manifests"))
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
        if one["kind"] == "Deployment"
    }


def test_pods_of_every_role_and_of_senders_are_admitted_where_restricted_is_enforced(
    cluster: Cluster, tmp_path: Path
) -> None:
    labels = json.loads(cluster("get", "namespace", cluster.namespace, "-o", "json"))["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    found = pods(cluster, tmp_path)
    assert len(found) == 4

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

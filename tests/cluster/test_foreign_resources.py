"""What we write for KEDA, the Prometheus operator, Strimzi and Cilium, as an API server takes it by their definitions.

No operator of theirs runs here: a definition knows fields, types and rules of values, and not what an operator makes
of them.  Objects of OVN-Kubernetes and Antrea are looked at by ``tests/k8s/test_egress_addresses.py`` alone: their
definitions are published nowhere that a build of ours takes anything from.
"""

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from cli.manifests import manifests
from tests.cluster.conftest import Given
from tests.cluster.kustomized import Body, Cluster, documents, namespaced
from tests.control_plane import definitions
from tests.control_plane.golang import Unavailable
from tests.control_plane.plane import ControlPlane
from tests.k8s.test_overlays import whole

KINDS = {
    "ScaledObject": 2,
    "TriggerAuthentication": 1,
    "PodMonitor": 1,
    "Kafka": 1,
    "KafkaNodePool": 2,
    "KafkaUser": 1,
    "CiliumEgressGatewayPolicy": 2,
}
"""How many objects of each kind we write."""


def is_foreign(body: Body) -> bool:
    """Of a group that is neither of Kubernetes, which has no domain or that of k8s.io, nor ours."""
    group = body["apiVersion"].rpartition("/")[0]
    return "." in group and not group.endswith((".k8s.io", "mailcordon.dev"))


@contextmanager
def known(cluster: Cluster, folder: Path) -> Iterator[None]:
    """The cluster knows the kinds that a folder defines, for as long as the context lasts."""
    files = [f"--filename={file}" for file in sorted(folder.glob("*.yaml"))]
    cluster("apply", "--server-side", *files)
    try:
        cluster("wait", "--for=condition=Established", "--timeout=30s", *files)
        yield
    finally:
        cluster("delete", "--timeout=30s", *files)


@pytest.fixture(scope="module")
def cluster(plane: ControlPlane | Given) -> Iterator[Cluster]:
    """A namespace, where the kinds of all projects but Strimzi are known."""
    if not isinstance(plane, ControlPlane):
        pytest.skip("defines kinds for the whole cluster, and removes them: only on our own control plane")
    with namespaced(plane) as one, known(one, definitions.from_go()):
        yield one


@pytest.fixture(scope="module")
def strimzi(cluster: Cluster) -> Iterator[None]:
    """Strimzi's kinds are known as well."""
    try:
        folder = definitions.from_strimzi()
    except Unavailable as why:
        pytest.skip(str(why))
    with known(cluster, folder):
        yield


@pytest.fixture(scope="module")
def written(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> list[Body]:
    """Every object that we write of a kind of somebody else's, in the test's namespace."""
    text = cluster("kustomize", str(whole(tmp_path_factory.mktemp("production"))))
    told = ["spring-sale", "--egress", "cilium", "--address", "192.0.2.7", "--address", "2001:db8::7"]
    addresses = CliRunner().invoke(manifests, [*told, "--namespace", cluster.namespace])
    bodies = [*documents(text), *documents(addresses.stdout)]
    foreign = [one for one in bodies if is_foreign(one)]
    for one in foreign:
        if "namespace" in one["metadata"]:
            one["metadata"]["namespace"] = cluster.namespace
    return foreign


@pytest.fixture(params=KINDS)
def objects(request: pytest.FixtureRequest, written: list[Body]) -> list[Body]:
    """Those of one kind."""
    if request.param.startswith("Kafka"):
        request.getfixturevalue("strimzi")
    return [one for one in written if one["kind"] == request.param]


def test_no_kind_of_somebody_else_is_left_out(written: list[Body]) -> None:
    found = [one["kind"] for one in written]

    assert {kind: found.count(kind) for kind in found} == KINDS


def test_every_object_is_taken_strictly(cluster: Cluster, objects: list[Body]) -> None:
    taken = cluster.apply(yaml.safe_dump_all(objects), "--dry-run=server")

    assert taken.count("serverside-applied (server dry run)") == len(objects) > 0


def test_a_field_that_the_definition_does_not_have_is_refused(cluster: Cluster, objects: list[Body]) -> None:
    for body in objects:
        wrong = body | {"spec": body["spec"] | {"mispelt": "field"}}

        assert ".spec.mispelt" in cluster.refusal(
            "apply", "--server-side", "--validate=strict", "--dry-run=server", "-f", "-", stdin=json.dumps(wrong)
        )


@pytest.mark.usefixtures("strimzi")
def test_a_right_that_kafka_does_not_have_is_refused(cluster: Cluster, written: list[Body]) -> None:
    [body] = [copy.deepcopy(one) for one in written if one["kind"] == "KafkaUser"]
    body["spec"]["authorization"]["acls"][0]["operations"] = ["Reed"]

    assert "Reed" in cluster.refusal("apply", "--server-side", "--dry-run=server", "-f", "-", stdin=json.dumps(body))


def test_kedas_scaler_knows_every_word_of_the_triggers_and_of_their_authentication(written: list[Body]) -> None:
    """A definition takes any word there, and KEDA overlooks one that it does not know."""
    scalers = json.loads((definitions.from_go() / "scalers-schema.json").read_text(encoding="utf-8"))["scalers"]
    [kafka] = [one["parameters"] for one in scalers if one["type"] == "kafka"]
    triggers = [one["spec"]["triggers"] for one in written if one["kind"] == "ScaledObject"]
    [secrets] = [one["spec"]["secretTargetRef"] for one in written if one["kind"] == "TriggerAuthentication"]

    for [trigger] in triggers:
        told = trigger["metadata"]
        assert trigger["type"] == "kafka"
        assert told.keys() <= {one["name"] for one in kafka if one.get("metadataVariableReadable")}
        assert told.keys() >= {one["name"] for one in kafka if not one.get("optional") and "default" not in one}
        for one in kafka:
            assert told.get(one["name"]) in [None, *one.get("allowedValue", [told.get(one["name"])])]
    assert {one["parameter"] for one in secrets} <= {
        one["name"] for one in kafka if one.get("triggerAuthenticationVariableReadable")
    }

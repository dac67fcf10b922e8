"""An API server that has just started, or was just given the definition of campaigns, finds none for half a minute.

Until then it refuses what the guard would have to ask them about.  An installation must go in all the same.
"""

import json
from collections.abc import Iterator

import pytest
import yaml

from tests.cluster.conftest import Given
from tests.cluster.kustomized import MANIFESTS, Body, Cluster, documents, namespaced
from tests.control_plane.plane import ControlPlane

NOT_FOUND = "failed to find resource referenced by paramKind"


@pytest.fixture
def cluster(plane: ControlPlane | Given) -> Iterator[Cluster]:
    """A namespace whose guard asks about a kind that this API server will never find."""
    with namespaced(plane) as one:
        policy, binding = guard(one)
        name = one.namespace
        chosen = {"matchLabels": {"kubernetes.io/metadata.name": name}}
        policy["metadata"]["name"] = binding["metadata"]["name"] = binding["spec"]["policyName"] = name
        policy["spec"]["paramKind"]["apiVersion"] = "nowhere.mailcordon.dev/v1"
        policy["spec"]["matchConstraints"]["namespaceSelector"] = chosen
        binding["spec"]["matchResources"]["namespaceSelector"] = chosen
        one.apply(yaml.safe_dump_all([policy, binding]))
        try:
            one.until(lambda: NOT_FOUND in one.refusal("apply", *STRICTLY, stdin=SENDER), what=lambda: "it refuses")
            yield one
        finally:
            one("delete", f"validatingadmissionpolicy/{name}", f"validatingadmissionpolicybinding/{name}")


def guard(cluster: Cluster) -> list[Body]:
    """The policy that asks the Campaigns, and its binding, as the overlay with most of its own has them."""
    bodies = documents(cluster("kustomize", str(MANIFESTS / "overlays" / "kind")))
    return sorted(
        (body for body in bodies if body["metadata"]["name"] == "mailcordon-stopped"),
        key=lambda body: len(body["kind"]),
    )


STRICTLY = ("--server-side", "--dry-run=server", "--validate=strict", "-f", "-")
SENDER = json.dumps(
    {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "sender-0123456789abcdef"},
        "spec": {"podSelector": {}, "egress": [{}], "policyTypes": ["Egress"]},
    }
)


@pytest.mark.parametrize("overlay", ["base", "overlays/kind", "overlays/production"])
def test_the_objects_of_an_installation_go_in(cluster: Cluster, overlay: str) -> None:
    bodies = documents(cluster("kustomize", str(MANIFESTS / overlay)))
    text = yaml.safe_dump_all([body for body in bodies if body["kind"] in ("Deployment", "NetworkPolicy")])
    ours = text.replace("namespace: mailcordon\n", f"namespace: {cluster.namespace}\n")

    assert ours.count(cluster.namespace) >= 10
    assert cluster.refusal("apply", *STRICTLY, stdin=ours) == ""


def test_a_sender_does_not(cluster: Cluster) -> None:
    assert NOT_FOUND in cluster.refusal("apply", *STRICTLY, stdin=SENDER)

"""What every place where senders run promises, kept by Kubernetes itself: the suite that the fake API server passes."""

import inspect
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from k8s.cluster import Cluster
from k8s.kubernetes import KubernetesCluster
from k8s.patches import Site
from tests.control_plane.plane import ControlPlane
from tests.control_plane.rest import Rest
from tests.k8s import test_cluster_contract as contract

PROMISES = {
    name: test
    for name, test in vars(contract).items()
    if name.startswith("test_") and "place" in inspect.signature(test).parameters
}
globals().update(PROMISES)


class OnThePlane:
    """Deployments whose pods drain as long as a file is there."""

    def __init__(self, plane: ControlPlane, namespace: str, hold: Path) -> None:
        self.plane, self.site = plane, Site(namespace=namespace, image="draining:1")
        self.hold, self.clusters = hold, list[KubernetesCluster]()

    async def controller(self) -> Cluster:
        cluster = await KubernetesCluster.connect(self.site, kubeconfig=str(self.plane.kubeconfig()))
        self.clusters.append(cluster)
        return cluster

    def hold_drain(self, hold: bool) -> None:
        if hold:
            self.hold.touch()
        else:
            self.hold.unlink(missing_ok=True)


@pytest.fixture
async def place(own_plane: ControlPlane, rest: Rest, namespace: str, tmp_path: Path) -> AsyncIterator[OnThePlane]:
    one = OnThePlane(own_plane, namespace, tmp_path / "hold")
    base = f"/api/v1/namespaces/{namespace}"
    config = {"metadata": {"name": one.site.config}, "data": {"HOLD": str(one.hold)}}
    (await rest.create(f"{base}/configmaps", config)).wanted()
    (await rest.create(f"{base}/secrets", {"metadata": {"name": one.site.secret}})).wanted()
    yield one
    one.hold_drain(False)
    for cluster in one.clusters:
        await cluster.close()


def test_there_are_promises_to_keep() -> None:
    assert len(PROMISES) > 20

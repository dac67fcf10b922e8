"""A control plane of the tests with what an installation has before its first campaign."""

from benchmarks._running import ROOT
from tests.control_plane.plane import ControlPlane

NAMESPACE = "mailcordon"
ACCOUNT = "mailcordon-controller"
_BASE = ROOT / "k8s" / "manifests" / "base"


def install(plane: ControlPlane) -> None:
    """The namespace, guarded; the resource, the roles with their accounts, and the guard."""
    for file in ("namespace", "crd", "rbac", "admission"):
        plane.run_kubectl("apply", "--server-side", f"--namespace={NAMESPACE}", f"--filename={_BASE / file}.yaml")
    plane.run_kubectl("label", "namespace", NAMESPACE, "mailcordon.dev/guarded=true", "--overwrite")
    plane.run_kubectl("wait", "--for=condition=Established", "crd/campaigns.mailcordon.dev")

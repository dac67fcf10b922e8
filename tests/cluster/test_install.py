"""``mailcordon install --check`` on a real cluster: all well as shipped, and a line for each thing that is broken."""

import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cli.install import install
from k8s import labels, patches, resource
from k8s.patches import Site
from tests.cluster.kustomized import Cluster, namespaced
from tests.control_plane.images import PLAYED
from tests.control_plane.plane import ControlPlane
from tests.k8s.builders import campaign, control, spec
from tests.k8s.filtering import NAME, CannotFilter, network

CLUSTER_WIDE = "ValidatingAdmissionPolicyBinding mailcordon-stopped"


KEYS = json.dumps({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "mailcordon-keys"}})


class Installed(Cluster):
    """The base in a namespace, its roles played without a process, and the means to ask about it and to mend it."""

    def check(self, *more: str, user: str = "admin") -> Result:
        """Run the command as this user."""
        where = ["--check", "--namespace", self.namespace, "--kubeconfig", str(self.plane.kubeconfig(user))]
        return CliRunner().invoke(install, [*where, *more])

    def told(self, *more: str, user: str = "admin") -> list[dict[str, str]]:
        """All findings."""
        found: list[dict[str, str]] = json.loads(self.check("--json", *more, user=user).stdout.splitlines()[0])[
            "checks"
        ]
        return found

    def lines(self, *more: str, user: str = "admin") -> dict[str, tuple[str, str]]:
        """Answer and sentence by what was looked at."""
        return {one["check"]: (one["answer"], one["says"]) for one in self.told(*more, user=user)}

    def unwell(self) -> set[str]:
        """The lines that are not ok: the answer, and what was looked at."""
        return {f"{one['answer']} {one['check']}" for one in self.told() if one["answer"] not in {"ok", "skipped"}}


@pytest.fixture(scope="module")
def everything(plane: ControlPlane | Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Installed, str]]:
    if not isinstance(plane, ControlPlane):
        pytest.skip("needs our own control plane: what the whole cluster shares is broken and mended")
    with namespaced(plane) as one:
        here = Installed(plane, one.namespace)
        image = [{"name": "mailcordon", "newName": "registry.example/pause", "newTag": "1"}]
        text = here.rendered("base", tmp_path_factory.mktemp("base"), images=image)
        here.apply(text)
        here.apply(KEYS)
        here("wait", "deployments", "--all", "--for=condition=Available", "--timeout=50s")
        yield here, text


@pytest.fixture
def installed(everything: tuple[Installed, str]) -> Iterator[Installed]:
    """All well before; mended after a test has broken something."""
    here, text = everything
    yield here
    here("delete", "configmap", "mailcordon", "--ignore-not-found")  # an apply leaves what others have added
    here.apply(text)
    here.apply(KEYS)
    here("delete", "hpa,networkpolicy,rolebinding,resourcequota,deployment", "-l", "test=broken", "--wait=false")
    here("wait", "deployments", "--all", "--for=condition=Available", "--timeout=50s")


def broken(kind: str, api: str, spec: dict[str, Any], **more: Any) -> str:
    metadata = {"name": "broken", "labels": {"test": "broken"}}
    return json.dumps(
        {"apiVersion": api, "kind": kind, "metadata": metadata, **({"spec": spec} if spec else {}), **more}
    )


def test_as_shipped_all_is_well(installed: Installed) -> None:
    answer = installed.check()

    assert answer.exit_code == 0, answer.output
    assert "fix:" not in answer.output


def test_a_cluster_where_nothing_is_tells_what_is_missing(installed: Installed) -> None:
    elsewhere = Installed(installed.plane, "nobody-lives-here")

    lines = elsewhere.lines()

    assert elsewhere.check().exit_code == 1
    for check in ("namespace nobody-lives-here", "ConfigMap mailcordon", "Secret mailcordon-keys", "ResourceQuota"):
        assert lines[check][0] == "missing"
    for role in ("worker", "controller", "return-path"):
        assert lines[f"Deployment mailcordon-{role}"][0] == "missing"
    assert lines["rights of mailcordon-controller"][0] == "missing"


RIGHT_TOO_MUCH = broken(
    "RoleBinding",
    "rbac.authorization.k8s.io/v1",
    {},
    roleRef={"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"},
    subjects=[{"kind": "ServiceAccount", "name": "mailcordon-controller", "namespace": "NAMESPACE"}],
)
AIMED_WRONG = broken(
    "HorizontalPodAutoscaler",
    "autoscaling/v2",
    {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": spec().name},
        "maxReplicas": 3,
        "metrics": [
            {
                "type": "Resource",
                "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}},
            }
        ],
    },
)
WAY_OUT = broken(
    "NetworkPolicy", "networking.k8s.io/v1", {"podSelector": {}, "policyTypes": ["Egress"], "egress": [{}]}
)
TIGHT = broken("ResourceQuota", "v1", {"hard": {"pods": "3"}})
COLUMN = "/spec/versions/0/additionalPrinterColumns/0"
GUARD = "guard: a Deployment that is isolated and has a replica"


@dataclass(frozen=True)
class Broken:
    """A command of kubectl, and the lines that tell of it: what was looked at, and the answer."""

    how: str
    found: tuple[str, ...]
    stdin: str = ""


PLACES = [
    Broken(
        "label namespace NAMESPACE mailcordon.dev/guarded-",
        (
            "missing namespace NAMESPACE, label mailcordon.dev/guarded",
            "wrong guard: a Deployment that is isolated and has a replica",
            "wrong guard: a NetworkPolicy that is isolated and lets mail out",
            "wrong guard: a Campaign whose labels say what no decision says",
        ),
    ),
    Broken(
        "label --overwrite namespace NAMESPACE pod-security.kubernetes.io/enforce=baseline",
        ("wrong namespace NAMESPACE, label pod-security.kubernetes.io/enforce",),
    ),
    Broken("create -f -", ("wrong rights of mailcordon-controller",), RIGHT_TOO_MUCH),
    Broken(
        'patch configmap mailcordon -p {"data":{"MAILCORDON_KAFKA":null,"MAILCORDON_PARTITION":"4"}}',
        ("missing ConfigMap mailcordon, MAILCORDON_KAFKA", "wrong ConfigMap mailcordon, MAILCORDON_PARTITION"),
    ),
    Broken("create -f -", ("wrong NetworkPolicy broken",), WAY_OUT),
    Broken("create -f -", ("wrong HorizontalPodAutoscaler broken",), AIMED_WRONG),
    Broken("create -f -", ("wrong ResourceQuota broken",), TIGHT),
    Broken("scale deployment mailcordon-worker --replicas=0", ("wrong Deployment mailcordon-worker",)),
    Broken(
        f'patch {CLUSTER_WIDE} --type=merge -p {{"spec":{{"validationActions":["Audit"]}}}}',
        (f"wrong {CLUSTER_WIDE}",),
    ),
    Broken(
        f'patch crd campaigns.mailcordon.dev --type=json -p [{{"op":"remove","path":"{COLUMN}"}}]',
        ("wrong Campaign resource",),
    ),
]
GAPS = [
    Broken("delete configmap mailcordon", ("missing ConfigMap mailcordon",)),
    Broken("delete secret mailcordon-keys", ("missing Secret mailcordon-keys",)),
    Broken("delete networkpolicy default-deny", ("missing NetworkPolicies of the base",)),
    Broken("delete resourcequota mailcordon", ("missing ResourceQuota",)),
    Broken("delete deployment mailcordon-controller", ("missing Deployment mailcordon-controller",)),
    Broken("delete rolebinding mailcordon-reconciler", ("missing rights of mailcordon-controller",)),
    Broken(f"delete {CLUSTER_WIDE}", (f"missing {CLUSTER_WIDE}",)),
]


@pytest.mark.parametrize("all_at_once", [PLACES, GAPS], ids=["wrong", "missing"])
def test_whatever_is_broken_has_its_line_and_nothing_else_has(installed: Installed, all_at_once: list[Broken]) -> None:
    def named(text: str) -> str:
        return text.replace("NAMESPACE", installed.namespace)

    for one in all_at_once:
        installed(*named(one.how).split(), stdin=named(one.stdin))
    wanted = {named(line) for one in all_at_once for line in one.found}

    installed.until(lambda: installed.unwell() == wanted, what=lambda: f"{installed.unwell() ^ wanted} too much or not")
    assert installed.check().exit_code == 1


def test_a_fence_and_a_stopped_sender_that_are_there_are_tried(installed: Installed) -> None:
    stopped, site = control("isolated", name="bought-list", epoch=7), Site(namespace=installed.namespace)
    body = patches.deployment(spec("bought-list"), site, stopped, replicas=0)
    body["metadata"]["labels"]["test"] = "broken"
    installed.apply(json.dumps(body))

    def tried() -> dict[str, str]:
        return {check: answer for check, (answer, _) in installed.lines().items() if check.startswith("guard:")}

    assert tried()[f"guard: a replica for {spec('bought-list').name}, which is stopped"] == "wrong", (
        "no Campaign stands before it"
    )
    installed.apply(json.dumps(resource.campaign_body(spec("bought-list"), site, stopped, campaign("bought-list"))))
    installed.until(lambda: list(tried().values()) == ["ok"] * 5, what=lambda: str(tried()))


def test_a_sender_without_room_in_the_quota_is_told_why(installed: Installed) -> None:
    installed("create", "-f", "-", stdin=TIGHT)
    site = Site(namespace=installed.namespace, image=PLAYED)
    body = patches.deployment(spec(), site, control(), replicas=1)
    body["metadata"]["labels"]["test"] = "broken"
    installed.apply(json.dumps(patches.service_account(spec(), site)))
    installed.apply(json.dumps(body))

    installed.until(lambda: f"wrong sender {spec().name}" in installed.unwell(), what=lambda: "the sender's line")
    assert "exceeded quota: broken" in installed.lines()[f"sender {spec().name}"][1]


def test_whoever_may_not_look_is_told_so_and_nothing_breaks(installed: Installed) -> None:
    lines = installed.lines(user="viewer")

    assert lines["API server"][0] == "ok"
    assert lines["rights of mailcordon-controller"][0] == "unknown"
    assert lines["Secret mailcordon-keys"][0] == "unknown"
    assert lines[GUARD][0] == "unknown"
    assert installed.check(user="viewer").exit_code == 1


def test_the_controller_may_ask_about_its_own_rights(installed: Installed) -> None:
    assert isinstance(installed.plane, ControlPlane)
    file = installed.plane.account_kubeconfig(installed.namespace, "mailcordon-controller")
    answer = CliRunner().invoke(
        install, ["--check", "--json", "--namespace", installed.namespace, "--kubeconfig", str(file)]
    )
    told = {one["check"]: one["answer"] for one in json.loads(answer.stdout.splitlines()[0])["checks"]}

    assert told["rights of mailcordon-controller"] == "ok"
    assert told["Secret mailcordon-keys"] == "unknown", "and it may not look at Secrets"


def test_where_nothing_is_enforced_the_way_out_is_open_and_the_probe_leaves_nothing(installed: Installed) -> None:
    """Nobody enforces NetworkPolicies on this plane: its pods are processes of this machine."""
    installed("patch", "configmap", "mailcordon", "-p", '{"data":{"MAILCORDON_IMAGE":"mailcordon:0.1.0"}}')
    with socket.create_server(("127.0.0.1", 0)) as server:
        target = f"127.0.0.1:{server.getsockname()[1]}"

        answer, says = installed.lines("--probe-egress", "--probe", target)[f"way out to {target}"]

    assert (answer, says.split(":")[0]) == ("wrong", "egress is NOT filtered")
    pods = json.loads(installed("get", "pods", "-o", "json"))["items"]
    probes = [one for one in pods if one["metadata"]["labels"].get(labels.CAMPAIGN, "").startswith("mailcordon-egress")]
    assert all("deletionTimestamp" in one["metadata"] for one in probes)


OPEN = broken("NetworkPolicy", "networking.k8s.io/v1", {"podSelector": {}, "policyTypes": ["Egress"], "egress": [{}]})
FILTERED = '{"data":{"MAILCORDON_IMAGE":"filtered:1"}}'


def test_where_policies_are_enforced_those_of_the_base_keep_the_probe_in_and_one_that_is_open_lets_it_out(
    installed: Installed, tmp_path: Path
) -> None:
    """Names are looked up, port 25 is dropped: by the policies as they are shipped, and by nothing else."""
    try:
        with network(tmp_path):
            pass
    except CannotFilter as why:
        pytest.skip(f"no network that filters here (it takes Linux, root and namespaces): {why}")
    installed("patch", "configmap", "mailcordon", "-p", FILTERED)
    target = f"{NAME}:25"

    assert installed.lines("--probe-egress", "--probe", target)[f"way out to {target}"] == (
        "ok",
        "is filtered: a pod like an isolated sender's cannot connect",
    )

    installed("create", "-f", "-", stdin=OPEN)
    assert installed.lines("--probe-egress", "--probe", target)[f"way out to {target}"][0] == "wrong"


def test_a_probe_whose_pod_is_refused_says_why(installed: Installed) -> None:
    installed("create", "-f", "-", stdin=TIGHT)
    installed("create", "quota", "none", "--hard=pods=0")
    installed("label", "resourcequota", "none", "test=broken")

    answer, says = installed.lines("--probe-egress", "--probe", "192.0.2.25:25")["way out to 192.0.2.25:25"]

    assert answer == "unknown"
    assert "exceeded quota" in says

"""The manifests: known fields, names that fit together, settings that are read, rights that are used and no others."""

import asyncio
import contextlib
import os
import shutil
import subprocess
import textwrap
from collections.abc import AsyncIterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes.aio import client

from k8s import labels
from k8s.api import Api
from k8s.cluster import Permanent
from k8s.kubernetes import KubernetesCluster
from k8s.patches import KAFKA, KILL_MARGIN_S, SECRETS, Site
from policy.settings import Settings, read
from tests.doubles.fake_api import KINDS, FakeApi
from tests.k8s.builders import control, spec, until

MANIFESTS = Path(__file__).parents[2] / "k8s" / "manifests"
BASE = MANIFESTS / "base"

MODELS: dict[str, Any] = {
    "Namespace": client.V1Namespace,
    "CustomResourceDefinition": client.V1CustomResourceDefinition,
    "ConfigMap": client.V1ConfigMap,
    "ServiceAccount": client.V1ServiceAccount,
    "ClusterRole": client.V1ClusterRole,
    "Role": client.V1Role,
    "RoleBinding": client.V1RoleBinding,
    "ValidatingAdmissionPolicy": client.V1ValidatingAdmissionPolicy,
    "ValidatingAdmissionPolicyBinding": client.V1ValidatingAdmissionPolicyBinding,
    "NetworkPolicy": client.V1NetworkPolicy,
    "Deployment": client.V1Deployment,
    "Service": client.V1Service,
    "PodDisruptionBudget": client.V1PodDisruptionBudget,
    "ResourceQuota": client.V1ResourceQuota,
    "LimitRange": client.V1LimitRange,
}


def documents() -> list[dict[str, Any]]:
    listed = yaml.safe_load((BASE / "kustomization.yaml").read_text(encoding="utf-8"))["resources"]
    found = [yaml.safe_load_all((BASE / name).read_text(encoding="utf-8")) for name in listed]
    return [one for each in found for one in each]


DOCUMENTS = documents()


def of(kind: str) -> dict[str, dict[str, Any]]:
    return {one["metadata"]["name"]: one for one in DOCUMENTS if one["kind"] == kind}


def pods() -> dict[str, dict[str, Any]]:
    return {name: one["spec"]["template"]["spec"] for name, one in of("Deployment").items()}


def test_every_file_is_listed() -> None:
    listed = yaml.safe_load((BASE / "kustomization.yaml").read_text(encoding="utf-8"))["resources"]

    assert {file.name for file in BASE.glob("*.yaml")} - {"kustomization.yaml"} == set(listed)


@pytest.mark.parametrize("body", DOCUMENTS, ids=[f"{one['kind']}-{one['metadata']['name']}" for one in DOCUMENTS])
def test_every_field_is_known(body: dict[str, Any]) -> None:
    known = MODELS[body["kind"]].from_dict(body).model_dump(by_alias=True, exclude_none=True, mode="json")

    assert known == body


def test_no_name_stands_twice() -> None:
    named = [(one["kind"], one["metadata"]["name"]) for one in DOCUMENTS]

    assert len(named) == len(set(named))


def test_every_pod_has_an_identity_that_exists() -> None:
    assert {pod["serviceAccountName"] for pod in pods().values()} == set(of("ServiceAccount"))


def test_only_the_controller_has_a_token_and_it_has_no_keys() -> None:
    tokens = {name for name, pod in pods().items() if pod["automountServiceAccountToken"]}
    keys = {name for name, pod in pods().items() if any(one["name"] == "keys" for one in pod["volumes"])}

    assert tokens == {"mailcordon-controller"}
    assert keys == {"mailcordon-worker", "mailcordon-return-path"}


def test_every_binding_joins_a_role_and_an_identity_that_exist() -> None:
    for binding in of("RoleBinding").values():
        assert binding["roleRef"]["name"] in of("Role")
        assert {subject["name"] for subject in binding["subjects"]} == {"mailcordon-controller"}


def test_services_find_pods_and_ports() -> None:
    for service in of("Service").values():
        [found] = [
            one["spec"]["template"]
            for one in of("Deployment").values()
            if service["spec"]["selector"].items() <= one["spec"]["template"]["metadata"]["labels"].items()
        ]
        ports = {port["name"] for container in found["spec"]["containers"] for port in container["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports


def test_deployments_and_budgets_select_their_own_pods() -> None:
    for one in [*of("Deployment").values(), *of("PodDisruptionBudget").values()]:
        wanted = one["spec"]["selector"]["matchLabels"]
        template = of("Deployment")[one["metadata"]["name"]]["spec"]["template"]["metadata"]["labels"]
        assert wanted.items() <= template.items()


def test_the_return_path_listens_where_no_privilege_is_needed() -> None:
    [smtp] = [port for port in of("Service")["mailcordon-return-path"]["spec"]["ports"] if port["name"] == "smtp"]
    container = pods()["mailcordon-return-path"]["containers"][0]

    assert (smtp["port"], smtp["targetPort"]) == (25, "smtp")
    assert {"name": "smtp", "containerPort": 2525, "protocol": "TCP"} in container["ports"]
    assert {"name": "MAILCORDON_RETURN_PATH", "value": "0.0.0.0:2525"} in container["env"]


def test_the_config_map_and_the_secret_are_those_that_senders_mount() -> None:
    site = Site()

    assert site.config in of("ConfigMap")
    for name in ("mailcordon-worker", "mailcordon-return-path"):
        pod = pods()[name]
        assert {"name": "keys", "secret": {"secretName": site.secret, "defaultMode": 0o440}} in pod["volumes"]
        assert {"name": "keys", "mountPath": SECRETS, "readOnly": True} in pod["containers"][0]["volumeMounts"]
    assert of("Namespace").keys() == {site.namespace}


def test_every_pod_that_speaks_with_kafka_finds_its_credentials_where_senders_do() -> None:
    for pod in pods().values():
        secret = {"secretName": Site().kafka, "defaultMode": 0o440, "optional": True}
        assert {"name": "kafka", "secret": secret} in pod["volumes"]
        assert {"name": "kafka", "mountPath": KAFKA, "readOnly": True} in pod["containers"][0]["volumeMounts"]


def test_every_variable_is_a_setting_and_can_be_read() -> None:
    known = {f"MAILCORDON_{one.name.upper()}": one.name for one in fields(Settings)}
    given: dict[str, str] = dict(of("ConfigMap")["mailcordon"]["data"])
    for pod in pods().values():
        for variable in pod["containers"][0]["env"]:
            assert variable["name"] in known
            given[variable["name"]] = variable.get("value", "from-a-field")

    settings = read({known[name]: (text, name) for name, text in given.items()})

    assert (settings.backend, settings.replication) == ("kubernetes", 3)
    assert settings.image.startswith("mailcordon:")
    for pod in pods().values():
        assert pod["terminationGracePeriodSeconds"] >= settings.grace_s + KILL_MARGIN_S


def test_every_pod_is_restricted() -> None:
    for pod in pods().values():
        [container] = pod["containers"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        }
        assert container["resources"]["limits"]["memory"]
    assert of("Namespace")["mailcordon"]["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


UNITS = {"": 1.0, "m": 0.001, "Mi": 2.0**20, "Gi": 2.0**30}
MOST = {"mailcordon-worker": 3 + 1, "mailcordon-controller": 2 + 1, "mailcordon-return-path": 2 + 1}  # in a rollout
SENDERS = 100 + 25  # campaigns, and pods that are still finishing their mail


def amount(text: str) -> float:
    digits = text.rstrip("mMGi")
    return float(digits) * UNITS[text[len(digits) :]]


@pytest.mark.parametrize(
    ("kind", "resource"),
    [
        ("requests", "cpu"),
        ("requests", "memory"),
        ("requests", "ephemeral-storage"),
        ("limits", "memory"),
        ("limits", "ephemeral-storage"),
    ],
)
def test_the_quota_is_what_its_rule_says(kind: str, resource: str) -> None:
    roles = sum(amount(pods()[name]["containers"][0]["resources"][kind][resource]) * n for name, n in MOST.items())
    needed = roles + SENDERS * amount(Site().resources[kind][resource])

    given = amount(of("ResourceQuota")["mailcordon"]["spec"]["hard"][f"{kind}.{resource}"])

    assert needed <= given <= needed * 1.1
    assert of("ResourceQuota")["mailcordon"]["spec"]["hard"]["pods"] == str(sum(MOST.values()) + SENDERS)


def test_a_container_without_resources_gets_those_of_a_sender() -> None:
    [given] = of("LimitRange")["mailcordon"]["spec"]["limits"]

    assert {"requests": given["defaultRequest"], "limits": given["default"]} == Site().resources


def test_everything_is_denied_first() -> None:
    denied = of("NetworkPolicy")["default-deny"]["spec"]

    assert denied == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_no_policy_of_the_base_lets_mail_out() -> None:
    """Policies add up: one that allows port 25, or every port, would undo every isolation."""
    for policy in of("NetworkPolicy").values():
        for rule in policy["spec"].get("egress", []):
            ports = [port["port"] for port in rule["ports"]]
            assert ports, "a rule without ports allows all of them"
            assert not {25, 465, 587, 2525} & set(ports)
            assert all("endPort" not in port for port in rule["ports"])


def test_policies_name_ports_that_exist() -> None:
    named = {"metrics"} | {port["name"] for pod in pods().values() for port in pod["containers"][0]["ports"]}
    for policy in of("NetworkPolicy").values():
        for rule in policy["spec"].get("ingress", []):
            assert {port["port"] for port in rule["ports"]} <= named


def test_senders_get_names_and_kafka_from_the_base() -> None:
    wanted = of("NetworkPolicy")["names-and-kafka"]["spec"]["podSelector"]["matchLabels"]

    assert wanted == {labels.NAME: "mailcordon"}


# Rights.

NOT_ASKED_OF_A_FAKE = {
    ("update", labels.DOMAIN, "campaigns/decision"),  # asked for by the admission policies
    ("patch", "", "events"),
}
"""What only a real API server sees: tests/cluster has the tests of these."""


def rights(*roles: str) -> set[tuple[str, str, str]]:
    return {
        (verb, group, resource)
        for role in roles
        for rule in of("Role")[role]["rules"]
        for verb in rule["verbs"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }


@contextlib.asynccontextmanager
async def working(api: FakeApi) -> AsyncIterator[KubernetesCluster]:
    settings = client.Configuration()
    settings.host = api.url
    cluster = KubernetesCluster(Api(client.ApiClient(settings), "mailcordon"), Site())
    yield cluster
    await cluster.close()


def watches(api: FakeApi) -> set[str]:
    return {call.resource for call in api.calls if call.verb == "watch"}


async def isolated(cluster: KubernetesCluster, epoch: int) -> None:
    async def shut() -> bool:
        await cluster.isolate(spec(), control("isolated", epoch=epoch))
        there = await cluster.read(spec())
        return there is not None and not there.running and not there.egress_open

    await until(shut, what="isolated")


async def test_the_roles_allow_exactly_what_the_controller_does() -> None:
    async with FakeApi() as api, working(api) as cluster:
        api.allow = rights("mailcordon-reconciler", "mailcordon-deployer")
        await cluster.ensure(spec(), control())
        await isolated(cluster, 2)
        await cluster.release(spec(), control(epoch=3))
        await cluster.retire(spec(), control("retired", epoch=4))
        await cluster.list()
        await cluster.release(spec(), control(epoch=5))
        await cluster.show(spec(), control(epoch=5), paused=False)
        async with working(api) as other:
            watching = asyncio.create_task(other.watch(lambda _: None))
            await other.list()
            await until(lambda: asyncio.sleep(0, len(watches(api)) == len(KINDS) - 1), what="all kinds are watched")
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

        assert api.verbs() <= api.allow
        assert api.allow - api.verbs() <= NOT_ASKED_OF_A_FAKE


async def test_without_the_deployer_senders_are_isolated_and_released_but_not_made() -> None:
    async with FakeApi() as api, working(api) as cluster:
        await cluster.ensure(spec(), control())
        api.allow = rights("mailcordon-reconciler")

        await isolated(cluster, 2)
        await cluster.release(spec(), control(epoch=3))
        with pytest.raises(Permanent, match="Role"):
            await cluster.ensure(spec("new"), control(name="new"))
        api.remove("networkpolicies", spec().name)
        with pytest.raises(Permanent, match="Role"):
            await cluster.ensure(spec(), control(epoch=4))

        assert ("networkpolicies", "mailcordon", spec().name) not in api.objects


def test_nobody_may_delete_or_read_secrets() -> None:
    everything = rights(*of("Role"))

    assert {right for right in everything if right[0] == "update"} == {("update", labels.DOMAIN, "campaigns/decision")}
    assert not {verb for verb, _, _ in everything} & {"delete", "deletecollection", "*", "escalate", "bind"}
    assert not {resource for _, _, resource in everything} & {"secrets", "*", "pods/exec", "roles", "rolebindings"}


# Rendered.


def rendered(folder: Path) -> list[dict[str, Any]]:
    if shutil.which("kubectl") is None:
        pytest.skip("no kubectl here to render the kustomization")
    answer = subprocess.run(
        ["kubectl", "kustomize", str(folder)],
        env={"PATH": os.environ["PATH"], "KUBECONFIG": os.devnull, "HOME": os.devnull},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    return list(yaml.safe_load_all(answer.stdout))


def images(bodies: list[dict[str, Any]]) -> set[str]:
    deployed = {
        container["image"]
        for body in bodies
        if body["kind"] == "Deployment"
        for container in body["spec"]["template"]["spec"]["containers"]
    }
    told = {body["data"]["MAILCORDON_IMAGE"] for body in bodies if body["kind"] == "ConfigMap"}
    return deployed | told


def test_the_base_renders_with_one_image_for_all() -> None:
    bodies = rendered(BASE)

    assert len(bodies) == len(DOCUMENTS)
    assert images(bodies) == {"mailcordon:0.1.0"}
    assert {body["metadata"].get("namespace", "mailcordon") for body in bodies} == {"mailcordon"}


def test_an_overlay_in_another_namespace_binds_the_identities_that_are_there(tmp_path: Path) -> None:
    """A binding to an account of the namespace `mailcordon`, which would not be there, gives nobody any rights."""
    shutil.copytree(MANIFESTS, tmp_path / "manifests")
    overlay = tmp_path / "manifests" / "elsewhere"
    overlay.mkdir()
    (overlay / "kustomization.yaml").write_text("namespace: elsewhere\nresources: [../base]\n", encoding="utf-8")

    bindings = [body for body in rendered(overlay) if body["kind"] == "RoleBinding"]

    assert len(bindings) == 2
    for one in bindings:
        assert [subject["namespace"] for subject in one["subjects"]] == [one["metadata"]["namespace"]] == ["elsewhere"]


def test_an_overlay_changes_the_image_of_senders_as_well(tmp_path: Path) -> None:
    """The overlay as the README shows it, with a digest in place of the dots."""
    shutil.copytree(MANIFESTS, tmp_path / "manifests")
    overlay = tmp_path / "manifests" / "production"
    overlay.mkdir()
    shown = (BASE / "README.md").read_text(encoding="utf-8").split("so that senders run the same one:\n", 1)[1]
    shown = shown.split("\n- How the world", 1)[0].replace("sha256:…", "sha256:" + "1" * 64)
    (overlay / "kustomization.yaml").write_text(textwrap.dedent(shown), encoding="utf-8")

    assert images(rendered(overlay)) == {"registry.example/mailcordon@sha256:" + "1" * 64}

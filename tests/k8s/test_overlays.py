"""Overlays and components as kustomize renders them: one image for all, names that fit, and no way out beside ours.

Kinds of other projects (Strimzi, KEDA, the Prometheus operator) are checked for what they must name; that every field
exists is checked by their own definitions in ``tests/cluster/test_foreign_resources.py``.
"""

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from k8s.installation import config
from policy.naming import outbound_topic, sender_group, sender_name
from schemas.topics import REQUESTS
from streams.topics import WORKER
from tests.k8s.test_manifests import MANIFESTS, images, rendered

Body = dict[str, Any]


def whole(folder: Path) -> Path:
    """The production overlay with every component that it offers, changed as its comments say."""
    shutil.copytree(MANIFESTS, folder / "manifests")
    overlay = folder / "manifests" / "overlays" / "production"
    file = overlay / "kustomization.yaml"
    text = file.read_text(encoding="utf-8").replace("# - ../..", "- ../..")
    file.write_text("".join(one for one in text.splitlines(True) if "leave out with" not in one), encoding="utf-8")
    return overlay


def of(bodies: list[Body], kind: str) -> dict[str, Body]:
    return {one["metadata"]["name"]: one for one in bodies if one["kind"] == kind}


@pytest.fixture(scope="module")
def kind_overlay() -> list[Body]:
    return rendered(MANIFESTS / "overlays" / "kind")


@pytest.fixture(scope="module")
def production(tmp_path_factory: pytest.TempPathFactory) -> list[Body]:
    return rendered(whole(tmp_path_factory.mktemp("production")))


def test_every_file_is_listed_by_its_kustomization() -> None:
    for file in MANIFESTS.glob("*/*/kustomization.yaml"):
        listed = yaml.safe_load(file.read_text(encoding="utf-8"))
        names = set(listed.get("resources", ())) | {one["path"] for one in listed.get("patches", ()) if "path" in one}
        assert {one.name for one in file.parent.glob("*.yaml")} - {"kustomization.yaml"} == names - {"../../base"}


def test_production_has_no_image_until_somebody_sets_one(production: list[Body]) -> None:
    [image] = images(production)

    assert ".invalid/" in image
    assert image.endswith("@sha256:" + "0" * 64)


def test_every_variable_of_an_overlay_is_a_setting(kind_overlay: list[Body], production: list[Body]) -> None:
    [well] = config(of(kind_overlay, "ConfigMap")["mailcordon"], "mailcordon")
    [placeholder] = config(of(production, "ConfigMap")["mailcordon"], "mailcordon")

    assert well.answer == "ok"
    assert placeholder.check.endswith("MAILCORDON_IMAGE")


def test_production_runs_more_than_one_of_each_role() -> None:
    bodies = rendered(MANIFESTS / "overlays" / "production")
    replicas = {name: one["spec"].get("replicas") for name, one in of(bodies, "Deployment").items()}

    assert replicas == {"mailcordon-worker": 3, "mailcordon-controller": 2, "mailcordon-return-path": 2}
    assert of(bodies, "PodDisruptionBudget").keys() == replicas.keys()


def test_with_keda_the_number_of_workers_is_kedas(production: list[Body]) -> None:
    assert "replicas" not in of(production, "Deployment")["mailcordon-worker"]["spec"]
    assert of(production, "ScaledObject")["mailcordon-worker"]["spec"]["minReplicaCount"] == 3


def test_the_world_reaches_smtp_and_nothing_else(production: list[Body]) -> None:
    [outside] = [one for one in of(production, "Service").values() if one["spec"].get("type") == "LoadBalancer"]

    assert outside["spec"]["externalTrafficPolicy"] == "Local"
    assert [(port["port"], port["targetPort"]) for port in outside["spec"]["ports"]] == [(25, "smtp")]


def test_everything_finds_kafka_where_strimzi_has_it(production: list[Body]) -> None:
    cluster = of(production, "Kafka")["mailcordon"]
    [listener] = cluster["spec"]["kafka"]["listeners"]
    where = f"mailcordon-kafka-bootstrap.{cluster['metadata']['namespace']}.svc:{listener['port']}"
    told = {
        one["spec"]["triggers"][0]["metadata"]["bootstrapServers"] for one in of(production, "ScaledObject").values()
    }

    assert of(production, "ConfigMap")["mailcordon"]["data"]["MAILCORDON_KAFKA"] == where
    assert told == {where}
    for one in [*of(production, "KafkaNodePool").values(), *of(production, "KafkaUser").values()]:
        assert one["metadata"]["labels"] == {"strimzi.io/cluster": "mailcordon"}


def test_a_campaign_is_scaled_through_its_resource_and_never_its_deployment(production: list[Body]) -> None:
    scaled = of(production, "ScaledObject")[sender_name("spring-sale")]["spec"]
    [trigger] = scaled["triggers"]

    assert scaled["scaleTargetRef"] == {
        "apiVersion": "mailcordon.dev/v1alpha1",
        "kind": "Campaign",
        "name": sender_name("spring-sale"),
    }
    assert trigger["metadata"]["topic"] == outbound_topic("spring-sale")
    assert trigger["metadata"]["consumerGroup"] == sender_group("spring-sale")


def test_workers_are_scaled_by_the_lag_of_requests_within_their_partitions(production: list[Body]) -> None:
    scaled = of(production, "ScaledObject")["mailcordon-worker"]["spec"]
    partitions = of(production, "ConfigMap")["mailcordon"]["data"]["MAILCORDON_PARTITIONS"]

    assert scaled["maxReplicaCount"] == int(partitions)
    assert scaled["triggers"][0]["metadata"]["topic"] == REQUESTS
    assert scaled["triggers"][0]["metadata"]["consumerGroup"] == WORKER


def test_metrics_are_scraped_from_ports_that_exist(production: list[Body]) -> None:
    [monitor] = of(production, "PodMonitor").values()
    named = {
        port["name"]
        for one in of(production, "Deployment").values()
        for container in one["spec"]["template"]["spec"]["containers"]
        for port in container["ports"]
    }

    assert {one["port"] for one in monitor["spec"]["podMetricsEndpoints"]} <= named | {"metrics"}


def test_no_overlay_lets_mail_out_of_the_cluster(kind_overlay: list[Body], production: list[Body]) -> None:
    for policy in [*of(kind_overlay, "NetworkPolicy").values(), *of(production, "NetworkPolicy").values()]:
        for rule in policy["spec"].get("egress", []):
            ports = {port["port"] for port in rule["ports"]}
            inside = all("podSelector" in peer for peer in rule.get("to", [{}]))
            assert inside or not {25, 465, 587, 2525, "smtp"} & ports


def test_on_your_own_machine_all_mail_goes_to_providers_that_are_played(kind_overlay: list[Body]) -> None:
    routes = of(kind_overlay, "ConfigMap")["mailcordon"]["data"]["MAILCORDON_SMTP_ROUTES"]
    to = dict(one.split("=") for one in routes.split(","))
    ports = {port["port"] for port in of(kind_overlay, "Service")["mailcordon-providers"]["spec"]["ports"]}

    assert {host.split(":")[0] for host in to.values()} == {"mailcordon-providers"}
    assert {int(host.split(":")[1]) for host in to.values()} == ports
    assert "*" in to
    assert images(kind_overlay) - {"apache/kafka:4.3.1"} == {"mailcordon:0.1.0"}

"""``mailcordon manifests``: what a campaign owns, and the address that it leaves from, as YAML that can be applied."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from cli.manifests import manifests
from k8s import labels
from tests.doubles.fake_api import unknown_fields

RECORD = {
    "campaign": "spring-sale",
    "tenant": "shop",
    "from": {"address": "news@shop.example"},
    "return_path_domain": "bounces.shop.example",
    "labels": {"team": "growth"},
}


def run(*arguments: str) -> Result:
    return CliRunner().invoke(manifests, arguments, env={"MAILCORDON_IMAGE": "registry.example/mailcordon:1"})


def documents(*arguments: str) -> list[dict[str, Any]]:
    answer = run(*arguments)
    assert answer.exit_code == 0, answer.output
    return list(yaml.safe_load_all(answer.stdout))


def test_the_objects_are_those_that_the_controller_applies() -> None:
    found = documents("spring-sale", "--namespace", "mail")

    assert [one["kind"] for one in found] == [
        "ServiceAccount",
        "Service",
        "NetworkPolicy",
        "PodDisruptionBudget",
        "Deployment",
    ]
    assert {one["metadata"]["namespace"] for one in found} == {"mail"}
    assert [unknown_fields(one) for one in found] == [[]] * 5


def test_what_only_a_decision_says_is_left_out() -> None:
    for one in documents("spring-sale"):
        words = one["metadata"]["labels"] | one["metadata"]["annotations"]
        assert not {labels.STATE, labels.FENCE, labels.REASON, labels.SINCE} & set(words)


def test_resource_tenant_and_labels_come_from_the_campaigns_file(tmp_path: Path) -> None:
    file = tmp_path / "campaign.json"
    file.write_text(json.dumps(RECORD), encoding="utf-8")

    found = documents("spring-sale", "--file", str(file))

    for one in found[1:]:
        assert one["metadata"]["labels"][labels.TENANT] == "shop"
        assert one["metadata"]["labels"][labels.label_key("team")] == "growth"
    assert found[0]["kind"] == "Campaign"
    assert found[0]["spec"]["tenant"] == "shop"
    assert not {"decision", "origin", "replicas"} & set(found[0]["spec"])
    assert run("other", "--file", str(file)).exit_code == 2


def test_an_address_is_an_object_for_this_network() -> None:
    [found] = documents("spring-sale", "--egress", "ovn", "--address", "192.0.2.7", "--address", "2001:db8::7")

    assert (found["kind"], found["spec"]["egressIPs"]) == ("EgressIP", ["192.0.2.7", "2001:db8::7"])


@pytest.mark.parametrize(
    ("arguments", "fix"),
    [
        (("--egress", "cilium"), "no address"),
        (("--egress", "cilium", "--address", "mail.example"), "no IP address"),
        (("--address", "192.0.2.7"), "--egress cilium"),
        (("--egress", "calico", "--address", "192.0.2.7"), "cilium"),
    ],
)
def test_what_cannot_be_meant_is_wrong_use(arguments: tuple[str, ...], fix: str) -> None:
    answer = run("spring-sale", *arguments)

    assert answer.exit_code == 2
    assert fix in answer.output

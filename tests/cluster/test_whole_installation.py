"""The base as an operator installs it: roles from the manifests, by their own identities, with a real Kafka.

What the manifests say and no other test takes at its word is tried here: variables, mounts, ports, probes, rights.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cli.kafka import EmbeddedKafka, default_cache
from cli.main import main
from policy.naming import sender_name
from tests.cluster.kustomized import Cluster, namespaced
from tests.control_plane.plane import ControlPlane

pytestmark = pytest.mark.kafka

CAMPAIGN = {
    "campaign": "spring-sale",
    "tenant": "shop",
    "from": {"address": "news@shop.example"},
    "return_path_domain": "bounces.shop.example",
}
SENDER = sender_name("spring-sale")


class Installation(Cluster):
    """An installation, and the words of those who operate it."""

    found = ""

    def say(self, *arguments: str) -> Result:
        """A command of mailcordon's; what it says no to is for the caller to judge."""
        return CliRunner().invoke(main, arguments)

    def is_well(self) -> bool:
        """Does the check find nothing?"""
        kubeconfig = str(self.plane.kubeconfig())
        answer = self.say("install", "--check", "--namespace", self.namespace, "--kubeconfig", kubeconfig)
        self.found = answer.output
        return answer.exit_code == 0

    def get(self, kind: str, name: str) -> dict[str, Any]:
        """An object; empty where there is none."""
        return json.loads(self("get", kind, name, "--ignore-not-found", "-o", "json") or "{}")  # type: ignore[no-any-return]

    def condition(self, kind: str, part: str = "status") -> str:
        """The status of a condition of the campaign, or another part of it."""
        told = self.get("campaign", SENDER).get("status", {}).get("conditions", ())
        return next((str(one[part]) for one in told if one["type"] == kind), "")


@pytest.fixture
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedKafka]:
    """One for this test: an installation's topics have fixed names."""
    with EmbeddedKafka(tmp_path_factory.mktemp("kafka"), cache=default_cache(), say=print) as one:
        yield one


@contextmanager
def installed(plane: ControlPlane, bootstrap: str, folder: Path, **variables: str) -> Iterator[Installation]:
    """The base in a namespace of its own, with the roles that send and judge."""
    with namespaced(plane) as one:
        here = Installation(one.plane, one.namespace)
        config = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "mailcordon"},
            "data": {
                "MAILCORDON_KAFKA": bootstrap,
                "MAILCORDON_REPLICATION": "1",
                "MAILCORDON_SMTP_ROUTES": "*=127.0.0.1:1",
                "MAILCORDON_HOSTNAME": "me.example",
                **variables,
            },
        }
        replicas = [{"name": f"mailcordon-{role}", "count": 1} for role in ("worker", "return-path")]
        patches = [{"patch": json.dumps(config)}]
        here.apply(here.rendered("base", folder / "manifests", patches=patches, replicas=replicas))
        keys = json.dumps({"key_id": "1", "address": "aa" * 32, "return_path": "bb" * 32})
        here("create", "secret", "generic", "mailcordon-keys", f"--from-literal=secrets.json={keys}")
        yield here


@pytest.fixture
def installation(own_plane: ControlPlane, broker: EmbeddedKafka, tmp_path: Path) -> Iterator[Installation]:
    with installed(own_plane, broker.bootstrap, tmp_path) as here:
        yield here


def test_roles_come_up_a_campaign_gets_its_sender_and_an_isolation_takes_it_away(
    installation: Installation, broker: EmbeddedKafka, tmp_path: Path
) -> None:
    here = installation
    here.until(here.is_well, within_s=120, what=lambda: f"all is well:\n{here.found}")

    file = tmp_path / "campaign.json"
    file.write_text(json.dumps(CAMPAIGN), encoding="utf-8")
    kafka = ("--kafka", broker.bootstrap)
    assert here.say("campaign", "apply", str(file), *kafka).exit_code == 0
    here.until(lambda: here.condition("Ready") == "True", within_s=90, what=lambda: str(here.get("campaign", SENDER)))
    for kind in ("deployment", "networkpolicy", "service", "serviceaccount", "poddisruptionbudget"):
        assert here.get(kind, SENDER), kind
    assert here.get("poddisruptionbudget", SENDER)["spec"]["maxUnavailable"] == 1

    here("create", "quota", "full", "--hard=pods=4")
    here("scale", "campaign", SENDER, "--replicas=3")
    here.until(
        lambda: here.condition("Ready", "reason") == "PodsRefused", what=lambda: str(here.get("campaign", SENDER))
    )
    assert here.condition("Ready", "message").startswith("exceeded quota: full")
    here("delete", "quota", "full")

    assert here.say("isolate", "spring-sale", "--reason", "the list was bought", *kafka).exit_code == 0
    here.until(
        lambda: here.condition("Isolated") == "True", within_s=90, what=lambda: str(here.get("campaign", SENDER))
    )
    assert here.get("deployment", SENDER)["spec"]["replicas"] == 0
    assert here.get("networkpolicy", SENDER)["spec"].get("egress", []) == []
    assert "the list was bought" in here.refusal("scale", "deployment", SENDER, "--replicas=1")

    assert here.is_well(), here.found
    assert f"a replica for {SENDER}, which is stopped: is refused" in here.found

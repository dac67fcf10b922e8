"""A source address for one campaign: golden files per network, one sender selected, and what cannot work is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from k8s import labels, patches
from k8s.egress_addresses import NETWORKS, Network, Unsuitable, egress_objects
from k8s.patches import Site
from tests.k8s.builders import spec

GOLDEN = Path(__file__).parent / "golden" / "egress"
SITE = Site(namespace="mail")

OBJECTS: dict[str, list[dict[str, Any]]] = {
    "cilium": egress_objects("cilium", spec(), SITE, ["192.0.2.7"]),
    "cilium-both": egress_objects("cilium", spec(), SITE, ["192.0.2.7", "2001:db8::7"]),
    "ovn": egress_objects("ovn", spec(), SITE, ["192.0.2.7", "2001:db8::7"]),
    "antrea": egress_objects("antrea", spec(), SITE, ["192.0.2.7"]),
    "antrea-pool": egress_objects("antrea", spec(), SITE, ["192.0.2.7"], pool="mail-addresses"),
}


@pytest.mark.parametrize("name", OBJECTS)
def test_the_golden_file(name: str) -> None:
    assert OBJECTS[name] == json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))


def test_every_golden_file_is_checked() -> None:
    assert {file.stem for file in GOLDEN.glob("*.json")} == set(OBJECTS)


@pytest.mark.parametrize("name", OBJECTS)
def test_the_pods_of_this_sender_are_selected_and_no_others(name: str) -> None:
    for body in OBJECTS[name]:
        told = json.dumps(body["spec"])
        for key, value in patches.selector(spec()).items():
            assert f'"{key}": "{value}"' in told
        assert '"mail"' in told, "the namespace is part of the selection"


@pytest.mark.parametrize("name", OBJECTS)
def test_the_controller_does_not_take_it_for_one_of_its_own(name: str) -> None:
    assert all(labels.MANAGED_BY not in body["metadata"]["labels"] for body in OBJECTS[name])


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize(
    ("addresses", "why"),
    [
        ([], "no address"),
        (["mail.example"], "no IP address"),
        (["192.0.2.7", "192.0.2.8"], "one address of each kind"),
        (["127.0.0.1"], "leave from"),
        (["224.0.0.1"], "leave from"),
        (["fe80::1"], "leave from"),
        (["0.0.0.0"], "leave from"),
    ],
)
def test_addresses_that_cannot_work_are_refused(network: Network, addresses: list[str], why: str) -> None:
    with pytest.raises(Unsuitable, match=why):
        egress_objects(network, spec(), SITE, addresses)


def test_an_address_that_a_cloud_translates_is_taken() -> None:
    [body] = egress_objects("cilium", spec(), SITE, ["10.0.0.25"])

    assert body["spec"]["egressGateway"]["egressIP"] == "10.0.0.25"


def test_two_addresses_are_too_many_for_antrea_and_pools_are_only_its_own() -> None:
    with pytest.raises(Unsuitable, match="one address"):
        egress_objects("antrea", spec(), SITE, ["192.0.2.7", "2001:db8::7"])
    with pytest.raises(Unsuitable, match="Antrea's"):
        egress_objects("ovn", spec(), SITE, ["192.0.2.7"], pool="mail")


def test_campaigns_never_share_an_object() -> None:
    names = {
        body["metadata"]["name"]
        for campaign in ("a", "b")
        for one in NETWORKS
        for body in egress_objects(one, spec(campaign), SITE, ["192.0.2.7"])
    }

    assert len(names) == 2

"""A campaign's own source address, in the words of three network plugins.

Pure builders of objects that a person reviews and applies: they are cluster-wide, and the controller has no rights
beyond its namespace.  A LoadBalancer or an external IP of a Service is a way in and changes no source address.  Where
the network is none of these, the egress proxy (``MAILCORDON_EGRESS_PROXY``) does the same without any of them.

The forms are those of the plugins' own documents: CiliumEgressGatewayPolicy (cilium.io/v2), EgressIP
(k8s.ovn.org/v1), Egress (crd.antrea.io/v1beta1).  In each, exactly one object selects a sender's pods: two would share
the mail out between their addresses, and reputation with it.
"""

import ipaddress
from collections.abc import Sequence
from typing import Literal, get_args

from k8s import labels
from k8s.cluster import SenderSpec
from k8s.patches import PRIVATE_V4, PRIVATE_V6, Body, Site, selector

Network = Literal["cilium", "ovn", "antrea"]
NETWORKS: tuple[Network, ...] = get_args(Network)

GATEWAY_LABEL = f"{labels.DOMAIN}/egress-gateway"
"""On the nodes that own addresses, where the plugin lets us choose them (Cilium)."""

_NAMESPACE = "kubernetes.io/metadata.name"  # set on every namespace by the API server


class Unsuitable(ValueError):  # noqa: N818 - it is what it says, not a failure of ours
    """An address, or so many of them, that this network cannot give to one sender; the message says why."""


def egress_objects(
    network: Network, spec: SenderSpec, site: Site, addresses: Sequence[str], *, pool: str | None = None
) -> list[Body]:
    """The objects that let a sender's connections leave from these addresses: at most one IPv4 and one IPv6.

    ``pool`` names Antrea's ExternalIPPool, from which it gives the address to a node and moves it when that one dies.
    """
    for text in addresses:
        _check(text)
    if not addresses:
        raise Unsuitable("no address was given")
    if len(addresses) != len({_version(one) for one in addresses}):
        raise Unsuitable("a sender has one address of each kind at most: with two its mail is shared out between them")
    if pool is not None and network != "antrea":
        raise Unsuitable(f"an ExternalIPPool is Antrea's; {network} takes the address as it is")
    match network:
        case "cilium":
            return [_cilium(spec, site, address) for address in addresses]
        case "ovn":
            return [_ovn(spec, site, addresses)]
        case "antrea":
            return [_antrea(spec, site, addresses, pool)]


def _cilium(spec: SenderSpec, site: Site, address: str) -> Body:
    """One policy per kind of address.  What stays inside (Kafka, a smarthost) leaves as it did."""
    everywhere, inside = ("0.0.0.0/0", PRIVATE_V4) if _version(address) == 4 else ("::/0", PRIVATE_V6)
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumEgressGatewayPolicy",
        "metadata": _metadata(spec, site, suffix="" if _version(address) == 4 else "-v6"),
        "spec": {
            "selectors": [
                {"podSelector": {"matchLabels": {"io.kubernetes.pod.namespace": site.namespace, **selector(spec)}}}
            ],
            "destinationCIDRs": [everywhere],
            "excludedCIDRs": list(inside),
            # Where no node has both the label and the address, Cilium drops the packets: no mail from a wrong one.
            "egressGateway": {"nodeSelector": {"matchLabels": {GATEWAY_LABEL: "true"}}, "egressIP": address},
        },
    }


def _ovn(spec: SenderSpec, site: Site, addresses: Sequence[str]) -> Body:
    """Nodes that may have the address carry the label ``k8s.ovn.org/egress-assignable``."""
    return {
        "apiVersion": "k8s.ovn.org/v1",
        "kind": "EgressIP",
        "metadata": _metadata(spec, site),
        "spec": {
            "egressIPs": list(addresses),
            "namespaceSelector": {"matchLabels": {_NAMESPACE: site.namespace}},
            "podSelector": {"matchLabels": selector(spec)},
        },
    }


def _antrea(spec: SenderSpec, site: Site, addresses: Sequence[str], pool: str | None) -> Body:
    """Without a pool the address has to be on a node already."""
    if len(addresses) > 1:
        raise Unsuitable("an Egress of Antrea has one address; give the IPv4 one")
    return {
        "apiVersion": "crd.antrea.io/v1beta1",
        "kind": "Egress",
        "metadata": _metadata(spec, site),
        "spec": {
            "appliedTo": {
                "namespaceSelector": {"matchLabels": {_NAMESPACE: site.namespace}},
                "podSelector": {"matchLabels": selector(spec)},
            },
            "egressIP": addresses[0],
            **({"externalIPPool": pool} if pool else {}),
        },
    }


def _metadata(spec: SenderSpec, site: Site, suffix: str = "") -> Body:
    """A name of the whole cluster, so the namespace is part of it; no label by which the controller finds its own."""
    return {
        "name": f"{site.namespace}-{spec.name}{suffix}",
        "labels": {labels.NAME: "mailcordon", labels.CAMPAIGN: selector(spec)[labels.CAMPAIGN]},
        "annotations": {labels.CAMPAIGN: spec.campaign},
    }


def _check(text: str) -> None:
    """A private address is fine: many clouds translate one to a public address."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError as wrong:
        raise Unsuitable(f"{text!r} is no IP address") from wrong
    if address.is_multicast or address.is_unspecified or address.is_loopback or address.is_link_local:
        raise Unsuitable(f"{text} is no address that mail could leave from")


def _version(address: str) -> int:
    return ipaddress.ip_address(address).version

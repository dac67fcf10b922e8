"""The Kubernetes objects of one sender as plain data: Deployment, its budget, Service, NetworkPolicy, ServiceAccount.

Pure builders; the golden files beside their tests show them.  Each body is everything that we own of the object,
because in server-side apply a field that is left out is given up: a Deployment applied without ``replicas`` falls
back to one, which would wake an isolated sender.

The NetworkPolicy is the only one that lets a sender speak SMTP to the world; what senders need to work and to
finish (names, Kafka) is allowed by the namespace's own policies.  To isolate is to empty it: Kubernetes knows no
policy that denies, so adding one would change nothing.
"""

import hashlib
import ipaddress
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from k8s import labels
from k8s.cluster import SenderSpec, kept_reason
from k8s.times import rfc3339
from policy.naming import campaign_name
from schemas.reputation import Control
from schemas.sending import Pace

Body = dict[str, Any]  # Any: JSON of the Kubernetes API

SMTP_PORT, METRICS_PORT = 2525, 9100
KILL_MARGIN_S = 15
"""Between the end of the sender's own grace and the kubelet's SIGKILL: a message in its final dot is finished or
given up by the sender, which knows the difference, and not by a signal."""

USER_ID = 10001
SECRETS = "/etc/mailcordon/secrets"
DKIM = "/etc/mailcordon/dkim"
EGRESS = "/etc/mailcordon/egress"
KAFKA = "/etc/mailcordon/kafka"
DATA = "/var/lib/mailcordon"

# Addresses that no public mail server has: RFC 1918, RFC 6598, link-local (cloud metadata too), loopback, ULA.
PRIVATE_V4 = ("10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16")
PRIVATE_V6 = ("::1/128", "fc00::/7", "fe80::/10")


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What all senders of an installation have in common.

    ``config`` and ``secret`` name the ConfigMap with the ``MAILCORDON_`` variables and the Secret with the keys
    file; ``dkim``, ``egress`` and ``kafka`` name three Secrets that may be missing: signing keys
    ``DOMAIN__SELECTOR.pem``, what a smarthost or a proxy wants to see, and what Kafka does.  ``private_mx``: may mail
    servers found by MX look-up have private addresses?  ``hops`` are the fixed next hops (host, port), smarthost and
    proxy, which are allowed wherever they are.  ``mta_sts``: are recipients' policies asked for, by HTTPS?
    ``sees_addresses``: does a server tell senders which address it sees them with?
    """

    namespace: str = "mailcordon"
    image: str = "mailcordon:0.1.0"
    config: str = "mailcordon"
    secret: str = "mailcordon-keys"  # noqa: S105 - the name of the object, not what is in it
    dkim: str = "mailcordon-dkim"
    egress: str = "mailcordon-egress"
    kafka: str = "mailcordon-kafka"
    private_mx: bool = False
    hops: tuple[tuple[str, int], ...] = ()
    mta_sts: bool = False
    sees_addresses: bool = False
    resources: Mapping[str, Mapping[str, str]] = field(
        default_factory=lambda: {
            "requests": {"cpu": "100m", "memory": "96Mi", "ephemeral-storage": "64Mi"},
            "limits": {"memory": "256Mi", "ephemeral-storage": "256Mi"},  # no CPU limit: throttling is lateness
        }
    )


def service_account(spec: SenderSpec, site: Site) -> Body:
    """An identity of its own without any rights and without a token."""
    return _shaped(
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": _metadata(spec, site),
            "automountServiceAccountToken": False,
        }
    )


def service(spec: SenderSpec, site: Site) -> Body:
    """The sender's name inside the cluster: SMTP on port 25, metrics beside it."""
    return _shaped(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": _metadata(spec, site),
            "spec": {
                "type": "ClusterIP",
                "selector": selector(spec),
                "ports": [
                    {"name": "smtp", "port": 25, "targetPort": "smtp", "protocol": "TCP"},
                    {"name": "metrics", "port": METRICS_PORT, "targetPort": "metrics", "protocol": "TCP"},
                ],
            },
        }
    )


def pod_disruption_budget(spec: SenderSpec, site: Site) -> Body:
    """What a drain of nodes may take away at a time: one pod of a sender.

    Not ``minAvailable: 1``: a sender with one replica, which is most of them, would then hold up every drain for
    ever.  One pod may go, because a sender finishes its mail in its grace and the next one reads the ledger.  A pod
    that is not ready, waiting for its address say, sends nothing and may always go.
    """
    return _shaped(
        {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": _metadata(spec, site),
            "spec": {
                "maxUnavailable": 1,
                "unhealthyPodEvictionPolicy": "AlwaysAllow",
                "selector": {"matchLabels": selector(spec)},
            },
        }
    )


def network_policy(spec: SenderSpec, site: Site, control: Control, *, is_open: bool) -> Body:
    """The sender's one way out, open or emptied."""
    shut = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": _metadata(spec, site),
        "spec": {"podSelector": {"matchLabels": selector(spec)}, "policyTypes": ["Egress"], "egress": []},
    }
    way_out = _way_out(site)
    shaped = _shaped(shut, way_out)
    shaped["spec"]["egress"] = way_out if is_open else []
    return _stated(shaped, control)


def deployment(spec: SenderSpec, site: Site, control: Control, *, replicas: int) -> Body:
    """The sender's pods.  ``replicas`` has no default: leaving it out would wake an isolated sender."""
    body = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _metadata(spec, site),
        "spec": {
            "revisionHistoryLimit": 3,
            # Never more senders than wanted: each has its share of the pace, and shares must not add up to more.
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},
            "selector": {"matchLabels": selector(spec)},
            "template": {
                "metadata": {
                    "labels": _labels(spec),
                    "annotations": {labels.CAMPAIGN: spec.campaign}
                    | ({labels.SOURCE: spec.source.address} if spec.source is not None else {}),
                },
                "spec": _pod(spec, site),
            },
        },
    }
    shaped = _shaped(body)
    shaped["spec"]["replicas"] = replicas
    return _stated(shaped, control)


def shape_of(body: Body) -> str:
    """The fingerprint that a body carries."""
    return str(body["metadata"]["annotations"][labels.SHAPE])


def combined(shapes: Mapping[str, object]) -> str:
    """One fingerprint of the objects' fingerprints, by kind."""
    return _digest(sorted(shapes.items()))


def fingerprint(spec: SenderSpec, site: Site, *, without: Container[str] = ()) -> str:
    """What a sender of this spec is made from; its state and its replicas are no part of it, nor kinds ``without``."""
    anything = Control(campaign=spec.campaign, epoch=1, may_send=False, pace=Pace(), state="paused", reason="", at=0)
    bodies = (
        service_account(spec, site),
        service(spec, site),
        pod_disruption_budget(spec, site),
        network_policy(spec, site, anything, is_open=False),
        deployment(spec, site, anything, replicas=0),
    )
    return combined({body["kind"]: shape_of(body) for body in bodies if body["kind"] not in without})


def selector(spec: SenderSpec) -> dict[str, str]:
    """The labels by which a sender's pods are found; a Deployment's selector can never be changed."""
    return {labels.NAME: "mailcordon", labels.COMPONENT: "sender", labels.CAMPAIGN: campaign_name(spec.campaign)}


def _labels(spec: SenderSpec) -> dict[str, str]:
    owned = {labels.label_key(key): labels.label_value(value) for key, value in spec.labels[: labels.MOST_OWNER_LABELS]}
    tenant = {labels.TENANT: labels.label_value(spec.tenant)} if spec.tenant else {}
    return owned | tenant | selector(spec) | {labels.MANAGED_BY: "mailcordon"}


def _metadata(spec: SenderSpec, site: Site) -> Body:
    return {
        "name": spec.name,
        "namespace": site.namespace,
        "labels": _labels(spec),
        "annotations": {labels.CAMPAIGN: spec.campaign},
    }


def _stated(body: Body, control: Control) -> Body:
    metadata = body["metadata"]
    metadata["labels"] = metadata["labels"] | {labels.STATE: control.state}
    metadata["annotations"] = metadata["annotations"] | {
        labels.FENCE: str(control.epoch),
        labels.STATE: control.state,
        labels.REASON: kept_reason(control),
    }
    if control.at:
        metadata["annotations"][labels.SINCE] = rfc3339(control.at)
    return body


def _shaped(body: Body, *more: object) -> Body:
    body["metadata"]["annotations"][labels.SHAPE] = _digest([body, *more])
    return body


def _digest(what: object) -> str:
    return hashlib.sha256(msgspec.json.encode(what, order="deterministic")).hexdigest()[:16]


def _way_out(site: Site) -> list[Body]:
    public = [_block("0.0.0.0/0", PRIVATE_V4, site), _block("::/0", PRIVATE_V6, site)]
    public_ports = (25, 443) if site.mta_sts else (25,)
    rules: list[Body] = [{"to": public, "ports": [{"port": port, "protocol": "TCP"} for port in public_ports]}]
    for host, port in sorted(set(site.hops)):
        ports = [{"port": port, "protocol": "TCP"}]
        try:
            address = ipaddress.ip_network(host)
        except ValueError:
            rules.append({"ports": ports})  # a name: policies know addresses only, so it is any host on this port
        else:
            rules.append({"to": [{"ipBlock": {"cidr": str(address)}}], "ports": ports})
    return rules


def _block(cidr: str, private: tuple[str, ...], site: Site) -> Body:
    return {"ipBlock": {"cidr": cidr} if site.private_mx else {"cidr": cidr, "except": list(private)}}


def _pod(spec: SenderSpec, site: Site) -> Body:
    return {
        "serviceAccountName": spec.name,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": spec.grace_s + KILL_MARGIN_S,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER_ID,
            "runAsGroup": USER_ID,
            "fsGroup": USER_ID,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": key,
                "whenUnsatisfiable": "ScheduleAnyway",  # two on one node are worse than one each, and better than one
                "labelSelector": {"matchLabels": selector(spec)},
            }
            for key in ("topology.kubernetes.io/zone", "kubernetes.io/hostname")
        ],
        "containers": [_container(spec, site)],
        "volumes": [
            {"name": "keys", "secret": {"secretName": site.secret, "defaultMode": 0o440}},
            {"name": "dkim", "secret": {"secretName": site.dkim, "defaultMode": 0o440, "optional": True}},
            {"name": "egress", "secret": {"secretName": site.egress, "defaultMode": 0o440, "optional": True}},
            {"name": "kafka", "secret": {"secretName": site.kafka, "defaultMode": 0o440, "optional": True}},
            {"name": "data", "emptyDir": {"sizeLimit": "128Mi"}},
            {"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}},
        ],
    }


def _source(spec: SenderSpec) -> list[Body]:
    """The campaign's own address, which wins over all ConfigMaps."""
    if spec.source is None:
        return []
    named = spec.source.helo_name
    return [
        {"name": "MAILCORDON_EGRESS_ADDRESS", "value": spec.source.address},
        *([{"name": "MAILCORDON_HOSTNAME", "value": named}] if named else []),
    ]


def _container(spec: SenderSpec, site: Site) -> Body:
    return {
        "name": "sender",
        "image": site.image,
        "imagePullPolicy": "IfNotPresent",  # a digest never changes, and an image that was loaded has no registry
        # Kubernetes expands $(NAME) in arguments; a campaign id is no template.
        "args": ["sender", f"--campaign={spec.campaign}".replace("$", "$$")],
        "env": [
            {"name": "MAILCORDON_DATA", "value": DATA},
            {"name": "MAILCORDON_DKIM_FOLDER", "value": DKIM},
            {"name": "MAILCORDON_GRACE_S", "value": str(spec.grace_s)},
            {"name": "MAILCORDON_LOG_FORMAT", "value": "json"},
            {"name": "MAILCORDON_SECRET_FILE", "value": f"{SECRETS}/secrets.json"},
            {"name": "MAILCORDON_SENDER_WEB", "value": f"0.0.0.0:{METRICS_PORT}"},
            *_source(spec),
        ],
        "envFrom": [  # of the same variable the last one counts: a sender may have settings of its own
            {"configMapRef": {"name": site.config}},
            {"configMapRef": {"name": spec.name, "optional": True}},
        ],
        "ports": [
            {"name": "smtp", "containerPort": SMTP_PORT, "protocol": "TCP"},
            {"name": "metrics", "containerPort": METRICS_PORT, "protocol": "TCP"},
        ],
        "readinessProbe": {
            "httpGet": {"path": "/readyz", "port": "metrics"},
            "periodSeconds": 5,
            "timeoutSeconds": 3,
        },
        "livenessProbe": {
            "httpGet": {"path": "/healthz", "port": "metrics"},
            "initialDelaySeconds": 30,
            "periodSeconds": 10,
            "timeoutSeconds": 5,
            "failureThreshold": 6,
        },
        "resources": {kind: dict(amounts) for kind, amounts in site.resources.items()},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "volumeMounts": [
            {"name": "keys", "mountPath": SECRETS, "readOnly": True},
            {"name": "dkim", "mountPath": DKIM, "readOnly": True},
            {"name": "egress", "mountPath": EGRESS, "readOnly": True},
            {"name": "kafka", "mountPath": KAFKA, "readOnly": True},
            {"name": "data", "mountPath": DATA},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - a volume of the pod's own
        ],
    }

"""What could let a stopped sender send after all, or keep one from starting: autoscalers, policies, quotas.  Pure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from k8s.installation import Body, Finding
from k8s.patches import Site

SMTP = 25
_UNITS = {"": 1.0, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30}
_UNITS["Ti"] = 2.0**40


def autoscalers(hpas: Iterable[Body], scaled_objects: Iterable[Body], senders: Sequence[str]) -> list[Finding]:
    """Autoscalers that write a sender's replicas themselves, instead of asking its Campaign for them."""
    known = set(senders)
    listed = [("HorizontalPodAutoscaler", one) for one in hpas if not _made_by_keda(one)]
    listed += [("ScaledObject", one) for one in scaled_objects]
    findings = []
    for kind, one in listed:
        target = one.get("spec", {}).get("scaleTargetRef", {})
        if target.get("kind", "Deployment") == "Deployment" and _names_a_sender(str(target.get("name")), known):
            name = one["metadata"]["name"]
            says = f"scales the Deployment {target['name']}, which is the controller's: the two would fight"
            fix = f"let {name} scale the Campaign: apiVersion mailcordon.dev/v1alpha1, kind Campaign, the same name"
            findings.append(Finding(f"{kind} {name}", "wrong", says, fix))
    return findings or [Finding("autoscalers", "ok", "none scales a sender's Deployment")]


def _names_a_sender(name: str, known: set[str]) -> bool:
    return name in known or name.startswith("sender-")


def _made_by_keda(hpa: Body) -> bool:
    return "scaledobject.keda.sh/name" in (hpa["metadata"].get("labels") or {})


def ways_out(policies: Iterable[Body], senders: Mapping[str, Mapping[str, str]], port: int = SMTP) -> list[Finding]:
    """NetworkPolicies other than a sender's own that let its pods speak SMTP: they add up, and none can deny.

    ``senders`` are the labels of each sender's pods; where there is none yet, pass those of one that may come.
    """
    findings = []
    for policy in policies:
        name = policy["metadata"]["name"]
        selected = sorted(
            sender
            for sender, labels in senders.items()
            if sender != name and selects(policy["spec"].get("podSelector") or {}, labels)
        )
        if selected and any(allows(rule, port) for rule in _egress(policy["spec"])):
            whom = f"{selected[0]} and {len(selected) - 1} more" if len(selected) > 1 else selected[0]
            says = f"lets {whom} out to port {port}, also when isolated"
            findings.append(
                Finding(f"NetworkPolicy {name}", "wrong", says, f"take port {port} out of it, or senders out of reach")
            )
    return findings or [Finding("ways out", "ok", f"no policy but a sender's own lets it out to port {port}")]


def _egress(spec: Body) -> list[Body]:
    kinds = spec.get("policyTypes") or (["Ingress", "Egress"] if spec.get("egress") else ["Ingress"])
    return list(spec.get("egress") or ()) if "Egress" in kinds else []


def selects(selector: Body, labels: Mapping[str, str]) -> bool:
    """Does a label selector match these labels?  An empty one matches everything."""
    wanted = (selector.get("matchLabels") or {}).items()
    return all(labels.get(key) == value for key, value in wanted) and all(
        _matches(one, labels) for one in selector.get("matchExpressions") or ()
    )


def _matches(expression: Body, labels: Mapping[str, str]) -> bool:
    key, values = expression["key"], expression.get("values") or ()
    match expression["operator"]:
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
        case _:
            return True  # one that we do not know: rather a finding too many


def allows(rule: Body, port: int) -> bool:
    """Does an egress rule allow this TCP port to anybody?  One without ports allows all; a name may be any port."""
    ports = rule.get("ports")
    return not ports or any(_covers(one, port) for one in ports if one.get("protocol", "TCP") == "TCP")


def _covers(one: Body, port: int) -> bool:
    first = one.get("port")
    if first is None:
        return True
    if isinstance(first, str):
        return False  # the name of a port of pods inside: nobody's mail server in the world
    last = one.get("endPort") or first
    return bool(first <= port <= last)


def quota(quotas: Iterable[Body], site: Site) -> list[Finding]:
    """How many more senders the quotas have room for."""
    findings = []
    for one in quotas:
        name, status = one["metadata"]["name"], one.get("status", {})
        hard, used = status.get("hard") or {}, status.get("used") or {}
        room = {key: _room(hard[key], used.get(key, "0"), need) for key, need in _needs(site).items() if key in hard}
        if not room:
            continue
        key = min(room, key=lambda one: room[one])
        says = f"room for {room[key]} more senders; {key} ends first: {used.get(key, '0')} of {hard[key]} used"
        fix = "raise it, by the rule in docs/guide/kubernetes.md" if not room[key] else ""
        findings.append(Finding(f"ResourceQuota {name}", "ok" if room[key] else "wrong", says, fix))
    return findings or [
        Finding("ResourceQuota", "missing", "nothing bounds what this namespace takes", "apply k8s/manifests/base")
    ]


def _needs(site: Site) -> dict[str, float]:
    amounts = {
        f"{kind}.{resource}": quantity(amount)
        for kind, given in site.resources.items()
        for resource, amount in given.items()
    }
    return {"pods": 1.0, **amounts}


def _room(hard: Any, used: Any, need: float) -> int:  # Any: quantities, text or number
    return max(0, int((quantity(hard) - quantity(used)) / need + 1e-9))


def quantity(text: Any) -> float:  # Any: as above
    """A quantity of Kubernetes as a number: ``250m`` is 0.25, ``1Gi`` is 1073741824."""
    written = str(text)
    unit = written.lstrip("0123456789.+-")
    return float(written.removesuffix(unit) or 0) * _UNITS.get(unit, 1.0)

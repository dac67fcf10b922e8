"""What an installation must have: each thing that is missing or wrong has its line, and its fix."""

import copy
from typing import Any

import pytest

from k8s import installation as judge
from k8s import installation_rights as rights
from k8s import installation_traffic as traffic
from k8s import labels, patches
from k8s.installation import Body, Denied, Finding, Seen
from k8s.installation_reading import shipped
from k8s.installation_rights import FORBIDDEN, Pretended, Right
from k8s.patches import Site
from tests.k8s.builders import control, spec

SITE = Site()
DOCUMENTS = shipped()
NAMESPACE: Body = {
    "metadata": {"labels": {"mailcordon.dev/guarded": "true", "pod-security.kubernetes.io/enforce": "restricted"}}
}
WANTED = NAMESPACE["metadata"]["labels"]


def of(kind: str, name: str) -> Body:
    found = (one for one in DOCUMENTS if (one["kind"], one["metadata"]["name"]) == (kind, name))
    return copy.deepcopy(next(found))


def answers(findings: list[Finding]) -> list[str]:
    return [one.answer for one in findings]


# Versions and what is shipped.


@pytest.mark.parametrize(
    ("told", "answer"),
    [
        ({"major": "1", "minor": "37", "gitVersion": "v1.37.2"}, "ok"),
        ({"major": "1", "minor": "30+", "gitVersion": "v1.30.4-eks"}, "ok"),
        ({"major": "1", "minor": "29", "gitVersion": "v1.29.9"}, "wrong"),
        ({"major": "2", "minor": "0", "gitVersion": "v2.0.0"}, "ok"),
        ({}, "wrong"),
    ],
)
def test_the_api_server_must_know_admission_policies(told: Body, answer: str) -> None:
    assert judge.version(told).answer == answer


@pytest.mark.parametrize("body", DOCUMENTS, ids=[f"{one['kind']}-{one['metadata']['name']}" for one in DOCUMENTS])
def test_what_is_shipped_is_as_shipped(body: Body) -> None:
    assert judge.as_shipped("it", copy.deepcopy(body), body).answer == "ok"


def test_what_the_api_server_adds_is_no_difference() -> None:
    live = of("ValidatingAdmissionPolicy", "mailcordon-fence")
    live["spec"]["matchConstraints"]["matchPolicy"] = "Equivalent"
    for rule in live["spec"]["matchConstraints"]["resourceRules"]:
        rule["scope"] = "*"

    assert judge.as_shipped("it", live, of("ValidatingAdmissionPolicy", "mailcordon-fence")).answer == "ok"


def test_an_older_definition_is_named_by_its_field() -> None:
    live = of("CustomResourceDefinition", "campaigns.mailcordon.dev")
    del live["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["decision"]

    told = judge.as_shipped("Campaign resource", live, of("CustomResourceDefinition", "campaigns.mailcordon.dev"))

    assert told.answer == "wrong"
    assert "properties.spec.properties.decision" in told.says


def test_a_rule_that_was_taken_out_is_a_difference() -> None:
    live = of("ValidatingAdmissionPolicy", "mailcordon-stopped")
    live["spec"]["validations"].pop()

    told = judge.as_shipped("guard", live, of("ValidatingAdmissionPolicy", "mailcordon-stopped"))

    assert (told.answer, told.says) == ("wrong", "differs from this mailcordon's at spec.validations")


@pytest.mark.parametrize(("seen", "answer"), [(None, "missing"), (Denied("no"), "unknown")])
def test_what_is_not_there_or_not_shown_is_told_apart(seen: Seen, answer: str) -> None:
    body = of("CustomResourceDefinition", "campaigns.mailcordon.dev")

    assert judge.as_shipped("it", seen, body).answer == answer
    assert judge.role("mailcordon-worker", seen).answer == answer
    assert answers(judge.namespace(seen, "mailcordon", wanted=WANTED)) == [answer]
    assert answers(judge.config(seen, "mailcordon")) == [answer]


def test_a_definition_that_is_not_served_yet_says_why() -> None:
    told = {"type": "Established", "status": "False", "message": "a name is taken"}

    refused = judge.established({"status": {"conditions": [told]}})

    assert refused is not None
    assert "a name is taken" in refused.says
    assert judge.established({"status": {"conditions": [{"type": "Established", "status": "True"}]}}) is None
    assert judge.established(None) is None


def test_not_everything_known_is_not_well() -> None:
    assert judge.is_well([Finding("a", "ok", ""), Finding("b", "skipped", "")])
    for answer in ("missing", "wrong", "unknown"):
        assert not judge.is_well([Finding("a", "ok", ""), Finding("b", answer, "")])


# Namespace, settings, Secrets, roles.


def test_each_label_of_the_namespace_has_its_line() -> None:
    live = copy.deepcopy(NAMESPACE)
    live["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] = "baseline"
    del live["metadata"]["labels"]["mailcordon.dev/guarded"]

    findings = judge.namespace(live, "mail", wanted=WANTED)

    assert answers(findings) == ["missing", "wrong"]
    assert findings[0].fix == "kubectl label namespace mail --overwrite mailcordon.dev/guarded=true"
    assert set(answers(judge.namespace(NAMESPACE, "mail", wanted=WANTED))) == {"ok"}


CONFIG = {
    "MAILCORDON_KAFKA": "kafka:9092",
    "MAILCORDON_BACKEND": "kubernetes",
    "MAILCORDON_IMAGE": "registry.example/mailcordon@sha256:1",
}


@pytest.mark.parametrize(
    ("changes", "check", "answer"),
    [
        ({}, "ConfigMap mailcordon", "ok"),
        ({"MAILCORDON_KAFKA": None}, "ConfigMap mailcordon, MAILCORDON_KAFKA", "missing"),
        ({"MAILCORDON_IMAGE": None}, "ConfigMap mailcordon, MAILCORDON_IMAGE", "missing"),
        ({"MAILCORDON_BACKEND": "process"}, "ConfigMap mailcordon, MAILCORDON_BACKEND", "wrong"),
        ({"MAILCORDON_PARTITIONS": "many"}, "ConfigMap mailcordon", "wrong"),
        ({"MAILCORDON_PARTITION": "4"}, "ConfigMap mailcordon, MAILCORDON_PARTITION", "wrong"),
        ({"MAILCORDON_IMAGE": "x.invalid/mailcordon"}, "ConfigMap mailcordon, MAILCORDON_IMAGE", "wrong"),
    ],
)
def test_settings_that_cannot_be_meant_are_named(changes: dict[str, str | None], check: str, answer: str) -> None:
    data = {key: value for key, value in (CONFIG | changes).items() if value is not None}

    [found] = judge.config({"metadata": {}, "data": data}, "mailcordon")

    assert (found.check, found.answer) == (check, answer)


def test_only_secrets_that_something_asks_for_are_missing() -> None:
    plain = {one.check: one.answer for one in judge.secrets({}, SITE, CONFIG)}
    by_tls = {
        one.check: one.answer
        for one in judge.secrets({}, SITE, CONFIG | {"MAILCORDON_KAFKA_CA_FILE": "/etc/mailcordon/kafka/ca.crt"})
    }

    assert plain == {
        "Secret mailcordon-keys": "missing",
        "Secret mailcordon-kafka": "skipped",
        "Secret mailcordon-dkim": "skipped",
        "Secret mailcordon-egress": "skipped",
    }
    assert by_tls == plain | {"Secret mailcordon-kafka": "missing"}
    assert judge.secrets({"mailcordon-keys": {"metadata": {}}}, SITE, CONFIG)[0].answer == "ok"
    assert judge.secrets({"mailcordon-keys": Denied("no")}, SITE, CONFIG)[0].answer == "unknown"


def deployed(name: str = "mailcordon-worker", *, wanted: int = 2, ready: int = 2, failing: str = "") -> Body:
    conditions = [{"type": "ReplicaFailure", "status": "True", "message": failing}] if failing else []
    return {
        "metadata": {"name": name, "labels": patches.selector(spec())},
        "spec": {"replicas": wanted},
        "status": {"readyReplicas": ready, "conditions": conditions},
    }


@pytest.mark.parametrize(
    ("body", "answer", "says"),
    [
        (deployed(), "ok", "2 of 2"),
        (deployed(ready=1), "wrong", "1 of 2"),
        (deployed(wanted=0, ready=0), "wrong", "0 of 0"),
        (deployed(ready=0, failing="exceeded quota: mailcordon"), "wrong", "exceeded quota"),
    ],
)
def test_a_role_that_does_not_run_says_why(body: Body, answer: str, says: str) -> None:
    told = judge.role("mailcordon-worker", body)

    assert told.answer == answer
    assert says in told.says


def test_a_sender_whose_pods_the_quota_refuses_has_a_line() -> None:
    bodies = [deployed("sender-a"), deployed("sender-b", ready=0, failing='pods "x" is forbidden: exceeded quota')]

    [told] = judge.refused_senders(bodies)

    assert (told.check, told.answer) == ("sender sender-b", "wrong")
    assert "exceeded quota" in told.says


# Rights.

NEEDED = rights.granted(DOCUMENTS)


def test_the_controller_needs_what_its_roles_grant() -> None:
    assert Right("patch", "apps", "deployments") in NEEDED
    assert Right("update", "mailcordon.dev", "campaigns/decision") in NEEDED
    assert Right("create", "", "serviceaccounts") in NEEDED
    assert not set(NEEDED) & set(FORBIDDEN)
    assert rights.granted(DOCUMENTS, "mailcordon-worker") == []


def test_a_right_is_asked_for_with_its_subresource_apart() -> None:
    asked = Right("update", "mailcordon.dev", "campaigns/decision").asked("mail")

    assert (asked["resource"], asked["subresource"], asked["namespace"]) == ("campaigns", "decision", "mail")


def test_rights_that_are_lacking_and_rights_too_many_are_told_apart() -> None:
    may: dict[Right, bool | Denied] = dict.fromkeys(NEEDED, True) | dict.fromkeys(FORBIDDEN, False)
    assert answers(rights.rights(NEEDED, may, namespace="mail")) == ["ok"]

    lacking, excess = Right("patch", "apps", "deployments"), Right("get", "", "secrets")
    missing, wrong = rights.rights(NEEDED, may | {lacking: False, excess: True}, namespace="mail")

    assert (missing.answer, missing.says) == ("missing", "may not: patch deployments")
    assert (wrong.answer, wrong.says) == ("wrong", "may, and must not: get secrets")
    assert "--as system:serviceaccount:mail:mailcordon-controller" in wrong.fix


def test_whoever_may_not_ask_what_others_may_is_told_so() -> None:
    may: dict[Right, bool | Denied] = dict.fromkeys((*NEEDED, *FORBIDDEN), Denied("not you"))

    assert answers(rights.rights(NEEDED, may, namespace="mail")) == ["unknown"]


# The guard.


def test_a_write_that_would_be_taken_is_a_guard_that_does_not_hold() -> None:
    by_us = "deployments.apps is forbidden: ValidatingAdmissionPolicy 'mailcordon-fence' with binding 'x' denied: no"
    told = rights.guard([Pretended("a", done=True), Pretended("b", False, by_us), Pretended("c", False, "no rights")])

    assert answers(told) == ["wrong", "ok", "unknown"]


def test_what_is_tried_would_open_an_isolated_sender() -> None:
    bodies = {one["kind"]: one for one in rights.forbidden_writes(SITE).values()}

    assert bodies["Deployment"]["spec"]["replicas"] == 1
    assert bodies["NetworkPolicy"]["spec"]["egress"]
    for kind in ("Deployment", "NetworkPolicy"):
        assert bodies[kind]["metadata"]["annotations"][labels.STATE] == "isolated"


# Autoscalers.


def hpa(kind: str, name: str, **extra: Any) -> Body:
    return {"metadata": {"name": "it", **extra}, "spec": {"scaleTargetRef": {"kind": kind, "name": name}}}


@pytest.mark.parametrize(
    ("kind", "name", "answer"),
    [
        ("Campaign", "sender-spring-sale-e22abe2bc7ea", "ok"),
        ("Deployment", "sender-spring-sale-e22abe2bc7ea", "wrong"),
        ("Deployment", "mailcordon-worker", "ok"),
        ("Deployment", "renamed", "wrong"),
    ],
)
def test_an_autoscaler_aims_at_the_campaign_and_never_at_its_deployment(kind: str, name: str, answer: str) -> None:
    for listed in (([hpa(kind, name)], []), ([], [hpa(kind, name)])):
        assert answers(traffic.autoscalers(*listed, ["renamed"])) == [answer]


def test_what_keda_makes_is_told_once() -> None:
    made = hpa("Deployment", "sender-a", labels={"scaledobject.keda.sh/name": "it"})

    assert len(traffic.autoscalers([made], [hpa("Deployment", "sender-a")], [])) == 1


# Policies.

PODS = {"sender-a": patches.selector(spec("a")), "any sender": patches.selector(spec("b"))}


def policy(egress: list[Body], selector: Body | None = None, name: str = "other", **more: Any) -> Body:
    return {"metadata": {"name": name}, "spec": {"podSelector": selector or {}, "egress": egress, **more}}


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        pytest.param(policy([{}]), "wrong", id="everything"),
        pytest.param(policy([{"ports": [{"port": 25, "protocol": "TCP"}]}]), "wrong", id="port 25"),
        pytest.param(policy([{"ports": [{"port": 25}]}]), "wrong", id="TCP is what is meant without a word"),
        pytest.param(policy([{"ports": [{"protocol": "TCP"}]}]), "wrong", id="every port"),
        pytest.param(policy([{"ports": [{"port": 20, "endPort": 30}]}]), "wrong", id="a range"),
        pytest.param(policy([{"ports": [{"port": 26, "endPort": 30}]}]), "ok", id="a range beside it"),
        pytest.param(policy([{"ports": [{"port": 25, "protocol": "UDP"}]}]), "ok", id="another protocol"),
        pytest.param(policy([{"ports": [{"port": "smtp"}]}]), "ok", id="a named port of pods"),
        pytest.param(policy([{"ports": [{"port": 9092}]}]), "ok", id="Kafka"),
        pytest.param(policy([]), "ok", id="nothing"),
        pytest.param(policy([{}], policyTypes=["Ingress"]), "ok", id="egress is not its matter"),
        pytest.param(policy([{}], {"matchLabels": {labels.COMPONENT: "worker"}}), "ok", id="other pods"),
        pytest.param(policy([{}], {"matchLabels": {labels.COMPONENT: "sender"}}), "wrong", id="all senders"),
        pytest.param(policy([{}], {"matchLabels": PODS["sender-a"]}), "wrong", id="one sender"),
        pytest.param(policy([{}], {"matchLabels": PODS["sender-a"]}, "sender-a"), "ok", id="the sender's own"),
        pytest.param(
            policy([{}], {"matchExpressions": [{"key": labels.COMPONENT, "operator": "In", "values": ["worker"]}]}),
            "ok",
            id="in",
        ),
        pytest.param(
            policy([{}], {"matchExpressions": [{"key": labels.COMPONENT, "operator": "NotIn", "values": ["worker"]}]}),
            "wrong",
            id="not in",
        ),
        pytest.param(
            policy([{}], {"matchExpressions": [{"key": labels.CAMPAIGN, "operator": "DoesNotExist"}]}),
            "ok",
            id="does not exist",
        ),
        pytest.param(
            policy([{}], {"matchExpressions": [{"key": labels.CAMPAIGN, "operator": "Exists"}]}), "wrong", id="exists"
        ),
    ],
)
def test_another_policy_that_lets_senders_mail_out_is_found(body: Body, answer: str) -> None:
    assert answers(traffic.ways_out([body], PODS)) == [answer]


def test_the_policies_that_we_ship_and_make_let_nobody_else_out() -> None:
    shipped_policies = [one for one in DOCUMENTS if one["kind"] == "NetworkPolicy"]
    own = patches.network_policy(spec("a"), SITE, control(name="a"), is_open=True)
    pods = {spec("a").name: patches.selector(spec("a")), "any sender": patches.selector(spec("b"))}

    assert answers(traffic.ways_out([*shipped_policies, own], pods)) == ["ok"]


# Quotas.


def quotas(**used: str) -> list[Body]:
    body = of("ResourceQuota", "mailcordon")
    return [body | {"status": {"hard": body["spec"]["hard"], "used": {"pods": "0", **used}}}]


def test_a_quota_tells_for_how_many_more_senders_there_is_room() -> None:
    [empty] = traffic.quota(quotas(), SITE)
    [full] = traffic.quota(quotas(**{"limits.memory": "39Gi"}), SITE)

    assert (empty.answer, empty.says.split(";")[0]) == ("ok", "room for 135 more senders")
    assert full.answer == "wrong"
    assert "limits.memory ends first: 39Gi of 39Gi used" in full.says
    assert answers(traffic.quota([], SITE)) == ["missing"]


@pytest.mark.parametrize(
    ("text", "number"), [("250m", 0.25), ("1Gi", 2.0**30), ("96Mi", 96 * 2.0**20), ("135", 135.0), ("1.5k", 1500.0)]
)
def test_quantities_are_read_as_kubernetes_writes_them(text: str, number: float) -> None:
    assert traffic.quantity(text) == pytest.approx(number)

"""The objects of a sender: golden files, legal whatever a campaign is called, and never more than was meant."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k8s import labels, patches
from k8s.cluster import SenderSpec, SourceAddress
from k8s.patches import Body, Site
from policy.naming import sender_name
from tests.doubles.fake_api import LABEL_KEY, LABEL_VALUE, NAME, unknown_fields
from tests.k8s.builders import control, spec

GOLDEN = Path(__file__).parent / "golden"
SITE = Site(image="registry.example/mailcordon@sha256:" + "0" * 64)
RUNNING = control("healthy", epoch=1, reason="first control")
ISOLATED = control("isolated", epoch=7, reason="3 trap hits in 1,204 accepted mails; limit 0.02 %")

BODIES: dict[str, Body] = {
    "deployment-running": patches.deployment(spec(replicas=2), SITE, RUNNING, replicas=2),
    "deployment-isolated": patches.deployment(spec(replicas=2), SITE, ISOLATED, replicas=0),
    "network-policy-open": patches.network_policy(spec(), SITE, RUNNING, is_open=True),
    "network-policy-emptied": patches.network_policy(spec(), SITE, ISOLATED, is_open=False),
    "network-policy-relay-inside": patches.network_policy(
        spec(),
        Site(private_mx=True, mta_sts=True, hops=(("relay.internal", 2525), ("10.1.2.3", 25), ("fd00::25", 2526))),
        RUNNING,
        is_open=True,
    ),
    "service": patches.service(spec(), SITE),
    "service-account": patches.service_account(spec(), SITE),
    "pod-disruption-budget": patches.pod_disruption_budget(spec(), SITE),
}


@pytest.mark.parametrize("name", BODIES)
def test_the_golden_file(name: str) -> None:
    assert BODIES[name] == json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))


def test_every_golden_file_is_checked() -> None:
    assert {file.stem for file in GOLDEN.glob("*.json")} == set(BODIES)


@pytest.mark.parametrize("name", BODIES)
def test_the_client_library_knows_every_field(name: str) -> None:
    assert unknown_fields(BODIES[name]) == []


def test_a_field_that_nobody_knows_would_be_noticed() -> None:
    body = json.loads(json.dumps(BODIES["deployment-running"]))
    body["spec"]["template"]["spec"]["containers"][0]["enviroment"] = []

    assert unknown_fields(body) == [".spec.template.spec.containers"]


def test_replicas_are_in_every_deployment() -> None:
    for told, replicas in ((RUNNING, 3), (ISOLATED, 0)):
        assert patches.deployment(spec(), SITE, told, replicas=replicas)["spec"]["replicas"] == replicas


def test_an_address_of_its_own_reaches_the_sender_and_marks_its_pods() -> None:
    own = replace(spec(), source=SourceAddress("192.0.2.7", "mail7.shop.example"))
    template = patches.deployment(own, SITE, RUNNING, replicas=1)["spec"]["template"]
    told = {one["name"]: one["value"] for one in template["spec"]["containers"][0]["env"]}

    assert told["MAILCORDON_EGRESS_ADDRESS"] == "192.0.2.7"
    assert told["MAILCORDON_HOSTNAME"] == "mail7.shop.example"
    assert template["metadata"]["annotations"][labels.SOURCE] == "192.0.2.7"
    assert patches.fingerprint(own, SITE) != patches.fingerprint(spec(), SITE)


def test_a_state_does_not_restart_anybody() -> None:
    running = patches.deployment(spec(), SITE, RUNNING, replicas=1)
    isolated = patches.deployment(spec(), SITE, ISOLATED, replicas=0)

    assert running["spec"]["template"] == isolated["spec"]["template"]


def test_an_emptied_policy_still_selects_the_same_pods() -> None:
    opened = patches.network_policy(spec(), SITE, RUNNING, is_open=True)
    emptied = patches.network_policy(spec(), SITE, ISOLATED, is_open=False)

    assert emptied["spec"]["egress"] == []
    assert emptied["spec"] | {"egress": opened["spec"]["egress"]} == opened["spec"]
    assert emptied["spec"]["policyTypes"] == ["Egress"]


def test_the_kubelet_waits_longer_than_the_sender() -> None:
    pod = patches.deployment(spec(grace_s=300), SITE, RUNNING, replicas=1)["spec"]["template"]["spec"]

    assert pod["terminationGracePeriodSeconds"] > 300
    assert {"name": "MAILCORDON_GRACE_S", "value": "300"} in pod["containers"][0]["env"]


def test_the_pod_is_restricted() -> None:
    pod = patches.deployment(spec(), SITE, RUNNING, replicas=1)["spec"]["template"]["spec"]
    [container] = pod["containers"]

    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    assert "hostNetwork" not in pod
    assert container["resources"]["limits"]["memory"]
    mounted = {volume["name"] for volume in pod["volumes"] if "emptyDir" not in volume}
    assert mounted == {"keys", "dkim", "egress", "kafka"}


def test_signing_keys_and_passwords_are_mounted_if_there_are_any() -> None:
    pod = patches.deployment(spec(), SITE, RUNNING, replicas=1)["spec"]["template"]["spec"]
    optional = {one["secret"]["secretName"] for one in pod["volumes"] if one.get("secret", {}).get("optional")}
    mounts = {one["name"]: (one["mountPath"], one["readOnly"]) for one in pod["containers"][0]["volumeMounts"][:4]}

    assert optional == {"mailcordon-dkim", "mailcordon-egress", "mailcordon-kafka"}
    assert (mounts["dkim"], mounts["egress"]) == ((patches.DKIM, True), (patches.EGRESS, True))
    assert mounts["kafka"] == (patches.KAFKA, True)
    assert {"name": "MAILCORDON_DKIM_FOLDER", "value": patches.DKIM} in pod["containers"][0]["env"]


def test_a_sender_may_have_settings_of_its_own_that_win() -> None:
    pod = patches.deployment(spec(), SITE, RUNNING, replicas=1)["spec"]["template"]["spec"]

    assert pod["containers"][0]["envFrom"] == [
        {"configMapRef": {"name": SITE.config}},
        {"configMapRef": {"name": spec().name, "optional": True}},
    ]


def test_a_drain_of_nodes_never_waits_for_a_sender_that_has_one_pod() -> None:
    budget = patches.pod_disruption_budget(spec(replicas=1), SITE)["spec"]

    assert "minAvailable" not in budget
    assert budget["maxUnavailable"] == 1
    assert budget["selector"]["matchLabels"] == patches.selector(spec())


def test_pods_of_a_sender_are_spread_and_never_refused_for_it() -> None:
    pod = patches.deployment(spec(), SITE, RUNNING, replicas=1)["spec"]["template"]["spec"]

    for one in pod["topologySpreadConstraints"]:
        assert one["whenUnsatisfiable"] == "ScheduleAnyway"
        assert one["labelSelector"]["matchLabels"] == patches.selector(spec())


def test_secrets_are_files_and_never_variables() -> None:
    text = json.dumps(BODIES["deployment-running"])

    assert "secretKeyRef" not in text
    assert "secretRef" not in text


@pytest.mark.parametrize(
    ("campaign", "argument"),
    [
        ("$(HOME)", "--campaign=$$(HOME)"),
        ("a$b", "--campaign=a$$b"),
        ("-rf", "--campaign=-rf"),
        ("$$", "--campaign=$$$$"),
    ],
)
def test_a_campaign_id_is_no_template(campaign: str, argument: str) -> None:
    pod = patches.deployment(spec(campaign), SITE, RUNNING, replicas=1)["spec"]["template"]["spec"]

    assert pod["containers"][0]["args"] == ["sender", argument]


def test_the_fingerprint_follows_what_a_sender_is_made_from() -> None:
    told = patches.fingerprint(spec(), SITE)

    assert told == patches.fingerprint(spec(), SITE)
    assert told == patches.fingerprint(spec(replicas=5), SITE), "replicas are read, not guessed"
    assert told != patches.fingerprint(spec(grace_s=99), SITE)
    assert told != patches.fingerprint(spec(), Site(image="other"))
    assert told != patches.fingerprint(spec(), Site(image=SITE.image, hops=(("relay", 587),)))
    assert told != patches.fingerprint(spec("other"), SITE)


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=130)


@given(TEXT)
def test_every_label_value_is_legal(text: str) -> None:
    assert LABEL_VALUE.match(labels.label_value(text))
    assert LABEL_KEY.match(labels.label_key(text))


@given(TEXT, TEXT)
def test_different_words_stay_different(one: str, other: str) -> None:
    if one != other:
        assert labels.label_value(one) != labels.label_value(other)
        assert labels.label_key(one) != labels.label_key(other)


@pytest.mark.parametrize("legal", ["shop", "a", "A.b_c-9", "x" * 63, ""])
def test_a_legal_value_stays_as_it_is(legal: str) -> None:
    assert labels.label_value(legal) == legal


@pytest.mark.parametrize("illegal", ["a\n", "-a", "a-", "x" * 64, "a b", "ü", "a/b"])
def test_an_illegal_value_is_changed(illegal: str) -> None:
    assert labels.label_value(illegal) != illegal


@given(TEXT.filter(bool), TEXT, st.dictionaries(TEXT, TEXT, max_size=40))
def test_any_campaign_makes_a_legal_deployment(campaign: str, tenant: str, owned: dict[str, str]) -> None:
    one = SenderSpec(campaign=campaign, name=sender_name(campaign), tenant=tenant, labels=tuple(sorted(owned.items())))

    body = patches.deployment(one, SITE, RUNNING, replicas=1)

    assert NAME.match(body["metadata"]["name"])
    for words in (body["metadata"]["labels"], body["spec"]["template"]["metadata"]["labels"]):
        assert all(LABEL_KEY.match(key) and LABEL_VALUE.match(value) for key, value in words.items())
    selected = body["spec"]["selector"]["matchLabels"].items()
    assert selected <= body["spec"]["template"]["metadata"]["labels"].items()


def test_an_owner_cannot_shadow_our_labels() -> None:
    one = SenderSpec(
        campaign="c",
        name=sender_name("c"),
        tenant="t",
        labels=((labels.CAMPAIGN, "other"), (labels.MANAGED_BY, "somebody"), ("app.kubernetes.io/component", "x")),
    )

    told = patches.deployment(one, SITE, RUNNING, replicas=1)["metadata"]["labels"]

    assert told.items() >= patches.selector(one).items()
    assert told[labels.MANAGED_BY] == "mailcordon"

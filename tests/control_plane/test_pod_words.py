"""What the words of a container become on a machine without containers."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.control_plane.images import bare
from tests.control_plane.pod_words import (
    Sources,
    Unplayable,
    Words,
    expanded,
    field_of,
    here,
    needed_objects,
    variables_of,
    wanted_command,
)

WORDS = Words({"/etc/keys": Path("/v/keys"), "/etc": Path("/v/etc"), "/run": Path("/run/x/run")}, "127.200.0.7")
POD = {
    "metadata": {"name": "p", "namespace": "n", "labels": {"app": "a"}, "annotations": {"x/y": "z"}},
    "spec": {"nodeName": "node-1", "containers": []},
}


@pytest.mark.parametrize(
    ("text", "becomes"),
    [
        ("/etc/keys/a.json", "/v/keys/a.json"),
        ("--file=/etc/keys", "--file=/v/keys"),
        ("/etc/passwd", "/v/etc/passwd"),
        ("/etcetera", "/etcetera"),
        ("/usr/etc/keys", "/usr/etc/keys"),
        ("/run/a:/run/b", "/run/x/run/a:/run/x/run/b"),
        ("0.0.0.0:9100", "127.200.0.7:9100"),
        ("--web=[::]:80", "--web=127.200.0.7:80"),
        ("10.0.0.0:80", "10.0.0.0:80"),
        ("0.0.0.0/0", "0.0.0.0/0"),
    ],
)
def test_paths_and_addresses_of_a_pod_are_found_where_they_are_here(text: str, becomes: str) -> None:
    assert WORDS.placed(text) == becomes


@pytest.mark.parametrize(
    ("text", "becomes"),
    [("$(A)", "1"), ("$$(A)", "$(A)"), ("$$$(A)", "$1"), ("$(B)", "$(B)"), ("$A", "$A"), ("a$(A)b$(A)", "a1b1")],
)
def test_references_are_expanded_as_kubernetes_says(text: str, becomes: str) -> None:
    assert expanded(text, {"A": "1"}) == becomes


@given(st.text())
def test_doubled_dollars_protect_any_text(text: str) -> None:
    assert expanded(text.replace("$", "$$"), {"A": "1"}) == text


def test_later_variables_count_and_may_refer_to_earlier_ones() -> None:
    container: dict[str, Any] = {
        "envFrom": [{"configMapRef": {"name": "c"}}, {"secretRef": {"name": "none", "optional": True}}],
        "env": [
            {"name": "B", "value": "own"},
            {"name": "C", "value": "$(A)-$(B)"},
            {"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
            {"name": "S", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
            {"name": "O", "valueFrom": {"secretKeyRef": {"name": "s", "key": "no", "optional": True}}},
        ],
    }
    objects = {("ConfigMap", "c"): {"data": {"A": "/run/a", "B": "map"}}, ("Secret", "s"): {"data": {"k": "czM="}}}

    found = variables_of(container, Sources(POD, {**objects, ("Secret", "none"): None}, "127.1.1.1"))

    assert found == {"A": "/run/a", "B": "own", "C": "/run/a-own", "N": "a", "S": "s3"}


def test_what_is_not_there_is_named() -> None:
    with pytest.raises(Unplayable, match='configmap "c" not found'):
        variables_of({"envFrom": [{"configMapRef": {"name": "c"}}]}, Sources(POD, {}, "127.1.1.1"))


def test_every_object_that_a_pod_names_is_found() -> None:
    volumes = [
        {"name": "a", "secret": {"secretName": "one"}},
        {"name": "b", "projected": {"sources": [{"configMap": {"name": "two"}}, {"secret": {"name": "three"}}]}},
    ]
    environment = [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "four", "key": "k"}}}]
    spec = {"volumes": volumes, "containers": [{"env": environment, "envFrom": [{"secretRef": {"name": "five"}}]}]}

    assert needed_objects({"spec": spec}) == {
        ("Secret", "one"),
        ("ConfigMap", "two"),
        ("Secret", "three"),
        ("ConfigMap", "four"),
        ("Secret", "five"),
    }


@pytest.mark.parametrize(
    ("path", "value"),
    [("metadata.name", "p"), ("metadata.annotations['x/y']", "z"), ("spec.nodeName", "node-1"), ("metadata.uid", "")],
)
def test_fields_are_told_as_the_downward_api_does(path: str, value: str) -> None:
    assert field_of(POD, path) == value


def test_a_command_takes_the_place_of_the_entry_point() -> None:
    assert wanted_command({"args": ["a"]}, ["entry"], "i") == (["entry"], ["a"])
    assert wanted_command({"command": ["c"], "args": ["a"]}, ["entry"], "i") == ((), ["c", "a"])
    with pytest.raises(Unplayable, match="stands for no program"):
        wanted_command({}, None, "i")


@pytest.mark.parametrize("image", ["mailcordon", "mailcordon:0.1.0", "r.example:5000/x/mailcordon@sha256:00"])
def test_an_image_is_known_by_the_last_part_of_its_name(image: str) -> None:
    assert bare(image) == "mailcordon"


def test_a_pods_address_lies_on_loopback() -> None:
    assert here("10.200.10.7") == "127.200.10.7"

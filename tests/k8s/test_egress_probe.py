"""The probe of the way out: what a connection's fate proves, and what it does not."""

import socket
from collections.abc import Iterator

import pytest

from k8s import labels, patches
from k8s.egress_probe import Listens, Tried, default_target, found, probe_pod, tried
from k8s.patches import Site
from policy.settings import Endpoint, endpoint
from tests.doubles.fake_api import LABEL_VALUE, NAME
from tests.k8s.builders import spec

TARGET = Endpoint("192.0.2.25", 25)
POD = "mailcordon-egress-probe-0a1b2c3d"


@pytest.fixture
def listening() -> Iterator[Endpoint]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield Endpoint("127.0.0.1", server.getsockname()[1])


async def test_a_host_that_takes_connections_was_reached(listening: Endpoint) -> None:
    assert await tried(listening) is Tried.CONNECTED


async def test_a_host_where_nobody_listens_refuses(listening: Endpoint) -> None:
    with socket.socket() as taken:  # bound and not listening: nobody else gets this port
        taken.bind(("127.0.0.1", 0))
        assert await tried(Endpoint("127.0.0.1", taken.getsockname()[1])) is Tried.REFUSED


async def test_silence_is_what_a_filter_answers() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        where = Endpoint("127.0.0.1", full.getsockname()[1])
        with socket.create_connection(("127.0.0.1", where.port)):  # the backlog is full: the next one waits
            assert await tried(where, timeout_s=0.2) is Tried.SILENT


async def test_a_name_that_nobody_knows_proves_nothing() -> None:
    assert await tried(Endpoint("nobody.invalid", 25), timeout_s=5) is Tried.NO_SUCH_NAME


@pytest.mark.parametrize(
    ("exit_code", "listens", "answer"),
    [
        (Tried.CONNECTED, "seen", "wrong"),
        (Tried.CONNECTED, "unknown", "wrong"),
        (Tried.SILENT, "seen", "ok"),
        (Tried.SILENT, "told", "ok"),
        (Tried.SILENT, "unknown", "unknown"),
        (Tried.REFUSED, "seen", "ok"),
        (Tried.REFUSED, "told", "unknown"),
        (Tried.REFUSED, "unknown", "unknown"),
        (Tried.UNREACHABLE, "seen", "ok"),
        (Tried.UNREACHABLE, "told", "unknown"),
        (Tried.FORBIDDEN, "unknown", "ok"),
        (Tried.NO_SUCH_NAME, "seen", "unknown"),
        (2, "seen", "unknown"),
        (None, "seen", "unknown"),
    ],
)
def test_only_what_proves_something_is_an_answer(exit_code: int | None, listens: Listens, answer: str) -> None:
    assert found(TARGET, exit_code, listens=listens).answer == answer


def test_the_pods_trouble_is_told() -> None:
    assert "exceeded quota" in found(TARGET, None, listens="seen", trouble="exceeded quota").says


def test_the_pod_is_taken_for_a_senders_by_policies_and_for_nobodys_by_the_controller() -> None:
    told = probe_pod(Site(), POD, TARGET)["metadata"]["labels"]

    assert told.keys() == patches.selector(spec()).keys()
    assert told | {labels.CAMPAIGN: ""} == patches.selector(spec()) | {labels.CAMPAIGN: ""}
    assert labels.MANAGED_BY not in told
    assert NAME.match(POD)
    assert LABEL_VALUE.match(POD)


def test_the_pod_tries_the_target_and_nothing_else() -> None:
    [container] = probe_pod(Site(), POD, Endpoint("2001:db8::25", 25))["spec"]["containers"]

    assert container["args"] == ["install", "--try", "[2001:db8::25]:25"]
    assert endpoint(container["args"][2]) == Endpoint("2001:db8::25", 25)


def test_by_default_it_is_our_own_return_path_that_must_not_be_reached() -> None:
    assert str(default_target(Site(namespace="mail"))) == "mailcordon-return-path.mail.svc:25"

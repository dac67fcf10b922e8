"""The probe of the way out on a network that really filters, in every way in which networks do."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from k8s.egress_probe import Listens, Tried, found
from policy.settings import Endpoint
from tests.k8s.filtering import CLOSED, HOST, NAME, NAME_WITH_IPV6, REPLIES, SMTP, CannotFilter, How, Network, network

SMTP_ONLY = ("ipproto", "tcp", "dport", str(SMTP))
DNS_ONLY = ("ipproto", "udp", "dport", "53")
TARGET = Endpoint(HOST, SMTP)


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Network]:
    """A network of the test's own; skips, and says why, where there can be none."""
    try:
        with network(tmp_path) as one:
            yield one
    except CannotFilter as why:
        pytest.skip(f"no network that filters here (it takes Linux, root and namespaces): {why}")


def answers(code: int) -> dict[Listens, str]:
    """What the probe concludes, by what is known of the target."""
    known: tuple[Listens, ...] = ("seen", "told", "unknown")
    return {listens: found(TARGET, code, listens=listens).answer for listens in known}


def test_where_nothing_filters_it_connects_by_address_and_by_name(net: Network) -> None:
    assert [net.tried(f"{host}:{SMTP}") for host in (HOST, NAME)] == [Tried.CONNECTED, Tried.CONNECTED]
    assert set(answers(Tried.CONNECTED).values()) == {"wrong"}


def test_the_pods_own_command_tells_by_its_exit_code(net: Network) -> None:
    assert net.run(sys.executable, "-m", "cli", "install", "--try", f"{NAME}:{SMTP}").returncode == Tried.CONNECTED
    assert net.run(sys.executable, "-m", "cli", "install", "--try", f"{HOST}:{CLOSED}").returncode == Tried.REFUSED


def test_where_nobody_listens_it_is_refused_which_proves_nothing_by_itself(net: Network) -> None:
    assert net.tried(f"{HOST}:{CLOSED}") == Tried.REFUSED
    assert answers(Tried.REFUSED) == {"seen": "ok", "told": "unknown", "unknown": "unknown"}


def test_a_drop_is_silence(net: Network) -> None:
    net.rule("blackhole", *SMTP_ONLY)

    assert net.tried(f"{HOST}:{SMTP}") == Tried.SILENT
    assert answers(Tried.SILENT) == {"seen": "ok", "told": "ok", "unknown": "unknown"}


@pytest.mark.parametrize("how", ["unreachable", "prohibit"])
def test_a_rejection_by_icmp_looks_like_a_host_that_is_down(net: Network, how: How) -> None:
    net.rule(how, *SMTP_ONLY)

    assert net.tried(f"{HOST}:{SMTP}") == Tried.UNREACHABLE
    assert answers(Tried.UNREACHABLE) == {"seen": "ok", "told": "unknown", "unknown": "unknown"}


def test_what_the_pods_own_node_forbids_is_filtered_whoever_listens(net: Network) -> None:
    net.rule_at_the_pod("prohibit")

    assert net.tried(f"{HOST}:{SMTP}") == Tried.FORBIDDEN
    assert set(answers(Tried.FORBIDDEN).values()) == {"ok"}


def test_names_are_looked_up_where_only_port_25_is_shut(net: Network) -> None:
    net.rule("blackhole", *SMTP_ONLY)

    assert net.tried(f"{NAME}:{SMTP}") == Tried.SILENT
    assert net.tried(f"{NAME}:{REPLIES}") == Tried.CONNECTED


def test_an_ipv6_address_that_a_pod_without_ipv6_cannot_reach_hides_no_answer(net: Network) -> None:
    assert net.tried(f"{NAME_WITH_IPV6}:{SMTP}") == Tried.CONNECTED
    net.rule("blackhole", *SMTP_ONLY)

    assert net.tried(f"{NAME_WITH_IPV6}:{SMTP}") == Tried.SILENT
    assert net.tried(f"[2001:db8::25]:{SMTP}") == Tried.UNREACHABLE


def test_where_names_cannot_be_looked_up_the_way_out_was_not_tried(net: Network) -> None:
    net.rule("blackhole", *DNS_ONLY)

    assert net.tried(f"{NAME}:{SMTP}") == Tried.NO_SUCH_NAME
    assert net.tried(f"{HOST}:{SMTP}") == Tried.CONNECTED, "it is open, and only by address one sees it"
    assert set(answers(Tried.NO_SUCH_NAME).values()) == {"unknown"}


def test_where_everything_is_shut_an_address_tells(net: Network) -> None:
    net.rule("blackhole")

    assert [net.tried(f"{host}:{SMTP}") for host in (NAME, HOST)] == [Tried.NO_SUCH_NAME, Tried.SILENT]

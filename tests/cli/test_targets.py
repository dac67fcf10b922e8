"""Where Prometheus finds the senders of this machine."""

import json
import socket
from pathlib import Path

import pytest

from cli.targets import announced
from policy.settings import Endpoint


@pytest.mark.parametrize(
    ("where", "target"),
    [
        pytest.param(Endpoint("127.0.0.1", 9101), "127.0.0.1:9101", id="one address"),
        pytest.param(Endpoint("0.0.0.0", 9102), f"{socket.gethostname()}:9102", id="every address"),
        pytest.param(Endpoint("::1", 9103), "[::1]:9103", id="IPv6"),
    ],
)
def test_a_sender_is_announced_while_it_runs(tmp_path: Path, where: Endpoint, target: str) -> None:
    with announced(tmp_path / "metrics", campaign="spring-sale", name="sender-spring-sale-0", where=where) as file:
        found = json.loads(file.read_text())

    assert found == [{"targets": [target], "labels": {"campaign": "spring-sale", "sender": "sender-spring-sale-0"}}]
    assert list((tmp_path / "metrics").iterdir()) == []


def test_a_sender_that_starts_again_takes_its_old_file(tmp_path: Path) -> None:
    first, again = Endpoint("127.0.0.1", 1), Endpoint("127.0.0.1", 2)
    killed = announced(tmp_path, campaign="a", name="sender-a-0", where=first)
    killed.__enter__()  # and never left

    with announced(tmp_path, campaign="a", name="sender-a-0", where=again) as file:
        found = [json.loads(one.read_text())[0]["targets"] for one in tmp_path.iterdir()]

    assert found == [["127.0.0.1:2"]]
    assert not file.exists()


def test_no_name_leads_out_of_the_folder(tmp_path: Path) -> None:
    with announced(tmp_path / "metrics", campaign="x", name="../../etc/x", where=Endpoint("127.0.0.1", 1)) as file:
        assert file.parent == tmp_path / "metrics"


def test_a_sender_that_fails_is_no_longer_announced(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), announced(tmp_path, campaign="a", name="a", where=Endpoint("127.0.0.1", 1)):
        raise RuntimeError

    assert list(tmp_path.iterdir()) == []

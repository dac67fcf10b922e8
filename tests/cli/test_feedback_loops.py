"""Whatever counts complaints asks the same setting who passes them on."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from cli.feedback_loops import put_feedback_loops_in_force
from cli.main import main
from policy.providers import heard, put_loops_in_force, shipped_loops
from policy.settings import Settings

NOTHING_THERE = "127.0.0.1:1"


@pytest.fixture(autouse=True)
def _shipped_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("MAILCORDON_DATA", str(tmp_path / "data"))
    monkeypatch.setattr("cli.logs.configure", lambda **_: None)  # it is for a process, and this one has other tests
    yield
    put_loops_in_force(None)


@pytest.mark.parametrize("command", ["worker", "verify-counts", "backtest"])
def test_who_counts_refuses_a_provider_that_nobody_knows(command: str) -> None:
    result = CliRunner().invoke(main, [command, "--kafka", NOTHING_THERE, "--feedback-loops", "+gogle"])

    assert (result.exit_code, "no provider is called 'gogle'" in result.output) == (2, True)


@pytest.mark.parametrize("command", ["verify-counts", "backtest"])
def test_who_counts_takes_the_setting_from_the_environment(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAILCORDON_FEEDBACK_LOOPS", "-yahoo,+mine")
    monkeypatch.setenv("MAILCORDON_PROVIDERS", "shop.example=mine")
    CliRunner().invoke(main, [command, "--kafka", NOTHING_THERE])

    assert heard() == (shipped_loops() | {"mine"}) - {"yahoo"}


def test_without_the_setting_it_is_as_shipped() -> None:
    put_feedback_loops_in_force(Settings())
    assert heard() == shipped_loops()

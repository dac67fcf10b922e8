"""Every command explains itself, and ends with the exit code that its help names."""

from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from cli.main import main


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name)


ALL = sorted(commands(main))


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_help_has_a_sentence_an_example_and_the_exit_codes(path: tuple[str, ...]) -> None:
    result = CliRunner().invoke(main, [*path, "--help"])

    assert result.exit_code == 0
    assert "Example" in result.output
    assert "Exit codes: 0 done, 1 the answer is no" in result.output


@pytest.mark.parametrize("path", [path for path in ALL if path != ("settings",)], ids=" ".join)
def test_an_option_that_does_not_exist_is_wrong_use(path: tuple[str, ...]) -> None:
    assert CliRunner().invoke(main, [*path, "--no-such-option"]).exit_code == 2


def test_a_broker_that_is_not_there_is_something_outside() -> None:
    result = CliRunner().invoke(main, ["status", "--kafka", "127.0.0.1:1"])

    assert (result.exit_code, "no Kafka answers at 127.0.0.1:1" in result.output) == (3, True)

"""An operator's limits per provider: read at the start, or refused with a sentence."""

from pathlib import Path

import pytest

from cli.failures import WrongUse
from cli.sender_role import shaping_of


def test_without_a_file_it_is_as_shipped() -> None:
    assert shaping_of(None).of("google").connections == 5


def test_a_file_is_laid_over_what_is_shipped(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text("[provider.google]\nconnections = 8\n")
    assert shaping_of(tmp_path / "own.toml").of("google").connections == 8


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "cannot be read"),
        (b"\xff", "cannot be read"),
        (b"[provider.google]\nconnections = 0\n", "provider.google.connections: Expected `int` >= 1"),
    ],
    ids=["no file", "no text", "nonsense"],
)
def test_a_file_that_cannot_be_meant_ends_the_sender_with_its_name(
    tmp_path: Path, content: bytes | None, says: str
) -> None:
    file = tmp_path / "own.toml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(WrongUse) as refused:
        shaping_of(file)
    assert f"shaping_file {file}" in str(refused.value)
    assert says in str(refused.value)

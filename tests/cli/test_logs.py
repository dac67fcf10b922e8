"""What logs show, and what they must not."""

import subprocess
import sys

import pytest

_FAILS = """
import sys
from cli import logs
logs.configure(level="info", form=sys.argv[1], role="sender")
import structlog

def send(address):
    raise ValueError("it did not work")

try:
    send("ann" + "@" + "inbox.example")
except ValueError:
    structlog.get_logger().exception("one message failed")
"""


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_traceback_shows_where_and_no_values(form: str) -> None:
    said = subprocess.run([sys.executable, "-c", _FAILS, form], capture_output=True, check=True, text=True).stderr

    assert ("it did not work" in said, "in send" in said) == (True, True)
    assert "ann@inbox.example" not in said

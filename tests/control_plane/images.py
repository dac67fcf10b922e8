"""What an image runs here: there are no containers, so a name stands for a program of this machine."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

PROGRAMS = Path(sys.executable).parent
IMAGES: Mapping[str, Sequence[str]] = {
    "mailcordon": [str(PROGRAMS / "mailcordon")],
    "python": [sys.executable],
}
"""Entry points by the last part of an image's name: ``registry.example/mail/mailcordon:0.1.0`` is this checkout."""

PLAYED = "pause"
"""A container of this image is running, ready and ended without any process: for tests of many pods."""


def bare(image: str) -> str:
    """The last part of an image's name, without registry, tag and digest."""
    return image.partition("@")[0].rpartition("/")[2].partition(":")[0]

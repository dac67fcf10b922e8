"""Mail that lies in files, one after the other, however it is stored: a Maildir, an mbox, single files, a stream.

Nothing is passed over in silence: what cannot be read is a mail with a trouble.  At most ``MAX_BYTES`` of a mail are
read, since a report stands in front of what it returns.
"""

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain, pairwise
from pathlib import Path
from typing import BinaryIO, Literal

from smtp.findings import clean

Form = Literal["auto", "maildir", "mbox", "eml"]
MAX_BYTES = 2_097_152
STDIN = "-"

_LINE_BYTES = 65_536
_SEPARATOR = re.compile(
    rb"From [^\n]{0,200}?\b(?:(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun),? {1,3}"
    rb"(?:[A-Z][a-z]{2} {1,3}\d{1,2}|\d{1,2} [A-Z][a-z]{2}) {1,3}(?:\d{4} {1,3})?|\d{4}-\d\d-\d\d[T ])\d\d:\d\d"
).match
_BEGINS_A_MAIL = re.compile(rb"\r?\n|>?From |[!-9;-~]{1,200}[ \t]{0,20}:").match
_QUOTED_SEPARATOR = re.compile(rb">{1,20}From ").match
_DELIVERED_AT = re.compile(r"(\d{9,10})\.").match


@dataclass(frozen=True, slots=True)
class Stored:
    """One mail: where it lies, its number from 1 on, and when it was delivered, where the store itself says so."""

    file: str
    position: int
    raw: bytes
    at: int | None = None
    trouble: str | None = None


def form_of(source: Path, form: Form) -> Form:
    """What a file or folder is; only what is left to us (``auto``) is guessed."""
    if form != "auto":
        return form
    if source.is_dir():
        return "maildir" if (source / "cur").is_dir() and (source / "new").is_dir() else "eml"
    if source.suffix.lower() == ".eml":
        return "eml"
    with source.open("rb") as stream:
        return "mbox" if stream.read(5) == b"From " else "eml"


def stored(source: Path, form: Form) -> Iterator[Stored]:
    """The mails of a file or folder, in the order of their names or their places."""
    match form_of(source, form):
        case "mbox":
            with source.open("rb") as stream:
                yield from _of_mbox(stream, source.name)
        case "maildir":
            yield from _of_files(source, _maildir_files(source), _delivered_at)
        case _ if source.is_dir():
            yield from _of_files(source, _mail_files(source))
        case _:
            yield from _of_files(source.parent, [source])


def streamed(stream: BinaryIO, form: Form) -> Iterator[Stored]:
    """The mails of a stream: an mbox if it begins like one, else one mail."""
    first = stream.readline(_LINE_BYTES)
    if form == "mbox" or (form == "auto" and first.startswith(b"From ")):
        yield from _of_mbox(stream, STDIN, first)
        return
    raw = first + stream.read(MAX_BYTES)
    while stream.read(_LINE_BYTES * 16):
        pass  # whoever writes into the pipe is not stopped in the middle
    if raw:
        yield Stored(STDIN, 1, raw[:MAX_BYTES])


def _of_files(root: Path, files: list[Path], at: Callable[[Path], int | None] = lambda _: None) -> Iterator[Stored]:
    for position, file in enumerate(files, start=1):
        name = shown(file.relative_to(root))
        try:
            with file.open("rb") as stream:
                raw = stream.read(MAX_BYTES)
        except OSError as failed:
            yield Stored(name, position, b"", trouble=failed.strerror or type(failed).__name__)
            continue
        yield Stored(name, position, raw, at=at(file))


def _of_mbox(stream: BinaryIO, name: str, first: bytes = b"") -> Iterator[Stored]:
    """A separator is a line ``From … Mon Jan  1 12:34`` at the beginning or after an empty line, with a header below.

    ``>From`` was quoted.  Not everybody quotes: a sentence that begins with From and tells a time is no separator.
    """
    kept = bytearray()
    position, has_begun, is_start, after_blank = 1, False, True, True
    lines = chain(filter(None, (first,)), iter(partial(stream.readline, _LINE_BYTES), b""))
    for line, following in pairwise(chain(lines, (b"",))):
        if is_start and after_blank and _SEPARATOR(line) and (not following or _BEGINS_A_MAIL(following)):
            if has_begun or kept.strip():
                yield Stored(name, position, bytes(kept))
                position += 1
            kept.clear()
            has_begun = True
        elif len(kept) < MAX_BYTES:
            kept += line[1:] if is_start and _QUOTED_SEPARATOR(line) else line
        after_blank = is_start and line in {b"\n", b"\r\n"}
        is_start = line.endswith(b"\n")
    if has_begun or kept.strip():
        yield Stored(name, position, bytes(kept))


def _maildir_files(root: Path) -> list[Path]:
    folders = [root, *sorted(one for one in root.iterdir() if one.name.startswith(".") and (one / "cur").is_dir())]
    found: list[Path] = []
    for folder in folders:
        both = [file for part in ("cur", "new") if (folder / part).is_dir() for file in (folder / part).iterdir()]
        found += sorted((file for file in both if _is_mail(file)), key=lambda file: file.name)
    return found


def _mail_files(root: Path) -> list[Path]:
    """The files that end in .eml, and where there are none, all files, below a folder."""
    found = [Path(folder, name) for folder, _, names in os.walk(root) for name in names]
    found = sorted(file for file in found if _is_mail(file))
    return [file for file in found if file.suffix.lower() == ".eml"] or found


def _is_mail(file: Path) -> bool:
    return not file.name.startswith(".") and file.is_file()


def _delivered_at(file: Path) -> int | None:
    found = _DELIVERED_AT(file.name)
    return int(found[1]) * 1000 if found else None


def shown(path: Path) -> str:
    """A path as text that can be written anywhere, whatever octets its name is made of."""
    return clean(os.fsencode(path.as_posix()).decode("utf-8", "replace"))

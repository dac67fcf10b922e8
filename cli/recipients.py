"""A list of recipients in a CSV file, as send requests that mean the same however often they are made.

Every message id is derived from content and address, so that sending a file again, or sending the rest of it
after an interruption, never asks for a second mail.
"""

import base64
import csv
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

from cli.access import chunks
from cli.failures import WrongUse
from schemas.sending import Recipient, SendRequest

ADDRESS_COLUMNS = ("address", "email", "e-mail")
KNOWN_COLUMNS = ("message_id", "source", "opted_in_at")
MOST_PER_REQUEST = 500
_MAX_CELL = 100_000


def read(file: Path, content: str, progress: Callable[[int], None] = lambda _: None) -> Iterator[Recipient]:
    """The recipients of a CSV file with a header line.

    The column ``address`` (or ``email``) is needed; ``message_id``, ``source`` and ``opted_in_at`` (milliseconds)
    are known; every other column is a variable of the content.  ``progress`` hears the bytes read so far.
    """
    csv.field_size_limit(_MAX_CELL)
    try:
        with file.open("rb") as counted:
            lines = _counted(counted, progress)
            rows = csv.DictReader(lines, restkey="", strict=True)
            header = [name.strip() for name in rows.fieldnames or []]
            rows.fieldnames = header
            address = next((name for name in header if name.lower() in ADDRESS_COLUMNS), None)
            if address is None:
                raise WrongUse(
                    f"{file} has no column address (its columns: {', '.join(header) or 'none'}); "
                    "the first line must name the columns, one of them address or email"
                )
            for row in rows:
                yield _recipient(file, rows.line_num, row, address, content)
    except (OSError, UnicodeDecodeError, csv.Error) as wrong:
        raise WrongUse(f"{file}: {wrong}") from wrong


def _counted(file: Iterator[bytes], progress: Callable[[int], None]) -> Iterator[str]:
    read_bytes = 0
    for number, line in enumerate(file):
        read_bytes += len(line)
        if number % 500 == 0:
            progress(read_bytes)
        yield line.decode("utf-8-sig" if number == 0 else "utf-8")
    progress(read_bytes)


def _recipient(file: Path, line: int, row: dict[str, str], address_column: str, content: str) -> Recipient:
    if "" in row:
        raise WrongUse(f"{file}, line {line}: more cells than the first line names columns; quote cells with commas")
    address = (row[address_column] or "").strip(" \t")
    opted_in = row.get("opted_in_at") or None
    if opted_in is not None and not opted_in.isdigit():
        raise WrongUse(f"{file}, line {line}: column opted_in_at: expected milliseconds since 1970, got {opted_in!r}")
    reserved = (address_column, *KNOWN_COLUMNS)
    return Recipient(
        address=address,
        message_id=row.get("message_id") or message_id(content, address),
        vars={name: value for name, value in row.items() if name not in reserved and value is not None},
        source=row.get("source") or None,
        opted_in_at=int(opted_in) if opted_in else None,
    )


def message_id(content: str, address: str) -> str:
    """The message id of one content to one address: 26 characters, the same in every run."""
    digest = hashlib.sha256(f"{content}\0{address.lower()}".encode("utf-8", "surrogatepass")).digest()[:16]
    return base64.b32encode(digest).decode().rstrip("=").lower()


def requests(campaign: str, content: str, recipients: Iterator[Recipient]) -> Iterator[SendRequest]:
    """Send requests of at most 500 recipients; a request's id is derived from its messages."""
    for part in chunks(recipients, MOST_PER_REQUEST):
        named = hashlib.sha256("\0".join([campaign, content, *(str(one.message_id) for one in part)]).encode())
        yield SendRequest(
            request_id=f"send-{named.hexdigest()[:24]}", campaign=campaign, content=content, recipients=part
        )

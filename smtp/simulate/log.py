"""The provider's own account of what it saw: one line per transaction and recipient, written before the reply.

It is the truth that senders are checked against: a message that stands here twice as accepted was sent twice.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

import msgspec

Event = Literal["accepted", "rejected", "mail_from"]

_encode = msgspec.json.Encoder().encode_lines


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one recipient of one transaction; times in milliseconds since the epoch.

    ``event`` is ``accepted``, ``rejected``, or ``mail_from`` for a transaction that ended without an answer to a
    recipient.  ``at`` is when that was settled, ``mail_from_at`` when MAIL FROM came, ``accepted_at`` when the
    message was taken.  ``code`` is the reply, null when none was sent (``drop…``).  ``message_token`` and
    ``campaign_name`` stand in Message-ID, ``<TOKEN.CAMPAIGN-NAME.MARK@domain>``; they are null when the message itself
    was never sent, as after a refused recipient.
    """

    at: int
    event: Event
    provider: str
    mail_from: str
    mail_from_at: int
    rcpt: str | None = None
    code: int | None = None
    accepted_at: int | None = None
    campaign_name: str | None = None
    message_token: str | None = None
    ip: str | None = None


class Log:
    """Appends to ``<folder>/<provider>.jsonl``; a line is with the operating system when ``write`` returns."""

    def __init__(self, folder: Path, provider: str) -> None:
        self.file = folder / f"{provider}.jsonl"
        folder.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(self.file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write(self, lines: list[Seen]) -> None:
        """Add lines; raises OSError when they could not be written whole."""
        data = _encode(lines)
        if os.write(self._descriptor, data) != len(data):
            raise OSError(f"{self.file}: a line was cut off, the disk may be full")

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


def read_logs(folder: Path, *, campaign_of: Callable[[str], str | None] | None = None) -> list[Seen]:
    """Every line of every provider's log in that folder, oldest first.

    ``campaign_of`` tells the campaign's name from a return path; it fills in what a refused recipient leaves open.
    A last line without its line end (the provider was killed while it wrote) is passed over.
    """
    seen: list[Seen] = []
    decode = msgspec.json.Decoder(Seen).decode
    for file in sorted(folder.glob("*.jsonl")):
        content = file.read_bytes()
        for number, line in enumerate(content[: content.rfind(b"\n") + 1].splitlines(), start=1):
            try:
                one = decode(line)
            except msgspec.MsgspecError as wrong:
                raise ValueError(f"{file}, line {number}: {wrong}") from wrong
            if one.campaign_name is None and campaign_of is not None:
                one = msgspec.structs.replace(one, campaign_name=campaign_of(one.mail_from))
            seen.append(one)
    return sorted(seen, key=lambda one: one.at)


def doubled(seen: Iterable[Seen]) -> dict[tuple[str, str], int]:
    """Messages that were accepted more than once: (campaign name, message token) and how often."""
    counts = Counter(
        (one.campaign_name or "", one.message_token)
        for one in seen
        if one.event == "accepted" and one.message_token is not None
    )
    return {message: count for message, count in counts.items() if count > 1}


def last_mail_from_at(seen: Iterable[Seen], campaign_name: str) -> int | None:
    """When the last MAIL FROM of a campaign came, in milliseconds; None if none did."""
    return max((one.mail_from_at for one in seen if one.campaign_name == campaign_name), default=None)

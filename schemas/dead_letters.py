"""Records that could not be understood or worked on, kept whole."""

from schemas.base import Millis, Record


class DeadLetter(Record, frozen=True, kw_only=True, tag_field="v", tag=1):
    """The raw bytes of a record and why it was set aside.  Topic ``mail.dead-letters``.

    ``raw`` and ``key`` are base64; ``dead-letters replay`` puts the record back where it came from.
    """

    topic: str
    partition: int
    offset: int
    reason: str
    raw: str
    at: Millis
    explain: str = ""
    key: str | None = None
    headers: dict[str, str] = {}

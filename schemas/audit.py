"""The audit log: everything that was decided or asked of a scope, each entry bound to the one before it."""

from typing import Annotated, Literal

from msgspec import Meta

from schemas.base import Millis, Record
from schemas.delivery import Position
from schemas.reputation import Decision

AuditedAs = Literal["begun", "decision", "command", "refused"]


class AuditEntry(Record, frozen=True, kw_only=True, tag_field="v", tag=1):
    """One entry of a scope's audit log.  Topic ``mail.audit``.

    ``seq`` grows by one within a scope; a repeat is the same bytes, and readers drop it by scope and ``seq``.  ``hash``
    is the SHA-256 of all other fields but ``seal``, as JSON with sorted keys and without spaces; fields that are
    unknown are part of it.  ``previous`` is the hash of the entry before, empty in the first.  ``what``: ``begun`` says
    where a scope stood when its log began, ``decision`` is the policy's own, ``command`` an operator's that was
    carried out, ``refused`` one that was not.  ``seal`` is the number of the installation's keys, a colon, and an
    HMAC-SHA-256 of the hash.
    """

    scope: str
    seq: Annotated[int, Meta(ge=1)]
    at: Millis
    what: AuditedAs
    decision: Decision
    cause: Position | None = None
    previous: str = ""
    hash: str
    seal: str | None = None

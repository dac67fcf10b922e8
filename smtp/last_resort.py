"""The last resort for bounces of no known form: flufl.bounce, asked for addresses and for nothing else.

It takes blocks and overdrawn queues for dead addresses too, so what it finds is a failure without a reason: never a
hard bounce, never a suppression.  It is asked about the text for people only, as one flat message.
"""

import email
import email.message
import logging

from flufl.bounce import all_failures

from smtp.bounce_words import ABSENT, FAILED_SUBJECTS, ROBOTS, fold, says
from smtp.dsn import MAX_RECIPIENTS, clues_of
from smtp.encoded_words import decoded
from smtp.findings import Action, Bounce, Finding, clean
from smtp.mime import Message
from smtp.notice import told

MAX_CHARS = 32_768
_MAX_FIELD = 500
_MAX_ADDRESS = 320

logging.getLogger("flufl.bounce").disabled = True  # it writes what it stumbles over, which may be anybody's mail


def findings(message: Message) -> list[Finding]:
    """The addresses that a message of a robot seems to be about, without a reason; empty when there are none."""
    if not _may_be_a_bounce(message):
        return []
    try:
        temporary, permanent = all_failures(_flat(message))
    except Exception:  # noqa: BLE001 - written for honest mail; whatever it stumbles over is no bounce that we can read
        return []
    clues = clues_of(message)
    named = sorted({_address(one) for one in permanent or temporary} - {""})[:MAX_RECIPIENTS]
    action: Action = "failed" if permanent else "delayed"
    return [Bounce(action=action, recipient=one, code=None, enhanced=None, text="", clues=clues) for one in named]


def _flat(message: Message) -> email.message.Message:
    """The message as one text: what is nested in what costs the standard library too much."""
    fields = ((name, (message.fields.get(name) or "<>")[:_MAX_FIELD]) for name in ("from", "subject", "x-mailer"))
    header = "".join(f"{name}: {clean(value, _MAX_FIELD)}\n" for name, value in fields)
    body = "\n".join(told(message)[0])[:MAX_CHARS].replace("\r", " ")
    return email.message_from_string(f"{header}\n{body}")


def _may_be_a_bounce(message: Message) -> bool:
    subject = fold(decoded(message.fields.get("subject") or ""))
    author = fold(decoded(message.fields.get("from") or "<>"))
    if says(subject, ABSENT):
        return False
    return says(author, ROBOTS) or says(subject, FAILED_SUBJECTS)


def _address(found: bytes | str) -> str:
    address = found.decode("utf-8", "replace") if isinstance(found, bytes) else str(found)
    return address.strip()[:_MAX_ADDRESS] if "@" in address else ""

"""Where a message that came back can be recognised as one of ours: what only we can have written, wherever it stands.

Nothing is believed here; the texts are collected, bounded in number and length.
"""

import re
from datetime import UTC
from email.utils import parsedate_to_datetime

from policy.tokens import UNSUBSCRIBE_TOKEN, return_paths_in
from smtp.findings import Clues, clean
from smtp.mime import Fields, Message

_MAX_PLACES = 20
_MAX_EACH = 5
_MAX_PLACE = 1_000
_MAX_SCANNED_PARTS = 8

_LINK = re.compile(rf"(?<![A-Za-z0-9_-]){UNSUBSCRIBE_TOKEN}(?![A-Za-z0-9_-])")
_MESSAGE_ID = re.compile(r"<[^<>@\s]{1,200}@[^<>@\s]{1,255}>")
_OUR_MESSAGE_ID = re.compile(
    r"(?<![A-Za-z0-9_-])[A-Za-z0-9_-]{1,64}\.[a-z0-9-]{1,63}\.[A-Za-z2-7]{16}@[A-Za-z0-9.-]{1,255}"
)
_TYPED = re.compile(r"\A\s{0,20}[A-Za-z0-9-]{1,30}\s{0,5};")
_ADDRESS = re.compile(r"[^\s<>@,;:\"]{1,64}@[^\s<>@,;:\"]{1,255}")


def clues_in(returned: Fields, *, report: Fields | None = None, around: Fields | None = None) -> Clues:
    """The clues of the returned mail's header, of the fields of a report, and of the header of what brought them."""
    report, around = report or Fields(), around or Fields()
    message_ids = [clean(one, 500) for one in returned.all("message-id")][-_MAX_EACH:]
    feedback_id = returned.get("feedback-id")
    name = (feedback_id or "").partition(":")[0].strip() or (returned.get("x-mailcordon-campaign") or "").strip()
    return Clues(
        return_paths=_places(
            *returned.all("cfbl-feedback-id"),
            *report.all("original-mail-from"),
            *report.all("original-envelope-id"),
            *returned.all("return-path"),
            *returned.all("x-mailcordon-return-path"),
            *report.all("x-original-mail-from"),
            *returned.all("x-envelope-from"),
            *returned.all("x-envelope-sender"),
            *returned.all("errors-to"),
        ),
        message_id=message_ids[-1] if message_ids else None,
        references=_message_ids(*message_ids[-2::-1], *report.all("original-message-id"), *_answered(around)),
        links=links_in(" ".join((*returned.all("list-unsubscribe")[:3], *report.all("reported-uri")[:3]))),
        addressees=_addresses(
            *report.all("original-rcpt-to"),
            *report.all("removal-recipient"),
            *returned.all("x-hmxmroriginalrecipient"),
            *returned.all("to"),
            *returned.all("x-original-to"),
            *returned.all("delivered-to"),
        ),
        dated=milliseconds(returned.get("date")),
        feedback_id=clean(feedback_id, 200) if feedback_id else None,
        campaign_name=clean(name, 63) or None,
    )


def clues_anywhere(message: Message) -> Clues:
    """What looks like ours in any text of a message, for forms that hide it in strange places."""
    texts = [value for _, value in message.fields.pairs]
    texts += [part.text() for part in message.parts[:_MAX_SCANNED_PARTS] if part.content_type.startswith(_TEXTS)]
    whole = "\n".join(texts)
    return Clues(
        return_paths=tuple(return_paths_in(whole, limit=len(whole))),
        references=tuple(f"<{one}>" for one in list(dict.fromkeys(_OUR_MESSAGE_ID.findall(whole)))[-_MAX_EACH:][::-1]),
        links=links_in(whole),
    )


_TEXTS = ("text/", "message/")


def are_empty(clues: Clues) -> bool:
    """Is there nothing in the clues that might be signed by us?"""
    message_ids = (clues.message_id or "", *clues.references)
    paths = any(return_paths_in(place) for place in clues.return_paths)
    return not (paths or clues.links or any(map(_OUR_MESSAGE_ID.search, message_ids)))


def links_in(text: str) -> tuple[str, ...]:
    """What looks like tokens of unsubscribe links."""
    return tuple(dict.fromkeys(_LINK.findall(text)))[:3]


def milliseconds(date: str | None) -> int | None:
    """A date as header fields write it, in ms since the epoch; one without a zone is taken as UTC."""
    try:
        found = parsedate_to_datetime((date or "").strip()[:100])
        return int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _places(*texts: str) -> tuple[str, ...]:
    inner = (_TYPED.sub("", text[:_MAX_PLACE], count=1).strip().strip("<>").strip() for text in texts[:_MAX_PLACES])
    return tuple(dict.fromkeys(filter(None, inner)))


def _message_ids(*texts: str) -> tuple[str, ...]:
    found = [one for text in texts[:_MAX_PLACES] for one in _MESSAGE_ID.findall(text[:4_000])]
    return tuple(dict.fromkeys(found))[:_MAX_EACH]


def _answered(around: Fields) -> list[str]:
    """The messages that a message says it answers, the nearest first."""
    threads = [one for text in around.all("references")[:3] for one in _MESSAGE_ID.findall(text)]
    return [*around.all("in-reply-to")[:3], *threads[::-1]]


def _addresses(*texts: str) -> tuple[str, ...]:
    found = (_ADDRESS.search(text[:_MAX_PLACE]) for text in texts[:_MAX_PLACES])
    return tuple(dict.fromkeys(one[0] for one in found if one))[:_MAX_EACH]

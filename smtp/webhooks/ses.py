"""Events of Amazon SES, as they stand in the Message of an SNS notification.

Both forms are read: event publishing (``eventType``) and feedback notifications (``notificationType``).  SES writes a
Message-ID of its own; the fields that we wrote stand in ``mail.headers``, our return path in ``mail.source``.
"""

from dataclasses import replace

import msgspec

from smtp.dsn import bare, read_reply
from smtp.webhooks.events import MOST_EVENTS, Event, Item, Refusal, What, millis, sentence, words

_ON_SUPPRESSION_LIST = {"Suppressed", "OnAccountSuppressionList"}
_EXPECTED = {
    "NoEmail": "invalid_recipient",
    "Suppressed": "invalid_recipient",
    "OnAccountSuppressionList": "invalid_recipient",
    "MailboxFull": "mailbox_full",
    "MessageTooLarge": "message_too_big",
    "ContentRejected": "spam_content",
    "AttachmentRejected": "spam_content",
    "CustomTimeoutExceeded": "expired",
}
_COMPLAINTS: dict[str, What] = {"not-spam": "not_spam", "auth-failure": "noted"}


class _Camel(msgspec.Struct, frozen=True, rename="camel"):
    """Names as SES writes them; what it adds one day is passed over."""


class _Pair(_Camel, frozen=True):
    name: str = ""
    value: str | None = None


class _Mail(_Camel, frozen=True):
    source: str | None = None
    headers: list[_Pair] = []
    tags: dict[str, list[str]] = {}


class _Recipient(_Camel, frozen=True):
    email_address: str = ""
    status: str | None = None
    diagnostic_code: str | None = None


class _Bounce(_Camel, frozen=True):
    bounce_type: str = ""
    bounce_sub_type: str = ""
    bounced_recipients: list[_Recipient] = []
    timestamp: str | None = None
    feedback_id: str | None = None


class _Complaint(_Camel, frozen=True):
    complained_recipients: list[_Recipient] = []
    timestamp: str | None = None
    feedback_id: str | None = None
    complaint_feedback_type: str | None = None
    complaint_sub_type: str | None = None


class _Delay(_Camel, frozen=True):
    delay_type: str = ""
    delayed_recipients: list[_Recipient] = []
    timestamp: str | None = None


class _Preferences(_Camel, frozen=True):
    unsubscribe_all: bool = False


class _Subscription(_Camel, frozen=True):
    timestamp: str | None = None
    new_topic_preferences: _Preferences = _Preferences()


class _Reject(_Camel, frozen=True):
    reason: str = ""


class _Event(_Camel, frozen=True):
    event_type: str = ""
    notification_type: str = ""
    mail: _Mail = _Mail()
    bounce: _Bounce | None = None
    complaint: _Complaint | None = None
    delivery_delay: _Delay | None = None
    subscription: _Subscription | None = None
    reject: _Reject | None = None


def events(message: str, *, id: str) -> list[Item] | Refusal:  # noqa: A002, PLR0911 - it is one; a return for each kind
    """What a notification says, one event for each recipient; ``id`` is the notification's."""
    try:
        found = msgspec.json.decode(message, type=_Event)
    except (msgspec.MsgspecError, RecursionError, UnicodeEncodeError) as wrong:
        return Refusal("malformed", f"the Message is no event of SES: {wrong}")
    event = _bare_event(found, message, id)
    match found:
        case _Event(bounce=_Bounce() as bounce):
            return [_bounced(event, bounce, one, number) for number, one in _numbered(bounce.bounced_recipients)]
        case _Event(complaint=_Complaint() as complaint):
            recipients = complaint.complained_recipients or [_Recipient()]
            return [_complained(event, complaint, one, number) for number, one in _numbered(recipients)]
        case _Event(delivery_delay=_Delay() as delay):
            return [_delayed(event, delay, one, number) for number, one in _numbered(delay.delayed_recipients)]
        case _Event(reject=_Reject() as reject):
            return [replace(event, what="bounce", text=sentence(reject.reason), expected="virus", may_be_hard=False)]
        case _Event(subscription=_Subscription() as change):
            what: What = "unsubscribe" if change.new_topic_preferences.unsubscribe_all else "noted"
            return [replace(event, what=what, at=millis(change.timestamp))]
        case _ if event.word:
            return [event]
    return Refusal("malformed", "the Message has neither eventType nor notificationType; subscribe SES events only")


def _numbered(recipients: list[_Recipient]) -> list[tuple[int, _Recipient]]:
    return list(enumerate(recipients[:MOST_EVENTS]))


def _bounced(event: Event, bounce: _Bounce, one: _Recipient, number: int) -> Event:
    word = bounce.bounce_sub_type
    event = _about(event, one, number, bounce.timestamp)
    if word == "UnsubscribedRecipient":
        return replace(event, what="unsubscribe")
    expected = _EXPECTED.get(word)
    may_be_hard = bounce.bounce_type == "Permanent"
    event = replace(event, what="bounce", expected=expected, may_be_hard=may_be_hard)
    if word in _ON_SUPPRESSION_LIST:
        text = "on the suppression list of the service, which did not try to deliver"
        return replace(event, code=None, enhanced=None, text=text)
    return event


def _complained(event: Event, complaint: _Complaint, one: _Recipient, number: int) -> Event:
    what = _COMPLAINTS.get(complaint.complaint_feedback_type or "", "complaint")
    if complaint.complaint_sub_type == "OnAccountSuppressionList":
        what = "unsubscribe"  # who complained before; that complaint was counted then
    return replace(_about(event, one, number, complaint.timestamp), what=what)


def _delayed(event: Event, delay: _Delay, one: _Recipient, number: int) -> Event:
    expected = "mailbox_full" if delay.delay_type == "MailboxFull" else None
    return replace(_about(event, one, number, delay.timestamp), what="delay", expected=expected)


def _about(event: Event, one: _Recipient, number: int, at: str | None) -> Event:
    code, enhanced, text = read_reply(bare_diagnostic(one.diagnostic_code))
    return replace(
        event,
        id=f"{event.id}:{number}",
        at=millis(at),
        recipient=bare(one.email_address) or None,
        code=code,
        enhanced=enhanced or one.status,
        text=text,
    )


def bare_diagnostic(text: str | None) -> str:
    """A diagnostic without the type in front of it (``smtp; 550 …``)."""
    kind, semicolon, rest = (text or "").partition(";")
    return rest.strip() if semicolon and kind.strip().lower() in {"smtp", "x-amazon-ses", "x-postfix"} else text or ""


def _bare_event(found: _Event, message: str, id: str) -> Event:  # noqa: A002 - it is one
    fields: dict[str, list[str]] = {}
    for pair in found.mail.headers[:500]:
        if pair.value:
            fields.setdefault(pair.name.lower()[:100], []).append(pair.value)
    tags = found.mail.tags
    return Event(
        id=id,
        what="noted",
        raw=message.encode("utf-8", "replace"),
        word=(found.event_type or found.notification_type)[:40],
        return_paths=words(found.mail.source, fields.get("cfbl-feedback-id"), fields.get("return-path")),
        links=words(fields.get("list-unsubscribe")),
        message_ids=words(fields.get("message-id")),
        campaigns=words(fields.get("x-mailcordon-campaign"), tags.get("mailcordon-campaign"), tags.get("campaign")),
    )

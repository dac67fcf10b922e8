"""What an imported mail says, and whether it can be believed.

The two are asked apart.  What it says is read as the return path would read it if the mail had come to a return path
that we signed; so mail of strangers, and mail without keys at hand, is understood too.  Believed is only what proves
itself with the installation's keys, and nothing else leaves this module as feedback.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import msgspec

from cli.mail_files import Stored
from policy.replies import category_of, classify, shipped
from policy.tokens import Keys, Ticket, address_hash, read_return_path, return_path
from policy.unsubscribing import is_for_unsubscribing
from schemas.dead_letters import DeadLetter
from schemas.feedback import Feedback
from schemas.sending import Campaign, Mailbox
from smtp.dsn import bare
from smtp.findings import Bounce, Finding, clean
from smtp.known import Known
from smtp.mime import Fields, TooComplexError, split
from smtp.returned import Context, Meaning, Noted, Returned, meanings, trap_hit
from smtp.unsubscribing import unsubscribed_by_mail

SOURCE = "import"
UNKNOWN = "unknown"
NO_KEY = "no_key"
NOT_LOOKED_UP = "campaign_not_looked_up"
UNREADABLE = "unreadable"

_ENVELOPE_FIELDS = ("delivered-to", "x-original-to", "envelope-to", "x-envelope-to", "to")
_MOST_PLACES = 40
_LOOKED_AT_BYTES = 131_072
_ANYBODY = "anybody"
_NOBODYS_KEYS = Keys(address=bytes(32), return_path=bytes(32))
"""Of no installation; what is signed with them is read in this module and nowhere else."""


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """What a mail says about one recipient.

    ``kind`` is a kind of feedback, or what a report without a consequence says (``delayed``, ``delivered``, …), or
    ``unknown``; ``class`` says whose trouble it is, ``category`` which one.
    """

    kind: str
    class_: str | None = msgspec.field(name="class", default=None)
    category: str | None = None
    recipient: str | None = None
    code: int | None = None
    enhanced: str | None = None
    text: str | None = None


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """What is printed of one mail: the first recipient's part, all recipients, and what became of it.

    ``message_id`` is the id of our message where that is proven; else what the returned mail bears as Message-ID.
    ``reason`` says why it is no feedback, None when it is; ``all`` holds every part when there are several.
    """

    file: str
    position: int
    kind: str
    class_: str | None = msgspec.field(name="class", default=None)
    category: str | None = None
    recipient: str | None = None
    message_id: str | None = None
    campaign: str | None = None
    reason: str | None = None
    explain: str | None = None
    code: int | None = None
    enhanced: str | None = None
    text: str | None = None
    recipients: list[str] = []
    all: list[Said] = []


@dataclass(frozen=True, slots=True)
class Read:
    """One mail as a line, and the feedback that it proves to be."""

    line: Line
    feedback: tuple[Feedback, ...] = ()


def unread(mail: Stored, reason: str, explain: str) -> Read:
    """A mail of which nothing can be said."""
    return Read(Line(file=mail.file, position=mail.position, kind=UNKNOWN, reason=reason, explain=clean(explain)))


class Reader:
    """Reads mails; ``context`` has the installation's keys and campaigns, None where there are no keys."""

    def __init__(
        self, context: Context | None, provider_of: Callable[[str], str], *, knows_campaigns: bool = True
    ) -> None:
        self._context = context
        self._knows_campaigns = knows_campaigns
        anybody = Campaign(
            campaign=_ANYBODY,
            from_=Mailbox(address="a@return.path"),
            return_path_domain="return.path",
            sending_domains=[],
        )
        known = Known({_ANYBODY: anybody})
        self._as_if = Context(keys=_NOBODYS_KEYS, known=known, provider_of=provider_of)

    def read(self, mail: Stored, findings: Sequence[Finding], *, now: int) -> Read:
        """One mail; ``now`` counts for the age of its proof where the store does not say when it was delivered."""
        at = now if mail.at is None else min(mail.at, now)
        said = [self._said(one, at) for one in findings]
        believed: list[Feedback] = []
        reason, explain = NO_KEY, "no keys of an installation are at hand, so nothing can be proven"
        if self._context is not None:
            reason, explain = "", ""
            for meaning in _meanings(mail, findings, self._context, at):
                match meaning:
                    case Feedback() if _is_proven(meaning):
                        believed.append(msgspec.structs.replace(meaning, source=SOURCE))
                    case Feedback():
                        reason = reason or "suspected"
                        explain = explain or "a trap was hit, and nothing that we signed says by which campaign"
                    case Noted():
                        reason = reason or "no_consequence"
                        explain = explain or f"a report that has no consequence: {meaning.what}"
                    case DeadLetter():
                        reason, explain = reason or meaning.reason, explain or meaning.explain
        if reason == "unknown_campaign" and not self._knows_campaigns:
            reason, explain = NOT_LOOKED_UP, "proven to be ours; which campaign it is of is only known with Kafka"
        found = [one for one, _ in said]
        flaw = next((letter for _, letter in said if letter is not None), None)
        if reason == NO_KEY and flaw is not None:
            reason, explain = flaw.reason, flaw.explain
        first = found[0] if found else Said(kind=UNKNOWN)
        if believed and first.kind != believed[0].kind:  # mail in a trap, or to the address for unsubscribing
            first = Said(kind=believed[0].kind)
        line = Line(
            file=mail.file,
            position=mail.position,
            message_id=believed[0].message_id if believed else _message_id(findings),
            campaign=believed[0].campaign if believed else None,
            reason=None if believed else reason,
            explain=None if believed else explain,
            recipients=list(dict.fromkeys(one.recipient for one in found if one.recipient)),
            all=found if len(found) > 1 else [],
            **{name: getattr(first, name) for name in first.__struct_fields__},
        )
        return Read(line, tuple(believed))

    def _said(self, finding: Finding, at: int) -> tuple[Said, DeadLetter | None]:
        recipient = getattr(finding, "recipient", None)
        meant = meanings(_from_anybody(recipient, at), [finding], self._as_if)
        meaning = meant[0] if meant else Noted("nothing")
        said = Said(kind=UNKNOWN, recipient=clean(recipient, 320) if recipient else None)
        if isinstance(finding, Bounce):
            text = clean(finding.text) or None
            said = msgspec.structs.replace(said, code=finding.code, enhanced=finding.enhanced, text=text)
        match meaning:
            case Feedback():
                known = meaning.class_ if meaning.class_ in shipped().categories else None
                return _classed(said, meaning.kind, known), None
            case Noted():
                delayed = self._delayed_by(finding) if isinstance(finding, Bounce) else None
                return _classed(said, meaning.what, delayed), None
            case DeadLetter():
                return said, meaning

    def _delayed_by(self, bounce: Bounce) -> str | None:
        if bounce.action != "delayed":
            return None
        provider = self._as_if.provider_of((bounce.recipient or "").rpartition("@")[2].lower())
        return classify(code=bounce.code, enhanced=bounce.enhanced, text=bounce.text, provider=provider).category


def _meanings(mail: Stored, findings: Sequence[Finding], context: Context, at: int) -> list[Meaning]:
    """What the mail means to the installation, as if it came in by SMTP to the recipient that its fields name."""
    try:
        fields = split(mail.raw[:_LOOKED_AT_BYTES])[0]
    except TooComplexError:
        fields = Fields()
    returned = Returned(
        mail_from=bare(fields.get("return-path") or ""),
        rcpt=envelope_recipient(fields, context, at),
        raw=mail.raw,
        at=at,
    )
    if context.known.is_trap(returned.rcpt):
        return [trap_hit(returned, context)]
    if is_for_unsubscribing(returned.rcpt):
        return [unsubscribed_by_mail(returned, context)]
    return meanings(returned, findings, context)


def envelope_recipient(fields: Fields, context: Context, at: int) -> str:
    """Whom the mail was delivered to: of all that its fields name, who proves it, or else what is nearest to that."""
    places = list(_places(fields))
    tokens = [(place, read_return_path(context.keys, place, now=at)) for place in places]
    for place, token in tokens:
        if isinstance(token, Ticket):
            return place
    for place, token in tokens:
        if not isinstance(token, Ticket) and token.reason != "not_ours":
            return place
    own = (one for one in places if context.known.is_trap(one) or is_for_unsubscribing(one))
    return next(own, places[0] if places else "")


def _places(fields: Fields) -> Iterator[str]:
    seen = 0
    for name in _ENVELOPE_FIELDS:
        for value in fields.all(name):
            for one in value.split(","):
                seen += 1
                if seen > _MOST_PLACES:
                    return
                address = bare(one)
                if "@" in address:
                    yield address


def _from_anybody(recipient: str | None, at: int) -> Returned:
    hashed = address_hash(_NOBODYS_KEYS, recipient or "a@return.path")
    rcpt = return_path(
        _NOBODYS_KEYS, campaign=_ANYBODY, message_id="m", address_hash=hashed, sent_at=at, domain="return.path"
    )
    return Returned(mail_from="", rcpt=rcpt, raw=b"", at=at)


def _classed(said: Said, kind: str, category: str | None) -> Said:
    return msgspec.structs.replace(said, kind=kind, class_=_class_of(category), category=category)


def _is_proven(feedback: Feedback) -> bool:
    """A trap that anybody may have been made to hit proves nothing; all other feedback is signed."""
    return feedback.trap is None or feedback.sent_at is not None


def _class_of(category: str | None) -> str | None:
    """Whose trouble it is, in six words: what passes by itself is soft."""
    if category is None:
        return None
    kind = category_of(category).kind
    return "soft" if kind == "transient" else kind


def _message_id(findings: Sequence[Finding]) -> str | None:
    found = (one.clues.message_id for one in findings if one.clues.message_id)
    return next((clean(one, 998) for one in found), None)

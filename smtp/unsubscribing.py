"""What it means that somebody unsubscribed: feedback, from which a suppression follows.

Only a link that we made counts; it names the campaign, the message and the address, and neither who sends it nor
when matters.  To follow one twice is harmless.
"""

from email.errors import HeaderParseError
from email.header import decode_header
from typing import Literal

from policy.tokens import Forged, Leave, name_of, read_unsubscribe_token
from policy.unsubscribing import token_in
from schemas.feedback import Feedback
from smtp.mime import TooComplexError, split
from smtp.returned import Context, Meaning, Returned, dead_letter

How = Literal["one-click", "page", "mail"]

_LOOKED_AT_BYTES = 131_072
_LONGEST_SUBJECT = 1_000


def unsubscribed(leave: Leave, campaign: str, *, at: int, how: How) -> Feedback:
    """The event; whoever complains of our counting can be told by which way it came."""
    return Feedback(
        kind="unsubscribe",
        campaign=campaign,
        at=at,
        message_id=leave.message_id or name_of(leave.message_ref),
        sent_at=leave.sent_at,
        address_hash=leave.address_hash,
        source=f"unsubscribe:{how}",
    )


def unsubscribed_by_mail(returned: Returned, context: Context) -> Meaning:
    """Mail to the address that List-Unsubscribe names; without a token of ours in its subject it means nothing."""
    token = _token(returned.raw)
    if token is None:
        explain = "mail to the address for unsubscribing, and its subject holds no token; ask its sender what he wants"
        return dead_letter(returned, "unsubscribe_without_token", explain)
    leave = read_unsubscribe_token(context.keys, token)
    if isinstance(leave, Forged):
        return dead_letter(returned, f"unsubscribe_{leave.reason}", leave.explain)
    campaign = context.known.by_ref(leave.campaign_ref, returned.at)
    if campaign is None:
        return dead_letter(returned, "unknown_campaign", "the campaign of this unsubscribe link is not registered")
    return unsubscribed(leave, campaign, at=returned.at, how="mail")


def _token(raw: bytes) -> str | None:
    try:
        subject = split(raw[:_LOOKED_AT_BYTES])[0].get("subject") or ""
    except TooComplexError:
        return None
    subject = subject[:_LONGEST_SUBJECT]
    return token_in(subject) or token_in(_decoded(subject))


def _decoded(subject: str) -> str:
    """A mail program may have cut the token, which is long, into encoded words (RFC 2047)."""
    try:
        words = decode_header(subject)
    except (HeaderParseError, ValueError):
        return ""
    return "".join(one if isinstance(one, str) else one.decode("ascii", "replace") for one, _ in words)

"""How each kind of provider words its answers: codes as the real ones use them, the sentences our own."""

from typing import Literal

Kind = Literal["google", "microsoft", "yahoo", "apple", "gmx", "other"]
Answer = Literal[
    "unknown", "disabled", "full", "grey", "block", "content", "listed", "too_fast", "too_many", "relay", "failed_later"
]

_COMMON: dict[Answer, str] = {
    "unknown": "550 5.1.1 <{rcpt}>: user unknown",
    "disabled": "550 5.2.1 <{rcpt}>: this mailbox is disabled",
    "full": "452 4.2.2 <{rcpt}>: the mailbox is full, try again when there is room",
    "grey": "451 4.7.1 <{rcpt}>: greylisted, please come back later",
    "block": "554 5.7.1 Service refused; client host [{ip}] blocked using bl.example",
    "content": "550 5.7.1 The content looks like spam and was refused",
    "listed": "554 5.7.1 Client host [{ip}] blocked using our list: it is listed after complaints of our users",
    "too_fast": "421 4.7.0 Rate limit of [{ip}] exceeded, too many messages; closing",
    "too_many": "421 4.7.0 Too many connections from [{ip}]; closing",
    "relay": "550 5.7.1 <{rcpt}>: relay access denied; no mailboxes of that domain are here",
    "failed_later": "550 5.1.1 <{rcpt}>: user unknown",
}

_OWN: dict[Kind, dict[Answer, str]] = {
    "google": {
        "unknown": "550-5.1.1 There is no account with this address here, or it does not exist any more.\n"
        "550 5.1.1 Look for typing mistakes and needless spaces, then try once more. - gsmtp",
        "disabled": "550 5.2.1 The account that you write to has been disabled. p=DisabledUser - gsmtp",
        "full": "452-4.2.2 The recipient's inbox is out of storage space.\n"
        "452 4.2.2 Ask the recipient to make room. p=OverQuotaTemp - gsmtp",
        "grey": "451 4.7.1 Greylisted: this sender is new to us, please try again later - gsmtp",
        "block": "554-5.7.1 [{ip}] This mail was blocked because of the very low reputation of the sending IP:\n"
        "554 5.7.1 client host [{ip}] blocked using our own list. - gsmtp",
        "content": "550-5.7.1 Our filters hold this for likely unsolicited mail.\n"
        "550 5.7.1 To protect our users, the message has been blocked as spam. - gsmtp",
        "too_fast": "421-4.7.0 An unusual rate of mail comes from your IP address [{ip}].\n"
        "421 4.7.0 It is held back for now by a rate limit. - gsmtp",
        "too_many": "421 4.7.0 Too many connections from [{ip}], closing. - gsmtp",
    },
    "microsoft": {
        "unknown": "550 5.1.1 RESOLVER.ADR.RecipientNotFound; no such recipient in this organisation "
        "[mx.protection.example]",
        "disabled": "550 5.2.1 The mailbox of this recipient is disabled (S2701) [mx.protection.example]",
        "full": "452 4.2.2 Mailbox full; STOREDRV.QuotaExceeded [mx.protection.example]",
        "block": "554 5.7.1 Messages from [{ip}] were not sent: client host [{ip}] blocked using a list of ours "
        "(S3150) [mx.protection.example]",
        "listed": "554 5.7.1 Messages from [{ip}] were not sent: part of that network is on our block list (S3150), "
        "client host [{ip}] blocked using it",
        "too_fast": "421 4.7.0 RP-001 The rate limit of [{ip}] is exceeded (S775) [mx.protection.example]",
        "too_many": "421 4.7.0 RP-003 Too many connections from [{ip}] (S3115) [mx.protection.example]",
    },
    "yahoo": {
        "unknown": "550 5.1.1 delivery error: no such user, <{rcpt}> - mta1.mail.example",
        "disabled": "550 5.2.1 delivery error: this mailbox is disabled (554.30) - mta1.mail.example",
        "content": "550 5.7.1 [PH01] Not accepted for policy reasons: spam",
        "block": "554 5.7.1 [BL21] Connections refused: client host [{ip}] blocked using a list of ours",
        "listed": "554 5.7.1 [BL22] Refused: client host [{ip}] blocked using a list, it is listed after complaints",
        "too_fast": "421 4.7.0 [TS01] Messages from {ip} deferred: unexpected volume, rate limit",
    },
    "apple": {
        "unknown": "550 5.1.1 <{rcpt}>: user does not exist",
        "disabled": "550 5.2.1 <{rcpt}>: this mailbox is inactive",
        "content": "550 5.7.1 [CS01] Refused by local policy: message content rejected due to spam",
    },
    "gmx": {
        "unknown": "550 5.1.1 Requested action not taken: mailbox unavailable, user unknown",
        "full": "452 4.2.2 Quota exceeded: the mailbox of the recipient is full",
        "block": "554 5.7.1 Transaction failed: IP address is block listed; client host [{ip}] blocked using it",
        "content": "550 5.7.1 Transaction failed: the message looks like spam",
    },
    "other": {},
}


def text(kind: Kind, answer: Answer, *, rcpt: str = "", ip: str = "") -> str:
    """An answer as a provider of that kind gives it, lines parted by LF."""
    return _OWN[kind].get(answer, _COMMON[answer]).format(rcpt=rcpt, ip=ip)


def wire(said: str) -> bytes:
    """A reply as it goes over the wire."""
    return said.replace("\n", "\r\n").encode("utf-8", "replace") + b"\r\n"


def code_of(said: str) -> int:
    """The three digits that a reply begins with."""
    return int(said[:3])

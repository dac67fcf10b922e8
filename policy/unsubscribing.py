"""Unsubscribing: what a link looks like, where mail that unsubscribes goes, and what the header fields say.

RFC 2369 names the ways out of a list, RFC 8058 makes one of them a single click: the mailbox provider posts
``List-Unsubscribe=One-Click`` to the link, for a person who saw no page.
"""

import re

from policy.addresses import hostname
from policy.tokens import UNSUBSCRIBE_TOKEN

MAX_BASE = 90  # with a slash and the longest token a link stays below 200 characters
MAX_LINK = MAX_BASE + 1 + 99
ONE_CLICK = "List-Unsubscribe=One-Click"
LOCAL_PART = "unsub"

_BASE = re.compile(r"https://([A-Za-z0-9.-]{1,253})(?::[0-9]{1,5})?((?:/[A-Za-z0-9._~-]+)*)/?").fullmatch
_TOKEN_INSIDE = re.compile(rf"(?<![A-Za-z0-9_-]){UNSUBSCRIBE_TOKEN}(?![A-Za-z0-9_-])").search


def flaw_of_base(text: str) -> str | None:
    """Why no link can begin with this; None if it can.  The sentence continues ``field unsubscribe_url …``."""
    if len(text) > MAX_BASE:
        return f"has more than {MAX_BASE} characters; a link must stay short"
    found = _BASE(text)
    if found is None or hostname(found[1]) is None:
        return "is not https://HOST/PATH without a query; a token is put behind it (RFC 8058 3.1 asks for HTTPS)"
    return None


def link(base: str, token: str) -> str:
    """The unsubscribe link of one message."""
    return f"{base}{token}" if base.endswith("/") else f"{base}/{token}"


def mailbox(return_path_domain: str) -> str:
    """Where mail that unsubscribes goes; the token stands in its subject, for a local part is too short for it."""
    return f"{LOCAL_PART}@{return_path_domain}"


def is_for_unsubscribing(address: str) -> bool:
    """Is this the local part of :func:`mailbox`?  The domain is the listener's to check."""
    return address.rpartition("@")[0].lower() == LOCAL_PART


def token_in(subject: str) -> str | None:
    """The first thing in a subject that looks like a token, whatever mail programs wrote around it."""
    found = _TOKEN_INSIDE(subject)
    return found[0] if found else None

"""Addresses: can mail be sent to this one, and which mailbox is it?

The verdict is email-validator's in its strict mode.  Without ``strict`` it takes a local part of 65 octets; we
choose strict, and count octets and not characters (RFC 5321 4.5.3.1.1: local part at most 64 octets; 4.5.3.1.3: an
address at most 254).  A plain ASCII address, nearly every one of a real list, is recognised by two regular
expressions with the same verdict and result, its domain once for all addresses that share it.  The library is asked
once about a domain that is in doubt (``--``, a special-use name, not ASCII), and about each local part not ASCII.

Nothing that is said about a bad address repeats any part of it: the sentences end up in topics and logs.
"""

import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache

import msgspec
from email_validator import SPECIAL_USE_DOMAIN_NAMES, validate_email
from email_validator.rfc_constants import CASE_INSENSITIVE_MAILBOX_NAMES

MAX_OCTETS = 254
MAX_LOCAL_OCTETS = 64
DOMAINS_REMEMBERED = 16_384
_SURELY_SHORT = (MAX_OCTETS - MAX_LOCAL_OCTETS) // 2  # octets of a domain; no form of it makes an address too long

_ATOM = r"[A-Za-z0-9_!#$%&'*+\-/=?^`{|}~]+"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_TOP = r"(?:[A-Za-z0-9][A-Za-z0-9-]{0,61})?[A-Za-z]"
_PLAIN_LOCAL = re.compile(rf"{_ATOM}(?:\.{_ATOM})*").fullmatch
_PLAIN_DOMAIN = re.compile(rf"(?:{_LABEL}\.)+{_TOP}").fullmatch
_HOSTNAME = re.compile(rf"(?:{_LABEL}\.)*{_LABEL}").fullmatch
_DOUBTFUL_TOPS = frozenset(name.rpartition(".")[2] for name in SPECIAL_USE_DOMAIN_NAMES)
_LOWERED_LOCALS = frozenset(CASE_INSENSITIVE_MAILBOX_NAMES)  # RFC 2142; the library writes these in lower case
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]").search


class CheckedAddress(msgspec.Struct, frozen=True, gc=False):
    """An address as it goes into RCPT TO: the domain as lower-case A-labels, the local part as written (NFC).

    ``smtputf8`` says that the local part is not ASCII, so that every server on the way must know RFC 6531.
    """

    address: str
    local: str
    domain: str
    smtputf8: bool = False


class BadAddress(msgspec.Struct, frozen=True, gc=False):
    """Why no mail can be sent to an address; the sentence continues ``the address …`` and never quotes it."""

    reason: str
    explain: str


def check(address: str) -> CheckedAddress | BadAddress:
    """Is this the address of a mailbox in the public mail system, alone and undecorated?"""
    if len(address) <= MAX_OCTETS:
        local, _, written = address.partition("@")
        domain = _domain(written)
        if domain is not None and len(local) <= MAX_LOCAL_OCTETS and _PLAIN_LOCAL(local):
            if not domain:
                return _flaw(address)
            lowered = local.lower()
            if lowered in _LOWERED_LOCALS:
                local = lowered
            return CheckedAddress(f"{local}@{domain}", local, domain)
    return _by_the_library(address)


@lru_cache(maxsize=DOMAINS_REMEMBERED)
def _domain(written: str) -> str | None:
    """A domain as lower-case A-labels; empty if it is none; None if the library has to see the whole address.

    It has to when the address might be too long in one of its two forms but not in the other.
    """
    domain = written.lower()
    if _PLAIN_DOMAIN(written) and "--" not in domain and domain[domain.rfind(".") + 1 :] not in _DOUBTFUL_TOPS:
        return domain
    checked = _slowly(f"x@{written}")
    if checked is None:
        return "" if len(written) < _SURELY_SHORT else None
    return checked.domain if max(len(checked.domain), len(written.encode())) < _SURELY_SHORT else None


def canonical(address: str) -> str:
    """The address under which a mailbox is remembered; for look-ups only, mail goes to the address as written.

    Lower case, NFC, domain as A-labels; at providers that are known to do so, dots (Gmail) and ``+tag`` or
    ``-keyword`` endings are dropped, everywhere else nothing is.  An address that is none is folded as far as it
    goes, so that a refusal can still be found by its hash.
    """
    if address.isascii():
        local, _, domain = address.lower().rpartition("@")
        return _mailbox(local, domain) if local else domain
    checked = check(address)
    return _folded(address) if isinstance(checked, BadAddress) else canonical_of(checked)


def canonical_of(checked: CheckedAddress) -> str:
    """:func:`canonical` of an address that was checked already."""
    return _mailbox(_folded(checked.local) if checked.smtputf8 else checked.local.lower(), checked.domain)


def _mailbox(local: str, domain: str) -> str:
    habit = _HABITS.get(domain)
    if habit is None:
        return f"{local}@{domain}"
    mailbox = local.partition(habit.tag_after)[0]
    if habit.dots_are_noise:
        mailbox = mailbox.replace(".", "")
    return f"{mailbox or local}@{habit.domain or domain}"


@lru_cache(maxsize=4096)
def hostname(text: str) -> str | None:
    """A domain name as lower-case A-labels, or None when it is none (RFC 1123 2.1); special-use names pass.

    For domains that an operator writes: senders, return paths.  ``None`` means that it must not be put into an
    SMTP command or a header.
    """
    if len(text) > 253:
        return None
    if _HOSTNAME(text) and "--" not in text:
        return text.lower()
    if text.isascii() and not _HOSTNAME(text):
        return None
    checked = check(f"x@{text}")
    return checked.domain if isinstance(checked, CheckedAddress) else None


def _folded(text: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).lower())


def _by_the_library(address: str) -> CheckedAddress | BadAddress:
    if len(address) > MAX_OCTETS:  # the library counts octets of every form, so this only saves its time
        return BadAddress("too_long", f"has more than {MAX_OCTETS} octets; no server needs to take it (RFC 5321)")
    if address.isascii() and not _PLAIN_LOCAL(address.partition("@")[0]):
        return _flaw(address)  # dots or characters that only quotes allow, and quotes are not taken
    checked = _slowly(address)
    if checked is None:
        return _flaw(address)
    return _LOCAL_TOO_LONG if len(checked.local.encode("utf-8")) > MAX_LOCAL_OCTETS else checked


def _slowly(address: str) -> CheckedAddress | None:
    try:
        found = validate_email(address, strict=True, check_deliverability=False, test_environment=False)
    except ValueError:  # EmailNotValidError, and whatever the codecs below it say to odd code points
        return None
    local, domain = found.local_part, found.ascii_domain
    return CheckedAddress(f"{local}@{domain}", local, domain, not local.isascii())


_LOCAL_TOO_LONG = BadAddress(
    "local_part_too_long", f"has more than {MAX_LOCAL_OCTETS} octets before the @-sign (RFC 5321); shorten it"
)
_FLAWS_OF_THE_WHOLE: tuple[tuple[Callable[[str], object], BadAddress], ...] = (
    (lambda text: not text.strip(), BadAddress("empty", "is empty; write name@domain")),
    (_CONTROL, BadAddress("control_character", "holds a line break or another control character; remove it")),
    (
        re.compile("[<>]").search,
        BadAddress("display_name", "has a name or angle brackets around it; send name@domain alone"),
    ),
    (
        lambda text: '"' in text,
        BadAddress("quoted_local_part", "has a quoted part before the @-sign, which is not supported"),
    ),
    (lambda text: "@" not in text, BadAddress("no_at_sign", "has no @-sign; write name@domain")),
    (
        lambda text: text.count("@") > 1,
        BadAddress("two_at_signs", "has more than one @-sign; send one address per recipient"),
    ),
    (re.compile(r"\s").search, BadAddress("space", "holds a space; remove it")),
)
_FLAWS_OF_THE_PARTS: tuple[tuple[Callable[[str, str], object], BadAddress], ...] = (
    (
        lambda local, _: not local,
        BadAddress("no_local_part", "has nothing before the @-sign; write name@domain"),
    ),
    (lambda _, domain: not domain, BadAddress("no_domain", "has nothing after the @-sign; write name@domain")),
    (lambda local, _: len(local) > MAX_LOCAL_OCTETS, _LOCAL_TOO_LONG),
    (
        lambda _, domain: domain.startswith("["),
        BadAddress("address_literal", "has an IP address after the @-sign; a domain is needed"),
    ),
    (
        lambda local, _: not _PLAIN_LOCAL(local) if local.isascii() else _slowly(f"{local}@example.com") is None,
        BadAddress("local_part", "has characters or dots before the @-sign that no mailbox may have; correct it"),
    ),
    (
        lambda _, domain: "." not in domain,
        BadAddress("no_top_level_domain", "has no period after the @-sign; write the whole domain"),
    ),
    (
        lambda _, domain: domain.lower().rpartition(".")[2] in _DOUBTFUL_TOPS,
        BadAddress("special_use_domain", "has a domain that is reserved and gets no mail (RFC 6761); correct it"),
    ),
)


def _flaw(address: str) -> BadAddress:
    """The most helpful sentence for an address that the library refuses."""
    for has_it, flaw in _FLAWS_OF_THE_WHOLE:
        if has_it(address):
            return flaw
    local, _, domain = address.partition("@")
    for they_have_it, flaw in _FLAWS_OF_THE_PARTS:
        if they_have_it(local, domain):
            return flaw
    return BadAddress("domain", "has a domain that is not a valid host name (RFC 1123, IDNA 2008); correct it")


class _Habit(msgspec.Struct, frozen=True, gc=False):
    """How a provider reads local parts: what starts a tag, whether dots count, and its main domain."""

    tag_after: str
    dots_are_noise: bool = False
    domain: str = ""


_PLUS = _Habit("+")
_HABITS: dict[str, _Habit] = {
    "gmail.com": _Habit("+", dots_are_noise=True),
    "googlemail.com": _Habit("+", dots_are_noise=True, domain="gmail.com"),
    **dict.fromkeys(
        (
            *("outlook.com", "outlook.de", "outlook.fr", "outlook.es", "outlook.it", "outlook.jp", "outlook.com.br"),
            *("hotmail.com", "hotmail.co.uk", "hotmail.de", "hotmail.fr", "hotmail.es", "hotmail.it", "hotmail.ca"),
            *("live.com", "live.co.uk", "live.de", "live.fr", "live.nl", "live.it", "live.ca", "msn.com"),
            *("fastmail.com", "fastmail.fm", "proton.me", "protonmail.com", "pm.me"),
            *("icloud.com", "me.com", "mac.com"),
        ),
        _PLUS,
    ),
    **dict.fromkeys(
        (
            *("yahoo.com", "yahoo.co.uk", "yahoo.de", "yahoo.fr", "yahoo.it", "yahoo.es", "yahoo.ca", "yahoo.in"),
            *("yahoo.co.in", "yahoo.com.br", "yahoo.com.au", "ymail.com", "rocketmail.com"),
        ),
        _Habit("-"),
    ),
}

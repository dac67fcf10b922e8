"""MTA-STS: a domain's word on how its mail servers prove themselves, read strictly (RFC 8461 3.1, 3.2).

Whatever is wrong with a record or a policy makes it as if there were none: an attacker who can spoil one can also
remove it, and what protects then is the policy that was cached before.
"""

import re
from dataclasses import dataclass
from typing import Literal, get_args

Mode = Literal["enforce", "testing", "none"]

MAX_POLICY_BYTES = 65_536
MOST_PATTERNS = 1000
MAX_AGE_MOST_S = 31_557_600  # RFC 8461 3.2; what asks for more gets this

_RECORD = re.compile(r"v=STSv1[ \t]*(?:;.*)?", re.ASCII | re.DOTALL)
_RECORD_FIELD = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]{0,31})=([\x21-\x3a\x3c\x3e-\x7e]+)").fullmatch
_ID = re.compile(r"[A-Za-z0-9]{1,32}").fullmatch
_FIELD = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]{0,31}):[ \t]*([^\x00-\x20\x7f](?:[^\x00-\x1f\x7f]*[^\x00-\x20\x7f])?)")
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_PATTERN = re.compile(rf"(?:\*\.)?{_LABEL}(?:\.{_LABEL})*").fullmatch
_SECONDS = re.compile(r"[0-9]{1,10}").fullmatch


@dataclass(frozen=True, slots=True)
class StsPolicy:
    """One policy; ``mx`` are host names in lower case, of which the first label may be ``*``."""

    mode: Mode
    mx: tuple[str, ...]
    max_age_s: int

    def covers(self, host: str) -> bool:
        """May mail go to this MX host?  ``*`` stands for exactly one label (RFC 8461 4.1)."""
        host = host.rstrip(".").lower()
        _, _, parent = host.partition(".")
        return host in self.mx or bool(parent and f"*.{parent}" in self.mx)


@dataclass(frozen=True, slots=True)
class NoPolicy:
    """Why a text is no policy."""

    explain: str


def policy_id(records: list[str]) -> str | None:
    """The id in the TXT records of ``_mta-sts.DOMAIN``; None when the domain has, in the sense of the RFC, no policy.

    Records that do not begin with the version are somebody else's; of ours there must be exactly one.
    """
    ours = [record for record in records if _RECORD.fullmatch(record)]
    if len(ours) != 1:
        return None
    found: str | None = None
    _, *fields = ours[0].split(";")
    for number, field in enumerate(fields):
        if not field.strip(" \t") and number == len(fields) - 1:
            continue  # the last field may end with a semicolon, too
        read = _RECORD_FIELD(field.strip(" \t"))
        if read is None:
            return None
        if read[1] == "id" and found is None:
            found = read[2]
    return found if found is not None and _ID(found) else None


def read_policy(body: bytes) -> StsPolicy | NoPolicy:
    """Read a policy file; of a field that may stand once, the first counts, and unknown fields are left alone."""
    if len(body) > MAX_POLICY_BYTES:
        return NoPolicy(f"it has more than {MAX_POLICY_BYTES:,} bytes")
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        return NoPolicy("it is not UTF-8")
    once: dict[str, str] = {}
    patterns: list[str] = []
    lines = text.split("\n")
    for number, ended in enumerate(lines, 1):
        line = ended.removesuffix("\r").rstrip(" \t")
        if not line and number == len(lines):
            continue
        field = _FIELD.fullmatch(line)
        if field is None:
            return NoPolicy(f"line {number} is not KEY: VALUE")
        if field[1] == "mx":
            patterns.append(field[2].lower())
        else:
            once.setdefault(field[1], field[2])
    return _policy(once, patterns)


def _policy(once: dict[str, str], patterns: list[str]) -> StsPolicy | NoPolicy:
    mode = next((known for known in get_args(Mode) if known == once.get("mode")), None)
    flaw = None
    if once.get("version") != "STSv1":
        flaw = "it has no version: STSv1"
    elif _SECONDS(once.get("max_age", "")) is None:
        flaw = "its max_age is not a number of seconds"
    elif len(patterns) > MOST_PATTERNS:
        flaw = f"it has more than {MOST_PATTERNS:,} mx fields"
    elif not all(_PATTERN(pattern) and len(pattern) <= 255 for pattern in patterns):
        flaw = "an mx field is neither a host name nor *. and a host name"
    elif not patterns and mode != "none":
        flaw = "it has no mx field"
    if mode is None or flaw is not None:
        return NoPolicy(flaw or "its mode is none of enforce, testing, none")
    return StsPolicy(mode, tuple(patterns), min(int(once["max_age"]), MAX_AGE_MOST_S))

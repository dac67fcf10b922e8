"""Bounces in plain text, without a machine-readable part: the form of qmail, and of servers that write like it.

Deliberately small: a robot must have written it, it must say that it gave up, and who is told of must stand alone on a
line.  What is written otherwise is kept as a dead letter rather than guessed at.
"""

import re

from smtp.dsn import gave_up_waiting, read_reply
from smtp.findings import Bounce, Clues, Finding
from smtp.mime import Message, read_fields

_MAX_LINES = 400
_ROBOTS = re.compile(r"(?:mailer-daemon|postmaster|mail-?delivery|mailerdaemon)\b", re.IGNORECASE)
_GAVE_UP = re.compile(
    r"permanent|given up|giving up|wasn't able to deliver|could not be delivered|unable to deliver|fatal error",
    re.IGNORECASE,
)
_STILL_TRYING = re.compile(
    r"warning only|not yet (?:been )?delivered|delayed|will be (?:re)?tried|(?:keep|continue) (?:on )?trying"
    r"|attempts will continue",
    re.IGNORECASE,
)
_ADDRESS_LINE = re.compile(r"\A\s{0,8}<?([^\s<>@:]{1,64}@[^\s<>@:]{1,255})>?:?\s{0,20}\Z")
_COPY_BEGINS = re.compile(r"\A-{2,80}.{0,60}(?:copy of the message|original message|message headers)", re.IGNORECASE)


def findings(message: Message) -> list[Finding]:
    """The recipients that a plain text names as failed; empty when this is no such message."""
    if not _ROBOTS.search((message.fields.get("from") or "")[:300]):
        return []
    part = message.first("text/plain")
    if part is None:
        return []
    notice, copy = _apart(part.text())
    told = "\n".join(notice)
    if _STILL_TRYING.search(told) or not _GAVE_UP.search(told):
        return []
    clues = Clues(return_paths=tuple(one.strip("<> ") for one in read_fields(copy).all("return-path")))
    found: list[Finding] = []
    lines = iter(notice)
    for line in lines:
        address = _ADDRESS_LINE.match(line[:400])
        if address is None:
            continue
        said = []
        for following in lines:
            if not following.strip():
                break
            said.append(following.strip())
        if not said:
            continue
        code, enhanced, text = read_reply(" ".join(said))
        permanent = enhanced is None or enhanced[0] != "4"
        found.append(
            Bounce(
                action="failed",
                recipient=address[1],
                code=code if code is not None else 550 if permanent else 450,
                enhanced=enhanced,
                text=text,
                expired=gave_up_waiting(" ".join(said)) or not permanent,
                clues=clues,
            )
        )
    return found


def _apart(text: str) -> tuple[list[str], str]:
    """The notice, and the copy of the message below its dividing line."""
    lines = text.split("\n")[:_MAX_LINES]
    for number, line in enumerate(lines):
        if _COPY_BEGINS.match(line[:200]):
            return lines[:number], "\n".join(lines[number + 1 :]).strip().partition("\n\n")[0]
    return lines, ""

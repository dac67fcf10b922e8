"""Reads messages in a process of its own, so that one that kills its reader is counted and no more.

Paths come in on standard input, one a line; one JSON object a line goes out for each, and the seconds of processor at
the end.  The first argument says which reader: ``ours`` or ``flufl``.
"""

import email
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from flufl.bounce import all_failures

from policy.replies import classify
from smtp.findings import AutoReply, Bounce, Finding, Report, Unclear
from smtp.returned import kind_of
from smtp.understand import understand

Row = list[str]


def ours(raw: bytes) -> list[Row]:
    """Kind, category and recipient of everything that a message says, before anybody asks whose message it was."""
    return [_row(finding) for finding in understand(raw)]


def flufl(raw: bytes) -> list[Row]:
    """The same as far as flufl.bounce alone can tell: whether it failed for now or for good, and whom for."""
    temporary, permanent = all_failures(email.message_from_bytes(raw))
    found = [("hard_bounce", one) for one in permanent] + [("noted", one) for one in temporary - permanent]
    return [[kind, "", one.decode("utf-8", "replace")] for kind, one in found] or [["unclear", "", ""]]


def _row(finding: Finding) -> Row:
    match finding:
        case Bounce(action="failed"):
            reading = classify(code=finding.code, enhanced=finding.enhanced, text=finding.text)
            kind = "soft_bounce" if finding.expired else kind_of(reading.category)
            return [kind, "expired" if finding.expired else reading.category, finding.recipient or ""]
        case Bounce():
            return ["noted", finding.action, finding.recipient or ""]
        case Report():
            return ["not_spam" if finding.type == "not-spam" else "complaint", finding.type, finding.recipient or ""]
        case AutoReply():
            return ["auto_reply", "", ""]
        case Unclear():
            return ["unclear", finding.reason, ""]


def main(read: Callable[[bytes], list[Row]], paths: list[str]) -> None:
    """Read every file once, and tell of each before the next is begun."""
    raws = [Path(path).read_bytes() for path in paths]
    cpu_s = 0.0
    for raw in raws:
        began = time.process_time()
        try:
            told: dict[str, object] = {"rows": read(raw)}
        except Exception as error:  # noqa: BLE001 - that is what is counted
            told = {"error": f"{type(error).__name__}: {error}"[:200]}
        cpu_s += time.process_time() - began
        print(json.dumps(told), flush=True)
    print(json.dumps({"cpu_s": cpu_s}))


if __name__ == "__main__":
    main({"ours": ours, "flufl": flufl}[sys.argv[1]], sys.stdin.read().splitlines())

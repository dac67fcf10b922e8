"""A message that came back, as findings.  Pure, and bounded in time and space whatever a stranger sends, so that it
can be moved into a child process without a change.
"""

from dataclasses import replace

from smtp import arf, auto_reply, bounces, dsn, junk_reports, last_resort
from smtp.clues import are_empty, clues_anywhere
from smtp.findings import Clues, Finding, Unclear
from smtp.mime import Message, TooComplexError, read


def understand(raw: bytes) -> list[Finding]:
    """Everything that the message says, at least one finding; the first form that fits is the one that is read.

    Reports come before automatic replies, because honest reports call themselves automatic too.
    """
    try:
        message = read(raw)
        return _with_clues(_findings(message), message)
    except TooComplexError as bound:
        return [Unclear(reason="too_complex", explain=f"not read: {bound}")]


def _findings(message: Message) -> list[Finding]:
    guard = auto_reply.asked_by_a_guard(message)
    if guard is not None:
        return [guard]
    reported = (
        arf.findings(message) or dsn.findings(message) or junk_reports.findings(message) or bounces.findings(message)
    )
    if reported:
        return reported
    automatic = auto_reply.finding(message)
    if automatic is not None:
        return [automatic]
    named = last_resort.findings(message)
    if named:
        return named
    return [Unclear(reason="unrecognised", explain="neither a bounce, nor a report, nor an automatic reply")]


def _with_clues(findings: list[Finding], message: Message) -> list[Finding]:
    """Where the form told nothing that could be signed, whatever looks like ours anywhere in the text."""
    if not all(are_empty(one.clues) for one in findings):
        return findings
    anywhere = clues_anywhere(message)
    if anywhere == Clues():
        return findings
    return [replace(one, clues=_joined(one.clues, anywhere)) for one in findings]


def _joined(clues: Clues, more: Clues) -> Clues:
    return replace(
        clues,
        return_paths=clues.return_paths + more.return_paths,
        references=clues.references + more.references,
        links=more.links,
    )

"""A message that came back, as findings.  Pure, and bounded in time and space whatever a stranger sends, so that it
can be moved into a child process without a change.
"""

from smtp import arf, auto_reply, dsn, text_bounce
from smtp.findings import Finding, Unclear
from smtp.mime import TooComplexError, read


def understand(raw: bytes) -> list[Finding]:
    """Everything that the message says, at least one finding; the first form that fits is the one that is read.

    Reports come before automatic replies, because honest reports call themselves automatic too.
    """
    try:
        message = read(raw)
    except TooComplexError as bound:
        return [Unclear(reason="too_complex", explain=f"not read: {bound}")]
    reported = arf.findings(message) or dsn.findings(message) or text_bounce.findings(message)
    if reported:
        return reported
    automatic = auto_reply.finding(message)
    if automatic is not None:
        return [automatic]
    return [Unclear(reason="unrecognised", explain="neither a bounce, nor a report, nor an automatic reply")]

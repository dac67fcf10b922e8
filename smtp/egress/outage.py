"""Does the way out work?  While it does not, every next hop is held back and nobody else is blamed.

A proxy that is dead, a source address that is not ours, a password that the smarthost refuses: were they counted as
the servers' trouble, every message would use up its attempts and every hop its back-off, for a fault of our own.
"""

from dataclasses import dataclass, field

import structlog

from smtp.attempts import Reply

log = structlog.get_logger()


class OurFault(Reply, frozen=True, kw_only=True):
    """A session that could not be opened, for a reason that lies with us: no server is to be left alone for it."""


@dataclass(slots=True, kw_only=True)
class Outage:
    """Remembers that the way out failed, and for how long it is left alone: longer each time, a minute at most.

    ``elsewhere`` says that it works and leads out by a wrong address: then it is not taken until that is right again.
    """

    hold_s: float = 1.0
    hold_most_s: float = 60.0
    why: str | None = None
    elsewhere: str | None = field(default=None, init=False)
    _failures: int = field(default=0, init=False)
    _held_until: float = field(default=0.0, init=False)

    def failed(self, why: str, *, now_s: float) -> None:
        """It failed; twenty connections that meet the same trouble at the same time count as one."""
        if why != self.why:
            log.error("the way out fails, nothing is sent", why=why)
        self.why = why
        if now_s >= self._held_until:
            self._held_until = now_s + min(self.hold_s * 2.0**self._failures, self.hold_most_s)
            self._failures = min(self._failures + 1, 30)

    def worked(self) -> None:
        """It works."""
        if self.why is None:
            return
        log.info("the way out works again", failed=self.why)
        self.why, self._failures, self._held_until = None, 0, 0.0

    def strays(self, why: str | None) -> None:
        """It leads out by a wrong address, for this reason; None when it does not, or not any more."""
        if why != self.elsewhere:
            if why is not None:
                log.error("mail would leave from a wrong address, nothing is sent", why=why)
            else:
                log.info("mail leaves from the right address again", failed=self.elsewhere)
        self.elsewhere = why

    def held_for_s(self, *, now_s: float) -> float:
        """Seconds until it should be tried again; 0 when it may be."""
        if self.elsewhere is not None:
            return self.hold_s
        return max(0.0, self._held_until - now_s)

"""May this campaign's sender send now?  Asked before every MAIL FROM.

The newest epoch of ``mail.control`` decides, and the brake on all sending.  Without any control, without a campaign
record, or when ``mail.control`` was not heard for too long, the answer is no: when in doubt a sender does not send.
"""

import structlog

from policy.brakes import is_pulled
from schemas.reputation import Control, Narrowed
from schemas.sending import Campaign, InDoubt, Pace
from smtp.sending.ports import Board, Clock

log = structlog.get_logger()

_STOPPED = Pace(per_second=0.0, connections=1)


class Gate:
    """The answer for one campaign, and the pace that goes with it."""

    def __init__(self, campaign: str, board: Board, clock: Clock, *, deaf_after_s: float) -> None:
        self._campaign = campaign
        self._board = board
        self._clock = clock
        self._deaf_after_s = deaf_after_s
        self._control: Control | None = None
        self._seen: Control | None = None
        self._record: Campaign | None = None
        self._said: str | None = "starting"

    def closed(self) -> str | None:
        """Why nothing may be sent now; None when it may.  One word, for metrics and pages."""
        reason = self._reason()
        if reason != self._said:
            self._say(reason)
        return reason

    @property
    def campaign(self) -> Campaign | None:
        """The campaign's newest record; the last one known if it was withdrawn."""
        self._record = self._board.campaigns.get(self._campaign) or self._record
        return self._record

    @property
    def in_doubt(self) -> InDoubt:
        """What is done with a message whose fate is unknown; the careful choice until the campaign is known."""
        campaign = self.campaign
        return campaign.in_doubt if campaign is not None else "hold"

    @property
    def per_second(self) -> float:
        """Messages per second: the slower of control and campaign; 0 for no limit."""
        campaign = self.campaign
        allowed, wanted = self._pace.per_second, campaign.pace.per_second if campaign is not None else 0.0
        return min(allowed, wanted) if allowed > 0 and wanted > 0 else max(allowed, wanted)

    @property
    def connections(self) -> int:
        """Most connections: the fewer of control and campaign."""
        campaign = self.campaign
        return min(self._pace.connections, campaign.pace.connections) if campaign is not None else 0

    @property
    def _pace(self) -> Pace:
        return self._control.pace if self._control is not None else _STOPPED

    @property
    def is_selective(self) -> bool:
        """Does control let go some messages and not others?"""
        control = self._control
        return control is not None and (bool(control.providers) or control.engaged_since is not None)

    def narrowed(self, provider: str) -> Narrowed | None:
        """What holds for one provider, when that is less than for others."""
        return self._control.providers.get(provider) if self._control is not None else None

    def holds_back(self, last_seen_at: int | None) -> bool:
        """Does a recipient who was last seen then (ms) have to wait, until the campaign has shown that it is well?"""
        since = self._control.engaged_since if self._control is not None else None
        return since is not None and (last_seen_at is None or last_seen_at < since)

    @property
    def epoch(self) -> int:
        """The newest epoch that was heard of; 0 before any."""
        return self._control.epoch if self._control is not None else 0

    def _reason(self) -> str | None:
        control = self._board.controls.get(self._campaign)
        if control is not self._seen:
            self._seen = control
            if control is not None and (self._control is None or control.epoch >= self._control.epoch):
                self._control = control
        if control is None or self._control is None:
            return "no_control"
        if not self._control.may_send:
            return self._control.state
        if is_pulled(self._board.brakes, "sending"):
            return "brake"
        if self._clock.monotonic() - self._board.heard_at() > self._deaf_after_s:
            return "deaf"
        if self._campaign not in self._board.campaigns:
            return "no_campaign"
        return None

    def _say(self, reason: str | None) -> None:
        self._said = reason
        known = {"campaign": self._campaign, "epoch": self.epoch}
        match reason:
            case None:
                log.info("sending", **known, per_second=self.per_second, connections=self.connections)
            case "no_control":
                log.warning("not sending: no record for this campaign in mail.control", **known)
            case "deaf":
                log.warning("not sending: mail.control cannot be heard", **known, for_s=self._deaf_after_s)
            case "brake":
                log.warning("not sending: the brake on all sending is on", **known)
            case "no_campaign":
                log.warning("not sending: no record of this campaign in mail.campaigns", **known)
            case state:
                why = self._control.reason if self._control is not None else ""
                log.info("not sending: stopped by control", **known, state=state, reason=why)

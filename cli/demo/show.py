"""What the demo shows: a live table on a terminal, plain lines elsewhere, and the account at the end."""

import sys
import time
from collections import Counter
from collections.abc import Mapping

from rich.console import Console
from rich.live import Live
from rich.table import Table

from cli.account import Account
from cli.demo.watch import Watch
from cli.views import moment, rate_text
from policy.settings import Settings

_LINE_EVERY_S = 3.0


class Show:
    """Speaks to the person who watches; everything goes to standard error but the account."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._console = Console(stderr=True, highlight=False)
        self._live: Live | None = None
        self._watch: Watch | None = None
        self._requested: Mapping[str, int] = {}
        self._told: dict[str, int] = {}
        self._last_line = 0.0
        self._began = time.monotonic()

    def say(self, line: str) -> None:
        """One line, with the seconds since the beginning."""
        self._console.print(f"[{time.monotonic() - self._began:6.1f} s] {line}", markup=False)

    def begin(self, watch: Watch, requested: Mapping[str, int]) -> None:
        """The mail is on its way: begin to show progress."""
        self._watch, self._requested = watch, requested
        for campaign, count in requested.items():
            self.say(f"{campaign}: {count:,} recipients asked for")
        if sys.stderr.isatty():
            self._live = Live(console=self._console, auto_refresh=False, transient=False)
            self._live.start()

    def refresh(self) -> None:
        """Show how things stand now, and tell every change of state once."""
        if self._watch is None:
            return
        for campaign, books in self._watch.books.items():
            for epoch in sorted(books.decisions):
                if epoch > self._told.get(campaign, 0):
                    self._told[campaign] = epoch
                    decision = books.decisions[epoch]
                    self.say(f"{campaign}: {decision.from_} -> {decision.to.upper()}: {decision.reason}")
        if self._live is not None:
            self._live.update(self._table(), refresh=True)
        elif time.monotonic() - self._last_line > _LINE_EVERY_S:
            self._last_line = time.monotonic()
            for campaign in self._watch.books:
                self.say(self._line(campaign))

    def close(self) -> None:
        """End the live table; what it showed last stays."""
        if self._live is not None:
            self._live.update(self._table(), refresh=True)
            self._live.stop()
            self._live = None

    def account(
        self, accounts: Mapping[str, Account], last_ms: int | None, wall_s: float, *, closes: bool, right: bool
    ) -> None:
        """The short account at the end, on standard output."""
        out = Console(highlight=False)
        shown = Table(title="account", box=None, pad_edge=False, title_justify="left", header_style="bold")
        for name in ("campaign", "asked for", "final records", "missing", "doubled", "state"):
            shown.add_column(name)
        for name, one in accounts.items():
            finals = ", ".join(f"{count:,} {outcome}" for outcome, count in one.final.items())
            shown.add_row(name, f"{one.requested:,}", finals, str(one.missing), str(one.doubled), one.state)
        out.print(shown)
        for name, one in accounts.items():
            if one.isolated_at is not None:
                out.print(f"{name} was isolated at {moment(one.isolated_at)}: {one.reason}", markup=False)
        if last_ms is not None:
            out.print(f"from the deciding event to the last MAIL FROM: {last_ms} ms")
        verdict = "closes" if closes else "DOES NOT CLOSE"
        if closes and not right:
            verdict = "closes, but the wrong campaign was stopped, or none"
        out.print(f"the account {verdict}; {wall_s:.0f} s in all")

    def _table(self) -> Table:
        shown = Table(box=None, pad_edge=False, header_style="bold")
        for name in ("campaign", "sent", "bounced", "traps", "hard bounces", "complaints", "blocks", "state"):
            shown.add_column(name, no_wrap=name != "state")
        if self._watch is None:
            return shown
        for campaign, books in self._watch.books.items():
            outcomes = Counter(books.final.values())
            rates = self._watch.rates.get(campaign)
            day = rates.windows.get("24h") if rates else None
            verdicts = {name: _asdict(one) for name, one in rates.verdicts.items()} if rates else {}
            state = books.control.state if books.control else "starting"
            shown.add_row(
                campaign,
                f"{outcomes['accepted']:,} of {self._requested.get(campaign, 0):,}",
                f"{outcomes['bounced']:,}",
                str(day.trap_hit if day else 0),
                rate_text(verdicts.get("hard_bounce")),
                rate_text(verdicts.get("complaint")),
                rate_text(verdicts.get("block")),
                state.upper() if state not in ("healthy", "starting") else state,
            )
        return shown

    def _line(self, campaign: str) -> str:
        assert self._watch is not None  # noqa: S101 - only refresh() calls, after begin()
        books = self._watch.books[campaign]
        outcomes = Counter(books.final.values())
        state = books.control.state if books.control else "starting"
        finals = ", ".join(f"{count:,} {name}" for name, count in sorted(outcomes.items())) or "nothing final yet"
        return f"{campaign}: {finals} of {self._requested.get(campaign, 0):,}; {state}"


def _asdict(verdict: object) -> dict[str, object]:
    return {name: getattr(verdict, name) for name in ("answer", "rate", "limit")}

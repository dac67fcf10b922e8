"""The running sums of one campaign, in memory: rebuilt from its panes after every rebalance, never written down."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from policy.counts import WINDOWS_MIN, Cells, Rolling, merge
from schemas.reputation import Counts
from streams import panes

KEPT_MIN = max(WINDOWS_MIN.values())

Windows = dict[str, Counts]
_NO_CELLS: Cells = {}
SOURCES_KEPT = 64  # of one campaign
OTHER_SOURCES = "(others)|"


@dataclass(slots=True)
class Live:
    """What the snapshots of a campaign are made of."""

    rolling: Rolling = field(default_factory=Rolling)
    recent: list[panes.Signal] = field(default_factory=list)
    ids: dict[str, int] = field(default_factory=dict)  # feedback that was counted, and in which minute
    published: Windows | None = None  # the windows of the last snapshot
    published_at: int = 0  # milliseconds
    sources: Rolling | None = None  # the same by list source, when results name one
    source_names: set[str] = field(default_factory=set)
    turned_away: bool = False  # the servers of some provider refuse more than a few
    providers_due: bool = False  # something was counted since the snapshots per provider were published

    def add(
        self,
        minute: int,
        cells: Cells,
        signals: Sequence[panes.Signal],
        ids: Iterable[str] = (),
        sources: Cells = _NO_CELLS,
    ) -> None:
        """Take in what was counted just now."""
        self.rolling.add(minute, cells)
        self.add_sources(minute, sources)
        if signals:
            self.recent = panes.newest(self.recent, signals)
        self.ids.update(dict.fromkeys(ids, minute))
        self.providers_due = True

    def add_sources(self, minute: int, sources: Cells) -> None:
        """Take in what was counted by list source."""
        if sources:
            self.sources = self.sources or Rolling()
            self.sources.add(minute, sources)

    def named(self, sources: Cells) -> Cells:
        """The same counts with the sources that are told apart: the first ones of the campaign; all others are one."""
        if not sources:
            return sources
        kept: Cells = {}
        for key, vector in sources.items():
            if key not in self.source_names and len(self.source_names) < SOURCES_KEPT:
                self.source_names.add(key)
            merge(kept, {key if key in self.source_names else OTHER_SOURCES: vector})
        return kept

    def forget(self, now_minute: int) -> None:
        """Drop ids whose panes are over."""
        oldest = now_minute - KEPT_MIN
        self.ids = {one: minute for one, minute in self.ids.items() if minute >= oldest}


def rebuilt(found: Iterable[tuple[int, panes.Pane]]) -> Live:
    """The running sums of a campaign from its panes, each with its minute."""
    live = Live(providers_due=True)
    signals: list[panes.Signal] = []
    for minute, pane in found:
        live.rolling.add(minute, panes.cells_of(pane))
        live.add_sources(minute, live.named(panes.sources_of(pane)))
        signals += panes.recent_of(pane)
        live.ids.update(dict.fromkeys(panes.ids_of(pane), minute))
    live.recent = panes.newest([], sorted(signals, key=lambda one: one[5]))
    return live

"""The worker's pages: statistics, health, readiness, metrics.

They answer from the catalogue, so that any worker gives the same answer, whichever partitions it owns.
"""

import html
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec
from aiohttp import web

from schemas.topics import CAMPAIGNS, CONTENTS, CONTROL, RATES, SUPPRESSIONS
from streams.catalogue import Catalogue
from streams.metrics import Metrics
from streams.standing import View, all_campaigns, one_campaign

HEARD_WITHIN_S = 10.0
HANGS_AFTER_S = 300.0  # an event that is open so long will not be finished by waiting

_encode = msgspec.json.Encoder().encode


class Runtime(Protocol):
    """What a page asks of the Faust app."""

    @property
    def is_ready(self) -> bool:
        """Whether tables are recovered and streams run."""

    def oldest_open_s(self, now: float) -> float:
        """How long the event that holds commits back has been open."""


class Pages:
    """The pages of one worker."""

    def __init__(
        self,
        *,
        catalogue: Catalogue,
        runtime: Runtime,
        metrics: Metrics,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._catalogue = catalogue
        self._runtime = runtime
        self._metrics = metrics
        self._monotonic = monotonic

    def attach(self, app: web.Application) -> None:
        """Serve the pages in a web application."""
        for path, page in (
            ("/stats/", self.stats),
            ("/stats", self.stats),
            ("/stats/campaigns/{campaign:.+}", self.campaign),
            ("/healthz", self.healthz),
            ("/readyz", self.readyz),
            ("/metrics", self.metrics),
        ):
            app.router.add_get(path, page)

    async def stats(self, request: web.Request) -> web.Response:
        """All campaigns: JSON, or HTML for browsers."""
        view = all_campaigns(self._catalogue)
        if prefers_html(request.headers.get("Accept", "")):
            return web.Response(text=_page(view["campaigns"]), content_type="text/html")
        return _json(view)

    async def campaign(self, request: web.Request) -> web.Response:
        """One campaign."""
        name = request.match_info["campaign"]
        view = one_campaign(self._catalogue, name)
        if view is None:
            explain = f"campaign {name[:128]!r} is not known; /stats/ lists those that are"
            return _json({"error": "unknown_campaign", "explain": explain}, status=404)
        return _json(view)

    async def healthz(self, _request: web.Request) -> web.Response:
        """Whether waiting can help: 503 asks for a restart."""
        open_s = self._runtime.oldest_open_s(self._monotonic())
        alive = open_s < HANGS_AFTER_S
        return _json({"alive": alive, "oldest_open_event_s": round(open_s, 1)}, status=200 if alive else 503)

    async def readyz(self, _request: web.Request) -> web.Response:
        """Whether this worker does its share."""
        lacks = self._lacks()
        return _json({"ready": not lacks, "lacks": lacks}, status=503 if lacks else 200)

    async def metrics(self, _request: web.Request) -> web.Response:
        """Everything in ``streams.metrics``."""
        self._refresh()
        return web.Response(body=self._metrics.text(), headers={"Content-Type": "text/plain; version=0.0.4"})

    def _lacks(self) -> Sequence[str]:
        lacks = []
        if not self._runtime.is_ready:
            lacks.append("tables are being recovered or partitions are being handed over")
        if self._monotonic() - self._catalogue.heard_at() > HEARD_WITHIN_S:
            lacks.append("the catalogue has not caught up with its topics")
        return lacks

    def _refresh(self) -> None:
        """Gauges that are read off when somebody asks."""
        now = self._monotonic()
        copy, gauges = self._catalogue, self._metrics
        for topic, entries in (
            (CAMPAIGNS, len(copy.campaigns)),
            (CONTENTS, len(copy.contents)),
            (SUPPRESSIONS, len(copy.suppressions)),
            (CONTROL, len(copy.controls)),
            (RATES, len(copy.rates)),
        ):
            gauges.catalogue_entries.labels(topic).set(entries)
        gauges.catalogue_malformed.set(copy.malformed)
        gauges.catalogue_heard_ago.set(now - copy.heard_at())
        gauges.ready.set(not self._lacks())
        gauges.oldest_open.set(self._runtime.oldest_open_s(now))
        gauges.campaign_state.clear()
        for name, control in copy.controls.items():
            if name in copy.campaigns:
                gauges.campaign_state.labels(name, control.state).set(1)


def prefers_html(accept: str) -> bool:
    """Whether an Accept header names HTML, and JSON neither with more weight nor with the same and before it."""
    weights: dict[str, float] = {}  # in the order in which they are named
    for part in accept.split(","):
        kind, *parameters = (piece.strip().lower() for piece in part.split(";"))
        weight = next((one.removeprefix("q=") for one in parameters if one.startswith("q=")), "1")
        weights.setdefault(kind, float(weight) if weight.replace(".", "", 1).isdecimal() else 0.0)
    named = [kind for kind in weights if kind in {"text/html", "application/json"} and weights[kind] > 0]
    return bool(named) and max(named, key=lambda kind: weights[kind]) == "text/html"


def _json(view: View, *, status: int = 200) -> web.Response:
    return web.Response(body=_encode(view), status=status, content_type="application/json", charset="utf-8")


_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:80rem;padding:0 1rem;color:#1c2430}
table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.4rem .6rem;border-bottom:1px solid #dde3ea}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}.breach{color:#b3261e;font-weight:600}
.state{padding:.1rem .5rem;border-radius:.6rem;background:#e6f4ea}.watched,.throttled{background:#fff4d6}
.paused,.isolated,.retired{background:#fce8e6}
"""
_METRICS = ("hard_bounce", "complaint", "trap_hit", "block")


def _page(campaigns: Sequence[View]) -> str:
    heads = "".join(f'<th class="n">{name.replace("_", " ")}</th>' for name in _METRICS)
    rows = "".join(map(_row, campaigns)) or '<tr><td colspan="8">no campaigns yet</td></tr>'
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta http-equiv="refresh" content="5">'
        f"<title>mailcordon</title><style>{_STYLE}</style><h1>Campaigns</h1><table><thead><tr><th>campaign</th>"
        f'<th>state</th><th class="n">accepted, 24 h</th>{heads}<th>reason</th></tr></thead><tbody>{rows}</tbody>'
        "</table></html>"
    )


def _row(view: View) -> str:
    name, state = html.escape(view["campaign"]), html.escape(view["state"])
    accepted = view["windows"].get("24h", {}).get("accepted", 0)
    rates = "".join(_rate(view["verdicts"].get(metric)) for metric in _METRICS)
    return (
        f'<tr><td>{name}</td><td><span class="state {state}">{state}</span></td><td class="n">{accepted:,}</td>'
        f"{rates}<td>{html.escape(view['reason'])}</td></tr>"
    )


def _rate(verdict: dict[str, Any] | None) -> str:
    if verdict is None:
        return '<td class="n">–</td>'
    breach = " breach" if verdict["answer"] == "breach" else ""
    return f'<td class="n{breach}">{verdict["rate"]:.2%} of {verdict["limit"]:.2%}</td>'

from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from policy.verdicts import verdicts
from schemas.reputation import Control, Counts, RatesSnapshot
from schemas.sending import Campaign, Limits, Mailbox, Pace
from streams.catalogue import ALL, Catalogue
from streams.metrics import Metrics
from streams.web import HANGS_AFTER_S, HEARD_WITHIN_S, Pages, prefers_html

EVIL = "<script>alert(1)</script>/ü %"


class Runtime:
    is_ready = True
    open_s = 0.0

    def oldest_open_s(self, now: float) -> float:
        return self.open_s


class Heard(Catalogue):
    """A catalogue that was never started, and was told when it heard last."""

    heard = 100.0

    def heard_at(self) -> float:
        return self.heard


class Site:
    def __init__(self) -> None:
        self.catalogue = Heard("127.0.0.1:1", ALL, client_id="test")
        self.runtime = Runtime()
        self.now = 100.0
        for name in ("spring", EVIL):
            self.catalogue.campaigns[name] = Campaign(
                campaign=name, from_=Mailbox(address="news@shop.example"), return_path_domain="b.shop.example"
            )
        windows = {"24h": Counts(accepted=1000, attempts=1100, hard_bounce=100)}
        for scope in ("campaign:spring", "campaign:spring/provider:google"):
            self.catalogue.rates[scope] = RatesSnapshot(
                scope=scope, at=7, windows=windows, verdicts=verdicts(windows, Limits())
            )
        self.catalogue.controls["spring"] = Control(
            campaign="spring", epoch=3, may_send=False, pace=Pace(), state="isolated", reason="a <trap>", at=5
        )

    def application(self) -> web.Application:
        app = web.Application()
        Pages(catalogue=self.catalogue, runtime=self.runtime, metrics=Metrics(), monotonic=lambda: self.now).attach(app)
        return app


@pytest.fixture
def site() -> Site:
    return Site()


@pytest.fixture
async def client(site: Site) -> AsyncIterator[TestClient[web.Request, web.Application]]:
    async with TestClient(TestServer(site.application())) as made:
        yield made


Client = TestClient[web.Request, web.Application]


async def test_every_campaign_is_listed_with_state_and_rates(client: Client) -> None:
    answer = await (await client.get("/stats/")).json()

    evil, spring = answer["campaigns"]
    assert (spring["state"], spring["may_send"], spring["since"], spring["reason"]) == (
        "isolated",
        False,
        5,
        "a <trap>",
    )
    assert spring["windows"]["24h"]["hard_bounce"] == 100
    assert spring["verdicts"]["hard_bounce"]["answer"] == "breach"
    assert spring["limits"]["hard_bounce"] == 0.02
    assert (evil["campaign"], evil["state"], evil["may_send"]) == (EVIL, "unknown", False)


async def test_a_campaign_is_found_under_its_encoded_id(client: Client) -> None:
    page = await client.get("/stats/campaigns/%3Cscript%3Ealert%281%29%3C%2Fscript%3E%2F%C3%BC%20%25")

    assert page.status == 200
    assert (await page.json())["record"]["campaign"] == EVIL


async def test_a_campaign_has_its_providers(client: Client) -> None:
    view = await (await client.get("/stats/campaigns/spring")).json()

    assert set(view["providers"]) == {"google"}
    assert view["topic"].startswith("mail.outbound.spring-")


async def test_a_stranger_is_an_answer(client: Client) -> None:
    page = await client.get("/stats/campaigns/nobody")

    assert page.status == 404
    assert await page.json() == {
        "error": "unknown_campaign",
        "explain": "campaign 'nobody' is not known; /stats/ lists those that are",
    }


async def test_the_page_for_people_holds_no_foreign_markup(client: Client) -> None:
    page = await client.get("/stats/", headers={"Accept": "text/html"})

    text = await page.text()
    assert page.content_type == "text/html"
    assert "<script" not in text
    assert "a &lt;trap&gt;" in text
    assert "src=" not in text
    assert "href=" not in text


@pytest.mark.parametrize(
    ("accept", "answer"),
    [
        ("", False),
        ("*/*", False),
        ("application/json", False),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", True),
        ("application/json, text/html", False),
        ("text/html, application/json", True),
        ("text/html;q=0.5, application/json;q=0.4", True),
        ("text/html;q=0.4, application/json", False),
        ("text/html;q=0", False),
        ("text/html;q=nonsense", False),
        (";;,,q=", False),
    ],
)
def test_html_is_for_those_who_ask_for_it(accept: str, answer: bool) -> None:
    assert prefers_html(accept) is answer


async def test_ready_means_recovered_and_hearing(site: Site, client: Client) -> None:
    assert (await client.get("/readyz")).status == 200

    site.now += HEARD_WITHIN_S + 1
    site.runtime.is_ready = False
    page = await client.get("/readyz")

    assert page.status == 503
    assert len((await page.json())["lacks"]) == 2


async def test_alive_until_an_event_hangs(site: Site, client: Client) -> None:
    site.runtime.is_ready = False  # no reason to be restarted
    assert (await client.get("/healthz")).status == 200

    site.runtime.open_s = HANGS_AFTER_S
    assert (await client.get("/healthz")).status == 503


async def test_metrics_name_the_state_of_each_campaign_that_exists(site: Site, client: Client) -> None:
    site.catalogue.controls["gone"] = site.catalogue.controls["spring"]

    text = await (await client.get("/metrics")).text()

    assert 'mailcordon_campaign_state{campaign="spring",state="isolated"} 1.0' in text
    assert 'campaign="gone"' not in text


def test_every_metric_is_described_where_it_is_declared() -> None:
    from streams import metrics

    told = metrics.__doc__ or ""
    for family in Metrics().registry.collect():
        names = {family.name, f"{family.name}_total"}
        assert any(f"{name} " in told for name in names), family.name

"""Real Postfix and real Exim bounce our mail into the real listener, and the right campaign's windows move."""

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agents.ports import now_ms
from cli.kafka import EmbeddedKafka
from policy.naming import campaign_scope
from policy.settings import Endpoint
from policy.templates import Template, compile_content
from policy.tokens import address_hash
from schemas.dead_letters import DeadLetter
from schemas.feedback import Feedback
from schemas.reputation import Counts, RatesSnapshot
from schemas.sending import Campaign, OutboundMessage
from schemas.topics import DEAD_LETTERS, FEEDBACK, RATES
from smtp.attempts import Envelope, Reply
from smtp.sending.compose import Composer
from tests.agents.doubles import campaign, content
from tests.agents.plant import ROOT, Plant, counting, free_port
from tests.agents.worker_process import KEYS
from tests.mta.conftest import cannot_run
from tests.mta.exim import EXIM
from tests.mta.postfix import POSTFIX
from tests.mta.relays import OWN, relay
from tests.mta.rig import DOMAIN, CannotRun, Kind, MailServer, running
from tests.mta.test_receivers import mailer
from tests.smtp.test_client import yes

pytestmark = pytest.mark.kafka

BACK = "back.shop.example"
WITHIN_S = 30.0

REJECTED = {
    f"nosuch@{DOMAIN}": "hard_bounce",
    f"policy@{DOMAIN}": "block",
    f"full@{DOMAIN}": "soft_bounce",
    f"nosuch@{OWN}": "hard_bounce",
}
"""What the next hop rejects, and one address of its own that the relay finds out about by itself."""


@pytest.fixture(scope="module")
def plant(kafka: EmbeddedKafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    """A broker with all topics, and a worker that counts."""
    yield from counting(kafka.bootstrap, tmp_path_factory.mktemp("bounces"))


@pytest.fixture(params=[(POSTFIX, EXIM), (EXIM, POSTFIX)], ids=["Postfix, then Exim", "Exim, then Postfix"])
def hops(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[MailServer, int]]:
    """A relay with a next hop of the other kind, and the port where it hands back what it cannot deliver."""
    first, second = request.param
    back = free_port()
    try:
        with _running(second, tmp_path / "next") as next_hop:
            routes = {DOMAIN: next_hop.place.clear_port, BACK: back}
            with _running(relay(first, routes), tmp_path / "relay") as server:
                yield server, back
    except CannotRun as why:
        cannot_run(why)


def _running(kind: Kind, folder: Path) -> contextlib.AbstractContextManager[MailServer]:
    folder.mkdir()
    return running(kind, folder)


@contextlib.asynccontextmanager
async def listening(plant: Plant, port: int, folder: Path) -> AsyncIterator[None]:
    """The role itself, as an operator starts it."""
    keys = {"key_id": KEYS.key_id, "address": KEYS.address.hex(), "return_path": KEYS.return_path.hex()}
    secrets = folder / "secrets.json"
    secrets.touch(mode=0o600)
    secrets.write_text(json.dumps(keys))
    with (folder / "return-path.log").open("wb") as log:
        role = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "cli", "return-path", "--kafka", plant.bootstrap, "--data", str(folder)),
            *("--secret-file", str(secrets), "--return-path", f"127.0.0.1:{port}", "--return-path-web", "127.0.0.1:0"),
            cwd=ROOT,
            stderr=log,
        )
    try:
        async with asyncio.timeout(WITHIN_S):
            while True:
                assert role.returncode is None, (folder / "return-path.log").read_text()
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    break
                await asyncio.sleep(0.1)
        yield
    finally:
        if role.returncode is None:
            role.terminate()
        await asyncio.wait_for(role.wait(), WITHIN_S)
    assert role.returncode == 0


def composed(name: str, address: str) -> Envelope:
    """A message as a sender composes it."""
    template = compile_content(content(name))
    assert isinstance(template, Template)
    message = OutboundMessage(
        message_id=_name(address),
        address=address,
        address_hash=address_hash(KEYS, address),
        vars={"name": "Ann"},
    )
    made = Composer(KEYS).envelope(message, campaign=_campaign(name), template=template, now=now_ms())
    assert isinstance(made, Envelope)
    return made


def _name(address: str) -> str:
    """The id of the message to an address."""
    return address.removesuffix(".test").replace("@", "-")


def forged(envelope: Envelope) -> Envelope:
    """The same message with a return path of which one letter is another."""
    local, _, domain = envelope.sender.decode().partition("@")
    other = "a" if local[-5] != "a" else "b"
    sender = f"{local[:-5]}{other}{local[-4:]}@{domain}"
    return Envelope.checked(sender=sender, recipient=envelope.recipient.decode(), data=envelope.data)


def _campaign(name: str) -> Campaign:
    return msgspec.structs.replace(campaign(name), return_path_domain=BACK)


async def handed_over(endpoint: Endpoint, *envelopes: Envelope) -> None:
    async with mailer(endpoint) as client:
        for one in envelopes:
            attempt = await client.send(one, go=yes)
            assert isinstance(attempt, Reply)
            assert attempt.accepted, attempt


async def counts(plant: Plant, name: str, wanted: dict[str, int]) -> Counts:
    """The newest window of a campaign, once it counts at least what is wanted."""

    def is_there(found: list[Any]) -> bool:
        window = found[-1].windows["24h"] if found else Counts()
        return all(getattr(window, kind) >= number for kind, number in wanted.items())

    found: list[RatesSnapshot] = await plant.read(RATES, is_there, lambda one: one.scope == campaign_scope(name))
    return found[-1].windows["24h"]


async def test_real_bounces_move_the_windows_of_their_campaign_and_a_forged_one_moves_nothing(
    plant: Plant, hops: tuple[MailServer, int], unique: str, tmp_path: Path
) -> None:
    server, back = hops
    bouncing, framed = f"{unique}-bouncing", f"{unique}-framed"
    await plant.register(_campaign(bouncing), _campaign(framed))
    altered = forged(composed(framed, f"nosuch@{DOMAIN}"))
    async with listening(plant, back, tmp_path):
        await handed_over(server.clear, altered)
        (letter,) = await plant.read(
            DEAD_LETTERS,
            bool,
            lambda one: isinstance(one, DeadLetter) and one.headers.get("rcpt_to") == altered.sender.decode(),
        )
        await handed_over(server.clear, *(composed(bouncing, address) for address in REJECTED))
        moved = await counts(plant, bouncing, {"hard_bounce": 2, "block": 1, "soft_bounce": 1})
        await handed_over(server.clear, composed(framed, f"policy@{DOMAIN}"))
        fence = await counts(plant, framed, {"block": 1})

    assert letter.reason == "return_path_bad_signature"
    assert (moved.hard_bounce, moved.block, moved.soft_bounce) == (2, 1, 1)
    assert (fence.hard_bounce, fence.block, fence.soft_bounce) == (0, 1, 0)
    heard: list[Feedback] = await plant.read(
        FEEDBACK, lambda found: len(found) >= len(REJECTED) + 1, lambda one: one.campaign in {bouncing, framed}
    )
    assert {(one.campaign, one.message_id, one.kind) for one in heard} == {
        *((bouncing, _name(address), kind) for address, kind in REJECTED.items()),
        (framed, _name(f"policy@{DOMAIN}"), "block"),
    }

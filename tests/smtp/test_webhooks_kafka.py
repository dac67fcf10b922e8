"""From an event of a service, and from mail in a folder, to the campaign's window: the role, the command, a worker."""

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from agents.ports import now_ms
from cli.kafka import EmbeddedKafka
from policy.naming import campaign_scope
from schemas.reputation import Counts, RatesSnapshot
from schemas.topics import RATES
from tests.agents.doubles import campaign
from tests.agents.plant import ROOT, Plant, counting, free_port
from tests.agents.worker_process import KEYS
from tests.smtp.mailroom import signed
from tests.smtp.test_webhooks import BASIC, PM_BOUNCE
from tests.smtp.wire import FIXTURES

pytestmark = pytest.mark.kafka
WITHIN_S = 30.0


@pytest.fixture(scope="module")
def plant(kafka: EmbeddedKafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    """A broker with all topics, and a worker that counts."""
    yield from counting(kafka.bootstrap, tmp_path_factory.mktemp("webhooks"))


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    file = tmp_path / "secrets.json"
    file.touch(mode=0o600)
    keys = {"key_id": KEYS.key_id, "address": KEYS.address.hex(), "return_path": KEYS.return_path.hex()}
    file.write_text(json.dumps(keys))
    return file


@contextlib.asynccontextmanager
async def role(plant: Plant, secrets: Path, port: int) -> AsyncIterator[None]:
    folder = secrets.parent
    (folder / "password").write_text("correct horse battery")
    (folder / "password").chmod(0o600)
    (folder / "webhooks.toml").write_text(
        '[tls]\nplain_http = true\n[postmark]\nuser = "hook"\npassword_file = "password"\n'
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cli", "return-path", "--kafka", plant.bootstrap, "--data", str(folder)),
        *("--secret-file", str(secrets), "--return-path", "127.0.0.1:0", "--return-path-web", "127.0.0.1:0"),
        *("--webhooks", f"127.0.0.1:{port}", "--webhooks-file", str(folder / "webhooks.toml")),
        cwd=ROOT,
    )
    try:
        yield
    finally:
        process.terminate()
        await asyncio.wait_for(process.wait(), WITHIN_S)
    assert process.returncode == 0


async def posted(port: int, event: dict[str, Any]) -> int:
    async with aiohttp.ClientSession() as http, asyncio.timeout(WITHIN_S):
        while True:
            with contextlib.suppress(aiohttp.ClientConnectorError):
                async with http.post(f"http://127.0.0.1:{port}/postmark", json=event, headers=BASIC) as answer:
                    return answer.status
            await asyncio.sleep(0.1)


async def window(plant: Plant, name: str, hard_bounces: int) -> Counts:
    def is_there(found: list[Any]) -> bool:
        return bool(found) and found[-1].windows["24h"].hard_bounce >= hard_bounces

    found: list[RatesSnapshot] = await plant.read(RATES, is_there, lambda one: one.scope == campaign_scope(name))
    return found[-1].windows["24h"]


async def test_an_event_and_a_mail_in_a_folder_move_their_campaigns_window(
    plant: Plant, secrets: Path, unique: str
) -> None:
    hooked, imported = f"{unique}-hooked", f"{unique}-imported"
    await plant.register(campaign(hooked), campaign(imported))
    port = free_port()
    async with role(plant, secrets, port):
        event = PM_BOUNCE | {"Tag": hooked, "BouncedAt": None}
        assert await posted(port, event) == 200
        assert await posted(port, event) == 200
        moved = await window(plant, hooked, 1)

    mails = secrets.parent / "mails"
    mails.mkdir()
    raw = (FIXTURES / "samples/1-dsn-userunknown.eml").read_bytes()
    proof = signed("m-9", name=imported, sent_at=now_ms() - 60_000, keys=KEYS)
    (mails / "1.eml").write_bytes(f"Delivered-To: {proof}\n".encode() + raw)
    (mails / "2.eml").write_bytes(raw)
    command = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cli", "feedback", "import", str(mails), "--json", "--kafka", plant.bootstrap),
        *("--secret-file", str(secrets), "--data", str(secrets.parent)),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, said = await asyncio.wait_for(command.communicate(), WITHIN_S)
    brought = await window(plant, imported, 1)

    assert (moved.hard_bounce, brought.hard_bounce) == (1, 1)
    lines = [json.loads(line) for line in out.splitlines()]
    assert command.returncode == 0, said.decode()
    assert [(one["file"], one["campaign"], one["message_id"]) for one in lines[:1]] == [("1.eml", imported, "m-9")]
    assert lines[1]["reason"] == "return_path_malformed"

"""What a screen holds waits in the topic until somebody decides; a crash between the writes loses nothing."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from cli import held as module
from cli.check import check
from cli.held import held
from cli.secrets import load_or_make
from policy.naming import held_key, outbound_topic
from policy.tokens import address_hash
from schemas.feedback import Suppression
from schemas.sending import AdmissionPolicy, HeldMessage, Recipient, Refused, SendRequest
from schemas.topics import HELD, REFUSED, REQUESTS, SUPPRESSIONS
from tests.agents.doubles import campaign, content
from tests.agents.plant import Plant, Worker

pytestmark = pytest.mark.kafka


class Console:
    """The operator's commands against the plant's broker."""

    def __init__(self, plant: Plant, folder: Path) -> None:
        self._options = ["--kafka", plant.bootstrap, "--data", str(folder)]

    async def __call__(self, *words: str, typed: str = "") -> Result:
        command: click.Command = held
        runner = CliRunner()
        return await asyncio.to_thread(runner.invoke, command, [*words, *self._options], input=typed)

    async def ids(self, name: str) -> list[str]:
        listed = await self("list", "--campaign", name, "--json")
        return [json.loads(line)["message_id"] for line in listed.stdout.splitlines() if line.startswith("{")]


@pytest.fixture
def console(plant: Plant, tmp_path: Path) -> Console:
    return Console(plant, tmp_path)


def typo(name: str, message_id: str) -> bytes:
    request = {
        "v": 1,
        "request_id": f"r-{message_id}",
        "campaign": name,
        "content": "hello",
        "recipients": [{"message_id": message_id, "address": f"{message_id}@gmial.com", "vars": {"name": "Ann"}}],
    }
    return json.dumps(request).encode()


async def holding(plant: Plant, name: str, ids: Sequence[str]) -> None:
    """A campaign that holds typos, and requests with some; returns when they are held."""
    await plant.register(campaign(name, admission=AdmissionPolicy(typo_domain="hold")), content(name))
    await plant.publish(*((REQUESTS, one, typo(name, one)) for one in ids))
    await plant.read(HELD, lambda found: len(found) >= len(ids), lambda one: one.campaign == name)


async def sent(plant: Plant, name: str, count: int) -> list[Any]:
    frames = await plant.read(outbound_topic(name), lambda found: sum(len(one.messages) for one in found) >= count)
    return [message for frame in frames for message in frame.messages]


async def test_what_is_held_is_listed_released_and_sent(
    plant: Plant, worker: Worker, console: Console, unique: str
) -> None:
    await holding(plant, unique, ["a", "b"])
    assert sorted(await console.ids(unique)) == ["a", "b"]

    done = await console("release", "a", "--campaign", unique, typed="release\n")

    assert done.exit_code == 0, done.output
    (message,) = await sent(plant, unique, 1)
    assert (message.message_id, message.address) == ("a", "a@gmial.com")
    assert "typo_domain" in message.flags
    assert await console.ids(unique) == ["b"]


async def test_what_is_refused_is_answered_and_no_longer_held(
    plant: Plant, worker: Worker, console: Console, unique: str
) -> None:
    await holding(plant, unique, ["a"])

    done = await console("refuse", "--all", "--campaign", unique, "--confirm", "refuse", "--note", "asked by phone")

    assert done.exit_code == 0, done.output
    (refused,) = await plant.read(REFUSED, bool, lambda one: one.campaign == unique)
    assert isinstance(refused, Refused)
    assert (refused.message_id, refused.request_id, refused.stage, refused.reason) == (
        "a",
        "r-a",
        "validate",
        "held_refused",
    )
    assert "asked by phone" in refused.explain
    assert await console.ids(unique) == []


async def test_a_replayed_request_is_held_once(plant: Plant, worker: Worker, console: Console, unique: str) -> None:
    await holding(plant, unique, ["a"])
    await plant.publish((REQUESTS, "a", typo(unique, "a")), (REQUESTS, "a", typo(unique, "z")))
    await plant.read(HELD, lambda found: len(found) >= 3, lambda one: one.campaign == unique)

    assert sorted(await console.ids(unique)) == ["a", "z"]


async def test_a_crash_between_the_writes_of_a_release_leaves_it_held_and_asked_for_under_the_same_id(
    plant: Plant, worker: Worker, console: Console, unique: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await holding(plant, unique, ["a"])
    written = module._written

    async def crashes(out: Any, records: Any) -> None:
        if records[0][0] == HELD:
            raise RuntimeError("the machine went away")
        await written(out, records)

    monkeypatch.setattr(module, "_written", crashes)
    assert (await console("release", "--all", "--campaign", unique, "--confirm", "release")).exit_code != 0
    monkeypatch.undo()

    assert await console.ids(unique) == ["a"]
    assert (await console("release", "--all", "--campaign", unique, "--confirm", "release")).exit_code == 0
    assert {one.message_id for one in await sent(plant, unique, 2)} == {"a"}
    assert await console.ids(unique) == []


@pytest.mark.parametrize(
    ("words", "typed", "code"),
    [
        (["release"], "", 2),
        (["release", "--all", "--reason", "sunset"], "", 1),
        (["release", "nobody"], "", 1),
        (["release", "--all"], "yes\n", 2),
        (["refuse", "--all", "--confirm", "release"], "", 2),
        (["release", "--all", "--dry-run"], "", 0),
    ],
    ids=["nothing_named", "no_such_reason", "no_such_id", "wrong_word_typed", "wrong_word_given", "dry_run"],
)
async def test_nothing_is_done_without_the_word(
    plant: Plant, console: Console, unique: str, words: list[str], typed: str, code: int
) -> None:
    request = SendRequest(
        request_id="r", campaign=unique, content="hello", recipients=[Recipient(address="a@gmial.com", message_id="a")]
    )
    waiting = HeldMessage(
        campaign=unique,
        message_id="a",
        address_hash="ab" * 32,
        reason="typo_domain",
        explain="field recipients[0].address has a domain",
        at=1,
        request=request,
    )
    await plant.publish((HELD, held_key(unique, "a"), waiting), (HELD, held_key(unique, "b"), b"rubbish"))

    done = await console(*words, "--campaign", unique, typed=typed)

    assert done.exit_code == code, done.output
    assert await console.ids(unique) == ["a"]


async def test_the_list_shows_addresses_only_when_asked(
    plant: Plant, worker: Worker, console: Console, unique: str
) -> None:
    await holding(plant, unique, ["a"])

    plain = await console("list", "--campaign", unique)
    asked = await console("list", "--campaign", unique, "--addresses")

    assert "typo_domain" in plain.stdout
    assert "a@gmial.com" not in plain.stdout + (await console("list", "--campaign", unique, "--json")).stdout
    assert "a@gmial.com" in asked.stdout


async def test_a_list_is_checked_against_the_installations_suppressions(
    plant: Plant, unique: str, tmp_path: Path
) -> None:
    keys = load_or_make(tmp_path / "secrets.json")
    hashed = address_hash(keys, f"{unique}@example.com")
    await plant.publish(
        (
            SUPPRESSIONS,
            f"{hashed}|platform",
            Suppression(address_hash=hashed, scope="platform", reason="complaint", since=1),
        )
    )
    file = tmp_path / "list.csv"
    file.write_text(f"email\n{unique}@example.com\nother@example.com\n")
    command: click.Command = check
    done = await asyncio.to_thread(
        CliRunner().invoke, command, [str(file), "--kafka", plant.bootstrap, "--data", str(tmp_path), "--json"]
    )

    told = json.loads(done.stdout.splitlines()[0])
    assert told["reasons"] == {"suppressed": 1}
    assert "were asked" in told["known"]

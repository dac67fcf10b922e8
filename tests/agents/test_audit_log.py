"""The audit log on a real broker: whole through kills of the worker, and what is done to it is found."""

import asyncio
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from agents.ports import now_ms
from cli.audit import checked
from cli.main import main
from policy.auditing import hash_of, sealer
from policy.naming import campaign_scope
from schemas.reputation import Command, CommandName, Control
from schemas.sending import Pace
from schemas.topics import AUDIT, COMMANDS, CONTROL, DECISIONS
from tests.agents.doubles import campaign
from tests.agents.plant import Plant, Worker
from tests.agents.worker_process import KEYS

pytestmark = pytest.mark.kafka


class Operator:
    """Somebody at a terminal, with the secret file of the installation."""

    def __init__(self, plant: Plant, name: str, folder: Path) -> None:
        self.plant = plant
        self.name = name
        self.scope = campaign_scope(name)
        self.secret = folder / "secrets.json"
        self.secret.write_text(
            json.dumps({"key_id": KEYS.key_id, "address": KEYS.address.hex(), "return_path": KEYS.return_path.hex()})
        )
        self.secret.chmod(0o600)
        self._given = 0

    async def says(self, command: CommandName) -> None:
        self._given += 1
        given = Command(
            id=f"{self.name}-{self._given}",
            scope=self.scope,
            campaign=self.name,
            command=command,
            reason="the owner says so",
            by="operator:eve",
            at=now_ms(),
        )
        await self.plant.publish((COMMANDS, given.scope, given))

    async def answered(self, number: int) -> None:
        """Wait for the answer to a command."""
        await self.plant.read(
            DECISIONS, lambda found: found != [], lambda one: one.command_id == f"{self.name}-{number}"
        )

    async def runs(self, *arguments: str) -> Result:
        options = ["--kafka", self.plant.bootstrap, "--secret-file", str(self.secret)]
        return await asyncio.to_thread(CliRunner().invoke, main, ["audit", *arguments, *options])

    async def verifies(self, *arguments: str) -> dict[str, Any]:
        done = await self.runs("verify", "--scope", self.scope, "--json", *arguments)
        found: dict[str, Any] = json.loads(done.stdout)
        assert done.exit_code == (1 if found["wrong"] else 0), done.output
        return found


@pytest.fixture
def operator(plant: Plant, worker: Worker, unique: str, tmp_path: Path) -> Operator:
    return Operator(plant, unique, tmp_path)


async def with_decisions(operator: Operator, *commands: CommandName) -> None:
    await operator.plant.register(campaign(operator.name))
    for number, command in enumerate(commands, start=1):
        await operator.says(command)
        await operator.answered(number)


async def test_the_log_is_whole_when_the_worker_is_killed_between_decisions(operator: Operator, worker: Worker) -> None:
    await operator.plant.register(campaign(operator.name))
    given: list[CommandName] = ["isolate", "release", "isolate", "isolate", "release", "isolate", "release", "retire"]
    for number, command in enumerate(given):
        await operator.says(command)
        if number % 2:
            await worker.ready()
            await operator.answered(number)  # the one before: this one is somewhere between topic and table
        worker.kill()
        worker.start()
    await worker.ready()
    await operator.answered(len(given))

    found = await checked(operator.plant.bootstrap, scope=operator.scope, seal=sealer(KEYS))

    assert (found.wrong, found.forked) == ([], [])
    (chain,) = found.chains
    listed = await operator.runs("list", "--scope", operator.scope, "--json")
    entries = [json.loads(line) for line in listed.stdout.splitlines()]
    assert [one["seq"] for one in sorted(entries, key=lambda one: one["seq"])] == list(range(1, chain.entries + 1))
    asked = {one["decision"]["command_id"]: one["what"] for one in entries if one["decision"]["command_id"]}
    assert asked.keys() == {f"{operator.name}-{number}" for number in range(1, len(given) + 1)}
    assert asked[f"{operator.name}-4"] == "refused"


async def test_an_export_is_verified_without_a_broker_and_tampering_is_found(
    operator: Operator, tmp_path: Path
) -> None:
    await with_decisions(operator, "isolate", "release", "isolate")
    file = tmp_path / "audit.jsonl"

    done = await operator.runs("export", str(file), "--scope", operator.scope)

    assert done.exit_code == 0, done.output
    head = done.stdout.strip()
    lines = file.read_bytes().splitlines(keepends=True)
    assert len(lines) == 4
    assert (await operator.verifies("--input", str(file), "--head", head))["wrong"] == []
    damage = {
        "changed": [lines[0], lines[1].replace(b"operator:eve", b"operator:bob"), *lines[2:]],
        "missing": [*lines[:1], *lines[2:]],
        "reordered": [lines[0], lines[2], lines[1], lines[3]],
        "head": lines[:3],
    }
    for fault, others in damage.items():
        file.write_bytes(b"".join(others))
        assert fault in {
            one["fault"] for one in (await operator.verifies("--input", str(file), "--head", head))["wrong"]
        }


async def test_a_forged_entry_has_no_seal(operator: Operator) -> None:
    await with_decisions(operator, "isolate")
    newest = await newest_of(operator)
    forged = newest | {"seq": newest["seq"] + 1, "previous": newest["hash"]}
    forged["hash"] = hash_of(forged)

    await operator.plant.publish((AUDIT, operator.scope, msgspec.json.encode(forged)))

    assert [one["fault"] for one in (await operator.verifies())["wrong"]] == ["seal"]
    assert (await operator.verifies("--no-seals"))["wrong"] == []
    assert [one["fault"] for one in (await operator.verifies("--head", "0" * 64))["wrong"]] == ["seal", "head"]
    assert [one["fault"] for one in (await operator.verifies("--head", newest["hash"]))["wrong"]] == ["seal"]


async def newest_of(operator: Operator) -> dict[str, Any]:
    listed = await operator.runs("list", "--scope", operator.scope, "--json")
    newest: dict[str, Any] = json.loads(listed.stdout.splitlines()[-1])
    return newest


async def test_an_epoch_that_no_entry_explains_is_found(operator: Operator) -> None:
    await with_decisions(operator, "isolate")
    newest = await newest_of(operator)
    assert (await operator.verifies())["wrong"] == []
    later = Control(
        campaign=operator.name,
        epoch=newest["decision"]["epoch"] + 1,
        may_send=True,
        pace=Pace(),
        state="healthy",
        reason="",
        at=now_ms(),
    )

    await operator.plant.publish((CONTROL, operator.name, later))

    (wrong,) = (await operator.verifies())["wrong"]
    assert (wrong["fault"], wrong["seq"]) == ("cut_off", newest["seq"])


async def test_people_read_who_decided_and_why(operator: Operator) -> None:
    await with_decisions(operator, "isolate")

    told = await operator.runs("list", "--scope", operator.scope)
    text = await operator.runs("verify", "--scope", operator.scope)

    assert "by operator:eve, rule isolate" in told.stdout
    assert "the owner says so" in told.stdout
    assert f"because of {COMMANDS}[" in told.stdout
    assert f"{operator.scope}: entries 1 to 2, head " in text.stdout


async def test_without_a_secret_file_the_seals_are_left_out_and_it_says_so(operator: Operator) -> None:
    await with_decisions(operator, "isolate")

    done = await asyncio.to_thread(
        CliRunner().invoke,
        main,
        ["audit", "verify", "--scope", operator.scope, "--kafka", operator.plant.bootstrap],
        env={"MAILCORDON_DATA": str(operator.secret.parent / "data")},
    )
    missing = await asyncio.to_thread(
        CliRunner().invoke,
        main,
        ["audit", "verify", "--kafka", operator.plant.bootstrap, "--secret-file", str(operator.secret) + ".old"],
    )

    assert done.exit_code == 0, done.output
    assert "seals are not checked" in done.stderr
    assert missing.exit_code == 2

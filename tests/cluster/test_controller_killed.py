"""kill -9 of the controller between every two of its calls: isolating and releasing end in the same state."""

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from schemas.reputation import State
from tests.cluster.conftest import Given
from tests.cluster.controlling import Field, furnished
from tests.control_plane.plane import ControlPlane
from tests.control_plane.rest import Rest

ROOT = Path(__file__).parents[2]
KILLED = -9
MOST_CALLS = 60


class Controllers:
    """Child processes, one after the other; each ends when all is as decided, or is killed."""

    def __init__(self, field: Field, zygote: Process) -> None:
        self.field, self._zygote = field, zygote

    async def work(self, kill_at: tuple[int, str] | None = None) -> tuple[int, list[str]]:
        """One controller's life: its exit code and, if it lived to tell, its calls."""
        controls = [json.loads(encoded) for encoded in self._controls()]
        job = {
            "kubeconfig": str(self.field.plane.kubeconfig("controller")),
            "namespace": self.field.namespace,
            "image": self.field.image,
            "controls": controls,
            "kill_at": kill_at,
        }
        assert self._zygote.stdin is not None
        assert self._zygote.stdout is not None
        self._zygote.stdin.write(json.dumps(job).encode() + b"\n")
        async with asyncio.timeout(90):
            said = json.loads(await self._zygote.stdout.readline())
        return said["code"], said["calls"]

    def _controls(self) -> list[bytes]:
        return [msgspec.json.encode(told) for told in self.field.truth.controls.values()]

    async def done(self) -> list[str]:
        """One that is let live."""
        code, calls = await self.work()
        assert code == 0
        return calls


@pytest.fixture
async def field(plane: ControlPlane | Given, rest: Rest, namespace: str) -> Field:
    return await furnished(plane, rest, namespace)


@pytest.fixture
async def controllers(field: Field) -> AsyncIterator[Controllers]:
    zygote = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.cluster.killed_controller", cwd=ROOT, stdin=PIPE, stdout=PIPE
    )
    yield Controllers(field, zygote)
    zygote.stdin.close()  # type: ignore[union-attr]  # it was asked for
    await zygote.wait()


def unchanging(lasting: dict[str, Any], epoch: int) -> dict[str, str]:
    """The state without the number of its decision, to be compared with that of another decision."""
    return {kind: json.dumps(one, sort_keys=True).replace(str(epoch), "N") for kind, one in lasting.items()}


async def settled(field: Field, state: State) -> dict[str, str]:
    await (field.is_isolated() if state == "isolated" else field.is_open())
    return unchanging(await field.lasting(), field.epochs)


async def test_killed_between_any_two_calls_it_ends_in_the_same_state(controllers: Controllers, field: Field) -> None:
    """Before each call, and after each write before its answer is read; then another controller does what is left."""
    undisturbed, counted = {}, {}
    histories: tuple[State, State] = ("isolated", "watched")
    field.epochs = 1_000_000  # a number that stands for nothing else in any object
    field.decide("healthy")
    await controllers.done()
    await field.is_open()
    for state in histories:
        field.decide(state)
        calls = await controllers.done()
        print(*calls, sep="\n")
        counted[state] = len(calls)
        undisturbed[state] = await settled(field, state)

    killed = dict.fromkeys(histories, 0)
    for number in range(1, MOST_CALLS):
        lived = dict.fromkeys(histories, 0)
        for moment in ("before", "after"):
            for state in histories:
                field.decide(state)
                code, _ = await controllers.work((number, moment))
                assert code in {0, KILLED}, f"{moment} call {number} of {state}"
                killed[state] += code == KILLED
                lived[state] += code == 0
                if code == KILLED:
                    await never_told_too_early(field)
                    await controllers.done()
                assert (await settled(field, state)).items() - undisturbed[state].items() == set(), (
                    f"{state}, killed {moment} call {number}"
                )
        if all(count == 2 for count in lived.values()):
            break  # nobody made so many calls

    said = await field.events()
    assert len(said) == field.epochs - 1_000_000, "one Event for each decision, whoever was killed"
    assert all(2 * counted[state] - 4 <= killed[state] for state in histories), (counted, killed)
    print(f"calls: {counted}; killed: {killed}")


async def never_told_too_early(field: Field) -> None:
    """Whatever a controller left half done, it has not said that a sender is isolated before it was."""
    conditions = await field.conditions()
    campaign = await field.get("Campaign")
    told = next((one for one in campaign["status"]["conditions"] if one["type"] == "Isolated"), None)
    newest = told is not None and told["observedGeneration"] == campaign["metadata"]["generation"]
    if newest and conditions["Isolated"][0] == "True" and campaign["spec"]["decision"]["state"] == "isolated":
        await field.stays_isolated()

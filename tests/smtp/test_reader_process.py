"""Processes that read what strangers send: what they say, what they may not, and that nothing else suffers."""

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from smtp.findings import Finding, Unclear
from smtp.reader_process import Read, ReaderPool, Unreadable
from smtp.reader_wire import Garbled, answer, written
from smtp.understand import understand
from tests.smtp import obedient_reader as orders
from tests.smtp.obedient_reader import readers_that_obey
from tests.smtp.servers import until
from tests.smtp.wire import FIXTURES

UNKNOWN_USER = (FIXTURES / "samples/1-dsn-userunknown.eml").read_bytes()
ROOT = Path(__file__).parents[2]

FINDINGS = st.one_of(*(st.from_type(kind) for kind in get_args(Finding)))


@given(st.lists(FINDINGS, max_size=5))
def test_findings_arrive_as_they_were_sent(findings: list[Finding]) -> None:
    try:
        payload = written(findings, cpu_s=0.5, peak_kib=1)
    except OverflowError:  # a number of more than 64 bits: no report has one, and the reader calls it a mistake
        reject()
    _, arrived = answer(payload)

    assert arrived == findings
    assert [type(one) for one in arrived] == [type(one) for one in findings]


@given(st.binary(max_size=200))
def test_whatever_a_reader_says_is_findings_or_garbled(payload: bytes) -> None:
    try:
        _, findings = answer(payload)
    except Garbled:
        return
    assert all(isinstance(one, get_args(Finding)) for one in findings)


def test_an_answer_of_another_type_is_garbled() -> None:
    forged = written([Unclear("unrecognised", "x")], cpu_s=0, peak_kib=0).replace(b"Unclear", b"Context")

    with pytest.raises(Garbled):
        answer(forged)


async def test_every_captured_message_is_understood_as_it_is_here() -> None:
    async with ReaderPool() as pool:
        for file in sorted(FIXTURES.rglob("*.eml")):
            raw = file.read_bytes()
            assert await pool.understand(raw) == understand(raw), file.name


async def test_messages_at_the_same_time_get_their_own_answers() -> None:
    raws = [UNKNOWN_USER.replace(b"alice", b"user%d" % number) for number in range(60)]
    async with ReaderPool(processes=3) as pool:
        read = await asyncio.gather(*map(pool.understand, raws))

    assert read == [understand(raw) for raw in raws]


@pytest.mark.parametrize(
    ("order", "reason", "explain"),
    [
        pytest.param(orders.EATS_MEMORY, "reader_killed", "more than 16 MiB of memory", id="memory"),
        pytest.param(orders.WAITS, "reader_too_slow", "longer than 0.5 s", id="time"),
        pytest.param(orders.DIES, "reader_killed", "2 times: exit code 3", id="exit"),
        pytest.param(orders.CRASHES, "reader_killed", "2 times: exit code -11", id="crash"),
        pytest.param(orders.BABBLES, "reader_killed", "2 times", id="an answer that is none"),
        pytest.param(orders.LIES, "reader_killed", "2 times", id="an answer without an end"),
        pytest.param(orders.WRITES, "reader_failed", "OSError", id="a file"),
        pytest.param(orders.FAILS, "reader_failed", "RecursionError", id="a mistake"),
    ],
)
async def test_a_message_that_breaks_its_reader_is_a_value_and_the_next_is_read(
    order: bytes, reason: str, explain: str
) -> None:
    seen: list[Read] = []
    async with readers_that_obey(processes=1, memory_mib=16, message_s=0.5, observe=seen.append) as pool:
        broken = await pool.understand(order)
        after = await pool.understand(UNKNOWN_USER)

    assert isinstance(broken, Unreadable)
    assert broken.reason == reason
    assert explain in broken.explain
    assert after == understand(UNKNOWN_USER)
    assert [one.outcome for one in seen] == [broken, after]


async def test_a_reader_that_spins_is_ended_by_the_kernel_when_its_parent_does_not() -> None:
    async with readers_that_obey(processes=1, message_s=1) as pool:
        process = pool._readers[0]
        await process._say(orders.SPINS)
        assert process._process is not None
        assert await asyncio.wait_for(process._process.wait(), 30) == -signal.SIGXCPU

        assert await pool.understand(UNKNOWN_USER) == understand(UNKNOWN_USER)


async def test_a_reader_that_died_of_something_else_is_no_fault_of_the_message(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    mark.touch()
    async with readers_that_obey(processes=1) as pool:
        read = await pool.understand(orders.DIES_ONCE + os.fsencode(mark) + b"\n\n")

    assert isinstance(read, list)
    assert not mark.exists()


async def test_a_reader_that_died_while_it_was_idle_is_replaced() -> None:
    async with ReaderPool(processes=1) as pool:
        (pid,) = pool.pids
        os.kill(pid, signal.SIGKILL)
        assert await pool.understand(UNKNOWN_USER) == understand(UNKNOWN_USER)
        assert pool.pids not in ([], [pid])


async def test_who_gives_up_waiting_does_not_leave_an_answer_for_the_next() -> None:
    async with readers_that_obey(processes=1, message_s=30) as pool:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await pool.understand(orders.WAITS)
        assert await pool.understand(UNKNOWN_USER) == understand(UNKNOWN_USER)


async def test_a_slow_message_keeps_its_reader_and_no_other() -> None:
    async with readers_that_obey(processes=2, message_s=30) as pool:
        slow = asyncio.create_task(pool.understand(orders.WAITS))
        assert [await pool.understand(UNKNOWN_USER) for _ in range(20)] == [understand(UNKNOWN_USER)] * 20
        assert not slow.done()
        slow.cancel()
        with pytest.raises(asyncio.CancelledError):
            await slow


async def test_readers_end_with_the_pool() -> None:
    async with readers_that_obey(processes=2, message_s=30) as pool:
        pids = pool.pids
        busy = asyncio.create_task(pool.understand(orders.WAITS))
        await asyncio.sleep(0)
        busy.cancel()

    assert len(pids) == 2
    assert not any(map(_runs, pids))


async def test_readers_end_with_their_parent_however_it_ends() -> None:
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _PARENT),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    assert parent.stdout is not None
    pids = [int(one) for one in (await asyncio.wait_for(parent.stdout.readline(), 30)).split()]
    parent.kill()
    await parent.wait()

    assert len(pids) == 2
    await until(lambda: not any(_runs(pid) for pid in pids))


_PARENT = """
import asyncio
from smtp.reader_process import ReaderPool
async def main():
    async with ReaderPool(processes=2) as pool:
        print(*pool.pids, flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""


def _runs(pid: int) -> bool:
    try:
        return _told(pid, "stat").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _told(pid: int, what: str) -> str:
    return Path(f"/proc/{pid}/{what}").read_text()


async def test_a_reader_knows_only_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAILCORDON_SECRET_FILE", "/secret")
    async with ReaderPool(processes=1) as pool:
        (pid,) = pool.pids
        limits, environment, loaded = _told(pid, "limits"), _told(pid, "environ"), _told(pid, "maps")

    assert "MAILCORDON" not in environment
    for name in ("Max core file size", "Max file size", "Max processes"):
        assert limits.partition(name)[2].split()[:2] == ["0", "0"], name
    for guest in ("aiokafka", "cryptography", "uvloop", "aiohttp"):
        assert guest not in loaded


async def test_that_no_reader_starts_is_an_error_of_ours() -> None:
    pool = ReaderPool(processes=1)
    pool._readers[0]._command = ("-c", "raise SystemExit(7)")
    with pytest.raises(OSError, match="does not start"):
        async with pool:
            pass

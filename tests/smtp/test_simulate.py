"""What simulated providers do, seen by real clients, and what their logs say about it."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import aiosmtplib
import pytest

from policy.settings import Endpoint, pairs, routes
from smtp.simulate import Config, Load, Seen, SimulatedProviders, listen_at, listen_by_domain, read_logs, run
from tests.smtp.wire import Wire, until

Running = Callable[[Config], AbstractAsyncContextManager[SimulatedProviders]]


def _message(name: str = "m-1") -> bytes:
    return f"Message-ID: <{name}.spring-0a1b@shop.example>\nTo: x\nSubject: y\n\nhello\n".encode()


@asynccontextmanager
async def _simulated(tmp_path: Path, **changes: object) -> AsyncIterator[tuple[SimulatedProviders, Wire]]:
    config = replace(Config(logs=tmp_path), **changes)  # type: ignore[arg-type]
    async with SimulatedProviders(config) as running:
        wire = await Wire.connect(running.servers["google"].endpoint)
        yield running, wire
        wire.close()


def _lines(tmp_path: Path) -> list[Seen]:
    return read_logs(tmp_path)


@pytest.mark.parametrize(
    ("local", "reply", "event"),
    [
        ("ann", "250 2.0.0", "accepted"),
        ("unknown-1", "550 5.1.1", "rejected"),
        ("disabled-1", "550 5.2.1", "rejected"),
        ("full-1", "452 4.2.2", "rejected"),
        ("grey-1", "451 4.7.1", "rejected"),
        ("block-1", "554 5.7.1", "rejected"),
        ("content-1", "550 5.7.1", "rejected"),
        ("late-1", "250 2.0.0", "accepted"),
        ("complain-1", "250 2.0.0", "accepted"),
    ],
)
async def test_the_recipient_says_what_happens_and_the_log_tells_it(
    tmp_path: Path, local: str, reply: str, event: str
) -> None:
    async with _simulated(tmp_path) as (_, wire):
        said = await wire.deliver("b+x@bounces.shop.example", f"{local}@gmail.example", _message())
    (line,) = _lines(tmp_path)

    assert said.split("\n")[-1].startswith(reply)
    assert (line.event, line.code, line.rcpt) == (event, int(reply[:3]), f"{local}@gmail.example")
    assert line.mail_from == "b+x@bounces.shop.example"
    assert line.mail_from_at <= line.at


async def test_an_accepted_message_is_logged_with_its_token_and_times(tmp_path: Path) -> None:
    async with _simulated(tmp_path) as (_, wire):
        await wire.deliver("b+x@bounces.shop.example", "ann@gmail.example", _message("m-7"))
    (line,) = _lines(tmp_path)

    assert (line.message_token, line.campaign_name, line.provider, line.ip) == (
        "m-7",
        "spring-0a1b",
        "google",
        "127.0.0.1",
    )
    assert line.accepted_at == line.at


async def test_a_message_stands_in_the_log_before_its_250_is_sent(tmp_path: Path) -> None:
    async with _simulated(tmp_path) as (_, wire):
        for number in range(50):
            await wire.deliver("b+x@bounces.shop.example", "ann@gmail.example", _message(f"m-{number}"))
            assert len(_lines(tmp_path)) == number + 1


async def test_a_transaction_that_comes_to_nothing_is_a_mail_from_in_the_log(tmp_path: Path) -> None:
    async with _simulated(tmp_path) as (_, wire):
        await wire.mail("b+x@bounces.shop.example", "ann@gmail.example")
        await wire.say("RSET")
        await wire.mail("b+y@bounces.shop.example")
        wire.close()
        await until(lambda: len(_lines(tmp_path)) == 2)

    assert [(one.event, one.mail_from, one.accepted_at) for one in _lines(tmp_path)] == [
        ("mail_from", "b+x@bounces.shop.example", None),
        ("mail_from", "b+y@bounces.shop.example", None),
    ]


async def test_greylisting_ends_after_its_time(tmp_path: Path) -> None:
    async with _simulated(tmp_path, grey_s=0.05) as (_, wire):
        first = await wire.deliver("b+x@bounces.shop.example", "grey@gmail.example", _message())
        async with asyncio.timeout(5):
            while not (said := await wire.deliver("b+x@b.example", "grey@gmail.example", _message())).startswith("250"):
                await wire.say("RSET")

    assert first.startswith("451")
    assert said.startswith("250")


async def test_a_slow_answer_is_for_a_message_that_is_taken_at_once(tmp_path: Path) -> None:
    async with _simulated(tmp_path, slow_s=60.0) as (_, wire):
        await wire.mail("b+x@bounces.shop.example", "slow@gmail.example")
        await wire.say("DATA")
        wire.send(_message().replace(b"\n", b"\r\n") + b".\r\nQUIT\r\n")
        await until(lambda: len(_lines(tmp_path)) == 1)

    assert _lines(tmp_path)[0].event == "accepted"


async def test_a_slow_answer_comes_and_the_session_goes_on(tmp_path: Path) -> None:
    async with _simulated(tmp_path, slow_s=0.01) as (_, wire):
        await wire.mail("b+x@bounces.shop.example", "slow@gmail.example")
        await wire.say("DATA")
        wire.send(_message().replace(b"\n", b"\r\n") + b".\r\nNOOP\r\n")

        assert [(await wire.reply())[:3] for _ in range(2)] == ["250", "250"]


@pytest.mark.parametrize(("local", "second"), [("drop", "250"), ("dropalways", "")])
async def test_a_dropped_message_was_taken(tmp_path: Path, local: str, second: str) -> None:
    async with _simulated(tmp_path) as (running, wire):
        first_said = await wire.deliver("b+x@bounces.shop.example", f"{local}@gmail.example", _message())
        again = await Wire.connect(running.servers["google"].endpoint)
        second_said = await again.deliver("b+x@bounces.shop.example", f"{local}@gmail.example", _message())
        again.close()

    assert (first_said, second_said[:3]) == ("", second)
    assert [(one.event, one.code) for one in _lines(tmp_path)] == [
        ("accepted", None),
        ("accepted", 250 if second else None),
    ]


async def test_one_recipient_of_many_that_is_refused_does_not_take_the_others_along(tmp_path: Path) -> None:
    async with _simulated(tmp_path) as (_, wire):
        await wire.mail("b+x@bounces.shop.example", "unknown@gmail.example", "ann@gmail.example")
        await wire.say("DATA")
        await wire.say(_message().replace(b"\n", b"\r\n") + b".")

    assert {(one.rcpt, one.event, one.message_token) for one in _lines(tmp_path)} == {
        ("unknown@gmail.example", "rejected", "m-1"),
        ("ann@gmail.example", "accepted", "m-1"),
    }


@pytest.mark.parametrize(
    ("provider", "domain", "code"),
    [
        ("google", "gmail.example", "250"),
        ("google", "GMAIL.example", "250"),
        ("google", "yahoo.example", "550"),
        ("yahoo", "yahoo.example", "250"),
        ("other", "anything.example", "250"),
        ("traps", "traps.example", "250"),
        ("traps", "gmail.example", "550"),
        ("google", "traps.example", "250"),
    ],
)
async def test_a_provider_has_mailboxes_of_its_own_domains_only(
    tmp_path: Path, provider: str, domain: str, code: str
) -> None:
    async with SimulatedProviders(Config(logs=tmp_path)) as running:
        wire = await Wire.connect(running.servers[provider].endpoint)
        said = await wire.mail("b+x@b.example", f"ann@{domain}")
        wire.close()

    assert said[-1][:3] == code


async def test_one_connection_too_many_is_told_421(tmp_path: Path) -> None:
    config = listen_at(Config(logs=tmp_path), "127.0.0.1", 0, load=Load(connections=1))
    async with SimulatedProviders(config) as running:
        first = await Wire.connect(running.servers["google"].endpoint)
        second = await Wire.connect(running.servers["google"].endpoint, ehlo=False)

        assert await second.is_hung_up()
        assert (await first.say("NOOP")).startswith("250")
        first.close()


async def test_messages_too_fast_are_told_421_and_stand_in_the_log(tmp_path: Path) -> None:
    config = listen_at(Config(logs=tmp_path), "127.0.0.1", 0, load=Load(messages_per_s=0.001))
    async with SimulatedProviders(config) as running:
        wire = await Wire.connect(running.servers["google"].endpoint)
        await wire.deliver("b+x@bounces.shop.example", "ann@gmail.example", _message())

        assert (await wire.say("MAIL FROM:<b+y@bounces.shop.example>"))[:3] == "421"
        assert await wire.is_hung_up()
    last = _lines(tmp_path)[-1]
    assert (last.event, last.code, last.mail_from, last.rcpt) == ("rejected", 421, "b+y@bounces.shop.example", None)


async def test_after_complaints_a_return_path_domain_is_blocked(tmp_path: Path) -> None:
    config = listen_at(Config(logs=tmp_path), "127.0.0.1", 0, load=Load(complaints=2))
    async with SimulatedProviders(config) as running:
        wire = await Wire.connect(running.servers["google"].endpoint)
        for number in range(2):
            await wire.deliver("b+x@bounces.bad.example", "complain@gmail.example", _message(f"m-{number}"))

        assert (await wire.say("MAIL FROM:<b+z@bounces.bad.example>")).split("\n")[-1].startswith("554 5.7.1")
        assert (await wire.say("MAIL FROM:<b+z@bounces.good.example>"))[:3] == "250"
        wire.close()


async def _delays(folder: Path, seed: int, names: list[str]) -> dict[str, int]:
    """How long after its message each notification is due, by the recipient's local part."""
    config = Config(logs=folder, seed=seed, return_path=Endpoint("127.0.0.1", 1), late_s=1_000.0)
    async with SimulatedProviders(config) as running:
        server = running.servers["google"]
        wire = await Wire.connect(server.endpoint)
        for name in names:
            await wire.deliver("b+x@b.example", f"{name}@gmail.example", _message(name))
        wire.close()
        taken = {str(one.rcpt).partition("@")[0]: one.accepted_at or 0 for one in read_logs(folder)}
        assert server.outbox is not None
        return {
            name: parcel.due - taken[name]
            for parcel in server.outbox.waiting
            for name in names
            if f"<{name}@".encode() in parcel.raw
        }


async def test_the_same_seed_gives_the_same_delays_whatever_the_order(tmp_path: Path) -> None:
    names = ["late-a", "late-b", "late-c"]
    first = await _delays(tmp_path / "1", 7, names)

    assert len(set(first.values())) == 3
    assert await _delays(tmp_path / "2", 7, names[::-1]) == first
    assert await _delays(tmp_path / "3", 8, names) != first


async def test_routes_and_provider_map_are_settings_that_can_be_read(tmp_path: Path) -> None:
    async with SimulatedProviders(Config(logs=tmp_path)) as running:
        found = routes(running.routes)
        ready = json.loads(running.ready())

    assert found["gmail.example"] == Endpoint("127.0.0.1", found["gmail.example"].port)
    assert found["*"] == found["other.example"] != found["gmail.example"]
    assert set(found) >= {"outlook.example", "yahoo.example", "icloud.example", "web.example", "traps.example"}
    assert pairs(ready["providers"]) == running.provider_map
    assert running.provider_map["web.example"] == "gmx"
    assert ready["ready"] is True


async def test_providers_can_be_placed_by_domain(tmp_path: Path) -> None:
    where = {name: Endpoint("127.0.0.1", 0) for name in ("gmail.example", "own.example", "traps.example", "*")}
    async with SimulatedProviders(listen_by_domain(Config(logs=tmp_path), where)) as running:
        assert set(running.servers) == {"google", "own.example", "other", "traps"}


def test_what_is_no_domain_has_no_provider(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no domain"):
        listen_by_domain(Config(logs=tmp_path), {"../x": Endpoint("127.0.0.1", 0)})


async def test_running_says_when_it_is_ready_and_ends_when_told(tmp_path: Path) -> None:
    said: list[str] = []
    stop = asyncio.Event()
    task = asyncio.create_task(run(Config(logs=tmp_path), say=said.append, stop=stop))
    await until(lambda: bool(said))
    port = int(json.loads(said[0])["listen"]["google"].rpartition(":")[2])
    wire = await Wire.connect(Endpoint("127.0.0.1", port))

    stop.set()

    assert (await wire.reply()).startswith("421")
    assert await wire.is_hung_up()
    await asyncio.wait_for(task, 10)


async def test_a_port_that_is_taken_starts_nobody(tmp_path: Path) -> None:
    async with SimulatedProviders(Config(logs=tmp_path / "a")) as running:
        taken = running.servers["google"].endpoint
        config = listen_by_domain(
            Config(logs=tmp_path / "b"), {"yahoo.example": Endpoint("127.0.0.1", 0), "gmail.example": taken}
        )
        other = SimulatedProviders(config)

        with pytest.raises(OSError, match="in use"):
            await other.start()
        assert other.servers == {}


async def test_a_log_that_cannot_be_written_is_no_250(tmp_path: Path) -> None:
    (tmp_path / "google.jsonl").symlink_to("/dev/full")
    async with SimulatedProviders(Config(logs=tmp_path)) as running:
        wire = await Wire.connect(running.servers["google"].endpoint)

        assert (await wire.deliver("b+x@b.example", "ann@gmail.example", _message())).startswith("451")
        wire.close()


async def test_a_real_client_library_is_served(tmp_path: Path) -> None:
    async with SimulatedProviders(Config(logs=tmp_path)) as running:
        client = aiosmtplib.SMTP(hostname="127.0.0.1", port=running.servers["apple"].endpoint.port, start_tls=False)
        async with client:
            for number in range(20):
                await client.sendmail("b+x@b.example", ["ann@icloud.example"], _message(f"m-{number}"))

    assert len(_lines(tmp_path)) == 20

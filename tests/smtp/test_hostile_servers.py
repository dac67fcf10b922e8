"""Servers that do what no server should: every answer says what happened, and the next message goes through.

Each case runs against a server that offers PIPELINING and one that does not; the answer is the same.  After each,
the session is either good for another message or closed, and another server is not disturbed.
"""

import asyncio
import contextlib
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from smtp.attempts import Attempt, Envelope, Reply, Uncertain
from smtp.client import Bounds
from smtp.mx import Target
from smtp.opener import Opener
from smtp.sending.outcomes import Known, Terms, result_of
from smtp.session import Session, Timeouts
from smtp.tls.demand import ENCRYPT, MAY, NAMES, Demand
from tests.smtp.sender_contract import Stage
from tests.smtp.servers import CLOSE, SILENCE, Raw, Say, Script, ehlo, raw, scripted, server_tls
from tests.smtp.test_client import SHORT, envelope, mailer, yes
from tests.smtp.test_sender import MemoryWorld

MEGABYTE = 1_000_000
BIG = b"Subject: big\r\n\r\n" + (b"x" * 898 + b"\r\n") * 11_650  # 10 MB
PROMPT_S = 5.0  # nothing here may take longer; limits of the client are 0.3 s
EVERYWHERE = ("mail", "rcpt", "data", "dot")
ONE_SESSION = Bounds(sessions=1, back_off_s=0.0)


@pytest.fixture(params=[(), ("PIPELINING",)], ids=["plain", "pipelining"])
def offers(request: pytest.FixtureRequest) -> tuple[str, ...]:
    found: tuple[str, ...] = request.param
    return found


@dataclass(frozen=True)
class Case:
    """What is said at one place, and what must come of it; without ``code`` it is no answer at all."""

    place: str
    say: Say
    text: str  # a regular expression
    code: int | None = None
    category: str = ""  # where there is a code; without one it follows from the place
    reused: bool = False


def _unclear(name: str, say: Say, text: str, places: Sequence[str] = ("rcpt", "dot")) -> dict[str, Case]:
    """The same wherever it is said: no code before the dot, uncertain after it."""
    return {f"{name} at {place}": Case(place, say, text) for place in places}


CASES: dict[str, Case] = {
    **_unclear("one line of 1 MB", b"250 " + b"x" * MEGABYTE + b"\r\n", r"more than 65,536 bytes", EVERYWHERE),
    **_unclear("many lines of 1 MB", b"250-xxxxxxxxxxxx\r\n" * (MEGABYTE // 18), r"more than 65,536 bytes"),
    **_unclear("half a reply and silence", b"250 2.0" + SILENCE, r"timed out", EVERYWHERE),
    **_unclear("CR alone", b"250 2.0.0 Ok\r" + SILENCE, r"timed out"),
    **_unclear("code too high", b"999 what?\r\n", r"999"),
    **_unclear("code 600", b"600 what?\r\n", r"600"),
    **_unclear("code 100", b"100 go on\r\n", r"100"),
    **_unclear("code 000", b"000 ?\r\n", r"\b0+\b"),
    **_unclear("code of two digits", b"25 Ok\r\n", r"no reply"),
    **_unclear("code of four digits", b"2500 Ok\r\n", r"no reply"),
    **_unclear("a code that is none", b"2x0 Ok\r\n", r"no reply"),
    **_unclear("digits of another script", "٢٥٠ Ok\r\n".encode(), r"no reply"),
    **_unclear("no code at all", b"queued, thank you\r\n", r"no reply"),
    **_unclear("an empty line", b"\r\n", r"no reply"),
    **_unclear("NUL before the code", b"\x00250 Ok\r\n", r"no reply"),
    **_unclear("two codes in one reply", b"250-Ok\r\n550 no\r\n", r"two codes", EVERYWHERE),
    **_unclear("HTTP", b"HTTP/1.1 400 Bad Request\r\n\r\n", r"no reply"),
    "354 for MAIL": Case("mail", b"354 go ahead\r\n", r"354"),
    "354 for RCPT": Case("rcpt", b"354 go ahead\r\n", r"354"),
    "250 for DATA": Case("data", b"250 Ok\r\n", r"250"),
    "220 for DATA": Case("data", b"220 Ok\r\n", r"220"),
    "354 for the dot": Case("dot", b"354 go ahead\r\n", r"354"),
    "421 at mail": Case("mail", b"421 4.3.2 going down\r\n", r"going down", code=421, category="transient"),
    "421 at rcpt": Case("rcpt", b"421 4.3.2 going down\r\n", r"going down", code=421, category="transient"),
    "421 at data": Case("data", b"421 4.3.2 going down\r\n", r"going down", code=421, category="transient"),
    "421 at dot": Case("dot", b"421 4.3.2 going down\r\n", r"going down", code=421, category="transient"),
    "disk full at mail": Case(
        "mail", b"452 4.3.1 Insufficient system storage\r\n", r"storage", code=452, category="transient", reused=True
    ),
    "disk full at rcpt": Case(
        "rcpt", b"452 4.3.1 Insufficient system storage\r\n", r"storage", code=452, category="transient", reused=True
    ),
    "disk full at data": Case(
        "data", b"452 4.3.1 Insufficient system storage\r\n", r"storage", code=452, category="transient", reused=True
    ),
    "disk full at dot": Case(
        "dot", b"452 4.3.1 Insufficient system storage\r\n", r"storage", code=452, category="transient", reused=True
    ),
    "queue file at dot": Case(
        "dot", b"451 4.3.0 Error: queue file write error\r\n", r"queue", code=451, category="transient", reused=True
    ),
    "bare LF": Case("dot", b"550 5.7.1 no\n", r"^5.7.1 no$", code=550, category="policy_block", reused=True),
    "NUL in the text": Case(
        "dot", b"550 5.7.1 n\x00o\r\n", r"^5.7.1 n o$", code=550, category="policy_block", reused=True
    ),
    "no UTF-8": Case(
        "dot", b"550 5.7.1 \xff\xfe caf\xe9\r\n", r"^5.7.1 .*caf", code=550, category="policy_block", reused=True
    ),
    "terminal commands": Case(
        "dot", b"550 5.7.1 \x1b[2J\x07no\r\n", r"^5.7.1  ?\[2J no$", code=550, category="policy_block", reused=True
    ),
    "no text": Case("dot", b"550\r\n", r"^$", code=550, category="other", reused=True),
    "an address": Case(
        "rcpt",
        b"550 5.1.1 <ann@example.com> unknown\r\n",
        r"<address>",
        code=550,
        category="invalid_recipient",
        reused=True,
    ),
    "many lines": Case(
        "dot",
        b"550-5.7.1 a\r\n550-5.7.1 b\r\n550 5.7.1 c\r\n",
        r"^5.7.1 a 5.7.1 b 5.7.1 c$",
        code=550,
        category="policy_block",
        reused=True,
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
async def test_what_a_server_says_wrongly_is_told_and_harms_no_other_message(
    case: Case, offers: tuple[str, ...]
) -> None:
    bad = Script(ehlo=ehlo(*offers), **{case.place: case.say})  # type: ignore[arg-type]
    good = Script()
    async with scripted(bad), scripted(good), mailer(bad.endpoint, good.endpoint, bounds=ONE_SESSION) as client:
        attempt = await asyncio.wait_for(client.send(envelope(), go=yes), PROMPT_S)
        _is_as_told(case, attempt)
        setattr(bad, case.place, getattr(Script(), case.place))
        again = await client.send(envelope("ann@again.example"), go=yes)
        other = await client.send(envelope("bob@1.example"), go=yes)
    assert isinstance(again, Reply)
    assert again.accepted
    assert isinstance(other, Reply)
    assert other.accepted
    assert bad.connections == (1 if case.reused else 2)


def _is_as_told(case: Case, attempt: Attempt) -> None:
    assert isinstance(attempt, Reply | Uncertain)
    assert re.search(case.text, attempt.text), attempt.text
    assert len(attempt.text) <= 300
    assert attempt.text.isprintable()
    unclear = "uncertain" if case.place == "dot" else "connection"
    assert _category(attempt) == (case.category if case.code is not None else unclear)
    if case.place == "dot" and case.code is None:
        assert isinstance(attempt, Uncertain)
        return
    assert isinstance(attempt, Reply)
    assert not attempt.accepted
    assert (attempt.stage, attempt.code) == (case.place, case.code)


def _category(attempt: Reply | Uncertain) -> str | None:
    """What the sender's result will say of it."""
    known = Known(message_id="m-1", address_hash="h-1", number=1, provider="other", now=0)
    terms = Terms(starts_at=0, expires_at=None, max_age_s=86_400, in_doubt="hold")
    return result_of(attempt, known, terms=terms, jitter=0.0).class_


GREETINGS = {
    "1 MB in one line": b"220 " + b"x" * MEGABYTE + b"\r\n",
    "1 MB in many lines": b"220-xxxxxxxxxxxx\r\n" * (MEGABYTE // 18),
    "endless": b"220-x\r\n" * 1000,
    "half": b"220 mx",
    "nothing": SILENCE,
    "hung up": CLOSE,
    "no SMTP": b"SSH-2.0-OpenSSH_9.2\r\n",
    "wrong code": b"354 go ahead\r\n",
    "554": b"554 5.7.1 no\r\n",
}


@pytest.mark.parametrize("place", ["greeting", "ehlo"])
@pytest.mark.parametrize("greeting", GREETINGS.values(), ids=GREETINGS)
async def test_a_server_that_does_not_begin_is_told(place: str, greeting: bytes) -> None:
    said = greeting.replace(b"220", b"250") if place == "ehlo" else greeting
    bad, good = Script(**{place: said}), Script()  # type: ignore[arg-type]
    bad.helo = CLOSE
    async with scripted(bad), scripted(good), mailer(bad.endpoint, good.endpoint) as client:
        attempt = await asyncio.wait_for(client.send(envelope(), go=yes), PROMPT_S)
        assert isinstance(attempt, Reply)
        assert attempt.stage in {"connect", "ehlo"}
        assert attempt.code in {None, 554}
        assert attempt.text
        other = await client.send(envelope("bob@1.example"), go=yes)
        assert isinstance(other, Reply)
        assert other.accepted
    assert not bad.taken


async def test_a_greeting_that_comes_too_late_is_told_as_that() -> None:
    async def behave(wire: Raw) -> None:
        await asyncio.sleep(30)
        await wire.say(b"220 at last\r\n")

    async with raw(behave) as server, mailer(server) as client:
        attempt = await asyncio.wait_for(client.send(envelope(), go=yes), PROMPT_S)
    assert isinstance(attempt, Reply)
    assert (attempt.stage, attempt.code) == ("connect", None)
    assert "greeting" in attempt.text


DRIPS = ["greeting", "ehlo", "mail", "rcpt", "data", "dot"]


def _drips(place: str, said: bytes, offers: tuple[str, ...]) -> Callable[[Raw], Awaitable[None]]:
    """A server that says one byte at a time at one place, each well within the client's limit."""

    async def behave(wire: Raw) -> None:
        replies = {
            "greeting": b"220 mx\r\n", "ehlo": ehlo(*offers), "mail": b"250 Ok\r\n", "rcpt": b"250 Ok\r\n",
            "data": b"354 go\r\n", "dot": b"250 Ok\r\n",
        }  # fmt: skip
        for at, reply in replies.items():
            if at == "dot":
                await wire.content()
            elif at != "greeting":
                await wire.line()
            if at == place:
                for byte in said:
                    await wire.say(bytes([byte]))
                    await asyncio.sleep(0.05)
            await wire.say(reply)

    return behave


@pytest.mark.parametrize("place", DRIPS)
async def test_a_reply_that_drips_has_one_deadline_for_the_whole(place: str, offers: tuple[str, ...]) -> None:
    code = {"greeting": b"220", "data": b"354"}.get(place, b"250")
    async with raw(_drips(place, (code + b"-x\r\n") * 100, offers)) as server, mailer(server) as client:
        attempt = await asyncio.wait_for(client.send(envelope(), go=yes), 3.0)
    assert isinstance(attempt, Uncertain if place == "dot" else Reply)
    assert getattr(attempt, "code", None) is None


@pytest.mark.parametrize("place", ["mail", "rcpt", "data", "dot"])
async def test_a_reply_without_end_is_cut(place: str, offers: tuple[str, ...]) -> None:
    async def behave(wire: Raw) -> None:
        await wire.greet(*offers)
        for at in ("mail", "rcpt", "data", "dot"):
            await (wire.content() if at == "dot" else wire.line())
            while at == place:
                await wire.say((b"354-" if at == "data" else b"250-") + b"x" * 70 + b"\r\n")
            await wire.say(b"354 go\r\n" if at == "data" else b"250 Ok\r\n")

    async with raw(behave) as server, mailer(server) as client:
        attempt = await asyncio.wait_for(client.send(envelope(), go=yes), PROMPT_S)
    assert isinstance(attempt, Uncertain if place == "dot" else Reply)
    assert "65,536" in attempt.text


@pytest.mark.parametrize(
    "part", [b"", b"2", b"250", b"250 2.0.0 queued as 1234", b"250 2.0.0 queued as 1234\r", b"250-"]
)
async def test_a_server_that_hangs_up_after_the_dot_leaves_the_message_uncertain(
    part: bytes, offers: tuple[str, ...]
) -> None:
    async def behave(wire: Raw) -> None:
        await wire.greet(*offers)
        await wire.until_data()
        await wire.content()
        await wire.say(part)

    async with raw(behave) as server, mailer(server) as client:
        attempt = await asyncio.wait_for(client.send(envelope(), go=yes), PROMPT_S)
    assert isinstance(attempt, Uncertain)
    assert attempt.text


async def test_a_message_refused_by_rcpt_is_never_accepted_though_the_server_asks_for_it() -> None:
    """RFC 2920 3.1: all recipients refused, DATA answered with 354 all the same, and the empty message with 250."""
    contents: list[bytes] = []

    async def behave(wire: Raw) -> None:
        await wire.greet("PIPELINING")
        for _ in range(2):
            await wire.line()
            await wire.say(b"250 Ok\r\n")
            await wire.line()
            await wire.say(b"550 5.1.1 no such user\r\n")
            await wire.line()
            await wire.say(b"354 go ahead\r\n")
            contents.append(await wire.content())
            await wire.say(b"250 2.0.0 queued\r\n")
            assert await wire.line() == b"RSET\r\n"
            await wire.say(b"250 Ok\r\n")
        await wire.hold()

    async with raw(behave) as server, mailer(server) as client:
        attempts = [await asyncio.wait_for(client.send(envelope(), go=yes), PROMPT_S) for _ in range(2)]
    assert [(one.stage, one.code) for one in attempts if isinstance(one, Reply)] == [("rcpt", 550)] * 2
    assert contents == [b".\r\n"] * 2


OUT_OF_STEP = {
    "an extra 250 to MAIL": [b"250 Ok\r\n250 Ok\r\n", b"250 Ok\r\n", b"354 go\r\n"],
    "an extra 250 to RCPT": [b"250 Ok\r\n", b"250 Ok\r\n250 Ok\r\n", b"354 go\r\n"],
    "354 twice": [b"250 Ok\r\n", b"250 Ok\r\n", b"354 go\r\n354 go\r\n"],
    "the dot's 250 with the 354": [b"250 Ok\r\n", b"250 Ok\r\n", b"354 go\r\n250 queued\r\n"],
    "everything at MAIL": [b"250 Ok\r\n250 Ok\r\n354 go\r\n250 queued\r\n", b"", b""],
    "354 before the 250": [b"250 Ok\r\n", b"354 go\r\n", b"250 Ok\r\n"],
    "an extra 550 to MAIL": [b"250 Ok\r\n550 no\r\n", b"250 Ok\r\n", b"354 go\r\n"],
}


@pytest.mark.parametrize("replies", OUT_OF_STEP.values(), ids=OUT_OF_STEP)
async def test_replies_out_of_step_are_never_an_acceptance(replies: list[bytes], offers: tuple[str, ...]) -> None:
    async def behave(wire: Raw) -> None:
        await wire.greet(*offers)
        for reply in replies:
            await wire.line()
            await wire.say(reply)
        await wire.hold()

    good = Script()
    async with raw(behave) as server, scripted(good), mailer(server, good.endpoint) as client:
        attempt = await asyncio.wait_for(client.send(envelope(), go=yes), PROMPT_S)
        other = await client.send(envelope("bob@1.example"), go=yes)
    assert isinstance(other, Reply)
    assert other.accepted
    assert isinstance(attempt, Reply | Uncertain)
    assert not (isinstance(attempt, Reply) and attempt.accepted)


async def test_a_reply_that_nobody_asked_for_ends_the_session_and_not_the_next_message() -> None:
    """Between two messages the server says something: it must not be taken for the answer to the next command."""
    script = Script(dot=b"250 2.0.0 queued\r\n550 5.7.1 and now for something else\r\n")
    async with scripted(script), mailer(script.endpoint) as client:
        for _ in range(3):
            attempt = await client.send(envelope(), go=yes)
            assert isinstance(attempt, Reply)
            assert attempt.accepted
    assert len(script.taken) == 3


async def test_an_acceptance_while_the_content_is_still_on_its_way_is_none(offers: tuple[str, ...]) -> None:
    """Ten megabytes cannot have been read by a server that reads nothing, whatever it says."""

    async def behave(wire: Raw) -> None:
        await wire.greet(*offers)
        await wire.until_data()
        await wire.reader.readexactly(1000)
        await wire.say(b"250 2.0.0 queued\r\n")
        await wire.content()
        await wire.line()

    async with raw(behave) as server, mailer(server) as client:
        attempt = await asyncio.wait_for(client.send(envelope(data=BIG), go=yes), PROMPT_S)
    assert isinstance(attempt, Uncertain)


async def test_a_refusal_while_the_content_is_still_on_its_way_is_one(offers: tuple[str, ...]) -> None:
    async def behave(wire: Raw) -> None:
        await wire.greet(*offers)
        await wire.until_data()
        await wire.reader.readexactly(1000)
        await wire.say(b"552 5.3.4 message too big\r\n")
        await wire.content()
        await wire.line()

    good = Script()
    async with raw(behave) as server, scripted(good), mailer(server, good.endpoint, bounds=ONE_SESSION) as client:
        attempt = await asyncio.wait_for(client.send(envelope(data=BIG), go=yes), PROMPT_S)
        assert isinstance(attempt, Reply)
        assert (attempt.stage, attempt.code) == ("dot", 552)
        other = await client.send(envelope("bob@1.example"), go=yes)
        assert isinstance(other, Reply)
        assert other.accepted


async def test_a_connection_that_is_reset_in_the_middle_of_the_content_is_uncertain(offers: tuple[str, ...]) -> None:
    async def behave(wire: Raw) -> None:
        await wire.greet(*offers)
        await wire.until_data()
        await wire.reader.readexactly(100_000)
        wire.reset()

    good = Script()
    async with raw(behave) as server, scripted(good), mailer(server, good.endpoint) as client:
        attempt = await asyncio.wait_for(client.send(envelope(data=BIG), go=yes), PROMPT_S)
        other = await client.send(envelope("bob@1.example"), go=yes)
    assert isinstance(attempt, Uncertain)
    assert attempt.text
    assert isinstance(other, Reply)
    assert other.accepted


async def test_a_server_that_reads_no_more_times_out(offers: tuple[str, ...]) -> None:
    async def behave(wire: Raw) -> None:
        await wire.greet(*offers)
        await wire.until_data()
        wire.writer.transport.pause_reading()  # type: ignore[attr-defined]  # the window closes
        await wire.hold()

    good = Script()
    async with raw(behave) as server, scripted(good), mailer(server, good.endpoint) as client:
        attempt = await asyncio.wait_for(client.send(envelope(data=BIG), go=yes), PROMPT_S)
        other = await client.send(envelope("bob@1.example"), go=yes)
    assert isinstance(attempt, Uncertain)
    assert attempt.text == "timed out"
    assert isinstance(other, Reply)
    assert other.accepted


# ---- two messages in one session


@contextlib.asynccontextmanager
async def session(
    behave: Callable[[Raw], Awaitable[None]],
    *,
    timeouts: Timeouts = SHORT,
    demand: Demand = MAY,
    host: str = "127.0.0.1",
) -> AsyncIterator[Session | Reply]:
    async with raw(behave) as server:
        opened = await Opener(hostname="me.example", timeouts=timeouts).open(
            Target(host, server.host, server.port, demand)
        )
        try:
            yield opened
        finally:
            if isinstance(opened, Session):
                opened.cut()


def numbered(number: int) -> Envelope:
    return Envelope.checked(
        sender=f"b{number}@bounces.shop.example", recipient=f"r{number}@example.com", data=b"Subject: x\r\n\r\nbody\r\n"
    )


IN_THE_MIDDLE = {
    "421 to the second MAIL": ("mail", b"421 4.3.2 going down\r\n"),
    "421 to the second RCPT": ("rcpt", b"421 4.3.2 going down\r\n"),
    "421 to the second DATA": ("data", b"421 4.3.2 going down\r\n"),
    "hung up at the second MAIL": ("mail", CLOSE),
    "hung up at the second RCPT": ("rcpt", CLOSE),
    "hung up at the second DATA": ("data", CLOSE),
    "nonsense to the second MAIL": ("mail", b"?\r\n"),
    "nonsense to the second DATA": ("data", b"?\r\n"),
}


@pytest.mark.parametrize(("place", "said"), IN_THE_MIDDLE.values(), ids=IN_THE_MIDDLE)
async def test_trouble_with_the_second_message_does_not_touch_the_first(place: str, said: bytes) -> None:
    script = Script(ehlo=ehlo("PIPELINING"))
    rounds = iter([getattr(script, place), said])
    setattr(script, place, lambda _: next(rounds))
    async with session(script_of(script)) as opened:
        assert isinstance(opened, Session)
        first, second = await asyncio.gather(*(opened.send(numbered(n), go=yes) for n in (1, 2)))
        assert not opened.is_open
    assert isinstance(first, Reply)
    assert first.accepted
    assert isinstance(second, Reply)
    assert (second.stage, second.code) == (place, 421 if said.startswith(b"421") else None)
    assert [taken.sender for taken in script.taken] == [b"b1@bounces.shop.example"]


FIRST_LOST = {
    "421 instead of the first dot's reply": (b"421 4.3.2 going down\r\n", Reply),
    "hung up instead of the first dot's reply": (CLOSE, Uncertain),
    "silence instead of the first dot's reply": (SILENCE, Uncertain),
    "nonsense instead of the first dot's reply": (b"?\r\n", Uncertain),
    "354 instead of the first dot's reply": (b"354 go\r\n", Uncertain),
}


@pytest.mark.parametrize(("said", "kind"), FIRST_LOST.values(), ids=FIRST_LOST)
async def test_a_message_behind_one_that_is_lost_was_not_begun(said: bytes, kind: type[Attempt]) -> None:
    script = Script(ehlo=ehlo("PIPELINING"), dot=said)
    async with session(script_of(script)) as opened:
        assert isinstance(opened, Session)
        first, second = await asyncio.gather(*(opened.send(numbered(n), go=yes) for n in (1, 2)))
        assert not opened.is_open
    assert isinstance(first, kind)
    assert not (isinstance(first, Reply) and first.accepted)
    assert isinstance(second, Reply)
    assert (second.stage, second.code) == ("mail", None)  # the mailer takes it to another session at once


def script_of(script: Script) -> Callable[[Raw], Awaitable[None]]:
    async def behave(wire: Raw) -> None:
        await script.serve(wire.reader, wire.writer)

    return behave


# ---- STARTTLS


INJECTED = {
    "a reply": b"250 injected\r\n",
    "an answer to EHLO": b"250-mx.example\r\n250-SMTPUTF8\r\n250 SIZE 10\r\n",
    "half a reply": b"250-mx.example\r\n250-SI",
    "a refusal": b"554 5.7.1 go away\r\n",
    "noise": b"\x16\x03\x01\x00\x00",
}


@pytest.mark.parametrize("demand", [MAY, ENCRYPT], ids=["may", "encrypt"])
@pytest.mark.parametrize("injected", INJECTED.values(), ids=INJECTED)
async def test_what_stands_behind_the_answer_to_starttls_is_never_believed(
    injected: bytes, demand: Demand, tmp_path: Path
) -> None:
    """CVE-2011-0411 the other way round: bytes in clear behind 220 must not be read as if they had been encrypted."""
    tls = server_tls(tmp_path)
    heard: list[bytes] = []

    async def behave(wire: Raw) -> None:
        await wire.greet("STARTTLS")
        if not (await wire.line()).startswith(b"STARTTLS"):
            heard.append(b"in clear")
            return
        await wire.say(b"220 ready\r\n" + injected)
        await wire.writer.start_tls(tls)
        heard.append(await wire.line())
        await wire.say(ehlo("8BITMIME"))
        await wire.hold()

    async with session(behave, demand=demand) as opened:
        if isinstance(opened, Session):  # what was injected was thrown away
            assert demand == MAY or opened.tls is not None
            assert not opened._utf8
            assert opened._size_limit is None
        else:
            assert (opened.stage, opened.code) in {("tls", None), ("ehlo", None), ("connect", None)}
    if demand == ENCRYPT:
        assert b"in clear" not in heard


NO_TLS = {
    "refused": b"454 4.7.0 TLS not available\r\n",
    "hung up": b"",
    "hung up in the handshake": b"220 ready\r\n",
    "no handshake": b"220 ready\r\nI know no TLS\r\n",
    "no answer": SILENCE,
    "no answer in the handshake": b"220 ready\r\n" + SILENCE,
    "1 MB": b"220 " + b"x" * MEGABYTE + b"\r\n",
}


@pytest.mark.parametrize("demand", [MAY, ENCRYPT, NAMES], ids=["may", "encrypt", "names"])
@pytest.mark.parametrize("said", NO_TLS.values(), ids=NO_TLS)
async def test_a_server_that_cannot_do_its_starttls_gets_mail_in_clear_only_where_that_is_allowed(
    said: bytes, demand: Demand
) -> None:
    commands: list[bytes] = []

    async def behave(wire: Raw) -> None:
        await wire.greet("STARTTLS")
        commands.append(await wire.line())
        if commands[-1].startswith(b"STARTTLS"):
            await wire.say(said.removesuffix(SILENCE))
            if said.endswith(SILENCE):
                await wire.hold()
            return
        await wire.hold()

    async with asyncio.timeout(PROMPT_S):
        async with session(behave, demand=demand) as opened:
            if demand == MAY:
                assert isinstance(opened, Session)
                assert opened.tls is None
            else:
                assert isinstance(opened, Reply)
                assert opened.stage == "tls"
                assert not opened.accepted
                assert opened.text
    assert [line for line in commands if line.startswith(b"MAIL")] == []


BAD_CERTIFICATES: dict[str, tuple[dict[str, object], str]] = {
    "of another host": ({"name": "mx.other.example"}, r"certificate"),
    "expired": ({"name": "mx.example", "valid_days": (-9.0, -1.0)}, r"certificate"),
    "not yet valid": ({"name": "mx.example", "valid_days": (1.0, 9.0)}, r"certificate"),
    "of nobody anyone trusts": ({"name": "mx.example"}, r"certificate"),
}


@pytest.mark.parametrize(("made", "text"), BAD_CERTIFICATES.values(), ids=BAD_CERTIFICATES)
async def test_a_certificate_that_does_not_fit_is_told_where_names_are_demanded(
    made: dict[str, object], text: str, tmp_path: Path
) -> None:
    async with session(_encrypting(server_tls(tmp_path, **made)), demand=NAMES, host="mx.example") as opened:  # type: ignore[arg-type]
        assert isinstance(opened, Reply)
        assert (opened.stage, opened.code) == ("tls", None)
        assert re.search(text, opened.text)


@pytest.mark.parametrize("made", [made for made, _ in BAD_CERTIFICATES.values()], ids=BAD_CERTIFICATES)
async def test_a_certificate_that_does_not_fit_is_enough_where_nothing_is_demanded(
    made: dict[str, object], tmp_path: Path
) -> None:
    async with session(_encrypting(server_tls(tmp_path, **made)), host="mx.example") as opened:  # type: ignore[arg-type]
        assert isinstance(opened, Session)
        assert opened.tls is not None


def _encrypting(tls: ssl.SSLContext) -> Callable[[Raw], Awaitable[None]]:
    async def behave(wire: Raw) -> None:
        await wire.greet("STARTTLS")
        await wire.line()
        await wire.say(b"220 ready\r\n")
        await wire.writer.start_tls(tls)
        await wire.line()
        await wire.say(ehlo("8BITMIME"))
        await wire.hold()

    return behave


# ---- what the sender makes of it


async def test_greylisting_by_address_sender_and_recipient_lets_the_retry_in() -> None:
    stage = Stage(MemoryWorld())
    stage.control()
    script, seen = Script(), set[bytes]()
    sender = [b""]

    def mail(line: bytes) -> bytes:
        sender[0] = line.split()[1]
        return b"250 Ok\r\n"

    def rcpt(line: bytes) -> bytes:
        known = sender[0] + line in seen
        seen.add(sender[0] + line)
        return b"250 Ok\r\n" if known else b"451 4.7.1 Greylisted, try again later\r\n"

    script.mail, script.rcpt = mail, rcpt
    async with scripted(script):
        await stage.send("ann")
        async with stage.sender(script.endpoint):
            for number in (1, 2):
                async with asyncio.timeout(10):
                    while len((await stage.told()).get("m-ann", [])) < number:  # noqa: ASYNC110
                        await asyncio.sleep(0.02)
                stage.clock.advance(3600)
    assert [result.outcome for result in (await stage.told())["m-ann"]] == ["deferred", "accepted"]

"""Transactions over one session: what travels together, what is asked before, and what one trouble means for whom."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from smtp.attempts import Attempt, Envelope, Reply, Uncertain, Withheld
from smtp.mx import Target
from smtp.opener import Opener
from smtp.session import CUT_BEFORE, Session, Timeouts
from tests.smtp.servers import until

OFFERS = b"250-mx.example\r\n250-PIPELINING\r\n250 8BITMIME\r\n"
PLAIN = b"250 mx.example\r\n"
GO_ON = b"354 go on\r\n"
OK = b"250 ok\r\n"
PATIENT = Timeouts()


class Peer:
    """The server's end of the connection, played by the test line by line."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.closed = False

    def say(self, *replies: bytes) -> None:
        self._writer.write(b"".join(replies))

    async def line(self) -> bytes:
        async with asyncio.timeout(5):
            return await self._reader.readline()

    async def verbs(self, count: int) -> list[bytes]:
        """The first words of that many lines, without an answer in between."""
        return [(await self.line())[:4] for _ in range(count)]

    async def content(self) -> bytes:
        async with asyncio.timeout(5):
            return await self._reader.readuntil(b"\r\n.\r\n")

    async def rest(self) -> bytes:
        """Whatever comes until the other side hangs up."""
        async with asyncio.timeout(5):
            try:
                return await self._reader.read()
            except ConnectionError:
                return b""

    def hang_up(self) -> None:
        self._writer.transport.abort()


@contextlib.asynccontextmanager
async def connected(offers: bytes = OFFERS, timeouts: Timeouts = PATIENT) -> AsyncIterator[tuple[Session, Peer]]:
    peers: list[Peer] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer)
        peer.say(b"220 mx.example ESMTP\r\n")
        assert (await peer.line()).startswith(b"EHLO")
        peer.say(offers)
        peers.append(peer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    session = await Opener(hostname="me.example", timeouts=timeouts).open(Target(host, host, port))
    assert isinstance(session, Session)
    await until(lambda: bool(peers))
    try:
        yield session, peers[0]
    finally:
        session.cut()
        peers[0].hang_up()
        server.close()


def yes() -> bool:
    return True


def sending(session: Session, recipient: str = "ann@example.com", go: Callable[[], bool] = yes) -> Awaitable[Attempt]:
    envelope = Envelope.checked(
        sender="b+abc@bounces.shop.example",
        recipient=recipient,
        data=b"Subject: x\r\n\r\nto " + recipient.encode() + b"\r\n",
    )
    return asyncio.ensure_future(session.send(envelope, go=go))


async def test_the_three_commands_of_an_envelope_travel_together() -> None:
    async with connected() as (session, peer):
        answer = sending(session)
        assert await peer.verbs(3) == [b"MAIL", b"RCPT", b"DATA"]
        peer.say(OK, OK, GO_ON)
        assert b"to ann@example.com" in await peer.content()
        peer.say(b"250 2.0.0 queued\r\n")
        attempt = await answer
        assert isinstance(attempt, Reply)
        assert (attempt.stage, attempt.code, attempt.enhanced) == ("dot", 250, "2.0.0")


async def test_the_next_envelope_travels_behind_the_content() -> None:
    async with connected() as (session, peer):
        first, second = sending(session, "one@example.com"), sending(session, "two@example.com")
        await peer.verbs(3)
        peer.say(OK, OK, GO_ON)
        await peer.content()
        assert await peer.verbs(3) == [b"MAIL", b"RCPT", b"DATA"]  # and the first content has no answer yet
        peer.say(b"250 first\r\n", OK, OK, GO_ON)
        assert b"to two@example.com" in await peer.content()
        peer.say(b"250 second\r\n")
        answers = [await first, await second]
        assert [answer.text for answer in answers if isinstance(answer, Reply)] == ["first", "second"]
        assert session.used == 2


async def test_without_pipelining_each_command_waits_for_its_answer() -> None:
    async with connected(PLAIN) as (session, peer):
        answer = sending(session)
        for verb, said in ((b"MAIL", OK), (b"RCPT", OK), (b"DATA", GO_ON)):
            assert (await peer.line())[:4] == verb
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await peer._reader.readexactly(1)
            peer.say(said)
        await peer.content()
        peer.say(OK)
        assert isinstance(await answer, Reply)


@pytest.mark.parametrize(("offers", "room"), [(OFFERS, 2), (PLAIN, 1)], ids=["pipelining", "plain"])
async def test_a_session_says_how_many_it_takes(offers: bytes, room: int) -> None:
    async with connected(offers) as (session, peer):
        assert session.room == room
        sending(session)
        await peer.line()
        assert (session.load, session.room) == (1, room - 1)
        session.cut()
        await until(lambda: session.load == 0)
        assert session.room == 0


async def test_an_empty_message_ends_what_nobody_is_to_get() -> None:
    """RFC 2920 3.1: a server may ask for the content although it has refused every recipient."""
    async with connected() as (session, peer):
        answer, next_answer = sending(session, "unknown@example.com"), sending(session)
        await peer.verbs(3)
        peer.say(OK, b"550 5.1.1 no such user\r\n", GO_ON)
        assert await peer.line() == b".\r\n"
        peer.say(b"554 no valid recipients\r\n")
        refused = await answer
        assert isinstance(refused, Reply)
        assert (refused.stage, refused.code) == ("rcpt", 550)
        assert await peer.verbs(4) == [b"RSET", b"MAIL", b"RCPT", b"DATA"]
        peer.say(OK, OK, OK, GO_ON)
        await peer.content()
        peer.say(OK)
        accepted = await next_answer
        assert isinstance(accepted, Reply)
        assert accepted.accepted


async def test_a_refused_recipient_is_followed_by_a_reset_in_the_same_write() -> None:
    async with connected() as (session, peer):
        answer, next_answer = sending(session, "unknown@example.com"), sending(session)
        await peer.verbs(3)
        peer.say(OK, b"550 5.1.1 no such user\r\n", b"503 5.5.1 no valid recipients\r\n")
        assert await peer.verbs(4) == [b"RSET", b"MAIL", b"RCPT", b"DATA"]
        refused = await answer
        assert isinstance(refused, Reply)
        assert (refused.stage, refused.code, refused.enhanced) == ("rcpt", 550, "5.1.1")
        peer.say(OK, OK, OK, GO_ON)
        await peer.content()
        peer.say(OK)
        assert isinstance(await next_answer, Reply)


async def test_without_pipelining_a_reset_waits_for_its_answer_too() -> None:
    async with connected(PLAIN) as (session, peer):
        refused = sending(session, "unknown@example.com")
        for said in (OK, b"550 5.1.1 no such user\r\n"):
            await peer.line()
            peer.say(said)
        assert isinstance(await refused, Reply)
        answer = sending(session)
        assert await peer.line() == b"RSET\r\n"
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await peer._reader.readexactly(1)
        for verb, said in ((b"MAIL", OK), (b"RCPT", OK), (b"DATA", GO_ON)):
            peer.say(OK if verb == b"MAIL" else b"")
            assert (await peer.line())[:4] == verb
            peer.say(said)
        await peer.content()
        peer.say(OK)
        accepted = await answer
        assert isinstance(accepted, Reply)
        assert accepted.accepted


async def test_a_message_behind_a_reset_that_fails_was_not_begun() -> None:
    async with connected(PLAIN) as (session, peer):
        refused = sending(session, "unknown@example.com")
        for said in (OK, b"550 5.1.1 no such user\r\n"):
            await peer.line()
            peer.say(said)
        await refused
        answer = sending(session)
        assert await peer.line() == b"RSET\r\n"
        peer.hang_up()
        attempt = await answer
        assert isinstance(attempt, Reply)
        assert (attempt.stage, attempt.code) == ("mail", None)


async def test_a_sender_that_is_stopped_between_envelope_and_content_sends_no_content() -> None:
    may_send = True
    async with connected() as (session, peer):
        answer = sending(session, go=lambda: may_send)
        await peer.verbs(3)
        may_send = False
        peer.say(OK, OK, GO_ON)
        assert await answer == Withheld()
        assert await peer.rest() == b""
        assert not session.is_open


async def test_a_sender_that_is_stopped_sends_no_envelope_that_waited() -> None:
    may_send = True
    async with connected() as (session, peer):
        first, second = sending(session), sending(session, "two@example.com", go=lambda: may_send)
        await peer.verbs(3)
        may_send = False
        peer.say(OK, OK, GO_ON)
        await peer.content()
        peer.say(OK)
        assert isinstance(await first, Reply)
        assert await second == Withheld()
        assert session.is_open


async def test_a_connection_lost_after_the_content_is_uncertain_for_that_message_alone() -> None:
    async with connected() as (session, peer):
        first, second = sending(session, "one@example.com"), sending(session, "two@example.com")
        await peer.verbs(3)
        peer.say(OK, OK, GO_ON)
        await peer.content()
        await peer.verbs(3)
        peer.hang_up()
        assert isinstance(await first, Uncertain)
        behind = await second
        assert isinstance(behind, Reply)
        assert (behind.stage, behind.code, behind.text) == ("mail", None, CUT_BEFORE)


async def test_421_for_one_message_lets_the_one_behind_it_be_tried_elsewhere() -> None:
    async with connected() as (session, peer):
        first, second = sending(session, "one@example.com"), sending(session, "two@example.com")
        await peer.verbs(3)
        peer.say(OK, OK, GO_ON)
        await peer.content()
        await peer.verbs(3)
        peer.say(b"421 4.7.0 too much\r\n")
        said = await first
        assert isinstance(said, Reply)
        assert (said.stage, said.code) == ("dot", 421)
        behind = await second
        assert isinstance(behind, Reply)
        assert (behind.code, behind.text) == (None, CUT_BEFORE)
        assert not session.is_open


async def test_a_reply_that_came_before_the_content_is_none_to_it() -> None:
    async with connected() as (session, peer):
        answer = sending(session)
        await peer.verbs(3)
        peer.say(OK, OK, GO_ON + b"250 2.0.0 queued\r\n")
        attempt = await answer
        assert isinstance(attempt, Reply)
        assert (attempt.stage, attempt.code) == ("data", None)
        assert await peer.rest() == b""


async def test_words_that_nobody_asked_for_end_the_session() -> None:
    async with connected() as (session, peer):
        session.rest(60.0, lambda _: None)
        peer.say(b"421 4.4.2 idle for too long\r\n")
        await until(lambda: not session.is_open)


async def test_the_deadline_is_that_of_whole_answers_and_not_of_bytes() -> None:
    async with connected(timeouts=Timeouts(command_s=0.2, dot_s=0.2)) as (session, peer):
        answer = sending(session)
        await peer.verbs(3)

        async def drip() -> None:
            while True:
                peer.say(b"250-more\r\n")
                await asyncio.sleep(0.02)

        dripping = asyncio.create_task(drip())
        attempt = await answer
        dripping.cancel()
        assert isinstance(attempt, Reply)
        assert (attempt.stage, attempt.text) == ("mail", "timed out")

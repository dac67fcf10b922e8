"""Whatever a server does: nothing is accepted that it did not accept, and PIPELINING changes no result.

The server of these tests does to each message what its script says, in whatever order and session it comes; it counts
for itself which messages it has taken (2xx said to the message's own dot).  Hypothesis writes the scripts.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from smtp.attempts import Attempt, Envelope, Reply, Uncertain
from smtp.client import Bounds
from smtp.session import Timeouts
from tests.smtp.servers import CLOSE, Raw, raw
from tests.smtp.test_client import mailer, yes

PLACES = ("mail", "rcpt", "data", "dot")
PATIENT = Timeouts(connect_s=5, greeting_s=5, command_s=5, dot_s=5)  # nothing here is meant to time out
WITHIN_S = 20.0
YES = (b"250 2.1.0 Ok\r\n", b"250 2.1.5 Ok\r\n", b"354 go ahead\r\n", b"250 2.0.0 queued\r\n")

Plan = tuple[bytes, bytes, bytes, bytes]
"""What is said to MAIL, RCPT, DATA and the dot of one message."""


@dataclass
class Server:
    """Says what the plans say; ``taken`` counts for each message how often its dot was answered with 2xx.

    ``handed`` counts the dots that were heard at all: more than that can never have been taken.
    """

    plans: Sequence[Plan]
    offers: tuple[str, ...]
    rset: bytes = b"250 2.0.0 Ok\r\n"
    taken: Counter[int] = field(default_factory=Counter)
    handed: Counter[int] = field(default_factory=Counter)
    overlaps: int = 0  # contents behind which more had come already

    async def behave(self, wire: Raw) -> None:
        await wire.greet(*self.offers)
        number, wanted, begun = -1, True, False
        while line := await wire.line():
            verb = line.split()[0].upper() if line.split() else b""
            if verb == b"RSET":
                said, begun = self.rset, False
            elif verb == b"MAIL" and begun:
                said, wanted = b"503 5.5.1 nested MAIL\r\n", False  # as Postfix does
            elif verb == b"MAIL":
                number, wanted = int(line.partition(b"<b")[2].partition(b"@")[0]), True
                said = self.plans[number][0]
                begun = wanted = said.startswith(b"2")
            elif verb == b"RCPT":
                said = self.plans[number][1] if wanted else b"503 5.5.1 MAIL first\r\n"
                wanted = wanted and said.startswith(b"2")
            elif verb == b"DATA":
                said = self.plans[number][2] if wanted else b"503 5.5.1 RCPT first\r\n"
            elif verb == b"QUIT":
                said = b"221 2.0.0 Bye\r\n"
            else:
                said = b"500 5.5.2 What?\r\n"
            if not await _say(wire, said):
                return
            if verb == b"DATA" and said.startswith(b"354") and not await self._content(wire, number):
                return
            begun = begun and not (verb == b"DATA" and said.startswith(b"354"))
            if verb == b"QUIT" or said.startswith(b"421"):
                return

    async def _content(self, wire: Raw, number: int) -> bool:
        await wire.content()
        said = self.plans[number][3]
        self.overlaps += bool(wire.reader._buffer)  # type: ignore[attr-defined]  # no other way to look
        self.handed[number] += 1
        if _says_yes(said):
            self.taken[number] += 1
        return await _say(wire, said) and not said.startswith(b"421")


def _says_yes(said: bytes) -> bool:
    """Is it a whole reply with one code, and that 2xx (RFC 5321 4.2)?"""
    *lines, rest = said.removesuffix(CLOSE).split(b"\n")
    return (
        bool(lines)
        and rest == b""
        and {line[:1] for line in lines} == {b"2"}
        and len({line[:3] for line in lines}) == 1
        and [line[3:4] for line in lines] == [b"-"] * (len(lines) - 1) + [b" "]
    )


async def _say(wire: Raw, said: bytes) -> bool:
    await wire.say(said.removesuffix(CLOSE))
    return not said.endswith(CLOSE)


def envelope(number: int) -> Envelope:
    return Envelope.checked(
        sender=f"b{number}@bounces.shop.example",
        recipient=f"r{number}@example.com",
        data=b"Subject: x\r\n\r\nmessage %d\r\n.\r\n" % number,
    )


async def _attempts(server: Server, *, at_once: int, sessions: int = 1) -> list[Attempt]:
    """Send one message for each plan, so many of them in process at the same time."""
    slots = asyncio.Semaphore(at_once)
    bounds = Bounds(sessions=sessions, messages=5, back_off_s=0.0)

    async def one(number: int) -> Attempt:
        async with slots:
            return await client.send(envelope(number), go=yes)

    async with raw(server.behave) as endpoint, mailer(endpoint, bounds=bounds, timeouts=PATIENT) as client:
        async with asyncio.timeout(WITHIN_S):
            return list(await asyncio.gather(*(one(number) for number in range(len(server.plans)))))


def _said(attempt: Attempt) -> tuple[object, ...]:
    """What a result is made of, without where and when."""
    if isinstance(attempt, Reply):
        return ("reply", attempt.stage, attempt.code, attempt.enhanced, _text(attempt), attempt.accepted)
    return (type(attempt).__name__, _text(attempt) if isinstance(attempt, Uncertain) else "")


def _text(attempt: Reply | Uncertain) -> str:
    """A server that hangs up while more is on its way to it looks like one that was reset: that is up to the kernel."""
    return "Connection lost" if attempt.text.startswith("Connection lost") else attempt.text


# ---- scripts

CLEAR = [
    b"250 2.0.0 Ok\r\n",
    b"250-2.0.0 O\r\n250 2.0.0 k\r\n",
    b"250 2.0.0 Ok\n",
    b"450 4.2.0 Greylisted\r\n",
    b"452 4.3.1 Insufficient system storage\r\n",
    b"550 5.1.1 no such user\r\n",
    b"554-5.7.1 no,\r\n554 5.7.1 never\r\n",
    b"421 4.3.2 going down\r\n",
]
UNCLEAR = [
    CLOSE,
    b"250 2.0" + CLOSE,
    b"550 5.1.1 no such user\r\n" + CLOSE,
    b"?\r\n",
    b"999 ?\r\n",
    b"250-Ok\r\n550 no\r\n",
    b"221 2.0.0 Bye\r\n" + CLOSE,
    b"354 go ahead\r\n",
    b"\xff\x00\r\n",
]


def _plan(*others: bytes) -> st.SearchStrategy[Plan]:
    """Mostly messages that get somewhere: each place says yes, or now and then something else."""
    at = [st.one_of(st.just(said), st.just(said), st.sampled_from([said, *others])) for said in YES]
    return st.tuples(*at)


any_plans = st.lists(_plan(*CLEAR, *UNCLEAR), min_size=1, max_size=6)


# ---- laws


@pytest.mark.parametrize("offers", [(), ("PIPELINING",)], ids=["plain", "pipelining"])
@settings(max_examples=120)
@given(plans=any_plans, at_once=st.integers(1, 4), rset=st.sampled_from([b"250 Ok\r\n", b"250 Ok\r\n", b"502 no\r\n"]))
def test_nothing_is_accepted_that_the_server_did_not_accept(
    offers: tuple[str, ...], plans: list[Plan], at_once: int, rset: bytes
) -> None:
    server = Server(plans, offers, rset)
    attempts = asyncio.run(_attempts(server, at_once=at_once))
    for number, attempt in enumerate(attempts):
        assert isinstance(attempt, Reply | Uncertain), attempt
        if isinstance(attempt, Reply) and attempt.accepted:
            assert server.taken[number] == 1, (number, attempt)
        elif server.taken[number]:
            assert isinstance(attempt, Uncertain), (number, attempt)
        if isinstance(attempt, Reply) and attempt.stage != "dot":
            assert server.handed[number] == 0, (number, attempt)
        assert server.handed[number] <= 1, (number, attempt)  # never handed over twice in one attempt


@settings(max_examples=150)
@given(plans=any_plans)
@example(plans=[(YES[0], b"550 5.1.1 no\r\n", YES[2], YES[3]), YES])
@example(plans=[YES, (CLOSE, YES[1], YES[2], YES[3]), YES])
def test_messages_one_after_the_other_have_the_same_results_with_and_without_pipelining(plans: list[Plan]) -> None:
    plain = asyncio.run(_attempts(Server(plans, ()), at_once=1))
    pipelined = asyncio.run(_attempts(Server(plans, ("PIPELINING",)), at_once=1))
    assert [_said(one) for one in pipelined] == [_said(one) for one in plain]


def test_messages_travel_behind_each_other_where_pipelining_is_offered() -> None:
    overlaps = []
    for offers in ((), ("PIPELINING",)):
        server = Server([YES] * 20, offers)
        attempts = asyncio.run(_attempts(server, at_once=4))
        assert all(isinstance(one, Reply) and one.accepted for one in attempts)
        overlaps.append(server.overlaps)
    assert overlaps[0] == 0
    assert overlaps[1] > 5


@settings(max_examples=150)
@given(plans=any_plans, at_once=st.integers(2, 4))
def test_messages_at_the_same_time_have_the_same_results_with_and_without_pipelining(
    plans: list[Plan], at_once: int
) -> None:
    plain = asyncio.run(_attempts(Server(plans, ()), at_once=at_once))
    pipelined = asyncio.run(_attempts(Server(plans, ("PIPELINING",)), at_once=at_once))
    assert [_said(one) for one in pipelined] == [_said(one) for one in plain]

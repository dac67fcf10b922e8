"""Several providers at once: each within its limits, and none that holds up the others."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping

import pytest

from policy.replies import RuleBook, put_in_force, shipped_text
from policy.settings import Endpoint
from policy.shaping import Shaping
from smtp.attempts import Attempt, Envelope, Reply, Withheld
from smtp.client import Bounds, SmtpMailer
from smtp.egress.ways import Egress
from smtp.mx import NextHop, NextHops, Target
from smtp.opener import Opener
from smtp.pools import DeadAddresses, Pools
from smtp.session import CUT_BEFORE, Timeouts
from smtp.tls.demand import ENCRYPT
from tests.smtp.servers import SILENCE, Raw, Script, raw, until
from tests.smtp.zone import Zone, providers

PATIENT = Timeouts(connect_s=30, greeting_s=30, command_s=30, dot_s=30)
DATA = b"Subject: x\r\n\r\nbody\r\n"


def yes() -> bool:
    return True


def envelope(recipient: str) -> Envelope:
    return Envelope.checked(sender="b@bounces.shop.example", recipient=recipient, data=DATA)


def is_accepted(attempt: Attempt) -> bool:
    return isinstance(attempt, Reply) and attempt.accepted


@contextlib.asynccontextmanager
async def mailer(
    scripts: Mapping[str, Script],
    domains: Mapping[str, list[str]],
    *,
    shaping: str = "",
    timeouts: Timeouts = PATIENT,
    connections: int = 20,
) -> AsyncIterator[SmtpMailer]:
    async with providers(scripts, domains) as next_hops:
        opener = Opener(hostname="me.example", timeouts=timeouts, egress=Egress(allow_private=True))
        one = SmtpMailer(next_hops, opener, bounds=Bounds(sessions=connections), shaping=Shaping(shaping))
        try:
            yield one
        finally:
            one.cut()
            await one.close()


async def all_of(client: SmtpMailer, *recipients: str) -> list[Attempt]:
    async with asyncio.timeout(20):
        return list(await asyncio.gather(*(client.send(envelope(recipient), go=yes) for recipient in recipients)))


def to(domain: str, count: int) -> list[str]:
    return [f"u{number}@{domain}" for number in range(count)]


# ---- providers


async def test_a_company_at_google_is_googles_and_shares_its_limits() -> None:
    one, two = Script(dot_delay_s=0.01), Script(dot_delay_s=0.01)
    domains = {
        "gmail.com": ["gmail-smtp-in.l.google.com"],
        "shop.test": ["aspmx.l.google.com"],
        "own.test": ["mx.own.test"],
    }
    scripts = {"gmail-smtp-in.l.google.com": one, "aspmx.l.google.com": two, "mx.own.test": Script()}
    most = 0

    def look(line: bytes) -> bytes:
        nonlocal most
        most = max(most, one.open_now + two.open_now)
        return b"250 ok\r\n"

    one.mail = two.mail = look
    async with mailer(scripts, domains) as client:
        attempts = await all_of(client, *to("gmail.com", 20), *to("shop.test", 20), *to("own.test", 3))
        assert all(map(is_accepted, attempts))
        assert [client.provider_of(domain) for domain in domains] == ["google", "google", "other"]
        assert [client.group_of(domain) for domain in domains] == ["google", "google", "other/mx.own.test"]
        assert (len(one.taken), len(two.taken)) == (20, 20)
        assert 1 < most <= 5 + 1  # one more may be on its way out


async def test_a_session_carries_what_its_provider_likes() -> None:
    script = Script()
    async with mailer({"mx01.mail.icloud.com": script}, {"me.com": ["mx01.mail.icloud.com"]}) as client:
        for recipient in to("me.com", 12):
            await client.send(envelope(recipient), go=yes)
    assert Counter(taken.connection for taken in script.taken) == {1: 5, 2: 5, 3: 2}


# ---- one that hangs


@pytest.mark.parametrize("place", ["greeting", "ehlo", "mail", "rcpt", "data", "dot"])
async def test_a_provider_that_hangs_holds_up_nobody(place: str) -> None:
    hangs, one, two = Script(**{place: SILENCE}), Script(), Script()
    scripts = {"mx.hangs.test": hangs, "mx.one.test": one, "mx.two.test": two}
    domains = {f"{name}.test": [f"mx.{name}.test"] for name in ("hangs", "one", "two")}
    async with mailer(scripts, domains, connections=8) as client:
        stuck = [asyncio.create_task(client.send(envelope(to_), go=yes)) for to_ in to("hangs.test", 30)]
        await until(lambda: hangs.open_now >= 5)
        attempts = await all_of(client, *to("one.test", 40), *to("two.test", 40))
        assert all(map(is_accepted, attempts))
        assert not any(task.done() for task in stuck)
        assert hangs.open_now <= 6  # of 8
        client.cut()
        await client.close()
        await asyncio.gather(*stuck)


async def test_several_that_hang_still_leave_one() -> None:
    bad = {f"mx.bad{n}.test": Script(dot=SILENCE) for n in range(3)}
    good = Script()
    domains = {f"{name}.test": [f"mx.{name}.test"] for name in ("bad0", "bad1", "bad2", "good")}
    async with mailer({**bad, "mx.good.test": good}, domains) as client:
        await client.look_up("good.test")
        assert client.group_of("good.test") == "other/mx.good.test"
        stuck = []
        for n in range(3):
            stuck += [asyncio.create_task(client.send(envelope(one), go=yes)) for one in to(f"bad{n}.test", 20)]
            await until(lambda n=n: bool(bad[f"mx.bad{n}.test"].taken))  # type: ignore[misc]  # bound at once
        assert all(map(is_accepted, await all_of(client, *to("good.test", 40))))
        client.cut()
        await client.close()
        await asyncio.gather(*stuck)


async def test_a_provider_that_says_421_to_everybody_holds_up_nobody() -> None:
    busy, fine = Script(greeting=b"421 4.7.0 try again later\r\n"), Script()
    scripts = {"mx.busy.test": busy, "mx.fine.test": fine}
    async with mailer(scripts, {"busy.test": ["mx.busy.test"], "fine.test": ["mx.fine.test"]}) as client:
        answers = await all_of(client, *to("busy.test", 20), *to("fine.test", 40))
        assert [isinstance(one, Reply) and one.code for one in answers[:20]] == [421] * 20
        assert all(map(is_accepted, answers[20:]))
        assert client.admit("other/mx.busy.test") > 0
        assert client.admit("other/mx.fine.test") == 0


async def test_a_session_that_rests_makes_room_for_who_has_none() -> None:
    one, two = Script(), Script()
    scripts = {"mx.one.test": one, "mx.two.test": two}
    async with mailer(scripts, {"one.test": ["mx.one.test"], "two.test": ["mx.two.test"]}, connections=1) as client:
        assert all(map(is_accepted, await all_of(client, "a@one.test")))
        assert all(map(is_accepted, await all_of(client, "b@two.test")))
        await until(lambda: one.open_now == 0)
        assert one.heard[-1] == b"QUIT\r\n"


# ---- what providers say


async def test_a_provider_with_enough_of_a_session_gets_another_at_once() -> None:
    def mail(_: bytes) -> bytes:
        full = script.heard.count(b"DATA\r\n") == 3 * script.connections
        return b"421 4.7.0 Max message per connection reached\r\n" if full else b"250 ok\r\n"

    script = Script(mail=mail)
    async with mailer({"mta5.am0.yahoodns.net": script}, {"yahoo.com": ["mta5.am0.yahoodns.net"]}) as client:
        for recipient in to("yahoo.com", 10):
            assert is_accepted(await client.send(envelope(recipient), go=yes))
        assert client.closed_for_s("yahoo.com") == 0
    assert Counter(taken.connection for taken in script.taken) == {1: 3, 2: 3, 3: 3, 4: 1}


async def test_a_refused_connection_more_leaves_the_others_and_the_message_takes_one_of_them() -> None:
    greetings = iter([b"220 mx\r\n", *[b"421 4.7.0 too many connections from your address\r\n"] * 50])
    script = Script(greeting=lambda _: next(greetings), dot_delay_s=0.02)
    async with mailer({"mx.one.test": script}, {"one.test": ["mx.one.test"]}) as client:
        await all_of(client, "first@one.test")
        first = asyncio.create_task(client.send(envelope("busy@one.test"), go=yes))
        await until(lambda: any(b"busy" in line for line in script.heard))
        attempts = await all_of(client, *to("one.test", 5))
        assert all(map(is_accepted, [await first, *attempts]))
        assert {taken.connection for taken in script.taken} == {1}


async def test_a_provider_that_finds_us_too_fast_is_sent_nothing_for_a_while() -> None:
    script = Script(
        ehlo=b"250 mx\r\n", mail=b"421 4.7.28 Our system has detected an unusual rate of mail from your IP address\r\n"
    )
    async with mailer({"aspmx.l.google.com": script}, {"shop.test": ["aspmx.l.google.com"]}) as client:
        for recipient in to("shop.test", 2):
            assert isinstance(await client.send(envelope(recipient), go=yes), Reply)
        heard = len(script.heard)
        assert await client.send(envelope("late@shop.test"), go=yes) == Withheld("google is suspended: rate_limited_ip")
        assert len(script.heard) == heard
        assert 500 < client.admit("google") <= 600
        assert 500 < client.closed_for_s("shop.test") <= 600
        [standing] = client.standings()
        assert (standing.provider, standing.suspended, standing.connections) == ("google", "rate_limited_ip", 1)


async def test_a_rate_is_kept() -> None:
    own = "[provider.google]\nper_second = 2"
    async with mailer({"aspmx.l.google.com": Script()}, {"shop.test": ["aspmx.l.google.com"]}, shaping=own) as client:
        await all_of(client, "a@shop.test")
        assert client.admit("google") == 0
        assert 0 < client.admit("google") <= 0.5


async def test_an_operators_own_next_hop_is_not_shaped_unless_it_stands_for_a_provider() -> None:
    where = Endpoint("127.0.0.1", 2525)
    client = SmtpMailer(NextHops({"*": where, "gmail.com": where, "shop.test": where}), Opener(hostname="me.example"))
    groups = [client.group_of(domain) for domain in ("gmail.com", "shop.test", "hotmail.com")]
    assert groups == ["google gmail.com", "other/127.0.0.1:2525 shop.test", "other/127.0.0.1:2525 hotmail.com"]
    assert client.provider_of("hotmail.com") == "microsoft"


# ---- servers that cannot be reached


class Book:
    """An opener that remembers, and has a session only where somebody is alive."""

    def __init__(self, *alive: str, room: int = 1) -> None:
        self.alive = set(alive)
        self.room = room
        self.tried: list[str] = []
        self.sessions: list[Fake] = []
        self.text = "timed out"

    async def open(self, target: Target) -> "Fake | Reply":
        self.tried.append(target.address)
        await asyncio.sleep(0)
        if target.address not in self.alive:
            return Reply(stage="connect", text=self.text)
        self.sessions.append(Fake(self.room))
        return self.sessions[-1]

    def held_for_s(self) -> float:
        return 0.0


class Fake:
    """A session of which the test says when a transaction ends."""

    def __init__(self, depth: int) -> None:
        self.used = self.load = 0
        self.depth = depth
        self.is_open = True
        self.under_way: list[asyncio.Future[Attempt]] = []

    @property
    def room(self) -> int:
        return self.depth - self.load if self.is_open else 0

    async def send(self, envelope: Envelope, *, go: Callable[[], bool]) -> Attempt:
        del envelope, go
        self.used += 1
        self.load += 1
        self.under_way.append(asyncio.get_running_loop().create_future())
        try:
            return await self.under_way[-1]
        finally:
            self.load -= 1

    def finish(self, attempt: Attempt | None = None) -> None:
        self.under_way.pop(0).set_result(attempt or Reply(stage="dot", code=250, text="ok"))

    def rest(self, idle_s: float, then: object) -> None:
        pass

    async def quit(self) -> None:
        self.is_open = False

    def cut(self) -> None:
        self.is_open = False


def zone(*addresses: str) -> NextHops:
    records = {("one.test", "MX"): [f"{n} mx{n}.one.test." for n in range(len(addresses))]}
    records |= {(f"mx{n}.one.test", "A"): [address] for n, address in enumerate(addresses)}
    return NextHops(resolver=Zone(records))


async def test_an_address_that_is_dead_is_paid_for_once() -> None:
    book = Book("8.8.4.4")
    client = SmtpMailer(zone("8.8.8.8", "8.8.4.4"), book, shaping=Shaping("[default]\nmessages = 1"))
    for number in range(4):
        sending = asyncio.create_task(client.send(envelope("a@one.test"), go=yes))
        await until(lambda number=number: len(book.sessions) > number)  # type: ignore[misc]  # bound at once
        book.sessions[-1].finish()
        assert is_accepted(await sending)
    assert Counter(book.tried) == {"8.8.8.8": 1, "8.8.4.4": 4}


async def test_where_all_are_dead_one_is_tried_and_not_all() -> None:
    book = Book()
    client = SmtpMailer(zone("8.8.8.8", "8.8.4.4", "9.9.9.9"), book)
    for _ in range(3):
        assert isinstance(await client.send(envelope("a@one.test"), go=yes), Reply)
    assert len(book.tried) == 3 + 1 + 1


# ---- sharing sessions


async def test_an_idle_session_then_a_new_one_then_behind_another_message_then_waiting() -> None:
    book = Book("8.8.8.8", room=2)
    client = SmtpMailer(zone("8.8.8.8"), book, shaping=Shaping("[default]\nconnections = 2"))
    sending = [asyncio.create_task(client.send(envelope(one), go=yes)) for one in to("one.test", 5)]
    await until(lambda: len(book.sessions) == 2 and sum(one.load for one in book.sessions) == 4)
    assert client.capacity("other/mx0.one.test") == 4
    book.sessions[0].finish()
    await until(lambda: book.sessions[0].used == 3)
    for session in book.sessions:
        while session.under_way:
            session.finish()
    assert all(map(is_accepted, await asyncio.gather(*sending)))
    last = asyncio.create_task(client.send(envelope("late@one.test"), go=yes))
    await until(lambda: any(one.load for one in book.sessions))
    assert len(book.sessions) == 2
    next(one for one in book.sessions if one.load).finish()
    await last


async def test_messages_that_were_not_begun_on_a_session_that_closed_take_another() -> None:
    book = Book("8.8.8.8", room=2)
    client = SmtpMailer(zone("8.8.8.8"), book, shaping=Shaping("[default]\nconnections = 1"))
    sending = [asyncio.create_task(client.send(envelope(one), go=yes)) for one in to("one.test", 2)]
    await until(lambda: bool(book.sessions) and book.sessions[0].load == 2)
    book.sessions[0].is_open = False
    book.sessions[0].finish(Reply(stage="rcpt", code=421, text="4.3.2 closing"))
    book.sessions[0].finish(Reply(stage="mail", text=CUT_BEFORE))
    await until(lambda: len(book.sessions) == 2 and book.sessions[1].load == 1)
    book.sessions[1].finish()
    first, second = await asyncio.gather(*sending)
    assert isinstance(first, Reply)
    assert (first.code, is_accepted(second)) == (421, True)


async def test_fewer_connections_are_kept_to_and_more_wake_who_waits() -> None:
    book = Book("8.8.8.8")
    client = SmtpMailer(zone("8.8.8.8"), book)
    client.limit(1)
    sending = [asyncio.create_task(client.send(envelope(one), go=yes)) for one in to("one.test", 3)]
    await until(lambda: bool(book.sessions) and book.sessions[0].load == 1)
    assert len(book.sessions) == 1
    client.limit(3)
    await until(lambda: len(book.sessions) >= 2)
    while not all(task.done() for task in sending):
        for session in book.sessions:
            if session.under_way:
                session.finish()
        await asyncio.sleep(0)
    assert all(map(is_accepted, await asyncio.gather(*sending)))


# ---- what is counted, and who is woken


async def test_as_many_rest_no_more_as_it_takes_to_let_another_hop_open_one() -> None:
    book = Book("8.8.8.8", "8.8.4.4")
    records = {("one.test", "MX"): ["1 mx.one.test."], ("mx.one.test", "A"): ["8.8.8.8"]}
    records |= {("two.test", "MX"): ["1 mx.two.test."], ("mx.two.test", "A"): ["8.8.4.4"]}
    client = SmtpMailer(NextHops(resolver=Zone(records)), book)
    await rested(client, book, 3)
    client.limit(1)
    sending = asyncio.create_task(client.send(envelope("b@two.test"), go=yes))
    await until(lambda: len(book.sessions) == 4)
    await until(lambda: [one.is_open for one in book.sessions] == [False, False, False, True])
    book.sessions[3].finish()
    assert is_accepted(await sending)


async def test_everybody_who_waits_hears_that_the_provider_is_suspended() -> None:
    book = Book("8.8.8.8")
    own = "[default]\nconnections = 1\n[[default.reaction]]\non = ['rate_limited_ip']\nsuspend_s = 60"
    client = SmtpMailer(zone("8.8.8.8"), book, shaping=Shaping(own))
    sending = [asyncio.create_task(client.send(envelope(one), go=yes)) for one in to("one.test", 4)]
    await until(lambda: bool(book.sessions) and book.sessions[0].load == 1)
    book.sessions[0].finish(Reply(stage="mail", code=450, text="4.7.28 unusual rate of mail from your IP address"))
    async with asyncio.timeout(5):
        first, *others = await asyncio.gather(*sending)
    assert isinstance(first, Reply)
    assert len(book.sessions) == 1
    assert all(isinstance(one, Withheld) for one in others)


async def test_a_session_that_the_server_ends_while_it_rests_is_not_counted_any_more() -> None:
    is_enough = asyncio.Event()

    async def behave(wire: Raw) -> None:
        await wire.greet()
        await wire.until_data()
        await wire.content()
        await wire.say(b"250 2.0.0 queued\r\n")
        await is_enough.wait()

    async with raw(behave) as server:
        client = SmtpMailer(NextHops({"*": server}), Opener(hostname="me.example"))
        await all_of(client, "a@one.test")
        assert [one.sessions for one in client.standings()] == [1]
        is_enough.set()
        await until(lambda: [one.sessions for one in client.standings()] == [0])
        await client.close()


async def test_sessions_beyond_what_a_provider_bears_end_with_their_message() -> None:
    book = Book("8.8.8.8")
    own = "[[default.reaction]]\non = ['rate_limited_ip']\nconnections = 1\nfor_s = 600"
    client = SmtpMailer(zone("8.8.8.8"), book, shaping=Shaping(own))
    sending = [asyncio.create_task(client.send(envelope(one), go=yes)) for one in to("one.test", 4)]
    await until(lambda: sum(one.load for one in book.sessions) == 4)
    book.sessions[0].finish(Reply(stage="mail", code=450, text="4.7.28 unusual rate of mail from your IP address"))
    for session in book.sessions[1:]:
        session.finish()
    await asyncio.gather(*sending)
    await until(lambda: sum(one.is_open for one in book.sessions) == 1)
    assert [one.sessions for one in client.standings()] == [1]


async def test_a_message_cancelled_when_its_session_has_just_been_opened_leaves_none_behind() -> None:
    book = Book("8.8.8.8")
    client = SmtpMailer(zone("8.8.8.8"), book)
    sending = asyncio.create_task(client.send(envelope("a@one.test"), go=yes))
    while not book.sessions:  # noqa: ASYNC110 - that very turn of the loop
        await asyncio.sleep(0)
    sending.cancel()  # the opener has answered, and the message has not heard of it yet
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert not book.sessions[0].under_way
    assert not book.sessions[0].is_open
    assert [one.sessions for one in client.standings()] == [0]


def test_groups_that_have_been_in_trouble_are_forgotten_like_all_others() -> None:
    pools = Pools(Shaping(), most=10)
    for number in range(100):
        hop = pools.hop(NextHop(f"mx{number}.test", (Target(f"mx{number}.test", "8.8.8.8", 25),)))
        hop.group.heard(Reply(stage="mail", code=421, text="4.7.0 too many connections"), float(number))
    assert len(pools.hops) == 10
    assert len(pools.groups) <= 20


def test_many_that_fail_at_the_same_time_count_as_one() -> None:
    dead = DeadAddresses()
    for _ in range(5):
        dead.failed("8.8.8.8", 100.0)
    assert dead.until("8.8.8.8") == 160.0
    dead.failed("8.8.8.8", 110.0)  # one that was tried because there is no other
    assert dead.until("8.8.8.8") == 110.0 + 120.0


async def rested(client: SmtpMailer, book: Book, count: int) -> None:
    """Open so many sessions to one.test, and let them rest."""
    sending = [asyncio.create_task(client.send(envelope(one), go=yes)) for one in to("one.test", count)]
    await until(lambda: sum(one.load for one in book.sessions) == count)
    for session in book.sessions:
        session.finish()
    await asyncio.gather(*sending)


def test_a_next_hop_with_encryption_is_the_same_value_for_many_messages() -> None:
    pools = Pools(Shaping(), most=10)
    found = NextHop("mx.test", (Target("mx.test", "8.8.8.8", 25),))
    encrypted = pools.encrypted(found)
    assert encrypted == found.at_least(ENCRYPT)
    assert pools.encrypted(found) is encrypted
    assert pools.encrypted(encrypted) is encrypted


async def test_what_a_rule_in_dry_run_would_have_decided_is_counted_and_not_done() -> None:
    own = (
        '[[rule]]\nid = "gone"\nclass = 5\nany = ["partner is gone"]\ncategory = "invalid_recipient"\ndry_run = true\n'
    )
    put_in_force(RuleBook(shipped_text(), own))
    try:
        script = Script(rcpt=b"550 5.7.1 partner is gone\r\n")
        async with mailer({"mx.own.test": script}, {"own.test": ["mx.own.test"]}) as one:
            attempt = await one.send(envelope("ann@own.test"), go=yes)
            assert isinstance(attempt, Reply)
            assert attempt.code == 550
            assert dict(one.dry_runs()) == {("gone", "invalid_recipient"): 1}
    finally:
        put_in_force(None)

"""Which message is next: in its time, in its group's turn, and never so that one group holds up the others."""

import asyncio
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from schemas.sending import OutboundMessage
from smtp.sending.backlog import Backlog, Held, Job, Lane
from smtp.sending.done import id_hash
from smtp.sending.memory import Memory
from tests.smtp.servers import until


class Known:
    """What is known of mail servers, said by the test: a domain's group is the domain's first label."""

    def __init__(self) -> None:
        self.waits: dict[str, float] = {}
        self.takes: dict[str, int] = {}
        self.unknown: set[str] = set()
        self.answers = asyncio.Event()
        self.is_alone = False
        self.asked: Counter[str] = Counter()

    def group_of(self, domain: str) -> str | None:
        return None if domain in self.unknown else domain.partition(".")[0]

    async def look_up(self, domain: str) -> None:
        self.asked[domain] += 1
        await self.answers.wait()
        self.unknown.discard(domain)

    def admit(self, group: str) -> float:
        self.asked[group] += 1
        return self.waits.get(group, 0.0)

    def capacity(self, group: str) -> int:
        return self.takes.get(group, 1000)


class Shelf:
    """A backlog, and what it has put off."""

    def __init__(self) -> None:
        self.known = Known()
        self.put_off: list[tuple[str, int]] = []
        self.backlog = Backlog(self.known, later=lambda job, due: self.put_off.append((job.message_id, due)))
        self.out: list[Job] = []

    def put(self, *names: str, domain: str = "a.example", due: int = 0, lane: Lane | None = None) -> None:
        for name in names:
            self.backlog.put(job(name, lane or Lane(0, "t", Memory()), domain), due=due, now=0)

    def take(self, now: int = 0, *, workers: int = 40) -> str | None:
        taken = self.backlog.take(now, workers=workers)
        if taken is None:
            return None
        self.out.append(taken)
        return taken.message_id

    def take_all(self, *, workers: int = 40) -> list[str]:
        return list(iter(lambda: self.take(workers=workers), None))

    def give_back(self, name: str) -> None:
        found = next(one for one in self.out if one.message_id == name)
        self.out.remove(found)
        self.backlog.give_back(found)


def job(name: str, lane: Lane, domain: str) -> Job:
    message = OutboundMessage(message_id=name, address=f"{name}@{domain}", address_hash="h")
    return Job(
        lane=lane,
        held=Held(0, 1),
        message=message,
        content="c",
        key=id_hash(name),
        domain=domain,
        starts_at=0,
        expires_at=None,
    )


def names(prefix: str, count: int) -> list[str]:
    return [f"{prefix}{number}" for number in range(count)]


async def test_messages_come_in_order_and_not_before_their_time() -> None:
    shelf = Shelf()
    shelf.put("late", due=200)
    shelf.put("first")
    shelf.put("soon", due=150)
    assert [shelf.take(at) for at in (100, 100, 150, 199, 200)] == ["first", None, "soon", None, "late"]


async def test_groups_take_turns() -> None:
    shelf = Shelf()
    shelf.put("a1", "a2", "a3")
    shelf.put("b1", domain="b.example")
    shelf.put("c1", "c2", domain="c.example")
    assert shelf.take_all() == ["a1", "b1", "c1", "a2", "c2", "a3"]


async def test_no_group_holds_more_than_three_quarters_of_what_the_others_leave() -> None:
    shelf = Shelf()
    for group in "abcd":
        shelf.put(*names(group, 100), domain=f"{group}.example")
        shelf.take_all()
    assert Counter(one.group for one in shelf.out) == {"a": 30, "b": 7, "c": 2, "d": 1}


async def test_a_group_that_is_alone_has_everything() -> None:
    shelf = Shelf()
    shelf.known.is_alone = True
    shelf.put(*names("a", 100))
    assert len(shelf.take_all()) == 40


async def test_a_group_has_no_more_in_hand_than_its_servers_take() -> None:
    shelf = Shelf()
    shelf.known.takes["a"] = 2
    shelf.put("a1", "a2", "a3")
    shelf.put("b1", domain="b.example")
    assert shelf.take_all() == ["a1", "b1", "a2"]
    shelf.give_back("a1")
    assert shelf.take_all() == ["a3"]


async def test_a_group_that_is_full_costs_nothing_while_others_go_on() -> None:
    shelf = Shelf()
    shelf.known.takes["a"] = 1
    shelf.put(*names("a", 1000))
    shelf.put(*names("b", 30), domain="b.example")
    for _ in range(31):
        shelf.take()
    assert shelf.known.asked["a"] == 1


async def test_a_group_that_is_closed_waits_and_comes_back() -> None:
    shelf = Shelf()
    shelf.known.waits["a"] = 5.0
    shelf.put("a1", "a2")
    shelf.put("b1", domain="b.example")
    assert shelf.take_all() == ["b1"]
    assert [shelf.take(4_999), shelf.known.asked["a"]] == [None, 1]
    shelf.known.waits.clear()
    assert [shelf.take(5_000), shelf.take(5_000)] == ["a1", "a2"]
    assert shelf.put_off == []


async def test_what_waits_for_a_suspended_provider_waits_elsewhere() -> None:
    shelf = Shelf()
    shelf.known.waits["a"] = 7200.0
    shelf.put("a1", "a2")
    assert shelf.take() is None
    assert shelf.put_off == [("a1", 7_200_000), ("a2", 7_200_000)]
    shelf.known.waits.clear()
    assert shelf.take(8_000_000) is None


async def test_what_a_slow_group_will_not_need_soon_makes_room() -> None:
    shelf = Shelf()
    shelf.known.takes["a"] = 1
    shelf.put(*names("a", 500))
    shelf.put(*names("b", 300), domain="b.example")
    while (name := shelf.take()) is not None:
        if name.startswith("b"):
            shelf.give_back(name)
    assert shelf.backlog.put_off_slow(0, since_s=5.0) == 500 - 1 - 124  # 100, and 120 s of one message in 5 s
    assert shelf.put_off[0] == ("a125", 620_000)
    assert {due for _, due in shelf.put_off[300:]} == {1_800_000}
    shelf.give_back("a0")
    assert shelf.take() == "a1"


async def test_nothing_is_put_off_while_every_worker_is_busy() -> None:
    shelf = Shelf()
    shelf.put(*names("a", 500))
    for _ in range(20):
        shelf.take()
    assert shelf.backlog.put_off_slow(0, since_s=5.0) == 0


async def test_nothing_is_put_off_because_there_was_nothing_to_do_before() -> None:
    shelf = Shelf()
    assert shelf.take() is None
    shelf.put(*names("a", 500))
    for _ in range(20):
        shelf.take()
    assert shelf.backlog.put_off_slow(0, since_s=5.0) == 0


async def test_name_servers_that_do_not_answer_hold_nobody() -> None:
    shelf = Shelf()
    shelf.known.unknown |= {"slow.example", "slower.example"}
    shelf.put("s1", "s2", domain="slow.example")
    shelf.put("t1", domain="slower.example")
    shelf.put("a1")
    assert shelf.take_all() == ["a1"]
    await until(lambda: shelf.known.asked["slow.example"] == 1)
    shelf.known.answers.set()
    await until(lambda: not shelf.known.unknown)
    await asyncio.sleep(0)
    assert shelf.take_all() == ["s1", "t1", "s2"]
    assert shelf.known.asked["slow.example"] == 1
    await shelf.backlog.close()


async def test_a_message_that_was_not_tried_is_next_again() -> None:
    shelf = Shelf()
    shelf.put("a1", "a2")
    assert shelf.take() == "a1"
    shelf.backlog.put_back(shelf.out[0])
    shelf.give_back("a1")
    assert shelf.take_all() == ["a1", "a2"]


async def test_a_partition_that_is_given_up_takes_its_messages_along() -> None:
    shelf, going, staying = Shelf(), Lane(0, "t", Memory()), Lane(1, "t", Memory())
    shelf.known.unknown.add("b.example")
    shelf.put("out", "waits", lane=going)
    shelf.put("later", lane=going, due=10)
    shelf.put("nowhere", domain="b.example", lane=going)
    assert shelf.take() == "out"
    shelf.put("kept", domain="c.example", lane=staying)
    going.is_closing = True
    shelf.backlog.drop([going])
    shelf.backlog.put_back(shelf.out[0])
    shelf.backlog.put(shelf.out[0], due=5, now=0)
    shelf.give_back("out")
    shelf.known.answers.set()
    await until(lambda: not shelf.known.unknown)
    assert [shelf.take(100), shelf.take(100)] == ["kept", None]
    await shelf.backlog.close()


async def test_whoever_waits_is_woken_by_what_comes_and_by_what_becomes_due() -> None:
    shelf = Shelf()
    waiting = asyncio.create_task(shelf.backlog.wait(0, at_most_s=30))
    await asyncio.sleep(0)
    shelf.put("a")
    await asyncio.wait_for(waiting, 1)
    shelf.put("b", due=20)
    await asyncio.wait_for(shelf.backlog.wait(0, at_most_s=30), 1)


async def test_a_group_that_must_wait_a_moment_is_somebodys_to_wait_for() -> None:
    shelf = Shelf()
    shelf.known.waits["a"] = 0.05
    shelf.put("a1")
    shelf.put("b1", domain="b.example")
    waiting = asyncio.create_task(shelf.backlog.wait(0, at_most_s=30))
    await asyncio.sleep(0)
    assert shelf.take() == "b1"  # by a worker that is busy now
    async with asyncio.timeout(5):
        await waiting


async def test_a_waiter_that_is_cancelled_leaves_its_turn_to_others() -> None:
    shelf = Shelf()
    first, second = (asyncio.create_task(shelf.backlog.wait(0, at_most_s=30)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    shelf.put("a")
    await asyncio.wait_for(second, 1)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from("abcd")),
        st.tuples(st.just("take"), st.just("")),
        st.tuples(st.just("give back"), st.integers(0, 100).map(str)),
        st.tuples(st.just("put back"), st.integers(0, 100).map(str)),
    ),
    max_size=120,
)


@given(steps=steps, workers=st.integers(1, 12), takes=st.dictionaries(st.sampled_from("abcd"), st.integers(1, 4)))
def test_every_message_comes_out_once_and_none_is_forgotten(
    steps: list[tuple[str, str]], workers: int, takes: dict[str, int]
) -> None:
    async def run() -> None:
        shelf = Shelf()
        shelf.known.takes = takes
        put, done = 0, []
        for what, which in steps:
            if what == "put":
                shelf.put(f"{which}-{put}", domain=f"{which}.example")
                put += 1
            elif what == "take" and len(shelf.out) < workers:
                shelf.take(workers=workers)
            elif shelf.out:
                one = shelf.out[int(which or 0) % len(shelf.out)]
                if what == "put back":
                    shelf.backlog.put_back(one)
                else:
                    done.append(one.message_id)
                shelf.give_back(one.message_id)
        while True:  # everybody gives back and takes again until nothing is left
            for one in list(shelf.out):
                done.append(one.message_id)
                shelf.give_back(one.message_id)
            if not shelf.take_all(workers=workers):
                break
        assert sorted(done) == sorted(set(done))
        assert len(done) == put

    asyncio.run(run())

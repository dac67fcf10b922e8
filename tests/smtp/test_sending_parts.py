"""The parts of a sender that decide something on their own: memory, gate, pace, backlog, outcomes."""

import itertools
import random
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.tokens import Keys
from schemas.delivery import FINAL, DeliveryResult, LedgerEntry, OffsetRange
from schemas.reputation import Control
from schemas.sending import Campaign, Content, InDoubt, Mailbox, OutboundMessage, Pace
from smtp.attempts import Envelope, Impossible, Reply, Uncertain
from smtp.messages import Unsendable
from smtp.sending.backlog import Held, Job, Lane, covered
from smtp.sending.compose import Composer
from smtp.sending.done import DoneIds, id_hash
from smtp.sending.gate import Gate
from smtp.sending.memory import WITHHELD, Memory
from smtp.sending.outcomes import Known, Terms, result_of
from smtp.sending.pace import Bucket
from tests.smtp.doubles import MemoryBoard, MovedClock

NOW = 1_764_000_000_000


# Ids that are done.


@given(ids=st.lists(st.text(max_size=20), max_size=400), others=st.lists(st.text(max_size=20), max_size=50))
def test_done_ids_are_a_set(ids: list[str], others: list[str]) -> None:
    done = DoneIds()
    for one in ids:
        done.add(id_hash(one))
    assert len(done) == len(set(ids))
    assert all(id_hash(one) in done for one in ids)
    assert [id_hash(one) in done for one in others] == [one in set(ids) for one in others]


def test_neighbouring_hashes_do_not_hide_each_other() -> None:
    done = DoneIds()
    keys = [0x100 * n + 7 for n in range(1, 3000)]  # all in one shard, one after the other
    for key in keys:
        done.add(key)
    assert all(key in done for key in keys)
    assert 0x100 * 3000 + 7 not in done


def test_a_million_ids_fit_into_forty_megabytes() -> None:
    done = DoneIds()
    chance = random.Random(1)
    for _ in range(1_000_000):
        done.add(chance.getrandbits(64) or 1)
    assert len(done) == 1_000_000
    assert sum(map(sys.getsizeof, done._tables)) < 40_000_000


# The memory of a ledger.


def entry(*, intents: list[str] = [], results: list[DeliveryResult] = [], published: int = -1) -> LedgerEntry:  # noqa: B006
    return LedgerEntry(sender="s", at=1, intents=intents, results=results, published=published)


def result(name: str, outcome: str = "accepted", **fields: object) -> DeliveryResult:
    return DeliveryResult(message_id=name, outcome=outcome, at=5, **fields)  # type: ignore[arg-type]


def recalled(*entries: LedgerEntry) -> Memory:
    memory = Memory()
    for offset, one in enumerate(entries):
        memory.apply(offset, one)
    return memory


def test_an_intent_without_a_result_is_in_doubt() -> None:
    memory = recalled(entry(intents=["a", "b"]), entry(results=[result("a")]))
    assert memory.doubtful == {id_hash("b")}
    assert id_hash("a") in memory.done
    assert memory.next_offset == 2


@pytest.mark.parametrize("outcome", sorted(FINAL))
def test_a_final_result_is_the_end_of_it(outcome: str) -> None:
    memory = recalled(entry(intents=["a"]), entry(results=[result("a", outcome)]), entry(intents=["a"]))
    assert id_hash("a") in memory.done
    assert not memory.doubtful


def test_a_deferral_is_remembered_until_the_message_is_final() -> None:
    deferred = result("a", "deferred", attempt=2, next_attempt_at=99)
    memory = recalled(entry(intents=["a"]), entry(results=[deferred]))
    assert memory.attempts == {id_hash("a"): (2, 99)}
    assert not memory.doubtful
    memory.apply(2, entry(intents=["a"]))
    memory.apply(3, entry(results=[result("a")]))
    assert not memory.attempts


def test_an_intent_that_was_withheld_is_as_if_it_had_not_been() -> None:
    withheld = result("a", "deferred", attempt=0, class_=WITHHELD)
    memory = recalled(entry(intents=["a"]), entry(results=[withheld]))
    assert not memory.doubtful
    assert not memory.attempts
    assert id_hash("a") not in memory.done


def test_the_published_mark_never_goes_back() -> None:
    assert recalled(entry(published=7), entry(published=3), entry()).published == 7


# The gate.


class Scene:
    def __init__(self) -> None:
        self.board = MemoryBoard()
        self.board.campaigns["c"] = Campaign(
            campaign="c", from_=Mailbox(address="a@b.example"), return_path_domain="b.example", pace=Pace(connections=8)
        )
        self.gate = Gate("c", self.board, MovedClock(), deaf_after_s=5)

    def control(self, *, epoch: int, may_send: bool = True, pace: Pace = Pace()) -> None:  # noqa: B008
        self.board.controls["c"] = Control(
            campaign="c", epoch=epoch, may_send=may_send, pace=pace, state="paused", reason="r", at=1
        )


def test_the_gate_is_closed_until_control_opens_it() -> None:
    scene = Scene()
    assert scene.gate.closed() == "no_control"
    scene.control(epoch=1)
    assert scene.gate.closed() is None


def test_the_newest_epoch_wins_in_whatever_order_they_come() -> None:
    scene = Scene()
    scene.control(epoch=5, may_send=False)
    assert scene.gate.closed() == "paused"
    scene.control(epoch=4, may_send=True)
    assert scene.gate.closed() == "paused"
    scene.control(epoch=6, may_send=True)
    assert scene.gate.closed() is None
    assert scene.gate.epoch == 6


def test_the_same_epoch_may_change_the_pace() -> None:
    scene = Scene()
    scene.control(epoch=5, pace=Pace(per_second=10))
    assert scene.gate.closed() is None
    scene.control(epoch=5, pace=Pace(per_second=2))
    assert scene.gate.closed() is None
    assert scene.gate.per_second == 2


def test_the_slower_pace_and_the_fewer_connections_hold() -> None:
    scene = Scene()
    scene.control(epoch=1, pace=Pace(per_second=3, connections=50))
    scene.gate.closed()
    assert (scene.gate.per_second, scene.gate.connections) == (3, 8)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda board: setattr(board, "is_deaf", True), "deaf"),
        (lambda board: board.controls.clear(), "no_control"),
        (lambda board: board.campaigns.clear(), "no_campaign"),
    ],
    ids=["deaf", "control withdrawn", "campaign withdrawn"],
)
def test_what_closes_an_open_gate(spoil: object, reason: str) -> None:
    scene = Scene()
    scene.control(epoch=1)
    assert scene.gate.closed() is None
    spoil(scene.board)  # type: ignore[operator]
    assert scene.gate.closed() == reason


# The pace.


@given(per_second=st.floats(0.5, 5000), waits=st.lists(st.floats(0, 0.5), min_size=1, max_size=200))
def test_no_window_holds_more_than_the_pace_and_its_burst(per_second: float, waits: list[float]) -> None:
    bucket, now, gone = Bucket(), 1000.0, 0
    for wait in waits:
        now += wait
        while bucket.take(per_second=per_second, now_s=now) == 0.0:
            gone += 1
            assert gone < 10_000
    assert gone <= (now - 1000.0) * per_second + 2 * max(1.0, per_second * 0.1) + 1


@given(per_second=st.floats(0.5, 5000))
def test_after_the_time_it_names_the_turn_has_come(per_second: float) -> None:
    bucket, now = Bucket(), 1000.0
    while (wait := bucket.take(per_second=per_second, now_s=now)) == 0.0:
        pass
    assert bucket.take(per_second=per_second, now_s=now + wait + 1e-6) == 0.0


def test_no_pace_is_no_limit() -> None:
    bucket = Bucket()
    assert [bucket.take(per_second=0, now_s=1.0) for _ in range(1000)] == [0.0] * 1000


# What is covered.


def job(name: str, lane: Lane, *, held: Held | None = None, domain: str = "a.example") -> Job:
    message = OutboundMessage(message_id=name, address=f"{name}@{domain}", address_hash="h")
    return Job(
        lane=lane,
        held=held or Held(0, 1),
        message=message,
        content="c",
        key=id_hash(name),
        domain=domain,
        starts_at=0,
        expires_at=None,
    )


def lane(partition: int = 0) -> Lane:
    return Lane(partition, "t", Memory())


@given(sizes=st.lists(st.integers(0, 3), max_size=12), seed=st.integers(0, 1000))
def test_the_watermark_is_below_the_first_frame_that_is_not_final(sizes: list[int], seed: int) -> None:
    one = lane()
    jobs = []
    for offset, size in enumerate(sizes):
        held = one.hold(offset, size)
        jobs += [job(f"{offset}-{n}", one, held=held) for n in range(size)]
    random.Random(seed).shuffle(jobs)
    for done in range(len(jobs) + 1):
        unfinished = {waiting.held.offset for waiting in jobs[done:]}
        expected = min(unfinished) if unfinished else len(sizes)
        assert max(one.watermark, 0) == (expected if any(o < expected for o in range(len(sizes))) else 0)
        if done < len(jobs):
            one.finish(jobs[done])


@given(offsets=st.lists(st.integers(0, 40), max_size=30))
def test_covered_offsets_are_whole_runs(offsets: list[int]) -> None:
    one = lane(3)
    ranges = covered(job(str(n), one, held=Held(offset, 1)) for n, offset in enumerate(offsets))
    assert [offset for run in ranges for offset in range(run.from_, run.to + 1)] == sorted(set(offsets))
    assert all(isinstance(run, OffsetRange) and (run.topic, run.partition) == ("t", 3) for run in ranges)
    assert all(left.to + 1 < right.from_ for left, right in itertools.pairwise(ranges))


# Outcomes.


def concluded(
    attempt: Reply | Uncertain | Impossible,
    *,
    number: int = 1,
    in_doubt: InDoubt = "hold",
    expires_at: int | None = None,
    starts_at: int = NOW,
) -> DeliveryResult:
    known = Known(message_id="m", address_hash="h", number=number, provider="other", now=NOW)
    terms = Terms(starts_at=starts_at, expires_at=expires_at, max_age_s=172_800, in_doubt=in_doubt)
    return result_of(attempt, known, terms=terms, jitter=0.0)


@pytest.mark.parametrize(
    ("attempt", "outcome", "category"),
    [
        (Reply(stage="dot", code=250, text="ok"), "accepted", None),
        (Reply(stage="rcpt", code=550, enhanced="5.1.1", text="5.1.1 unknown"), "bounced", "invalid_recipient"),
        (Reply(stage="rcpt", code=450, enhanced="4.2.0", text="4.2.0 greylisted"), "deferred", "greylisted"),
        (Reply(stage="connect", text="refused"), "deferred", "connection"),
        (Reply(stage="resolve", text="no answer"), "deferred", "dns_routing"),
        (Impossible(category="bad_domain", text="null MX"), "bounced", "bad_domain"),
        (Impossible(category="smtputf8_unsupported", text="no"), "bounced", "smtputf8_unsupported"),
        (Uncertain(text="lost"), "in_doubt", "uncertain"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_answer_has_its_outcome(
    attempt: Reply | Impossible | Uncertain, outcome: str, category: str | None
) -> None:
    found = concluded(attempt)
    assert (found.outcome, found.class_) == (outcome, category)
    assert (found.next_attempt_at is not None) == (outcome == "deferred")


def test_an_uncertain_attempt_of_a_campaign_that_resends_is_tried_again() -> None:
    assert concluded(Uncertain(text="lost"), in_doubt="resend").outcome == "deferred"


def test_a_next_attempt_that_would_come_too_late_is_none() -> None:
    refused = Reply(stage="rcpt", code=450, enhanced="4.2.0", text="4.2.0 greylisted")
    assert concluded(refused, expires_at=NOW + 60_000).outcome == "expired"
    assert concluded(refused, starts_at=NOW - 172_000_000).outcome == "deferred"
    assert concluded(refused, starts_at=NOW - 172_700_000).outcome == "expired"
    assert concluded(refused, starts_at=NOW - 172_700_000).class_ == "greylisted"


@pytest.mark.parametrize(
    ("starts_at", "expires_at", "expired"),
    [
        (NOW, None, False),
        (NOW, NOW, True),
        (NOW, NOW + 1, False),
        (NOW - 172_800_000, None, True),
        (NOW + 5, None, False),
    ],
)
def test_when_a_message_is_too_old(starts_at: int, expires_at: int | None, expired: bool) -> None:
    terms = Terms(starts_at=starts_at, expires_at=expires_at, max_age_s=172_800, in_doubt="hold")
    assert terms.has_expired(NOW) is expired


# Composing.

KEYS = Keys(address=b"a" * 32, return_path=b"r" * 32)
CAMPAIGN = Campaign(campaign="c", from_=Mailbox(address="news@shop.example"), return_path_domain="b.shop.example")


def composed(campaign: Campaign = CAMPAIGN, *, now: int = NOW, **content: str) -> Envelope | Unsendable:
    board = MemoryBoard()
    fields = {"subject": "Hello {{name}}", "text": "Dear {{name}}"} | content
    board.content(Content(campaign="c", content="x", **fields))
    message = OutboundMessage(message_id="m-1", address="ann@example.com", address_hash="h", vars={"name": "Ann"})
    return Composer(KEYS).envelope(message, campaign=campaign, template=board.templates["c", "x"], now=now)


def message_id_of(envelope: Envelope | Unsendable) -> bytes:
    assert isinstance(envelope, Envelope)
    return next(line for line in envelope.data.split(b"\r\n") if line.startswith(b"Message-ID:"))


def test_every_attempt_has_the_same_message_id() -> None:
    assert message_id_of(composed()) == message_id_of(composed(now=NOW + 86_400_000))


def test_a_content_that_became_unusable_is_told() -> None:
    refused = composed(text="{{ 7*7 }}")
    assert isinstance(refused, Unsendable)
    assert refused.reason == "bad_content"
    assert "field text" in refused.explain


def test_a_return_path_domain_that_is_none_is_told() -> None:
    bad = Campaign(campaign="c", from_=Mailbox(address="news@shop.example"), return_path_domain="no domain>")
    refused = composed(bad)
    assert isinstance(refused, Unsendable)
    assert refused.reason == "bad_campaign"

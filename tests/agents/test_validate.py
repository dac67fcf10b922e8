import json
from typing import Any

import msgspec
import pytest

from agents import validate as module
from agents.ports import now_ms
from agents.route import Route
from agents.validate import MAX_HEADERS_BYTES, Validate
from policy.naming import held_key, outbound_topic
from policy.routing import partition_of
from policy.tokens import Keys, address_hash
from policy.traps import TrapFact
from schemas.codec import encode
from schemas.reputation import Control
from schemas.sending import AdmissionPolicy, HeldMessage, OutboundFrame, Pace, Refused
from schemas.topics import DEAD_LETTERS, HELD, REFUSED
from streams.metrics import Metrics
from tests.agents.doubles import Arrived, Knowledge, Outbox, Topics, campaign, content

KEYS = Keys(address=b"a" * 32, return_path=b"r" * 32)
OUTBOUND = outbound_topic("spring")


class Bench:
    def __init__(self, *, known: Knowledge | None = None, topics: Topics | None = None, **more: Any) -> None:
        self.out = Outbox()
        self.known = known or Knowledge()
        if known is None:
            self.known.learn(campaign())
            self.known.learn(content())
        self.validate = Validate(
            known=self.known,
            outlet=self.out,
            route=Route(self.out, topics or Topics()),
            keys=KEYS,
            metrics=Metrics(),
            **more,
        )

    async def handle(self, value: Any, **fields: Any) -> None:
        raw = value if isinstance(value, bytes | None) else json.dumps(value).encode()
        await self.validate.handle(Arrived(raw, **fields))

    @property
    def admitted(self) -> list[str]:
        return [message.message_id for frame in self.out.to(OUTBOUND) for message in frame.messages]

    @property
    def refused(self) -> list[Refused]:
        return self.out.to(REFUSED)


def request(*recipients: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {
        "v": 1,
        "request_id": "r-1",
        "campaign": "spring",
        "content": "hello",
        "recipients": list(recipients) or [ann()],
        **fields,
    }


def ann(number: int = 1, **fields: Any) -> dict[str, Any]:
    return {"message_id": f"m-{number}", "address": f"ann{number}@example.org", "vars": {"name": "Ann"}, **fields}


async def test_every_message_goes_into_the_partition_of_its_id() -> None:
    bench = Bench()

    await bench.handle(request(*(ann(number) for number in range(50))))

    frames = [one for one in bench.out.sent if one.topic == OUTBOUND]
    assert len(frames) == 4
    for one in frames:
        assert isinstance(one.record, OutboundFrame)
        assert {partition_of(message.message_id, 4) for message in one.record.messages} == {one.partition}
    assert sorted(bench.admitted) == sorted(f"m-{number}" for number in range(50))


async def test_headers_are_passed_on() -> None:
    bench = Bench()

    await bench.handle(request(ann(1), ann(2, address="nobody")), headers=(("trace", b"abc"),))

    assert {one.topic for one in bench.out.sent} == {OUTBOUND, REFUSED}
    assert all(one.headers == (("trace", b"abc"),) for one in bench.out.sent)


async def test_what_arrives_while_we_wait_is_not_unknown() -> None:
    bench = Bench(known=Knowledge(arriving=[campaign(), content()]))

    await bench.handle(request())

    assert bench.admitted == ["m-1"]
    assert bench.known.waits == 1


async def test_who_is_known_is_not_waited_for() -> None:
    bench = Bench()

    await bench.handle(request())

    assert bench.known.waits == 0


@pytest.mark.parametrize(
    ("value", "reason", "request_id"),
    [
        pytest.param(b"{", "not_json", None, id="no JSON"),
        pytest.param(None, "empty", None, id="no value"),
        pytest.param({**request(), "v": 2}, "unknown_version", "r-1", id="unknown version"),
        pytest.param({**request(), "recipients": "ann"}, "wrong_field", "r-1", id="wrong field"),
        pytest.param({**request(), "campaign": "x" * 129}, "wrong_field", "r-1", id="overlong campaign"),
        pytest.param({**request(), "request_id": "x" * 900_000}, "wrong_field", None, id="overlong request id"),
        pytest.param(b" " * 2_000_000, "too_large", None, id="two megabytes"),
    ],
)
async def test_what_cannot_be_read_is_kept_and_answered(value: Any, reason: str, request_id: str | None) -> None:
    bench = Bench()

    await bench.handle(value, partition=3, offset=17)

    (letter,) = bench.out.to(DEAD_LETTERS)
    assert (letter.topic, letter.partition, letter.offset, letter.reason) == ("mail.send.requests", 3, 17, reason)
    (refused,) = bench.refused
    assert (refused.stage, refused.reason, refused.request_id, refused.message_id) == (
        "decode",
        reason,
        request_id,
        None,
    )
    assert len(refused.explain) > 20
    assert all(len(encode(one.record)) < 1_000_000 for one in bench.out.sent if one.topic == REFUSED)


async def test_headers_without_measure_are_not_passed_on() -> None:
    bench = Bench()

    await bench.handle(request(), headers=(("trace", b"x" * MAX_HEADERS_BYTES),))

    assert bench.admitted == []
    (refused,) = bench.refused
    assert refused.reason == "too_large"
    assert "headers" in refused.explain
    assert [one.record.reason for one in bench.out.sent if one.topic == DEAD_LETTERS] == ["too_large"]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        pytest.param(ann(2, address="ann@example.org\r\nBcc: x@example.org"), "bad_address", id="CR LF"),
        pytest.param(ann(2, vars={}), "missing_variable", id="missing variable"),
        pytest.param(ann(2, vars={"name": "Ann\r\nBcc: x@example.org"}), "bad_variable", id="header injection"),
        pytest.param({**ann(2), "address": 5}, "wrong_field", id="no text"),
    ],
)
async def test_a_bad_recipient_does_not_take_its_neighbours_along(bad: dict[str, Any], reason: str) -> None:
    bench = Bench()

    await bench.handle(request(ann(1), bad, ann(3)))

    assert sorted(bench.admitted) == ["m-1", "m-3"]
    (refused,) = bench.refused
    assert refused.reason == reason


async def test_an_overlong_message_id_leaves_a_refusal_that_fits() -> None:
    bench = Bench()

    await bench.handle(request(ann(1), ann(2, message_id="x" * 900_000)))

    (refused,) = bench.refused
    assert refused.message_id is None
    assert bench.admitted == ["m-1"]


async def test_a_replayed_request_is_judged_as_of_the_time_at_which_it_was_made() -> None:
    """After a crash it comes again, and by then its own bounce may have left a suppression behind."""
    bench = Bench()

    await bench.handle(request(ann(1), expires_at=1_700_000_000_500), timestamp=1_700_000_000.0)

    assert bench.known.asked_as_of == 1_700_000_000_000
    assert bench.admitted == ["m-1"]


async def test_a_suppressed_address_gets_no_mail() -> None:
    bench = Bench()
    bench.known.reasons[address_hash(KEYS, "ann2@example.org")] = "complaint"

    await bench.handle(request(ann(1), ann(2)))

    assert bench.admitted == ["m-1"]
    assert [(one.message_id, one.reason) for one in bench.refused] == [("m-2", "suppressed")]


async def test_a_retired_campaign_gets_no_mail_on_its_way() -> None:
    bench = Bench()
    bench.known.controls["spring"] = Control(
        campaign="spring", epoch=9, may_send=False, pace=Pace(), state="retired", reason="over", at=1
    )

    await bench.handle(request(ann(1), ann(2)))

    assert bench.admitted == []
    assert [(one.message_id, one.reason) for one in bench.refused] == [
        ("m-1", "retired_campaign"),
        ("m-2", "retired_campaign"),
    ]


async def test_a_topic_that_the_broker_refuses_is_an_answer() -> None:
    bench = Bench(topics=Topics(refuses=True))

    await bench.handle(request(ann(1), ann(2)))

    assert [(one.message_id, one.stage, one.reason) for one in bench.refused] == [
        ("m-1", "route", "no_topic"),
        ("m-2", "route", "no_topic"),
    ]


async def test_our_own_failure_is_a_dead_letter_and_the_next_event_is_handled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench()
    sound = module.admit

    def fails(asked: Any, **fields: Any) -> Any:
        if asked.request.request_id == "cursed":
            raise ZeroDivisionError("a bug")
        return sound(asked, **fields)

    monkeypatch.setattr(module, "admit", fails)
    await bench.handle(request(request_id="cursed"))
    await bench.handle(request())

    (letter,) = bench.out.to(DEAD_LETTERS)
    assert letter.reason == "agent_failed"
    assert letter.explain.startswith("ZeroDivisionError in validate")
    assert bench.admitted == ["m-1"]


async def test_a_send_that_fails_ends_the_event(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()

    async def lost(*_: Any, **__: Any) -> None:
        raise ConnectionError("gone")

    monkeypatch.setattr(bench.out, "publish", lost)

    with pytest.raises(ConnectionError):
        await bench.handle(request())


def under(**admission: Any) -> Knowledge:
    known = Knowledge()
    known.learn(campaign(admission=AdmissionPolicy(**admission)))
    known.learn(content())
    return known


async def test_what_a_screen_holds_waits_under_its_message_id_with_the_headers() -> None:
    bench = Bench(known=under(typo_domain="hold"))

    await bench.handle(request(ann(1), ann(2, address="ann@gmial.com")), headers=(("trace", b"abc"),))

    assert (bench.admitted, bench.refused) == (["m-1"], [])
    (sent,) = [one for one in bench.out.sent if one.topic == HELD]
    assert (sent.key, sent.headers) == ("spring/m-2", (("trace", b"abc"),))
    assert isinstance(sent.record, HeldMessage)
    assert sent.record.reason == "typo_domain"


async def test_a_replay_holds_under_the_same_key() -> None:
    bench = Bench(known=under(typo_domain="hold"))

    for _ in range(2):
        await bench.handle(request(ann(2, address="ann@gmial.com", message_id=None)), timestamp=1_700_000_000.0)

    one, other = [one for one in bench.out.sent if one.topic == HELD]
    assert (one.key, one.record) == (other.key, other.record)


async def test_what_is_released_goes_out_with_its_flags() -> None:
    bench = Bench(known=under(typo_domain="hold", disposable="off"))
    await bench.handle(request(ann(2, address="ann@gmial.com")))
    (held,) = bench.out.to(HELD)
    (recipient,) = held.request.recipients
    released = msgspec.structs.replace(recipient, released_by="operator:ann")

    await bench.handle(encode(msgspec.structs.replace(held.request, recipients=[released])))

    assert bench.admitted == ["m-2"]
    (frame,) = bench.out.to(OUTBOUND)
    assert [message.flags for message in frame.messages] == [("typo_domain",)]
    assert len(bench.out.to(HELD)) == 1


async def test_a_known_trap_gets_no_mail() -> None:
    bench = Bench()
    bench.known.traps[address_hash(KEYS, "ann2@example.org")] = TrapFact()

    await bench.handle(request(ann(1), ann(2)))

    assert bench.admitted == ["m-1"]
    assert [(one.message_id, one.reason) for one in bench.refused] == [("m-2", "known_trap")]


async def test_a_request_that_comes_again_is_judged_as_of_its_own_time() -> None:
    """A trap that was registered after the request was made does not change what the first run said."""
    now = now_ms()
    asked_at = now - 3_600_000
    asked_of: list[int] = []
    bench = Bench(recycled=lambda hashed, at: asked_of.append(at))
    bench.known.traps[address_hash(KEYS, "ann1@example.org")] = TrapFact(since=asked_at)
    bench.known.traps[address_hash(KEYS, "ann2@example.org")] = TrapFact(since=asked_at + 1)

    await bench.handle(request(ann(1), ann(2)), timestamp=asked_at / 1000)

    assert bench.admitted == ["m-2"]
    assert bench.known.asked_as_of == asked_at
    assert set(asked_of) == {asked_at}


async def test_a_retired_campaign_holds_nothing() -> None:
    bench = Bench(known=under(typo_domain="hold"))
    bench.known.controls["spring"] = Control(
        campaign="spring", epoch=9, may_send=False, pace=Pace(), state="retired", reason="over", at=1
    )

    await bench.handle(request(ann(2, address="ann@gmial.com")))

    assert bench.out.to(HELD) == []
    assert [(one.message_id, one.reason) for one in bench.refused] == [("m-2", "retired_campaign")]


@pytest.mark.parametrize(
    ("one", "other"), [(("a/b", "c"), ("a", "b/c")), (("a%2Fb", "c"), ("a/b", "c")), (("a%", "2Fb"), ("a", "%2Fb"))]
)
def test_different_messages_never_share_a_key(one: tuple[str, str], other: tuple[str, str]) -> None:
    assert held_key(*one) != held_key(*other)

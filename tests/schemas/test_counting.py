import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.counts import booked, booked_by_source
from schemas.codec import Malformed, decode, encode
from schemas.counting import Counted, counted
from schemas.delivery import DeliveryFrame, DeliveryResult, Position

RESULTS = st.builds(
    DeliveryResult,
    message_id=st.text(min_size=1, max_size=8),
    outcome=st.sampled_from(["accepted", "accepted", "deferred", "bounced", "expired", "suppressed", "in_doubt"]),
    at=st.integers(0, 300_000),
    provider=st.sampled_from(["google", "yahoo", "other", ""]),
    ip=st.sampled_from([None, "", "192.0.2.1", "192.0.2.2"]),
    class_=st.sampled_from([None, "invalid_recipient", "reputation_ip", "no_such_category"]),
    code=st.none() | st.integers(200, 599),
    text=st.none() | st.text(max_size=20),
    address_hash=st.none() | st.just("ab" * 32),
    domain=st.sampled_from(["", "gmail.com"]),
    list_source=st.sampled_from([None, "shop", "fair"]),
)


def frame(results: list[DeliveryResult]) -> DeliveryFrame:
    ledger = Position(topic="mail.ledger.spring", partition=0, offset=7)
    return DeliveryFrame(campaign="spring", sender="spring-0", covers=[], results=results, ledger=ledger)


def read(raw: bytes) -> Counted:
    found = counted(raw)
    assert isinstance(found, Counted)
    return found


@given(st.lists(RESULTS, max_size=30))
def test_a_frame_read_for_counting_counts_as_the_whole_one(results: list[DeliveryResult]) -> None:
    short = read(encode(frame(results)))

    assert booked(short.refused, short.accepted) == booked(results)
    assert booked_by_source(short.refused, short.accepted) == booked_by_source(results)
    assert (short.campaign, short.ledger) == ("spring", frame(results).ledger)


@given(st.lists(RESULTS, max_size=30))
def test_what_was_not_accepted_is_read_whole(results: list[DeliveryResult]) -> None:
    short = read(encode(frame(results)))

    assert short.refused == [result for result in results if result.outcome != "accepted"]


@given(st.lists(RESULTS, max_size=10))
def test_what_the_past_is_asked_about_is_read(results: list[DeliveryResult]) -> None:
    short = read(encode(frame(results)))

    accepted = [result for result in results if result.outcome == "accepted"]
    assert [(one.address_hash, one.domain) for one in short.accepted] == [
        (one.address_hash, one.domain) for one in accepted
    ]


def written(result: str) -> bytes:
    return f'{{"v": 1, "campaign": "spring", "sender": "s", "covers": [], "results": [{result}]}}'.encode()


@pytest.mark.parametrize(
    "raw",
    [
        None,
        b"",
        b"[]",
        b'{"v": 2, "campaign": "spring", "sender": "s", "covers": [], "results": []}',
        b'{"v": 1, "campaign": "", "sender": "s", "covers": [], "results": []}',
        written('{"message_id": "m", "at": 1}'),
        written('{"message_id": "m", "at": -1, "outcome": "accepted"}'),
        written('{"message_id": "m", "at": 1, "outcome": "lost"}'),
        written('{"message_id": "", "at": 1, "outcome": "bounced"}'),
    ],
    ids=["none", "empty", "list", "version", "campaign", "no outcome", "time", "outcome", "message id"],
)
def test_what_is_no_frame_is_told_as_of_the_whole_record(raw: bytes | None) -> None:
    found = counted(raw)

    assert isinstance(found, Malformed)
    assert found == decode(DeliveryFrame, raw)


def test_a_field_that_is_not_counted_keeps_no_result_from_being_counted() -> None:
    raw = encode(frame([DeliveryResult(message_id="m", outcome="accepted", at=1, took_ms=41)]))

    short = read(raw.replace(b'"took_ms":41', b'"took_ms":"long"'))

    assert len(short.accepted) == 1

"""The codec: what is written is read back, and what strangers send is answered, never raised."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.base import Record
from schemas.codec import DecodedRequest, Malformed, decode, decode_feedback, decode_request, encode
from schemas.feedback import Feedback, FeedbackEvent, FeedbackFrame
from schemas.json_schema import RECORDS
from schemas.reputation import Control
from schemas.sending import Campaign, SendRequest
from tests.schemas.strategies import json_values, records

by_record = pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.__name__)

REQUEST: dict[str, Any] = {
    "v": 1,
    "request_id": "r-1",
    "campaign": "spring-sale",
    "content": "hello-1",
    "recipients": [{"address": "ann@example.com"}],
}
CAMPAIGN: dict[str, Any] = {
    "v": 1,
    "campaign": "spring-sale",
    "from": {"address": "news@shop.example"},
    "return_path_domain": "bounces.shop.example",
}
CONTROL: dict[str, Any] = {
    "v": 1,
    "campaign": "spring-sale",
    "epoch": 7,
    "may_send": False,
    "pace": {},
    "state": "isolated",
    "reason": "x",
    "at": 1,
}


@by_record
@given(data=st.data())
def test_a_record_is_read_back_as_it_was_written(record: type[Record], data: st.DataObject) -> None:
    written = data.draw(records(record))

    assert decode(record, encode(written), max_bytes=10**9) == written


@by_record
@given(raw=st.binary(max_size=200))
def test_arbitrary_bytes_are_answered(record: type[Record], raw: bytes) -> None:
    answer = decode(record, raw)

    assert isinstance(answer, Malformed | record)


@by_record
@given(value=st.dictionaries(st.sampled_from(["v", "campaign", "kind", "at", "recipients", "results"]), json_values()))
def test_arbitrary_json_is_answered(record: type[Record], value: dict[str, Any]) -> None:
    answer = decode(record, json.dumps(value).encode())

    assert isinstance(answer, Malformed | record)


@given(raw=st.binary(max_size=200) | json_values().map(lambda value: json.dumps(value).encode()))
def test_requests_and_feedback_never_raise(raw: bytes) -> None:
    assert isinstance(decode_request(raw), Malformed | DecodedRequest)
    assert isinstance(decode_feedback(raw), Malformed | list)


@by_record
@given(data=st.data(), cut=st.integers(0, 400), byte=st.integers(0, 255))
def test_a_damaged_record_is_answered(record: type[Record], data: st.DataObject, cut: int, byte: int) -> None:
    written = bytearray(encode(data.draw(records(record))))
    written[cut % len(written)] = byte

    assert isinstance(decode(record, bytes(written)), Malformed | record)
    assert isinstance(decode(record, bytes(written[:cut])), Malformed | record)


@by_record
@given(data=st.data(), new=json_values())
def test_fields_that_are_not_known_are_ignored(record: type[Record], data: st.DataObject, new: object) -> None:
    known = data.draw(records(record))
    more = json.loads(encode(known)) | {"field_of_the_future": new}

    assert decode(record, json.dumps(more).encode(), max_bytes=10**9) == known


def test_a_record_without_a_version_is_read_as_version_1() -> None:
    without = {name: value for name, value in REQUEST.items() if name != "v"}

    assert decode(SendRequest, json.dumps(without).encode()) == decode(SendRequest, json.dumps(REQUEST).encode())


@by_record
@given(data=st.data(), version=st.sampled_from([0, 2, "1", 1.5, None, [1]]))
def test_another_version_is_named(record: type[Record], data: st.DataObject, version: object) -> None:
    other = json.loads(encode(data.draw(records(record)))) | {"v": version}

    answer = decode(record, json.dumps(other).encode())

    assert isinstance(answer, Malformed)
    assert answer.reason == "unknown_version"
    assert answer.explain.startswith("field v: ")
    assert answer.explain.endswith(f"this mailcordon reads version 1 of {record.__name__}")


@pytest.mark.parametrize(
    ("record", "change", "field"),
    [
        pytest.param(Campaign, {"campaign": 7}, "field campaign of", id="wrong type"),
        pytest.param(Campaign, {"campaign": ""}, "field campaign of", id="too short"),
        pytest.param(Campaign, {"campaign": "x" * 129}, "field campaign of", id="too long"),
        pytest.param(Campaign, {"from": {"adress": "a@b.example"}}, "field from of", id="misspelt inside"),
        pytest.param(Campaign, {"from": {"address": 1}}, "field from.address of", id="wrong type inside"),
        pytest.param(Campaign, {"in_doubt": "maybe"}, "field in_doubt of", id="not one of the words"),
        pytest.param(Campaign, {"limits": {"complaint": 1.5}}, "field limits.complaint of", id="above its bound"),
        pytest.param(Campaign, {"pace": {"connections": 0}}, "field pace.connections of", id="below its bound"),
        pytest.param(Control, {"epoch": 0}, "field epoch of", id="epoch 0"),
        pytest.param(Control, {"may_send": "no"}, "field may_send of", id="text for a truth value"),
        pytest.param(SendRequest, {"recipients": {}}, "field recipients of", id="object for a list"),
        pytest.param(SendRequest, {"not_before": -1}, "field not_before of", id="before the epoch"),
        pytest.param(SendRequest, {"not_before": 1.0}, "field not_before of", id="a float for a time"),
    ],
)
def test_a_wrong_field_is_named(record: type[Record], change: dict[str, Any], field: str) -> None:
    right = {Campaign: CAMPAIGN, Control: CONTROL, SendRequest: REQUEST}[record]
    assert isinstance(decode(record, json.dumps(right).encode()), record)

    answer = decode(record, json.dumps(right | change).encode())

    assert isinstance(answer, Malformed)
    assert answer.reason == "wrong_field"
    assert answer.explain.startswith(field)
    assert record.__name__ in answer.explain


@pytest.mark.parametrize("field", ["request_id", "campaign", "content", "recipients"])
def test_a_missing_field_is_named(field: str) -> None:
    answer = decode(SendRequest, json.dumps({k: v for k, v in REQUEST.items() if k != field}).encode())

    assert answer == Malformed(reason="wrong_field", explain=f"SendRequest is missing the required field `{field}`")


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        pytest.param(None, "empty", id="no value"),
        pytest.param(b"", "not_json", id="no bytes"),
        pytest.param(b"{", "not_json", id="cut off"),
        pytest.param(b"\xff", "not_json", id="not UTF-8"),
        pytest.param(b'\xef\xbb\xbf{"v":1}', "not_json", id="byte order mark"),
        pytest.param(b'{"v":1,"request_id":"\\ud800"}', "not_json", id="half a surrogate pair"),
        pytest.param(b'{"v":1,"x":' + b"[" * 100_000, "not_json", id="nested without end"),
        pytest.param(b"[]", "wrong_field", id="a list"),
        pytest.param(b"null", "wrong_field", id="null"),
        pytest.param(b'{"v":1,"x":"' + b"x" * 2_000_000 + b'"}', "too_large", id="2 MB"),
    ],
)
def test_what_is_no_record_says_why(raw: bytes | None, reason: str) -> None:
    answer = decode(SendRequest, raw)

    assert isinstance(answer, Malformed)
    assert answer.reason == reason
    assert answer == decode_request(raw)


def test_a_wrong_recipient_does_not_take_its_neighbours_along() -> None:
    recipients = [
        {"address": "ann@example.com"},
        {"address": 7},
        {"adress": "ben@example.com"},
        "cat@example.com",
        {"address": "dan@example.com", "vars": {"name": True}},
        {"address": "eve@example.com", "vars": {"name": "Eve"}},
    ]

    answer = decode_request(json.dumps(REQUEST | {"recipients": recipients}).encode())

    assert isinstance(answer, DecodedRequest)
    assert [one.address for one in answer.request.recipients] == ["ann@example.com", "eve@example.com"]
    assert [position for position, _ in answer.malformed] == [1, 2, 3, 4]
    for position, malformed in answer.malformed:
        assert f"recipients[{position}]" in malformed.explain
    assert "address" in answer.malformed[1][1].explain


@given(data=st.data())
def test_every_recipient_of_a_readable_request_is_answered_once(data: st.DataObject) -> None:
    good = records(SendRequest).map(lambda request: json.loads(encode(request)))
    request = data.draw(good)
    wrong = st.sampled_from([None, 1, [], {}, {"address": None}, {"address": "a@b.example", "opted_in_at": -1}])
    right = st.fixed_dictionaries({"address": st.text(max_size=20)})
    marked = data.draw(st.lists(st.tuples(st.just(True), right) | st.tuples(st.just(False), wrong), max_size=8))

    answer = decode_request(json.dumps(request | {"recipients": [one for _, one in marked]}).encode())

    assert isinstance(answer, DecodedRequest)
    assert [one.address for one in answer.request.recipients] == [
        one["address"] for is_right, one in marked if is_right
    ]
    assert [position for position, _ in answer.malformed] == [
        n for n, (is_right, _) in enumerate(marked) if not is_right
    ]


def test_a_request_that_is_wrong_beside_its_recipients_is_refused_whole() -> None:
    answer = decode_request(json.dumps(REQUEST | {"recipients": [{"address": 1}], "request_id": 5}).encode())

    assert isinstance(answer, Malformed)


@given(events=st.lists(records(FeedbackEvent), max_size=3))
def test_a_frame_of_feedback_is_its_events(events: list[FeedbackEvent]) -> None:
    assert decode_feedback(encode(FeedbackFrame(feedback=events))) == events


@given(single=records(Feedback))
def test_a_single_feedback_is_one_event(single: Feedback) -> None:
    events = decode_feedback(encode(single))

    assert isinstance(events, list)
    assert [encode(Feedback(**{name: getattr(one, name) for name in one.__struct_fields__})) for one in events] == [
        encode(single)
    ]


def test_feedback_that_speaks_of_feedback_is_still_single() -> None:
    single = Feedback(kind="complaint", campaign="spring-sale", at=1, text='see "feedback"')

    assert decode_feedback(encode(single)) == [
        FeedbackEvent(kind="complaint", campaign="spring-sale", at=1, text='see "feedback"')
    ]


def test_wrong_feedback_names_the_field() -> None:
    answers = [
        decode_feedback(b'{"v":1,"kind":"complain","campaign":"a","at":1}'),
        decode_feedback(b'{"v":1,"feedback":[{"kind":"complaint","campaign":"a"}]}'),
    ]

    assert [one.explain.partition(":")[0] for one in answers if isinstance(one, Malformed)] == [
        "field kind of Feedback",
        "field feedback[0] of FeedbackFrame",
    ]

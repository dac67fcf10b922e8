"""An export holds what a backtest reads and no address; a backtest of it and one of the topics say the same."""

import asyncio
import base64
import gzip
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiokafka import ConsumerRecord
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from agents.ports import now_ms
from cli.backtest_export import Redaction, line_of
from cli.backtest_input import read
from cli.backtest_records import Line, write_line
from cli.kafka import EmbeddedKafka
from cli.main import main
from schemas.codec import decode, encode
from schemas.delivery import DeliveryFrame
from schemas.sending import Campaign
from schemas.topics import CAMPAIGNS, FEEDBACK, RESULTS
from tests.agents.doubles import campaign
from tests.agents.plant import Plant
from tests.cli.recordings import MINUTE, frame, result, signal

KEY = b"k" * 32


def record(value: bytes | None, topic: str = RESULTS, key: bytes | None = b"spring") -> Any:
    return ConsumerRecord(
        topic=topic,
        partition=2,
        offset=7,
        timestamp=1000,
        timestamp_type=0,
        key=key,
        value=value,
        checksum=None,
        serialized_key_size=0,
        serialized_value_size=0,
        headers=(),
    )


def test_a_line_is_the_record_with_its_place_and_time() -> None:
    line = write_line(line_of(record(b'{\n "v": 1\n}'), 4))

    assert line == (
        b'{"topic":"mail.delivery.results","partition":2,"offset":7,"at":1000,"key":"spring","value":{"v":1},'
        b'"partitions":4}'
    )


@pytest.mark.parametrize("value", [b"nonsense", b'{"v":1', b"\xff\xfe", b""])
def test_what_is_no_json_is_kept_as_bytes(value: bytes) -> None:
    line = line_of(record(value), 4)

    assert base64.b64decode(line.raw or "") == value
    assert isinstance(read(write_line(line)), Line)


ADDRESSES = {
    "reply": "550 5.1.1 <ann@example.com>: no such user",
    "quoted": '550 "ann smith"@example.com unknown',
    "verp": "bounce+ann=example.com@shop.example",
    "foreign": "jörg@example.com refuses",
    "two": "ann@example.com, bob@example.org",
}


@pytest.mark.parametrize("text", ADDRESSES.values(), ids=ADDRESSES)
def test_no_address_is_left_in_clear_and_the_domain_stays(text: str) -> None:
    shown = Redaction(KEY).text(text)

    for name in ("ann", "bob", "jörg", "smith"):
        assert name not in shown
    assert text.count("@") == shown.count("@")


def test_the_same_address_is_always_made_the_same_and_others_others() -> None:
    one, other = Redaction(KEY), Redaction(b"o" * 32)

    assert one.text("ann@a.example") == one.text("ann@a.example") != one.text("bob@a.example")
    assert one.text("ann@a.example") != other.text("ann@a.example")


@given(st.text())
def test_words_without_an_address_stay_as_they_are(text: str) -> None:
    assert "@" in text or Redaction(KEY).text(text) == text


def test_records_can_still_be_read_when_their_addresses_are_gone() -> None:
    bounced = msgspec.structs.replace(result("ann@example.com-1", 5, "bounced"), text="550 <ann@example.com> unknown")
    held = frame("spring", [bounced, result("m-2", 6)], ledger=3)

    hidden = Redaction(KEY).line(line_of(record(encode(held)), 4))
    again = decode(DeliveryFrame, bytes(hidden.value))
    owner = decode(Campaign, bytes(Redaction(KEY).line(line_of(record(encode(campaign())), 4)).value))

    assert isinstance(again, DeliveryFrame)
    assert isinstance(owner, Campaign)
    assert b"ann@" not in write_line(hidden)
    assert [one.at for one in again.results] == [5, 6]
    assert again.ledger == held.ledger
    assert owner.limits == campaign().limits


def test_addresses_that_are_written_with_escapes_are_found() -> None:
    hidden = Redaction(KEY).line(line_of(record(b'{"text":"ann\\u0040example.com"}'), 4))

    assert b"ann" not in bytes(hidden.value)


@pytest.mark.kafka
def test_topics_and_their_export_say_the_same(kafka: EmbeddedKafka, tmp_path: Path) -> None:
    plant = Plant(kafka.bootstrap, tmp_path, "export")
    asyncio.run(plant.create())
    now = now_ms()
    name = f"exported-{now}"
    results = [result(f"m-{number}", now - MINUTE, "bounced", "invalid_recipient") for number in range(60)]
    bounced = [msgspec.structs.replace(one, text="550 <ann@example.com> unknown") for one in results]
    said = signal(name, "complaint", at=now, sent_at=now - MINUTE, message_id="m-1")
    asyncio.run(
        plant.publish(
            (CAMPAIGNS, name, campaign(name)),
            (RESULTS, name, frame(name, bounced, ledger=1)),
            (RESULTS, name, b"nonsense"),
            (FEEDBACK, name, said),
        )
    )
    file = tmp_path / "all.jsonl.gz"

    exported = _run("export", "--kafka", kafka.bootstrap, "--from", "1h", "-o", str(file))
    from_file = _run("backtest", "--input", str(file), "--campaign", name, "--json")
    from_topics = _run("backtest", "--kafka", kafka.bootstrap, "--from", "1h", "--campaign", name, "--json")

    assert exported.exit_code == 0, exported.output
    found = [json.loads(one.stdout)["campaigns"] for one in (from_file, from_topics)]
    assert [one["first"].keys() for one in found[0]] == [{"isolated": 0}.keys()]
    assert [(one["first"], one["results"], one["feedback"]) for one in found[0]] == [
        (one["first"], one["results"], one["feedback"]) for one in found[1]
    ]
    assert (from_file.exit_code, from_topics.exit_code) == (1, 1)  # the nonsense
    assert "ann@example.com" not in gzip.decompress(file.read_bytes()).decode()


def _run(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))

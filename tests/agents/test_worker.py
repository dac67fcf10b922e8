"""One worker on a real broker: requests in, frames and refusals out, whatever stands in them."""

import base64
import json
from typing import Any

import pytest

from policy.naming import outbound_topic
from policy.routing import partition_of
from schemas.codec import MAX_RECORD_BYTES
from schemas.dead_letters import DeadLetter
from schemas.sending import OutboundFrame, Refused
from schemas.topics import CAMPAIGNS, CONTENTS, DEAD_LETTERS, REFUSED, REQUESTS
from streams.dead_letters import kept, replay
from tests.agents.doubles import campaign, content
from tests.agents.plant import Plant, Worker

pytestmark = pytest.mark.kafka


def asked(name: str, request_id: str, *recipients: dict[str, Any], **fields: Any) -> bytes:
    return json.dumps(
        {
            "v": 1,
            "request_id": request_id,
            "campaign": name,
            "content": "hello",
            "recipients": list(recipients),
            **fields,
        }
    ).encode()


def ann(message_id: str, **fields: Any) -> dict[str, Any]:
    return {"message_id": message_id, "address": f"{message_id}@example.org", "vars": {"name": "Ann"}, **fields}


async def outbound_of(plant: Plant, name: str, messages: int) -> list[OutboundFrame]:
    frames: list[OutboundFrame] = await plant.read(
        outbound_topic(name), lambda found: sum(len(one.messages) for one in found) >= messages
    )
    return frames


async def test_a_request_leaves_in_the_partitions_of_its_messages_with_its_headers(
    plant: Plant, worker: Worker, unique: str
) -> None:
    await plant.register(campaign(unique), content(unique))
    recipients = [ann(f"{unique}-{number}") for number in range(40)]

    await plant.publish((REQUESTS, "r", asked(unique, "r", *recipients)), headers=[("trace", b"abc")])

    found = await plant.read_raw(
        outbound_topic(unique), lambda found: len(found) >= 4, lambda raw: json.loads(raw)["messages"]
    )
    assert sorted(one["message_id"] for messages, _ in found for one in messages) == sorted(
        one["message_id"] for one in recipients
    )
    for messages, record in found:
        assert {partition_of(one["message_id"], 4) for one in messages} == {record.partition}
        assert record.headers == (("trace", b"abc"),)


async def test_a_campaign_made_known_just_before_its_first_request_is_known(
    plant: Plant, worker: Worker, unique: str
) -> None:
    names = [f"{unique}-{number}" for number in range(5)]

    for name in names:
        await plant.register(campaign(name), content(name))
        await plant.publish((REQUESTS, name, asked(name, name, ann("m"))))

    for name in names:
        assert [frame.request_id for frame in await outbound_of(plant, name, 1)] == [name]


async def test_a_campaign_without_its_topic_gets_it(plant: Plant, worker: Worker, unique: str) -> None:
    await plant.publish((CAMPAIGNS, unique, campaign(unique)), (CONTENTS, f"{unique}/hello", content(unique)))

    await plant.publish((REQUESTS, "r", asked(unique, "r", ann("m"))))

    await plant.appears(outbound_topic(unique))
    frames = await outbound_of(plant, unique, 1)
    assert [message.message_id for frame in frames for message in frame.messages] == ["m"]


async def test_bad_input_is_answered_and_its_neighbours_are_delivered(
    plant: Plant, worker: Worker, unique: str
) -> None:
    """Everything in one partition, a good request before and behind each bad one."""
    await plant.register(campaign(unique), content(unique))
    dead_letters = {
        "no-json": b"{" + unique.encode(),
        "version": asked(unique, f"{unique}-version", ann("x"), v=2),
        "two-megabytes": asked(unique, f"{unique}-large", ann("x", vars={"name": "x" * (2 * MAX_RECORD_BYTES)})),
    }
    refused_whole = {
        "unknown_campaign": asked(f"{unique}-stranger", f"{unique}-campaign", ann("x")),
        "unknown_content": asked(unique, f"{unique}-content", ann("x"), content="nothing"),
    }
    too_many = asked(unique, f"{unique}-501", *(ann(f"y{number}") for number in range(501)))
    empty = asked(unique, f"{unique}-0")
    recipients = {
        "bad_address": ann(f"{unique}-crlf", address="ann@example.org\r\nRCPT TO:<eve@example.org>"),
        "missing_variable": ann(f"{unique}-lacks", vars={}),
        "bad_variable": ann(f"{unique}-injects", vars={"name": "Ann\r\nBcc: eve@example.org"}),
    }
    bad = [
        *dead_letters.values(),
        *refused_whole.values(),
        too_many,
        empty,
        *(
            asked(unique, f"{unique}-{reason}", ann(f"before-{reason}"), one, ann(f"behind-{reason}"))
            for reason, one in recipients.items()
        ),
    ]
    good = [asked(unique, f"{unique}-good-{number}", ann(f"good-{number}")) for number in range(len(bad) + 1)]
    mixed = [request for pair in zip(good, [*bad, None], strict=True) for request in pair if request is not None]

    await plant.publish(*((REQUESTS, None, request) for request in mixed), partition=1)

    frames = await outbound_of(plant, unique, len(good) + 2 * len(recipients))
    delivered = sorted(message.message_id for frame in frames for message in frame.messages)
    assert delivered == sorted(
        [f"good-{number}" for number in range(len(good))]
        + [f"{side}-{reason}" for reason in recipients for side in ("before", "behind")]
    )

    def is_ours(one: Any) -> bool:
        return isinstance(one, Refused) and (one.request_id or "").startswith(unique)

    refused: list[Refused] = await plant.read(REFUSED, lambda found: len(found) >= 8, is_ours)
    reasons = {(one.request_id or "").removeprefix(f"{unique}-"): one for one in refused}
    assert {name: one.reason for name, one in reasons.items()} == {
        "version": "unknown_version",
        "campaign": "unknown_campaign",
        "content": "unknown_content",
        "501": "too_many_recipients",
        "0": "no_recipients",
        **{reason: reason for reason in recipients},
    }
    for reason, one in recipients.items():
        assert reasons[reason].message_id == one["message_id"]
    assert all(len(one.explain) > 20 for one in refused)

    letters: list[DeadLetter] = await plant.read(
        DEAD_LETTERS, lambda found: len(found) >= 3, lambda one: _raw(one) in dead_letters.values()
    )
    assert sorted(one.reason for one in letters) == ["not_json", "too_large", "unknown_version"]


async def test_a_dead_letter_that_is_put_back_is_handled_again(plant: Plant, worker: Worker, unique: str) -> None:
    """A request of tomorrow's version is still of tomorrow when it is put back: it is set aside again, unchanged."""
    await plant.register(campaign(unique), content(unique))
    request = asked(unique, unique, ann("m"), v=2)
    await plant.publish((REQUESTS, unique, request))

    def is_ours(letter: DeadLetter) -> bool:
        return _raw(letter) == request

    await plant.read(DEAD_LETTERS, lambda found: len(found) >= 1, is_ours)
    done = await replay(plant.bootstrap, [one for one in await kept(plant.bootstrap) if is_ours(one.letter)])

    assert [one.letter.reason for one in done] == ["unknown_version"]
    first, second = await plant.read(DEAD_LETTERS, lambda found: len(found) >= 2, is_ours)
    assert (first.raw, first.key) == (second.raw, second.key)


def _raw(letter: DeadLetter) -> bytes:
    return base64.b64decode(letter.raw)


def test_a_worker_with_other_partitions_than_the_broker_ends_and_says_so(plant: Plant) -> None:
    wrong = plant.worker(partitions=3)
    wrong.start()

    code, log = wrong.ended()

    assert code == 1
    assert "topic mail.campaigns has 4 partitions and the setting partitions says 3" in log

"""Whatever is done to an audit log shows, by the chain, by the seals, or by what is known from outside."""

import random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.auditing import Head, Line, Seal, Verified, begun, entry, hash_of, head_of, sealer, verified, whole
from policy.tokens import Keys
from schemas.delivery import Position
from schemas.reputation import Decision

SCOPE = "campaign:spring"
KEYS = Keys(address=b"a" * 32, return_path=b"r" * 32)
SEAL = sealer(KEYS)
THEIRS = sealer(Keys(address=b"a" * 32, return_path=b"x" * 32))


def decision(epoch: int, at: int | None = None, reason: str = "ünsafe: 3 of 1,000") -> Decision:
    return Decision(
        scope=SCOPE,
        campaign="spring",
        from_="healthy",
        to="isolated",
        at=at or 1_764_000_000_000 + epoch,
        epoch=epoch,
        rule="complaint",
        reason=reason,
        evidence={"rate": 0.003, "interval": [1e-9, 1.0], "references": [{"topic": "mail.feedback", "offset": epoch}]},
    )


def chain(
    length: int = 6,
    *,
    scope: str = SCOPE,
    seal: Seal | None = SEAL,
    after: Head | None = None,
    reason: str = "too many",
) -> list[bytes]:
    head = after or Head()
    found: list[bytes] = []
    for number in range(length):
        is_first = head.seq == 0
        told = (
            begun(scope, "spring", state="healthy", epoch=1, reason="new", at=1_764_000_000_000)
            if is_first
            else decision(head.seq + 1, reason=reason)
        )
        plain = msgspec.to_builtins(told)
        cause = Position(topic="mail.reputation.rates", partition=1, offset=number)
        made = entry(
            head, scope=scope, what="begun" if is_first else "decision", decision=plain, cause=cause, seal=seal
        )
        head = head_of(made)
        found.append(whole(made, plain))
    return found


def look(lines: list[bytes], **fields: Any) -> Verified:
    return verified([Line(raw, f"@{number}") for number, raw in enumerate(lines)], **{"seal": SEAL, **fields})


def faults(done: Verified) -> list[str]:
    return [one.fault for one in done.wrong]


LINES = chain()
EPOCHS = {SCOPE: 6}
HEAD = look(LINES).chains[0].head


def test_an_untouched_log_has_nothing_wrong_with_it() -> None:
    others = chain(3, scope="campaign:summer")
    done = look([*LINES, *others], epochs={**EPOCHS, "campaign:summer": 3}, heads=[HEAD.hash])

    assert (done.wrong, done.forked) == ([], [])
    assert [(one.scope, one.first, one.head.seq, one.epoch, one.entries) for one in done.chains] == [
        (SCOPE, 1, 6, 6, 6),
        ("campaign:summer", 1, 3, 3, 3),
    ]


@given(st.lists(st.integers(0, 5), max_size=8))
def test_repeats_count_once_wherever_they_stand(repeats: list[int]) -> None:
    again = list(LINES)
    for one in repeats:
        again.insert(one + again.index(LINES[one]) + 1 - one, LINES[one])

    assert look(again, epochs=EPOCHS) == look(LINES, epochs=EPOCHS)


@given(st.integers(0, 5), st.data())
def test_a_single_changed_byte_is_found(place: int, data: st.DataObject) -> None:
    raw = LINES[place]
    at = data.draw(st.integers(0, len(raw) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda one: one != raw[at]))

    assert faults(look([*LINES[:place], raw[:at] + bytes([byte]) + raw[at + 1 :], *LINES[place + 1 :]])) != []


@given(st.integers(0, 5), st.data())
def test_a_byte_more_or_less_is_found(place: int, data: st.DataObject) -> None:
    raw = LINES[place]
    at = data.draw(st.integers(0, len(raw) - 1))
    more = data.draw(st.sampled_from([b"", *(bytes([one]) + raw[at : at + 1] for one in range(256))]))

    assert faults(look([*LINES[:place], raw[:at] + more + raw[at + 1 :], *LINES[place + 1 :]])) != []


FIELDS = ("scope", "seq", "at", "what", "decision", "cause", "previous")
OTHERS: dict[str, list[Any]] = {
    "scope": ["campaign:summer"],
    "seq": [1, 2, 9],
    "at": [1],
    "what": ["refused", "command"],
    "decision": [msgspec.to_builtins(decision(3, reason="nothing happened")), msgspec.to_builtins(decision(2))],
    "cause": [None, {"topic": "mail.commands", "partition": 0, "offset": 9}],
    "previous": ["", "0" * 64],
}


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("is_hashed_again", [False, True], ids=["as it was", "hashed again"])
def test_a_changed_field_is_found_even_when_the_hash_is_made_anew(field: str, is_hashed_again: bool) -> None:
    for other in OTHERS[field]:
        value = msgspec.json.decode(LINES[2])
        value[field] = other
        if is_hashed_again:
            value["hash"] = hash_of(value)
        raw = msgspec.json.encode(value)

        assert faults(look([*LINES[:2], raw, *LINES[3:]])) != []
        assert faults(look([*LINES[:2], raw, *LINES[3:]], seal=None)) != []


def test_a_field_that_nobody_knows_is_part_of_the_hash() -> None:
    value = msgspec.json.decode(LINES[2]) | {"tomorrow": 1}

    assert "changed" in faults(look([*LINES[:2], msgspec.json.encode(value), *LINES[3:]]))


@given(st.integers(0, 5))
def test_a_dropped_entry_is_found(place: int) -> None:
    rest = [*LINES[:place], *LINES[place + 1 :]]

    assert faults(look(rest, epochs=EPOCHS)) == (["missing"] if place < 5 else ["cut_off"])


@given(st.permutations(range(6)).filter(lambda order: list(order) != list(range(6))))
def test_another_order_is_found(order: list[int]) -> None:
    assert "reordered" in faults(look([LINES[one] for one in order]))


@given(st.integers(1, 5))
def test_a_cut_off_end_is_found_by_the_epoch_and_by_a_noted_head(length: int) -> None:
    rest = LINES[:length]

    assert faults(look(rest)) == []  # the chain alone cannot know
    assert faults(look(rest, epochs=EPOCHS)) == ["cut_off"]
    assert faults(look(rest, heads=[HEAD.hash])) == ["head"]


def test_a_log_that_is_gone_is_found() -> None:
    assert faults(look([], epochs=EPOCHS)) == ["cut_off"]


def test_an_entry_in_two_versions_is_found() -> None:
    other = chain(1, after=Head(2, msgspec.json.decode(LINES[1])["hash"]), seal=None)

    done = look([*LINES, *other], seal=None)

    assert faults(done) == ["doubled"]


def test_two_workers_at_one_place_are_told_but_not_blamed() -> None:
    """One had lost its partition without knowing it, and both have the keys."""
    before = Head(2, msgspec.json.decode(LINES[1])["hash"])
    told = msgspec.to_builtins(decision(3, at=1_764_000_000_999))
    cause = Position(topic="mail.reputation.rates", partition=1, offset=2)
    made = entry(before, scope=SCOPE, what="decision", decision=told, cause=cause, seal=SEAL)

    done = look([*LINES, whole(made, told)], epochs=EPOCHS)

    assert (faults(done), len(done.forked)) == ([], 1)
    assert done.chains[0].head == HEAD


def test_a_log_written_anew_without_the_key_is_found() -> None:
    anew = chain(seal=THEIRS, reason="nothing happened")

    assert faults(look(anew, seal=None)) == []  # hashes alone cannot know
    assert faults(look(anew)) == ["seal"] * 6
    assert faults(look(chain(seal=None, reason="nothing happened"))) == ["seal"] * 6
    assert faults(look(anew, seal=None, heads=[HEAD.hash])) == ["head"]


def test_what_is_no_entry_is_named() -> None:
    done = look([b"{", *LINES, b'{"v":1,"scope":"campaign:spring"}'])

    assert faults(done) == ["unreadable", "unreadable"]
    assert [one.explain.split()[0] for one in done.wrong] == ["@0", "@7"]


def test_a_log_whose_beginning_is_past_its_retention_begins_later() -> None:
    rest = LINES[2:]

    assert faults(look(rest)) == ["missing"]
    assert faults(look(rest, may_begin_later=lambda scope: scope == SCOPE)) == []
    assert faults(look(rest, heads=[msgspec.json.decode(LINES[1])["hash"]])) == []


def test_the_head_of_all_stands_for_every_chain() -> None:
    both = [*LINES, *chain(3, scope="campaign:summer")]
    head = look(both).head

    assert look(both, heads=[head]).wrong == []
    assert look(random.Random(1).sample(both, 0) + both[:-1], heads=[head]).wrong != []
    assert look([*both, *chain(1, scope="campaign:winter")], heads=[head]).wrong != []

"""Auditing: decisions and commands in chains that show when somebody has changed them.

Each scope has a chain of its own.  An entry carries the hash of the one before it, so that a change, a gap or another
order shows in all that follows; a seal, made with a key that only the installation has, so that the whole chain cannot
be written anew by somebody else.  What a chain cannot show is that its newest entries are missing: that takes
something from outside, such as the epoch that a sender was told, or a hash that was noted elsewhere.

The hash is taken of JSON values, not of records: an entry of a newer version has fields that this one does not know.
"""

import hashlib
import hmac
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import msgspec

from policy.judging import TRIAL
from policy.tokens import Keys
from schemas.audit import AuditedAs, AuditEntry
from schemas.codec import Malformed, decode
from schemas.delivery import Position
from schemas.reputation import Decision, State

FIRST = ""  # what the first entry has for the hash of the one before
REFUSED = "refused"  # the rule of a decision that changes nothing
BEGUN = "begun"  # the rule of what the first entry says

Entry = dict[str, Any]  # Any: JSON, as it stands in the topic
Seal = Callable[[str], str]
Fault = Literal["unreadable", "changed", "seal", "doubled", "reordered", "missing", "broken", "cut_off", "head"]

_SEALED_AS = b"mailcordon audit 1\0"
_encode = msgspec.json.Encoder(order="deterministic").encode


class Head(NamedTuple):
    """The newest entry of a chain."""

    seq: int = 0
    hash: str = FIRST


def entry(
    head: Head, *, scope: str, what: AuditedAs, decision: Mapping[str, Any], cause: Position, seal: Seal | None = None
) -> Entry:
    """The next entry of a chain, without its decision; :func:`whole` puts the two together."""
    made: Entry = {
        "v": 1,
        "scope": scope,
        "seq": head.seq + 1,
        "at": decision["at"],
        "what": what,
        "cause": msgspec.to_builtins(cause),
        "previous": head.hash,
    }
    made["hash"] = hash_of(msgspec.json.decode(whole(made, decision)))
    made["seal"] = None if seal is None else seal(made["hash"])
    return made


def whole(made: Entry, decision: Mapping[str, Any]) -> bytes:
    """An entry as it goes to its topic: the same bytes whenever it is made of the same two."""
    return msgspec.json.encode(made | {"decision": decision})


def audited_as(decision: Decision) -> AuditedAs:
    """What a decision of the judge is called in the log."""
    if decision.rule == REFUSED:
        return "refused"
    return "decision" if decision.by == "policy" else "command"


def head_of(made: Mapping[str, Any]) -> Head:
    """Where a chain stands after this entry."""
    return Head(made["seq"], made["hash"])


def begun(scope: str, campaign: str, *, state: State, epoch: int, reason: str, at: int) -> Decision:
    """What the first entry says: where the scope stood when its chain began."""
    return Decision(
        scope=scope, campaign=campaign, from_=state, to=state, at=at, epoch=epoch, rule=BEGUN, reason=reason
    )


def hash_of(value: Mapping[str, Any]) -> str:
    """The hash of an entry: of all its fields but ``hash`` and ``seal``."""
    bare = {name: one for name, one in value.items() if name not in {"hash", "seal"}}
    return hashlib.sha256(_encode(bare)).hexdigest()


def sealer(keys: Keys) -> Seal:
    """Makes seals with the installation's keys."""
    key = hmac.digest(keys.return_path, _SEALED_AS, "sha256")
    return lambda hashed: f"{keys.key_id}:{hmac.digest(key, hashed.encode(), 'sha256').hex()}"


# -- looking for what is wrong


@dataclass(frozen=True, slots=True)
class Line:
    """An entry as it was found, and where."""

    raw: bytes
    where: str


@dataclass(frozen=True, slots=True)
class Wrong:
    """One thing that is wrong, in a sentence; ``seq`` is None where none can be told."""

    fault: Fault
    scope: str
    seq: int | None
    explain: str


@dataclass(frozen=True, slots=True)
class Chain:
    """One scope's log: its first and its newest entry, and the newest epoch in it."""

    scope: str
    first: int
    head: Head
    epoch: int
    entries: int


@dataclass(frozen=True, slots=True)
class Verified:
    """What was found.  ``forked`` are entries beside the chain, with good seals: what a worker wrote that had lost
    its partition without knowing it."""

    chains: list[Chain]
    wrong: list[Wrong]
    forked: list[str] = field(default_factory=list)

    @property
    def head(self) -> str:
        """One hash for all chains."""
        return head_of_all({one.scope: one.head for one in self.chains})


@dataclass(frozen=True, slots=True)
class _Found:
    """An entry that could be read."""

    entry: AuditEntry
    digest: bytes
    where: str
    is_sealed: bool


def head_of_all(heads: Mapping[str, Head]) -> str:
    """One hash that stands for the heads of many chains."""
    lines = [[scope, *heads[scope]] for scope in sorted(heads)]
    return hashlib.sha256(_encode(lines)).hexdigest()


def verified(
    lines: Iterable[Line],
    *,
    seal: Seal | None = None,
    heads: Sequence[str] = (),
    epochs: Mapping[str, int] | None = None,
    may_begin_later: Callable[[str], bool] = lambda _scope: False,
) -> Verified:
    """Look through entries in the order in which they were found, and say everything that is wrong.

    ``seal`` makes the seal that each entry must have; None leaves seals alone.  ``heads`` were noted before: each must
    still be in a chain (or be what came before its first entry, or stand for all).  ``epochs`` are the newest known of
    each scope: entries of older ones alone mean that the end is missing.  ``may_begin_later`` says for which scopes
    old entries may be gone, because their retention is over.
    """
    wrong: list[Wrong] = []
    scopes: dict[str, list[_Found]] = {}
    for line in lines:
        found = _read(line, seal, wrong)
        if found is not None:
            scopes.setdefault(found.entry.scope, []).append(found)
    chains: list[Chain] = []
    forked: list[str] = []
    noted = set(heads)
    kept: set[str] = set()
    for scope, own in scopes.items():
        is_anchored = own[0].entry.previous in noted
        chains.append(_follow(scope, own, wrong, forked, may_begin=is_anchored or may_begin_later(scope)))
        kept |= noted & {one.entry.hash for one in own} | (noted & {own[0].entry.previous})
    _compare_epochs(chains, epochs or {}, wrong)
    done = Verified(chains, wrong, forked)
    wrong += [
        Wrong("head", "", None, f"the head {one} is in no chain: what it stands for was changed or taken away")
        for one in heads
        if one not in kept and one != done.head
    ]
    return done


def _read(line: Line, seal: Seal | None, wrong: list[Wrong]) -> _Found | None:
    record = decode(AuditEntry, line.raw)
    if isinstance(record, Malformed):
        wrong.append(Wrong("unreadable", "", None, f"{line.where} is no audit entry: {record.explain}"))
        return None
    named = f"{line.where}: entry {record.seq} of {record.scope}"
    if not _is_whole(line.raw, record.hash):
        wrong.append(Wrong("changed", record.scope, record.seq, f"{named} is not what it was when it was written"))
    is_sealed = seal is not None and hmac.compare_digest((record.seal or "").encode(), seal(record.hash).encode())
    if seal is not None and not is_sealed:
        why = (
            "has no seal" if record.seal is None else "has a seal that was not made with the keys of this installation"
        )
        wrong.append(Wrong("seal", record.scope, record.seq, f"{named} has {why}"))
    return _Found(record, hashlib.sha256(line.raw).digest(), line.where, is_sealed)


def _is_whole(raw: bytes, hashed: str) -> bool:
    """Are these the very bytes that were hashed?"""
    try:
        value: Entry = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # within what the record does not know
        return False
    return msgspec.json.encode(value) == raw and hash_of(value) == hashed


def _follow(scope: str, own: Sequence[_Found], wrong: list[Wrong], forked: list[str], *, may_begin: bool) -> Chain:
    """Go along one chain.  Repeats are the same bytes and count once."""
    places = _placed(scope, own, wrong)
    order = sorted(places)
    if order[0] > 1 and not may_begin:
        wrong.append(Wrong("missing", scope, 1, f"{_entries(1, order[0] - 1)} of {scope} missing"))
    for before, seq in pairwise(order):
        if seq > before + 1:
            explain = f"{_entries(before + 1, seq - 1)} of {scope} missing"
            wrong.append(Wrong("missing", scope, before + 1, explain))
    for seq, there in places.items():
        follows = {FIRST} if seq == 1 else {one.entry.hash for one in places.get(seq - 1, ())}
        for one in there:
            if follows and one.entry.previous not in follows:
                explain = f"{one.where}: entry {seq} of {scope} does not follow the one before it"
                wrong.append(Wrong("broken", scope, seq, explain))
        if len(there) > 1:
            explain = (
                f"entry {seq} of {scope} is there with different contents: {', '.join(one.where for one in there)}"
            )
            if all(one.is_sealed for one in there):
                forked.append(explain)
            else:
                wrong.append(Wrong("doubled", scope, seq, explain))
    last = places[order[-1]][0].entry
    epoch = max((one.entry.decision.epoch for one in own if not one.entry.decision.scope.endswith(TRIAL)), default=0)
    return Chain(scope, order[0], Head(last.seq, last.hash), epoch, len(order))


def _placed(scope: str, own: Sequence[_Found], wrong: list[Wrong]) -> dict[int, list[_Found]]:
    """The entries by number, each once, and a complaint about those that come too late."""
    places: dict[int, list[_Found]] = {}
    newest = 0
    for one in own:
        seq = one.entry.seq
        there = places.setdefault(seq, [])
        if any(one.digest == other.digest for other in there):
            continue
        if not there and seq < newest:
            explain = f"{one.where}: entry {seq} of {scope} comes after entry {newest}"
            wrong.append(Wrong("reordered", scope, seq, explain))
        there.append(one)
        newest = max(newest, seq)
    return places


def _entries(first: int, last: int) -> str:
    return f"entry {first} is" if first == last else f"entries {first} to {last} are"


def _compare_epochs(chains: Sequence[Chain], epochs: Mapping[str, int], wrong: list[Wrong]) -> None:
    audited = {one.scope: one for one in chains}
    for scope, epoch in epochs.items():
        chain = audited.get(scope)
        if chain is None:
            wrong.append(Wrong("cut_off", scope, None, f"{scope} has reached epoch {epoch} and has no entry"))
        elif chain.epoch < epoch:
            explain = f"{scope} has reached epoch {epoch}, its last entry ({chain.head.seq}) is of epoch {chain.epoch}"
            wrong.append(Wrong("cut_off", scope, chain.head.seq, f"{explain}: what came after it is missing"))

from policy.traps import TrapFact
from schemas.codec import Malformed, encode
from schemas.feedback import RegisteredTrap
from streams.traps import Traps

ANN, BOB = "ab" * 32, "cd" * 32


def record(hashed: str = ANN, planted: str = "footer") -> bytes:
    return encode(RegisteredTrap(hash=hashed, planted=planted, since=1))


def test_the_newest_record_of_a_hash_counts_and_a_tombstone_removes_it() -> None:
    traps = Traps()
    assert traps.apply(ANN, record()) is True
    assert traps.apply(ANN, record()) is False
    assert traps.apply(ANN, record(planted="header")) is True

    assert traps.get(ANN) == TrapFact(where="header", since=1)
    assert (traps.get(BOB), len(traps), dict(traps)) == (None, 1, {ANN: TrapFact(where="header", since=1)})

    assert traps.apply(ANN, None) is True
    assert traps.apply(ANN, None) is False
    assert (traps.get(ANN), len(traps)) == (None, 0)


def test_what_cannot_be_read_changes_nothing() -> None:
    traps = Traps()
    traps.apply(ANN, record())

    assert isinstance(traps.apply(ANN, b"nonsense"), Malformed)
    assert isinstance(traps.apply(ANN, record(BOB)), Malformed)  # a tombstone could never take it out again
    assert traps.get(ANN) == TrapFact(where="footer", since=1)

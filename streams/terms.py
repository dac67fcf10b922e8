"""Which of two records of a changelog holds, when both are about one key.

Each owner of a partition writes in a term of its own, and each value names the offsets that it has applied; the
docstring of :mod:`streams.runtime.table` says why both are needed.
"""

from collections.abc import Sequence


def covers(new: Sequence[int], held: Sequence[int]) -> bool:
    """Whether a value has applied all that another has; a topic that is new in the list had nothing applied."""
    return len(new) >= len(held) and all(a >= b for a, b in zip(new, held, strict=False))


def replaces(term: int, applied: Sequence[int], held_term: int, held: Sequence[int]) -> bool:
    """Whether a record of a term replaces what is held: a higher term always does, a lower one never."""
    return term > held_term if term != held_term else covers(applied, held)

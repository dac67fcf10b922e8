"""What goes wrong, and with which mail: endless streams of events, made from a seed, jumping from event to event."""

import math
import random
from collections.abc import Iterator

from benchmarks._verdict_course import Event


def steady(chance: random.Random, rate: float) -> Iterator[Event]:
    """Every mail has the same chance, whatever happened to the others."""
    mail = 0
    while True:
        mail += gap(chance, rate)
        yield mail, mail


def turning(chance: random.Random, before: float, after: float, turn: int) -> Iterator[Event]:
    """One rate up to a mail, another one from the next on."""
    for event in steady(chance, before):
        if event[0] > turn:
            break
        yield event
    for mail, _ in steady(chance, after):
        yield turn + mail, turn + mail


def clustered(chance: random.Random, rate: float, size: int) -> Iterator[Event]:
    """The same rate in the long run, but events come ``size`` at a time, within twice as many mails."""
    start = 0
    while True:
        start += gap(chance, rate / size)
        for place in sorted(chance.sample(range(2 * size), size)):
            yield start + place, start + place
        start += 2 * size


def delayed(chance: random.Random, rate: float, every: int) -> Iterator[Event]:
    """What happens to ``every`` mails becomes known all at once, at their end."""
    known_at, batch = every, []
    for mail, _ in steady(chance, rate):
        while mail > known_at:
            yield from ((known_at, one) for one in batch)
            known_at, batch = known_at + every, []
        batch.append(mail)


def patched(chance: random.Random, rate: float, bad: float, start: int, stop: int) -> Iterator[Event]:
    """A good list with one bad source in it, which stands together: the mails after ``start``, up to ``stop``."""
    for event in turning(chance, rate, bad, start):
        if event[0] > stop:
            break
        yield event
    for mail, _ in steady(chance, rate):
        yield stop + mail, stop + mail


def gap(chance: random.Random, rate: float) -> int:
    """How many mails until the next event, itself included."""
    if rate >= 1.0:
        return 1
    return int(math.log(1.0 - chance.random()) / math.log1p(-rate)) + 1

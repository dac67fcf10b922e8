"""The demo's two lists of recipients, made up and the same for the same seed.

``spring-sale`` is clean but for two unknown users in a thousand; ``bought-list`` has 6 % unknown users and a few
addresses of a spam trap domain, spread over it.  All domains are reserved for examples (RFC 2606).
"""

import csv
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROVIDERS = {  # domain -> share of the recipients
    "gmail.example": 0.45,
    "outlook.example": 0.20,
    "yahoo.example": 0.15,
    "icloud.example": 0.08,
    "web.example": 0.07,
    "other.example": 0.05,
}
TRAP_DOMAIN = "traps.example"

_FIRST = "ada ben cleo dora emil fay gus hana ida jon kim leo mia nils ola pia quin rosa tess uma vito wanda yan zoe"
_LAST = "adler berg costa dahl eder frost garcia holm ito jansen kraft lund mayer nowak olsen perez roth silva weiss"


@dataclass(frozen=True, slots=True)
class Mix:
    """How many recipients, what share of them is unknown to their provider, and how many addresses are traps."""

    recipients: int
    unknown_share: float
    traps: int


SPRING_SALE = Mix(recipients=20_000, unknown_share=0.002, traps=0)
BOUGHT_LIST = Mix(recipients=5_000, unknown_share=0.06, traps=6)


def scaled(mix: Mix, scale: float) -> Mix:
    """The same mix with fewer recipients; traps stay, as long as there are any."""
    return Mix(max(50, round(mix.recipients * scale)), mix.unknown_share, mix.traps)


def addresses(mix: Mix, seed: int) -> Iterator[tuple[str, str]]:
    """Address and name of every recipient of a mix; each address once."""
    chance = random.Random(seed)
    first, last = _FIRST.split(), _LAST.split()
    unknown = set(chance.sample(range(mix.recipients), round(mix.recipients * mix.unknown_share)))
    free = sorted(set(range(mix.recipients)) - unknown)
    traps = {free[(2 * turn + 1) * len(free) // (2 * mix.traps)] for turn in range(mix.traps)}
    domains, shares = list(PROVIDERS), list(PROVIDERS.values())
    for number in range(mix.recipients):
        name = chance.choice(first)
        who = f"{name}.{chance.choice(last)}.{number}"
        domain = chance.choices(domains, shares)[0]
        if number in traps:
            yield f"{who}@{TRAP_DOMAIN}", name.title()
        elif number in unknown:
            yield f"unknown.{who}@{domain}", name.title()
        else:
            yield f"{who}@{domain}", name.title()


def write(file: Path, mix: Mix, seed: int, source: str) -> None:
    """Write a mix as the CSV that `mailcordon send` reads."""
    with file.open("w", newline="", encoding="utf-8") as out:
        rows = csv.writer(out)
        rows.writerow(["address", "name", "source"])
        for address, name in addresses(mix, seed):
            rows.writerow([address, name, source])

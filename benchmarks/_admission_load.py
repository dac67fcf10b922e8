"""Addresses as lists have them: most at large providers, the rest spread over companies, some broken or doubtful.

The same seed makes the same list.  Shares are those of a list that was never cleaned; what they stand for is said
beside each.
"""

import random

_LARGE = ["hotmail.com", "yahoo.com", "outlook.com", "web.de", "gmx.de", "icloud.com", "orange.fr"]
_NAMES = ["ann", "bob", "carla", "deniz", "eva", "farid", "grete", "henri", "ines", "jan", "kim", "lea", "mehmet"]
_SHAPES = {
    "large": (65.0, ["{n}@gmail.com"] * 8 + [f"{{n}}@{domain}" for domain in _LARGE]),
    "company": (30.0, ["{n}@firm-{d}.example"]),
    "role": (1.5, [f"{role}@firm-{{d}}.example" for role in ("info", "abuse", "postmaster", "no-reply", "sales")]),
    "typo": (1.5, ["{n}@gmial.com", "{n}@hotmial.com", "{n}@gmail.con", "{n}@yahooo.com", "{n}@outlok.com"]),
    "disposable": (1.0, ["{n}@mailinator.com", "{n}@x.yopmail.com"]),
    "broken": (0.7, ["{n}", "{n}@", "@{n}.example", "{n}@@example.com", "{n} x@example.com", "{n}..x@example.com"]),
    # These take the slow path, through the library.
    "not_ascii": (0.3, ["{n}@bücher.example", "ü{n}@example.com", "{n}@例え.example", "{n}@xn--bcher-kva.example"]),
}


def addresses(count: int, *, seed: int = 1, domains: int = 5_000) -> list[str]:
    """A list of addresses, in the order in which they stand in it; ``domains`` is how many companies there are."""
    chance = random.Random(seed)
    kinds = chance.choices(list(_SHAPES), [share for share, _ in _SHAPES.values()], k=count)
    return [
        chance.choice(_SHAPES[kind][1]).format(
            n=f"{chance.choice(_NAMES)}.{chance.choice(_NAMES)}{number}", d=chance.randrange(domains)
        )
        for number, kind in enumerate(kinds)
    ]

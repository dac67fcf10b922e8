"""How many addresses admission checks per second of processor time, alone and with all screens, beside email-validator.

One list, as lists are before they are cleaned: large providers, companies' own domains, role accounts, misspelt and
disposable domains, broken addresses, some that are not ASCII.  Each turn takes all of it, in this process.

addresses_per_cpu_s     is it an address, and in which form does it go into RCPT TO (policy.addresses.check)
with_screens_per_cpu_s  the same, and canonical form, keyed hash, and every screen of admission: known traps (address
                        and domain, a registry of 10,000), misspelt and disposable domains, role accounts, suspected
                        recycled, sunset, age, provenance

What is remembered of domains is remembered as in a worker: by the check from turn to turn, by the screens anew in each.

The baseline of both is email-validator on a part of the same list: validate_email(strict=True,
check_deliverability=False), and no screens at all, since it has none.  Before anything is measured, each address of the
list must get the verdict of email-validator from ours, and the same form.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # before benchmarks/, whose files hide packages

from email_validator import EmailNotValidError, validate_email

from benchmarks._admission_load import addresses
from benchmarks._harness import Report, Subject, Turn, at_least_one, parser
from policy.addresses import CheckedAddress, canonical_of, check
from policy.screens import Screens
from policy.tokens import Keys, hash_of_canonical, hashing
from policy.traps import TrapFact
from schemas.sending import AdmissionPolicy, Recipient

EXAMPLES = """\
  .venv/bin/python benchmarks/admission.py --json                       a minute
  .venv/bin/python benchmarks/admission.py --addresses 20000 --runs 1"""

KEYS = Keys(address=b"a" * 32, return_path=b"r" * 32)
POLICY = AdmissionPolicy(disposable="refuse", sunset="refuse", age="refuse", provenance="refuse")
T = TypeVar("T")

_NOW = 1_764_000_000_000
_DAY_MS = 86_400_000
_TRAPS = 10_000
_MAX_LOCAL_OCTETS = 64


def main() -> None:
    """Measure in turns, and show."""
    made = parser(__doc__ or "", EXAMPLES, runs=5)
    made.add_argument(
        "--addresses", type=at_least_one, default=300_000, metavar="N", help="length of the list (default 300,000)"
    )
    made.add_argument(
        "--plain-addresses",
        type=at_least_one,
        default=10_000,
        metavar="N",
        help="as many of it for email-validator (default 10,000)",
    )
    options = made.parse_args()
    _bench(options).show(as_json=options.json)


def _bench(options: argparse.Namespace) -> Report:
    listed = addresses(options.addresses)
    part = listed[: options.plain_addresses]
    good = _same_verdicts(listed)
    recipients = [Recipient(address=one, source="form", opted_in_at=_NOW - 30 * _DAY_MS) for one in listed]
    alone: list[Turn] = []
    screened: list[Turn] = []
    plain: list[Turn] = []
    refused = 0
    for _ in range(options.runs):
        plain.append(_turn(part, lambda some: sum(_the_library(one) is not None for one in some))[0])
        alone.append(_turn(listed, lambda some: sum(isinstance(check(one), CheckedAddress) for one in some))[0])
        turn, refused = _turn(recipients, _screened())
        screened.append(turn)
    return Report(
        "admission",
        [
            Subject("addresses_per_cpu_s", "addresses", alone, plain, "email_validator"),
            Subject("with_screens_per_cpu_s", "addresses", screened, plain, "email_validator"),
        ],
        [f"{len(listed):,} addresses ({good:,} good) got the verdict and the form of email-validator"],
        {"addresses": len(listed), "refused_with_screens": refused, "registered_traps": _TRAPS},
    )


def _turn(some: Sequence[T], work: Callable[[Sequence[T]], int]) -> tuple[Turn, int]:
    cpu_s, wall_s = time.process_time(), time.perf_counter()
    answer = work(some)
    return Turn(len(some), time.process_time() - cpu_s, time.perf_counter() - wall_s), answer


def _screened() -> Callable[[Sequence[Recipient]], int]:
    """All that admission asks of an address; nothing is remembered from the turn before but what the module keeps."""
    traps = {hash_of_canonical(KEYS, f"trap{number}@trap.example"): TrapFact() for number in range(_TRAPS)}
    recycled: dict[str, str] = {}
    questions, hash_of = (
        Screens(KEYS, trap=traps.get, recycled=lambda hashed, _: recycled.get(hashed)).of(POLICY),
        hashing(KEYS),
    )

    def work(some: Sequence[Recipient]) -> int:
        refused = 0
        for recipient in some:
            checked = check(recipient.address)
            if not isinstance(checked, CheckedAddress):
                refused += 1
                continue
            hashed = hash_of(canonical_of(checked))
            found = questions.objections(recipient, checked, hashed, _NOW)
            refused += bool(found) and found[0].does == "refuse"
        return refused

    return work


def _the_library(address: str) -> CheckedAddress | None:
    try:
        found = validate_email(address, strict=True, check_deliverability=False)
    except EmailNotValidError:
        return None
    local, domain = found.local_part, found.ascii_domain
    if len(local.encode()) > _MAX_LOCAL_OCTETS:
        return None
    return CheckedAddress(f"{local}@{domain}", local, domain, not local.isascii())


def _same_verdicts(some: Sequence[str]) -> int:
    """How many are good; ends the benchmark if any verdict differs."""
    good = 0
    for number, address in enumerate(some):
        ours, theirs = check(address), _the_library(address)
        if (ours if isinstance(ours, CheckedAddress) else None) != theirs:
            sys.exit(f"address {number} of the list got another verdict or form than from email-validator")
        good += theirs is not None
    return good


if __name__ == "__main__":
    main()

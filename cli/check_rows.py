"""The verdict on one row of a list: what admission would say of it, its double, and what the DNS says."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from agents.ports import now_ms
from cli.check_reading import Columns, Row, columns, millis, rows
from cli.failures import SaysNo
from policy.addresses import BadAddress, CheckedAddress, canonical_of, check
from policy.domain_lists import DomainLists
from policy.hashed import HashedNumbers
from policy.naming import campaign_scope
from policy.screens import Questions, Screens
from policy.tokens import Keys, hash_of_canonical
from schemas.sending import AdmissionPolicy, Campaign, Recipient
from smtp.domain_checks import DomainReport
from streams.catalogue import PLATFORM, Catalogue

Verdict = Literal["ok", "flag", "hold", "refuse"]

STRICT = AdmissionPolicy(
    known_trap="refuse",
    typo_domain="refuse",
    disposable="refuse",
    role_account="refuse",
    recycled="refuse",
    sunset="refuse",
    age="refuse",
    provenance="refuse",
)
_REASONS = {"unknown": "dns_unknown"}


@dataclass(frozen=True, slots=True)
class Answer:
    """What is told of one row."""

    row: int
    address: str
    verdict: Verdict
    reason: str = ""
    explain: str = ""


class Desk:
    """Gives every row its verdict, as far as it can be told without the DNS."""

    def __init__(
        self,
        keys: Keys,
        policy: AdmissionPolicy,
        campaign: Campaign | None,
        catalogue: Catalogue | None,
        lists: DomainLists,
    ) -> None:
        self._keys = keys
        self._seen = HashedNumbers()
        self._now = now_ms()
        self._suppressed: Callable[[str], str | None] = _nobody
        screens = Screens(keys, lists=lists)
        if catalogue is not None:
            scopes = [PLATFORM]
            if campaign is not None:
                scopes += [f"tenant:{campaign.tenant}", campaign_scope(campaign.campaign)]
            self._suppressed = catalogue.suppressions.within(tuple(scopes), now=self._now)
            screens = Screens(keys, trap=catalogue.trap, recycled=catalogue.recycled, lists=lists)
        self._questions: Questions = screens.of(policy)

    def answers(self, file: Path, column: str | None, progress: Callable[[int], None]) -> Iterator[tuple[Answer, str]]:
        """One answer per row, and the domain that is left to ask about (empty: none)."""
        every = rows(file, progress)
        first = next((row for row in every if row.cells), None)
        if first is None:
            raise SaysNo(f"{file} holds no rows")
        where = columns(file, first, column)
        if not where.header:
            yield self._answer(first, where)
        for row in every:
            yield self._answer(row, where)

    def _answer(self, row: Row, where: Columns) -> tuple[Answer, str]:
        if row.flaw or len(row.cells) <= where.address:
            flaw = (
                row.flaw or f"the row has {len(row.cells)} cells, and the address stands in number {where.address + 1}"
            )
            return Answer(row.number, "", "refuse", "bad_row", flaw), ""
        given = row.cells[where.address].strip(" \t")
        checked = check(given)
        if isinstance(checked, BadAddress):
            return Answer(row.number, given, "refuse", "bad_address", f"address {checked.explain}"), ""
        hashed = hash_of_canonical(self._keys, canonical_of(checked))
        recipient = _recipient(row, where, given)
        if isinstance(recipient, str):
            return Answer(row.number, given, "refuse", "bad_field", recipient), ""
        return self._judged(row.number, recipient, checked, hashed), checked.domain

    def _judged(self, number: int, recipient: Recipient, checked: CheckedAddress, hashed: str) -> Answer:
        given = recipient.address
        objections = self._questions.objections(recipient, checked, hashed, self._now)
        worst = objections[0] if objections else None
        suppressed = self._suppressed(hashed) or self._suppressed(self._questions.domain(checked.domain).hashed)
        if suppressed is not None and (worst is None or worst.does != "refuse"):
            reason = "known_trap" if suppressed.startswith("trap") else "suppressed"
            why = "".join(one for one in suppressed[:100] if one.isprintable())
            return Answer(number, given, "refuse", reason, f"address is suppressed ({why}); take it off the list")
        first = self._first(hashed, number)
        if worst is not None and worst.does != "off" and (worst.does != "flag" or first is None):
            return Answer(number, given, worst.does, worst.screen, f"{worst.field} {worst.explain}")
        if first is not None:
            return Answer(number, given, "flag", "duplicate", f"address is that of row {first}; one mail is enough")
        return Answer(number, given, "ok")

    def _first(self, hashed: str, number: int) -> int | None:
        """The row that has the same mailbox, if there was one before."""
        key = int(hashed[:16], 16) or 1
        known = self._seen.get(key)
        if known is None:
            self._seen.put(key, number)
        return known


def _nobody(_: str) -> None:
    return


def _recipient(row: Row, where: Columns, address: str) -> Recipient | str:
    """The row as a recipient, or a sentence about a cell that cannot be read."""
    times: dict[str, int | None] = {}
    for name, at in (("opted_in_at", where.opted_in_at), ("last_seen_at", where.last_seen_at)):
        text = _cell(row, at)
        times[name] = millis(text) if text else None
        if text and times[name] is None:
            return f"{name} is no time; write milliseconds since 1970, or 2026-01-31T12:00:00Z"
    return Recipient(
        address=address,
        source=_cell(row, where.source) or None,
        opted_in_at=times["opted_in_at"],
        last_seen_at=times["last_seen_at"],
    )


def _cell(row: Row, at: int | None) -> str:
    return row.cells[at].strip() if at is not None and at < len(row.cells) else ""


def with_dns(answer: Answer, report: DomainReport | None) -> Answer:
    """The answer, or what the DNS says if that is worse."""
    if report is None or report.verdict == "good" or answer.verdict == "refuse":
        return answer
    worst = max(report.findings, key=lambda one: one.strength)
    if report.verdict == "bad":
        return replace(answer, verdict="refuse", reason=worst.kind, explain=f"the address's domain {worst.explain}")
    if answer.verdict != "ok":
        return answer
    explain = f"the address's domain {worst.explain} (strength {worst.strength:.1f})"
    return replace(
        answer, verdict="flag", reason=f"dns_{worst.kind}" if worst.kind == "unknown" else worst.kind, explain=explain
    )

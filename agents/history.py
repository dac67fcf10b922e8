"""History: results that mean more beside what happened before, as trap signals.

What is remembered is what the suppressions say, those that are over included; which servers answer for look-alikes of
large providers is remembered by each worker for itself.  A signal is feedback like any other: the tally publishes it,
gets it back, and counts it once, however often the results come again.

Most results have no history, and are told so in bulk.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Protocol

from agents.suppressing import PLATFORM, tenant_scope
from policy.hashed import Sieve
from policy.providers import of_host
from policy.replies import category_of, classify
from policy.tokens import Keys
from policy.trap_signals import (
    ALIVE_AGAIN,
    DAY_MS,
    REPLY_TEXT,
    TrapSignal,
    domain_resurrection,
    is_alive,
    is_dead,
    recycled_signature,
    reply_text,
    strongest,
    typo_domain,
)
from policy.traps import TrapFact, domain_hash, is_confirmed
from policy.typos import likely_domain
from schemas.counting import Accepted
from schemas.delivery import DeliveryResult
from schemas.feedback import Feedback, FeedbackEvent, Suppression
from schemas.sending import Campaign

SOURCE = "worker"
DOMAINS_REMEMBERED = 16_384
SERVERS_REMEMBERED = 4_096
LOOK_ALIKES_REMEMBERED = 64  # of one server
TEXTS_AT_ONCE = 50  # of one frame; replies of one server at one time are much alike


class Past(Protocol):
    """What is known of suppressed addresses and domains."""

    @property
    def ending(self) -> Sieve:
        """Lets pass the addresses whose suppression had an end."""

    on_domain: Callable[[str], None] | None
    """Called with the hash of each domain that is suppressed."""

    def past(self, address_hash: str, scopes: Sequence[str]) -> list[tuple[str, int, int | None]]:
        """Reason, since and until of each suppression, in force or over."""


@dataclass(slots=True)
class Found:
    """What the history of some results says: signals, and suppressions that turned out to be wrong."""

    signals: list[Feedback] = field(default_factory=list)
    lifted: list[Suppression] = field(default_factory=list)


class History:
    """Looks at results beside their past."""

    def __init__(
        self,
        past: Past,
        *,
        keys: Keys,
        trap: Callable[[str], TrapFact | None],
        likely: Callable[[str], str | None] = likely_domain,
        provider_of_host: Callable[[str], str | None] = of_host,
    ) -> None:
        self._past = past
        self._trap = trap
        self._provider_of_host = provider_of_host
        self._plain: set[str] = {""}  # domains that have no past and look like nobody else's
        self._names: dict[str, str] = {}  # of those, by hash
        self._domains = lru_cache(DOMAINS_REMEMBERED)(lambda domain: (domain_hash(keys, domain), likely(domain)))
        past.on_domain = self._doubt
        self._answering: OrderedDict[str, dict[str, None]] = OrderedDict()  # server -> look-alikes it answers for
        self._told: dict[
            tuple[str, str | None, str], int
        ] = {}  # campaign, address, provider -> day of a reply's signal

    def domain_hash(self, domain: str) -> str:
        """What stands for a whole domain."""
        return self._domains(domain)[0]

    def may_tell(self, accepted: Sequence[Accepted]) -> bool:
        """Whether some of these may have a past: nearly never, and then ``look_at`` has to look."""
        if self._suspect({one.domain for one in accepted}):
            return True
        ending = self._past.ending
        return not ending.is_empty and any(True for _ in ending.passing([one.address_hash for one in accepted]))

    def look_at(
        self,
        name: str,
        results: Sequence[DeliveryResult],
        refused: Sequence[DeliveryResult],
        campaign: Campaign | None,
    ) -> Found:
        """The signals in a frame of a campaign's results, at most one of each; ``refused`` are those not accepted."""
        found = Found()
        if refused:
            self._replies(name, refused, found)
        domains = self._suspect({one.domain for one in results})
        ending = self._past.ending
        hashes = [] if ending.is_empty else [one.address_hash for one in results]
        suspects = {id(results[at]) for at in ending.passing(hashes)}
        if suspects or domains:
            scopes = tuple(filter(None, (PLATFORM, tenant_scope(campaign))))
            for result in results:
                if result.outcome == "accepted" and (id(result) in suspects or result.domain in domains):
                    self._accepted(name, result, scopes, found)
        return found

    def _suspect(self, names: set[str]) -> set[str]:
        """Domains that may have a past, or look like a large provider's."""
        suspect = names - self._plain
        for name in list(suspect):
            hashed, likely = self._domains(name)
            if likely is None and not self._past.past(hashed, (PLATFORM,)):
                if len(self._plain) > DOMAINS_REMEMBERED:
                    self._plain, self._names = {""}, {}
                self._plain.add(name)
                self._names[hashed] = name
                suspect.discard(name)
        return suspect

    def _doubt(self, hashed: str) -> None:
        """A domain was suppressed just now."""
        name = self._names.pop(hashed, None)
        if name is not None:
            self._plain.discard(name)

    def _accepted(self, name: str, result: DeliveryResult, scopes: Sequence[str], found: Found) -> None:
        hashed = self.domain_hash(result.domain) if result.domain else None
        traps = [self._trap(one) for one in (result.address_hash, hashed) if one is not None]
        if any(fact is not None and fact.since <= result.at for fact in traps):
            return  # our own listener tells of it, and surely
        signals: list[TrapSignal | None] = []
        for one, is_domain in ((result.address_hash, False), (hashed, True)):
            for reason, since, until in [] if one is None else self._past.past(one, scopes):
                if not is_dead(reason) or result.at <= since or until is None or (until > result.at and not is_domain):
                    continue  # mail that was on its way when the address was suppressed
                signal = domain_resurrection if is_domain else recycled_signature
                signals.append(signal(since, result.at))
                if one is not None and is_alive(since, result.at):
                    found.lifted.append(_alive(one, result.at))
        if result.domain and (likely := self._domains(result.domain)[1]) is not None:
            signals.append(self._look_alike(result, likely))
        if (best := strongest(signals)) is not None:
            found.signals.append(_feedback(name, result, best))

    def _look_alike(self, result: DeliveryResult, likely: str) -> TrapSignal | None:
        """The domain looks like ``likely``; if the same people run its mail servers, it is theirs."""
        if not result.mx:
            return None
        server = result.mx.lower().removesuffix(".")
        if server.endswith(f".{likely}") or self._provider_of_host(server) is not None:
            return None
        domains = self._answering.setdefault(server, {})
        self._answering.move_to_end(server)
        if len(domains) < LOOK_ALIKES_REMEMBERED:
            domains[result.domain] = None
        if len(self._answering) > SERVERS_REMEMBERED:
            self._answering.popitem(last=False)
        return typo_domain(len(domains))

    def _replies(self, name: str, refused: Sequence[DeliveryResult], found: Found) -> None:
        """One signal a day for each of our addresses at each provider: such words are about the address's past."""
        read = 0
        for result in refused:
            if result.outcome not in ("bounced", "deferred") or not result.text:
                continue
            if category_of(result.class_).counts != "block" or read >= TEXTS_AT_ONCE:
                continue
            place, day = (name, result.ip, result.provider), result.at // DAY_MS
            if self._told.get(place) == day:
                continue
            read += 1
            reading = classify(code=result.code, enhanced=result.enhanced, text=result.text, provider=result.provider)
            signal = reply_text(reading.trap)
            if signal is not None:
                if len(self._told) >= SERVERS_REMEMBERED:
                    self._told.clear()
                self._told[place] = day
                found.signals.append(_feedback(name, result, signal))


def identity(event: FeedbackEvent) -> tuple[str, str] | None:
    """What makes feedback the same as other feedback, which is then not counted again; None: it is always another.

    A suspicion must not take the place of a hit that our own trap reports of the same message.
    """
    if event.kind != "trap_hit" or is_confirmed(event.trap):
        return None if event.message_id is None else (event.message_id, event.kind)
    if event.source == SOURCE and event.class_ == REPLY_TEXT:
        return f"{event.ip}|{event.provider}|{event.at // DAY_MS}", f"trap_hit:{REPLY_TEXT}"
    return None if event.message_id is None else (event.message_id, "trap_hit:suspected")


def _feedback(name: str, result: DeliveryResult, signal: TrapSignal) -> Feedback:
    return Feedback(
        kind="trap_hit",
        campaign=name,
        at=result.at,
        message_id=result.message_id,
        sent_at=result.at,
        address_hash=result.address_hash,
        provider=result.provider,
        ip=result.ip,
        trap=signal.trap,
        class_=signal.name,
        code=result.code,
        text=result.text,
        source=SOURCE,
    )


def _alive(hashed: str, at: int) -> Suppression:
    """A suppression that is over as it begins: it takes the place of one that was a mistake."""
    return Suppression(address_hash=hashed, scope=PLATFORM, reason=ALIVE_AGAIN, since=at, until=at)

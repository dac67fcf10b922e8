"""A local copy of what the compacted topics say: campaigns, contents, suppressions, traps, control, rates, brakes.

Every process that decides something about mail keeps one.  It is read from the beginning without a consumer group,
so each process has all of it; questions to it cost no round trip, and ``caught_up`` closes the gap of milliseconds
behind the topics where that matters.
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import TypeVar

import structlog
from aiokafka import ConsumerRecord

from policy.naming import campaign_scope
from policy.strikes import is_strike
from policy.templates import BadContent, Template, compile_content
from policy.trap_signals import BAD_DOMAIN, is_dead, why_recycled
from policy.traps import TrapFact
from schemas.base import Record
from schemas.codec import Malformed, decode
from schemas.feedback import Suppression
from schemas.reputation import Brake, Control, RatesSnapshot
from schemas.sending import Campaign, Content
from schemas.topics import BRAKES, BY_NAME, CAMPAIGNS, CONTENTS, CONTROL, RATES, SUPPRESSIONS, TRAPS
from streams.following import Follower
from streams.strikes import Strikes
from streams.suppressed import Suppressed
from streams.traps import Traps

log = structlog.get_logger()

ALL = (CAMPAIGNS, CONTENTS, SUPPRESSIONS, TRAPS, CONTROL, RATES, BRAKES)
PLATFORM = "platform"

R = TypeVar("R", bound=Record)
OnChange = Callable[[str, str], None]


class Catalogue:
    """The newest of each key of its ``topics`` (any of ``ALL``), kept up to date in the background.

    ``on_change(topic, key)`` is called for what changes after ``start`` has returned; what was there before stands
    in the mappings.  With ``campaign`` only what concerns that campaign is kept.  A record that cannot be read is
    logged, counted in ``malformed`` and skipped.
    """

    def __init__(
        self,
        bootstrap: str,
        topics: Iterable[str],
        *,
        client_id: str,
        on_change: OnChange | None = None,
        campaign: str | None = None,
    ) -> None:
        self.traps = Traps()
        apply: dict[str, Callable[[str, bytes | None], bool | Malformed]] = {
            CAMPAIGNS: self._campaign,
            CONTENTS: self._content,
            SUPPRESSIONS: self._suppression,
            TRAPS: self.traps.apply,
            CONTROL: self._control,
            RATES: self._rates,
            BRAKES: self._brake,
        }
        self._apply = {topic: apply[topic] for topic in topics}
        self._follower = Follower(bootstrap, tuple(self._apply), client_id=client_id, apply=self._take)
        self._on_change = on_change
        self._only = campaign
        self._started = False
        self._content_keys: dict[str, tuple[str, str]] = {}
        self.campaigns: dict[str, Campaign] = {}
        self.contents: dict[tuple[str, str], Content] = {}  # by campaign and content id
        self.templates: dict[tuple[str, str], Template | BadContent] = {}
        self.controls: dict[str, Control] = {}  # by campaign
        self.rates: dict[str, RatesSnapshot] = {}  # by scope
        self.brakes: dict[str, Brake] = {}
        self.suppressions = Suppressed()
        self.strikes = Strikes()  # of all campaigns, so senders keep none
        self.malformed = 0

    async def start(self, *, within_s: float | None = None) -> None:
        """Read everything; waits for a broker and for topics that are missing, or raises ``TimeoutError``."""
        async with asyncio.timeout(within_s):
            await self._follower.start()
        self._started = True

    async def stop(self) -> None:
        """Stop reading; what was read stays."""
        await self._follower.stop()

    async def caught_up(self, timeout_s: float) -> bool:
        """Wait until everything is in that was in the topics when this was called; False if that takes longer."""
        return await self._follower.caught_up(timeout_s)

    def heard_at(self) -> float:
        """A moment (monotonic seconds) up to which all that was published is in; refreshed twice a second."""
        return self._follower.heard_at()

    def suppressed(self, address_hash: str, campaign: str) -> str | None:
        """Why an address gets no mail of a campaign; None if it may get it."""
        if not self.suppressions.may_know(address_hash):  # nearly all
            return None
        return self.suppressed_in(campaign)(address_hash)

    def suppressed_in(self, campaign: str, *, as_of: int | None = None) -> Callable[[str], str | None]:
        """The same question for many addresses of one campaign, as things stand now or stood at ``as_of`` (ms)."""
        known = self.campaigns.get(campaign)
        tenant = [f"tenant:{known.tenant}"] if known is not None else []
        scopes = (PLATFORM, *tenant, campaign_scope(campaign))
        return self.suppressions.within(scopes, now=time.time_ns() // 1_000_000 if as_of is None else as_of)

    def heard_of(self, hashed: str) -> bool:
        """False: the address, or ``@`` and domain, is no trap, and suppressed nowhere, nor ever was."""
        return hashed in self.traps or self.suppressions.may_know(hashed)

    def trap(self, hashed: str) -> TrapFact | None:
        """What is known of the trap whose address, or ``@`` and domain, has this keyed hash."""
        return self.traps.get(hashed)

    def recycled(self, hashed: str, at: int) -> str | None:
        """Why an address, or ``@`` and a domain, may have been a recycled trap at a time (ms); ``the address …``.

        What was suppressed still is not asked about: it gets no mail anyway.
        """
        if not self.suppressions.may_know(hashed):
            return None
        for reason, since, until in self.suppressions.past(hashed, (PLATFORM,)):
            if until is not None and until <= at and is_dead(reason):
                return why_recycled(since, at, is_domain=reason == BAD_DOMAIN)
        return None

    def _take(self, record: ConsumerRecord) -> None:
        """Apply one record; whatever is wrong with it stays with it."""
        try:
            key = (record.key or b"").decode()
            applied = self._apply[record.topic](key, record.value)
        except Exception as error:  # noqa: BLE001 - one bad record must not hide those behind it
            applied = Malformed(reason="wrong_field", explain=f"{type(error).__name__}: {error}")
        match applied:
            case Malformed() as malformed:
                self._skip(record, malformed)
            case True if self._started and self._on_change is not None:
                self._tell(record.topic, key)

    def _skip(self, record: ConsumerRecord, malformed: Malformed) -> None:
        self.malformed += 1
        log.warning(
            "record skipped",
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            reason=malformed.reason,
            explain=malformed.explain[:300],
        )

    def _tell(self, topic: str, key: str) -> None:
        assert self._on_change is not None, "asked by the caller"  # noqa: S101 - narrows the type
        try:
            self._on_change(topic, key)
        except Exception:  # the listener's bug must not end the reading
            log.exception("listener failed", topic=topic)

    # One method per topic.  The answer: whether something changed that this catalogue keeps.

    def _campaign(self, key: str, raw: bytes | None) -> bool | Malformed:
        if self._only not in {None, key}:
            return False
        if raw is None:
            return self.campaigns.pop(key, None) is not None
        match decode(Campaign, raw):
            case Malformed() as malformed:
                return malformed
            case campaign:
                self.campaigns[campaign.campaign] = campaign
                return True

    def _content(self, key: str, raw: bytes | None) -> bool | Malformed:
        if self._only is not None and not key.startswith(f"{self._only}/"):
            return False
        if raw is None:
            self._forget_content(key)
            return True
        match decode(Content, raw, max_bytes=BY_NAME[CONTENTS].max_bytes):
            case Malformed() as malformed:
                return malformed
            case content:
                self._forget_content(key)  # a/b + c and a + b/c share a key, and with it the place in the topic
                name = (content.campaign, content.content)
                self._content_keys[key] = name
                self.contents[name] = content
                self.templates[name] = compile_content(content)
                return True

    def _forget_content(self, key: str) -> None:
        name = self._content_keys.pop(key, None)
        if name is not None:
            self.contents.pop(name, None)
            self.templates.pop(name, None)

    def _suppression(self, key: str, raw: bytes | None) -> bool | Malformed:
        address_hash, _, scope = key.partition("|")
        if self._only is not None and scope.startswith("campaign:") and scope != campaign_scope(self._only):
            return False
        if is_strike(scope):
            return self._strike(address_hash, scope, raw)
        if raw is None:
            self.suppressions.lift(address_hash, scope)
            return True
        match decode(Suppression, raw):
            case Malformed() as malformed:
                return malformed
            case one:
                self.suppressions.add(one.address_hash, one.scope, reason=one.reason, since=one.since, until=one.until)
                return True

    def _strike(self, address_hash: str, scope: str, raw: bytes | None) -> bool | Malformed:
        if self._only is not None:
            return False
        if raw is None:
            return self.strikes.apply(address_hash, scope, None, None)
        match decode(Suppression, raw):
            case Malformed() as malformed:
                return malformed
            case one:
                return self.strikes.apply(address_hash, scope, one.since, one.until)

    def _control(self, key: str, raw: bytes | None) -> bool | Malformed:
        """The newest epoch wins; of the same epoch the newest record, since pace and sentence may change within."""
        if self._only not in {None, key}:
            return False
        if raw is None:
            return self.controls.pop(key, None) is not None
        match decode(Control, raw):
            case Malformed() as malformed:
                return malformed
            case control:
                held = self.controls.get(control.campaign)
                if held is not None and held.epoch > control.epoch:
                    return False
                self.controls[control.campaign] = control
                return True

    def _brake(self, key: str, raw: bytes | None) -> bool | Malformed:
        if raw is None:
            return self.brakes.pop(key, None) is not None
        match decode(Brake, raw):
            case Malformed() as malformed:
                return malformed
            case brake:
                self.brakes[brake.brake] = brake
                return True

    def _rates(self, key: str, raw: bytes | None) -> bool | Malformed:
        if self._only is not None and not key.startswith(campaign_scope(self._only)):
            return False
        if raw is None:
            return self.rates.pop(key, None) is not None
        match decode(RatesSnapshot, raw):
            case Malformed() as malformed:
                return malformed
            case snapshot:
                self.rates[snapshot.scope] = snapshot
                return True

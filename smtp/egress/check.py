"""Is the way out in order?  Asked at the start of a sender, every hour, and by ``mailcordon egress check``."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import structlog

from policy.settings import Endpoint
from smtp.egress.identity import Identity, identities, own_addresses
from smtp.egress.mirror import Seen, look
from smtp.egress.outage import Outage
from smtp.egress.ways import Egress
from smtp.mx import Resolver

log = structlog.get_logger()

Strictness = Literal["require", "warn", "off"]

AGAIN_S, AGAIN_MOST_S = 5.0, 60.0
EVERY_S = 3600.0
SEEN_EVERY_S = 300.0
"""Where a mirror tells, asking costs one connection, and an address may change with a node."""
_STEP_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What was found: the name for EHLO, every source address, and what of the way out fails.

    ``elsewhere``: the mirror sees another address than the one to leave from; ``unseen``: it does not tell.
    """

    ehlo: str
    identities: tuple[Identity, ...] = ()
    trouble: str | None = None
    note: str | None = None
    elsewhere: str | None = None
    unseen: str | None = None

    @property
    def strays(self) -> str | None:
        """Why nobody knows that mail leaves from where it is to leave; None when that is known, or not asked for."""
        return self.elsewhere or self.unseen

    @property
    def ok(self) -> bool:
        """Nothing speaks against taking mail."""
        return (
            self.trouble is None
            and self.strays is None
            and all(one.answer in {"verified", "not_checked"} for one in self.identities)
        )

    @property
    def why(self) -> str:
        """All of it in a sentence: what is wrong if anything is, else what was found."""
        if self.trouble is not None:
            return self.trouble
        if self.strays is not None:
            return self.strays
        wrong = [one.why for one in self.identities if one.answer in {"wrong", "unanswered"}]
        said = wrong or [one.why for one in self.identities]
        return "; ".join([*said, *([self.note] if self.note else [])])


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """How to check: the way out, the EHLO name if the settings have one, this machine's own name if they have none.

    ``relay`` names the one next hop of all mail, if there is one: then its PTR counts for the world, and not ours.
    ``mirror`` is a server that tells which address it sees, if there is one.
    """

    egress: Egress
    hostname: str | None
    machine: str
    relay: str | None = None
    mirror: Endpoint | None = None
    resolver: Resolver | None = None
    own: Callable[[], Sequence[str]] = own_addresses

    async def skipped(self) -> Checked:
        """Take the EHLO name as it is set, and look at nothing but the mirror."""
        ehlo = self.hostname or self.machine
        seen = await self._seen(ehlo)
        note = "the settings say not to check the name"
        return Checked(ehlo=ehlo, note=note, elsewhere=seen.elsewhere, unseen=seen.unseen)

    async def __call__(self) -> Checked:
        """Look at everything now."""
        ehlo = self.hostname or self.machine
        seen = await self._seen(ehlo)
        named = await self._named(ehlo, seen.addresses)
        return replace(named, elsewhere=seen.elsewhere, unseen=seen.unseen)

    async def _seen(self, ehlo: str) -> Seen:
        return Seen() if self.mirror is None else await look(self.egress, self.mirror, ehlo=ehlo, within_s=_STEP_S)

    async def _named(self, ehlo: str, seen: Sequence[str]) -> Checked:
        failed = await self.egress.probe(within_s=_STEP_S)
        if failed is not None:
            return Checked(ehlo=ehlo, trouble=failed.text)
        if self.relay is not None:
            return Checked(ehlo=ehlo, note=f"all mail goes to {self.relay}, whose own PTR counts: ours is not checked")
        addresses = self.egress.addresses or tuple(seen) or self.egress.bind
        if self.egress.proxy is not None and not (self.egress.addresses or seen):
            return Checked(
                ehlo=ehlo,
                trouble="which address the proxy sends from cannot be told: set MAILCORDON_EGRESS_ADDRESS to it, or "
                "MAILCORDON_EGRESS_SEEN_BY to a server that tells",
            )
        addresses = addresses or tuple(self.own())
        if not addresses:
            return Checked(ehlo=ehlo, note="this machine has no route to the Internet: no source address to check")
        found = await identities(addresses, ehlo=self.hostname, resolver=self.resolver)
        named = next((one.ehlo for one in found if one.ehlo), None)
        return Checked(ehlo=named or ehlo, identities=tuple(found))


@dataclass(slots=True, kw_only=True)
class Watch:
    """Lets a sender begin when its way out is in order, and looks again every ``every_s`` seconds.

    Mail that would leave from another address than its own waits, whatever the strictness: at the beginning until the
    mirror has seen the right one, later from when it sees a wrong one.  That the mirror is away later stops nobody.
    A name that breaks later stops nobody: the mistake may be the name server's, and what receivers make of it shows
    in their answers, by which campaigns are judged.  It is said in the log and by the metric.
    """

    check: Callable[[], Awaitable[Checked]]
    strictness: Strictness
    outage: Outage = field(default_factory=Outage)
    every_s: float = EVERY_S
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    last: Checked | None = field(default=None, init=False)
    why: str | None = field(default="the source address is not verified yet", init=False)

    @property
    def ok(self) -> float:
        """1 when the last look found nothing wrong, for the metric."""
        return float(self.last is None or self.last.ok)

    async def verified(self) -> str:
        """Wait until mail may be taken; answers the EHLO name."""
        wait_s = AGAIN_S
        said = None
        while True:
            self.last = checked = await self.check()
            if checked.ok or (self.strictness != "require" and checked.strays is None):
                break
            self.why = f"the source address is not verified: {checked.why}"
            if checked.why != said:
                log.error("not taking mail: the source address is not verified", why=checked.why, ehlo=checked.ehlo)
                said = checked.why
            await self.sleep(wait_s)
            wait_s = min(2 * wait_s, AGAIN_MOST_S)
        self.why = None
        self._say(checked)
        return checked.ehlo

    async def keep(self) -> None:
        """Look again and again, for ever; sooner while mail would leave from elsewhere."""
        wait_s = AGAIN_S
        while True:
            await self.sleep(self.every_s if self.outage.elsewhere is None else wait_s)
            before, self.last = self.last, await self.check()
            wait_s = AGAIN_S if self.last.elsewhere is None else min(2 * wait_s, AGAIN_MOST_S)
            if self.last.elsewhere is not None or self.last.unseen is None:
                self.outage.strays(self.last.elsewhere)
            if before is None or before.why != self.last.why:
                self._say(self.last)

    def _say(self, checked: Checked) -> None:
        if not checked.ok:
            log.warning("the source address is not as mailbox providers want it", why=checked.why, ehlo=checked.ehlo)
        elif any(one.answer == "not_checked" for one in checked.identities):
            log.warning("the source address was not checked", why=checked.why, ehlo=checked.ehlo)
        elif not checked.identities:
            log.info("the source address was not checked", why=checked.why, ehlo=checked.ehlo)
        else:
            log.info("the source address is in order", why=checked.why, ehlo=checked.ehlo)

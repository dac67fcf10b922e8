"""From decisions to senders, level by level: read what is, plan, act, read again.

Nothing here remembers what it was about to do: a controller that is killed anywhere begins with reading, and does
what is left.  Records of ``mail.control`` only say where to look first; what counts is the newest Control that is
known when a campaign's turn comes, and every 30 seconds everything is looked at.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, assert_never

import structlog

from k8s.cluster import Cluster, Permanent, SenderStatus, Stale, Temporary
from k8s.metrics import Metrics
from k8s.plan import Desired, Ensure, Isolate, Release, Retire, Step, as_asked, desired, holds, is_urgent, plan
from k8s.queue import WorkQueue
from k8s.registering import Registering, Registrar
from schemas.reputation import Control
from schemas.sending import Campaign

log = structlog.get_logger()

BEGUN = {
    "ensure": "sender is being put in place",
    "release": "sender is being released",
    "isolate": "sender is being isolated",
    "retire": "sender is being retired",
}
DONE = {
    "ensure": "sender put in place",
    "release": "sender released",
    "isolate": "sender isolated",
    "retire": "sender retired",
}


REPAIRS, REPAIRS_WITHIN_S = 5, 60.0
"""So many times a minute a sender is put right at once; then whoever undoes it is answered more slowly."""


class Truth(Protocol):
    """What was decided, by campaign: the compacted topics, read to their end."""

    @property
    def campaigns(self) -> Mapping[str, Campaign]:
        """The registered campaigns."""
        ...

    @property
    def controls(self) -> Mapping[str, Control]:
        """The newest Control of each campaign."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Habits:
    """How the reconciler works; times in seconds.

    ``settle_s`` is the first pause before looking again at a sender that is still finishing its mail, or before
    trying again what failed; it doubles up to ``longest_pause_s`` (``longest_urgent_s`` for what stops a sender).
    ``replicas`` is for senders of which nobody says how many; nobody gets more than ``most_replicas``, because a
    replica without a partition sends nothing.
    """

    workers: int = 8
    resync_s: float = 30.0
    settle_s: float = 0.1
    longest_pause_s: float = 30.0
    longest_urgent_s: float = 2.0
    pass_within_s: float = 60.0
    grace_s: int = 20
    replicas: int = 1
    most_replicas: int = 100


class Reconciler:
    """Makes every campaign's sender what its Control asks for.

    ``now`` is the wall clock in milliseconds; ``chance`` (0 to 1) spreads retries.  ``paused``: is the brake on the
    automation pulled?  It is only shown.
    """

    def __init__(
        self,
        cluster: Cluster,
        truth: Truth,
        *,
        now: Callable[[], int],
        chance: Callable[[], float],
        habits: Habits | None = None,
        metrics: Metrics | None = None,
        clock: Callable[[], float] = time.monotonic,
        paused: Callable[[], bool] = lambda: False,
        registrar: Registrar | None = None,
    ) -> None:
        self.habits = habits or Habits()
        self.metrics = metrics or Metrics()
        self._cluster, self._truth = cluster, truth
        self._now, self._chance, self._clock, self._paused = now, chance, clock, paused
        self._registering = Registering(cluster, registrar)
        self._queue = WorkQueue(clock)
        self._heard: dict[str, Control] = {}  # newer than the truth, for as long as that lags behind
        self._tries: dict[str, int] = {}
        self._refused: dict[str, str] = {}  # what was said of campaigns that cannot be what they should be
        self._repaired: dict[str, deque[float]] = {}  # when it was put right lately
        self._draining: dict[str, float] = {}
        self._measured: dict[str, int] = {}  # campaign -> epoch whose time from decision to done was taken
        self._begun: dict[str, Step] = {}  # told to have begun, and not yet to be done
        self._behind: dict[str, tuple[int, int]] = {}
        self._quiet_until = 0.0  # the place asked for patience; only what stops a sender goes on
        self._resynced_at: float | None = None

    def heard(self, control: Control) -> None:
        """A Control came by; it counts from now on, even if the truth has not read it yet."""
        known = self._heard.get(control.campaign)
        if known is None or known.epoch <= control.epoch:
            self._heard[control.campaign] = control
        self.wake(control.campaign)

    def forgotten(self, campaign: str) -> None:
        """The Control of a campaign was deleted."""
        self._heard.pop(campaign, None)
        self.wake(campaign)

    def wake(self, campaign: str) -> None:
        """Something about this campaign may have changed."""
        self._tries.pop(campaign, None)
        self._queue.add(campaign, urgent=is_urgent(self.control(campaign)))

    def changed(self, campaign: str) -> None:
        """Somebody changed something about its sender.

        Whoever undoes what we do over and over – two controllers of different versions while one replaces the other –
        gets an answer ever more slowly, or both would be busy with nothing else.
        """
        repaired = self._repaired.get(campaign, ())
        recent = sum(at > self._clock() - REPAIRS_WITHIN_S for at in repaired)
        if recent < REPAIRS:
            self.wake(campaign)
            return
        urgent = is_urgent(self.control(campaign))
        longest = self.habits.longest_urgent_s if urgent else self.habits.longest_pause_s
        pause_s = min(longest, self.habits.settle_s * float(2 ** (recent - REPAIRS)))
        self._queue.add_later(campaign, pause_s * (1 + self._chance() / 4), urgent=urgent)

    def wake_all(self) -> None:
        """Something about every campaign may have changed."""
        for campaign in self._truth.controls:
            self.wake(campaign)

    def control(self, campaign: str) -> Control | None:
        """The newest Control that is known."""
        told, heard = self._truth.controls.get(campaign), self._heard.get(campaign)
        if heard is not None and told is not None and told.epoch >= heard.epoch:
            del self._heard[campaign]
            return told
        return heard or told

    def since_resync_s(self) -> float | None:
        """How long ago everything was last compared; None before the first time."""
        return None if self._resynced_at is None else self._clock() - self._resynced_at

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._cluster.watch(self.changed), name="watch")  # first: a resync waits for its lists
            for number in range(self.habits.workers):
                tasks.create_task(self._work(), name=f"reconcile {number}")
            tasks.create_task(self._resync_on(), name="resync")

    async def resync(self) -> None:
        """Compare all that is there with all that was decided, and ask for what differs."""
        there = {status.campaign: status for status in await self._cluster.list()}
        known = there.keys() | self._truth.campaigns.keys() | self._truth.controls.keys() | {*self._cluster.defined()}
        for number, campaign in enumerate(sorted(known)):
            wish, status = self._wish(campaign), there.get(campaign)
            self._warn_if_behind(wish, status)
            if self._plan(campaign, status) or not self._is_shown(wish, status) or self._registering.is_due(wish.spec):
                self._queue.add(campaign, urgent=is_urgent(self.control(campaign)))
            if number % 50 == 49:
                await asyncio.sleep(0)  # a thousand fingerprints must not hold up an isolation
        self.metrics.count_senders([status.state for status in there.values()])
        self._resynced_at = self._clock()
        self.metrics.resynced_at.set(self._now() / 1000)

    async def reconcile(self, campaign: str) -> bool:
        """One pass over one campaign; True when what is there is what should be."""
        wish = self._wish(campaign)
        is_done = await self._put_right(wish)
        await self._registering.register(
            wish.spec
        )  # last: while Kafka cannot be asked, senders are stopped all the same
        return is_done

    async def _put_right(self, wish: Desired) -> bool:
        campaign = wish.spec.campaign
        before = await self._cluster.read(wish.spec)
        steps = self._plan(campaign, before)
        if not steps:
            self._warn_if_behind(wish, before)
            begun = self._begun.pop(campaign, None)
            if begun is not None and begun.control == wish.control:  # its sender has ended since we looked last
                self._tell([begun], before, before, is_done=True)
            else:
                self.metrics.reconciled.labels("nothing_to_do").inc()
            await self._show(wish, before)
            return True
        for step in steps:
            await self._act(step)
        after = await self._cluster.read(wish.spec)
        left = self._plan(campaign, after)
        self._tell(steps, before, after, is_done=not left)
        await self._show(wish, after)
        return not left

    def _is_shown(self, wish: Desired, status: SenderStatus | None) -> bool:
        control = holds(wish, status)
        if control is None:
            return True
        unfit = self._registering.unfit(wish.spec)
        return self._cluster.shows(wish.spec, control, paused=self._paused(), unfit=unfit)

    async def _show(self, wish: Desired, status: SenderStatus | None) -> None:
        control = holds(wish, status)
        if control is not None:
            unfit = self._registering.unfit(wish.spec)
            await self._cluster.show(wish.spec, control, paused=self._paused(), unfit=unfit)

    async def _act(self, step: Step) -> None:
        match step:
            case Ensure(spec, control):
                await self._cluster.ensure(spec, control)
            case Release(spec, control):
                await self._cluster.release(spec, control)
            case Isolate(spec, control, cut):
                await self._cluster.isolate(spec, control, cut=cut)
            case Retire(spec, control, cut):
                await self._cluster.retire(spec, control, cut=cut)
            case _:
                assert_never(step)

    def _wish(self, campaign: str) -> Desired:
        return desired(
            campaign,
            self._truth.campaigns.get(campaign),
            self.control(campaign),
            grace_s=self.habits.grace_s,
            replicas=self.habits.replicas,
        )

    def _plan(self, campaign: str, status: SenderStatus | None) -> list[Step]:
        wish = as_asked(self._wish(campaign), status, most=self.habits.most_replicas)
        shape = self._cluster.fingerprint(wish.spec)
        return plan(wish, status, shape=shape, draining_ms=self._draining_ms(campaign, status))

    def _draining_ms(self, campaign: str, status: SenderStatus | None) -> int:
        if status is None or status.wanted or not status.running:
            self._draining.pop(campaign, None)
            return 0
        return int((self._clock() - self._draining.setdefault(campaign, self._clock())) * 1000)

    async def _work(self) -> None:
        while True:
            campaign = await self._queue.get()
            self.metrics.waiting.set(len(self._queue))
            quiet_s = self._quiet_until - self._clock()
            try:
                if quiet_s > 0 and not is_urgent(self.control(campaign)):
                    self._queue.add_later(campaign, quiet_s)
                else:
                    await self._pass(campaign)
            finally:
                self._queue.done(campaign)
                self.metrics.delayed.set(self._queue.delayed)

    async def _pass(self, campaign: str) -> None:
        """Reconcile once; whatever goes wrong with this campaign stays with this campaign."""
        told = log.bind(campaign=campaign)
        try:
            async with asyncio.timeout(self.habits.pass_within_s):
                is_done = await self.reconcile(campaign)
                self._refused.pop(campaign, None)
                if is_done:
                    self._tries.pop(campaign, None)
                    return
            self.metrics.reconciled.labels("in_progress").inc()
            self._again(campaign)
        except Stale as stale:
            self.metrics.reconciled.labels("stale").inc()
            told.warning("an older decision was refused", why=str(stale), asked=stale.asked, fence=stale.fence)
        except (Temporary, TimeoutError) as later:
            self.metrics.reconciled.labels("temporary").inc()
            pause_s = self._again(campaign, at_least_s=self._asked_for_patience(later))
            told.warning("sender not reached, will try again", why=str(later) or "no answer in time", in_s=pause_s)
        except Permanent as refused:
            self.metrics.reconciled.labels("permanent").inc()
            pause_s = self._again(campaign)  # an API server that has just started refuses for lack of Roles
            if self._refused.get(campaign) != str(refused):
                self._refused[campaign] = str(refused)
                told.error("sender cannot be made what it should be", why=str(refused), in_s=pause_s)
        except Exception:  # noqa: BLE001 - a bug that one campaign brings out must not stop the others' isolation
            self.metrics.reconciled.labels("bug").inc()
            pause_s = self._again(campaign)
            told.exception("reconciling failed unexpectedly, will try again", in_s=pause_s)

    def _asked_for_patience(self, later: Temporary | TimeoutError) -> float:
        asked_s = later.retry_after_s if isinstance(later, Temporary) else None
        if asked_s:
            self._quiet_until = max(self._quiet_until, self._clock() + asked_s)
        return asked_s or 0.0

    def _again(self, campaign: str, *, at_least_s: float = 0.0) -> float:
        tries = self._tries[campaign] = self._tries.get(campaign, 0) + 1
        urgent = is_urgent(self.control(campaign))
        longest = self.habits.longest_urgent_s if urgent else self.habits.longest_pause_s
        pause_s = min(longest, self.habits.settle_s * float(2 ** min(tries - 1, 20)))
        pause_s = max(at_least_s, pause_s) * (1 + self._chance() / 4)
        self._queue.add_later(campaign, pause_s, urgent=urgent)
        return round(pause_s, 3)

    async def _resync_on(self) -> None:
        failures = 0
        while True:
            pause_s = self.habits.resync_s
            try:
                async with asyncio.timeout(self.habits.pass_within_s):
                    await self.resync()
                failures = 0
            except (Temporary, Permanent, TimeoutError) as failed:
                failures += 1
                patience_s = self._asked_for_patience(failed) if not isinstance(failed, Permanent) else 0.0
                pause_s = max(patience_s, min(pause_s, self.habits.settle_s * float(2 ** min(failures, 20))))
                log.warning("senders cannot be listed, will try again", why=str(failed) or "no answer in time")
            await asyncio.sleep(pause_s * (1 + self._chance() / 10))

    def _warn_if_behind(self, wish: Desired, status: SenderStatus | None) -> None:
        """Say once that the place knows a newer decision: another controller was faster, or the topic began anew."""
        campaign = wish.spec.campaign
        if status is None or wish.control is None or wish.control.epoch >= status.epoch:
            self._behind.pop(campaign, None)
            return
        known = (wish.control.epoch, status.epoch)
        if self._behind.get(campaign) != known:
            self._behind[campaign] = known
            log.warning(
                "the sender obeys a newer decision than the one we know",
                campaign=campaign,
                known=known[0],
                fence=known[1],
                hint="if this stays: mail.control was made anew, and the place still holds the fence of the old one",
            )

    def _tell(
        self, steps: list[Step], before: SenderStatus | None, after: SenderStatus | None, *, is_done: bool
    ) -> None:
        """The decision's own sentence, once when its work begins and once when it is done."""
        step = steps[-1]
        control, act = step.control, type(step).__name__.lower()
        fields = {
            "campaign": step.spec.campaign,
            "state": control.state,
            "epoch": control.epoch,
            "reason": control.reason,
            "running": after.running if after else 0,
        }
        if not is_done:
            self._begun[step.spec.campaign] = step
            if before is None or before.epoch < control.epoch:
                log.info(BEGUN[act], **fields)
            return
        self._begun.pop(step.spec.campaign, None)
        self.metrics.reconciled.labels("done").inc()
        if control.at and self._measured.get(step.spec.campaign, 0) < control.epoch:
            self._measured[step.spec.campaign] = control.epoch
            took_ms = max(0, self._now() - control.at)
            self.metrics.control_to_done.labels(act).observe(took_ms / 1000)
            log.info(DONE[act], took_ms=took_ms, **fields)
        else:
            self._repaired.setdefault(step.spec.campaign, deque(maxlen=32)).append(self._clock())
            log.info("sender put right again", **fields)

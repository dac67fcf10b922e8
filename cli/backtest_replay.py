"""The replay: records in the order of their time go in, and come out as the decisions that live would have made.

The same code as live counts (``policy.counts``, ``streams.panes``) and judges (``policy.judging``); what is done here
is what the workers' agents and timers do around it.  Time is that of the records: each is judged when it arrives (a
campaign that is well once a second), each campaign's windows move by the minute, and a campaign that is not healthy is
reviewed every ten seconds.
"""

import heapq
from collections.abc import Mapping, Sequence

import msgspec

from agents.reviews import AGAIN_MS, EVERY_S, why_again
from agents.snapshots import EVERY_MS, is_above_limit
from cli.backtest_counting import LENGTHS_MIN, IsHeld
from cli.backtest_limits import WhatIf
from cli.backtest_priors import Borrowing
from cli.backtest_records import LATEST_MS, Frame
from cli.backtest_shared import Sharing
from cli.backtest_trace import Trace
from cli.backtest_tracked import Tracked, unknown
from policy import ladder
from policy.brakes import capped, is_pulled
from policy.counts import MINUTE_MS
from policy.judging import PROVIDER, judge
from policy.ladder import Around, Standing
from policy.naming import campaign_scope
from policy.obeying import effective, in_force_since
from policy.priors import EVERYWHERE
from policy.retained import campaign_as_decided
from policy.sharing import AGAIN_MS as PARTS_AGAIN_MS
from policy.sharing import EVERY_MS as PARTS_EVERY_MS
from policy.sharing import KINDS, Member
from policy.transitions import TRANSITIONS
from policy.verdicts import WARNING, verdicts
from schemas.feedback import FeedbackEvent
from schemas.reputation import Brake, Command, Control, Counts, Decision, RatesSnapshot
from schemas.sending import Campaign
from streams import panes

REFUSED = "refused"
SELDOM_MS = 3_600_000  # between reviews of what time alone does not move
FORGET_EVERY_MIN = 60
SILENCE_MS = 30 * 86_400_000

_COMMANDS = {"isolate", "release", "retire"}
_STAYS = {
    state
    for state, leads in TRANSITIONS.items()
    if state != "healthy" and all(to == state for signal, to in leads.items() if signal not in _COMMANDS)
}
_LATE, _PROVIDERS, _MINUTE, _PARTS, _REVIEW = range(5)  # what is due
_LATE_MS = 250  # how often the workers look for campaigns that wait for their second
_PROVIDERS_MS = 5_000  # how often the workers look at single providers
_SECOND_MS = int(EVERY_S * 1000)

Due = tuple[int, int, str]  # when, what, and for a review whose


class Replay:
    """Where all campaigns stand, at the time of the newest record.

    ``campaigns`` are the first known records: what is kept of a compacted topic held before.  What comes before
    ``judged_from`` is counted and not judged; with ``retained`` campaigns, and what they share, stand then as the real
    decisions before say, and else they are healthy.  ``traced`` is the campaign whose verdicts are noted.  With
    ``as_if_held`` mail that would have been held counts in no window.  ``cap`` is the share of all campaigns that the
    policy may isolate within an hour, and how many at least.
    """

    def __init__(
        self,
        campaigns: Mapping[str, Campaign],
        *,
        what_if: WhatIf,
        judged_from: int = 0,
        retained: bool = True,
        obeys_commands: bool = True,
        as_if_held: bool = False,
        cap: tuple[float, int] = (1.0, 1),
        traced: str | None = None,
    ) -> None:
        self.tracked: dict[str, Tracked] = {}
        self.sharing = Sharing()
        self._borrowing = Borrowing()
        self.judged_from = judged_from
        self._first = campaigns
        self._what_if = what_if
        self._retained = retained
        self._obeys_commands = obeys_commands
        self._as_if_held = as_if_held
        self._cap = cap
        self._traced = traced
        self._parts_at: int | None = None  # when the parts were told last; None when nobody is going to
        self._parts_moved = False
        self._controls: dict[str, Control] = {}
        self._brakes: dict[str, Brake] = {}
        self._due: list[Due] = []
        self._now: int | None = None
        self._minutes: dict[int, set[str]] = {}
        self._ticks = False  # reviews come last of what is due at one time, and before what arrives then

    # -- what comes in

    def results(self, frame: Frame, partition: int, offset: int, now: int) -> None:
        """A frame of results arrives."""
        one = self._of(frame.campaign)
        one.partition = partition
        counted = one.counting.count(frame, partition, offset, now, self._is_held(one))
        if counted.fresh:
            self._expect(frame.campaign, counted.fresh, now)
        self._expect_parts(now)
        if counted.new and one.holds.concerns:
            one.holds.results(counted.new)
        live = one.counting.live
        is_soon = 0 <= now - live.published_at < EVERY_MS
        if not is_soon or counted.blocked or one.turned_away or self._is_above_limit(one, now):
            self._look(one, now)
        elif not one.is_late:
            one.is_late = True
            at = -(-(live.published_at + EVERY_MS) // _LATE_MS) * _LATE_MS
            heapq.heappush(self._due, (at, _LATE, frame.campaign))

    def feedback(self, events: Sequence[FeedbackEvent], partition: int, offset: int, now: int) -> None:
        """A record of feedback arrives."""
        by_campaign: dict[str, list[FeedbackEvent]] = {}
        for event in events:
            by_campaign.setdefault(event.campaign, []).append(event)
        for name, own in by_campaign.items():
            one = self._of(name)
            one.partition = partition
            counted, fresh = one.counting.count_feedback(own, partition, offset, now, self._is_held(one))
            self._expect(name, fresh, now)
            self._expect_parts(now)
            if one.holds.concerns:
                for event in counted:
                    one.holds.feedback(event)
            self._look(one, now)

    def campaign(self, campaign: Campaign, now: int) -> None:
        """A campaign's record arrives: its limits may be others from now on."""
        one = self._of(campaign.campaign)
        one.recorded, one.campaign, one.is_known = campaign, self._what_if.applied(campaign), True
        if now >= self.judged_from:
            self._review(one, now)
        else:
            self._ask(one, self.judged_from)

    def command(self, command: Command, now: int) -> None:
        """An operator's command arrives; what the workers told each other is not replayed."""
        if command.by == "policy" or command.scope != campaign_scope(command.campaign):
            return
        if self._obeys_commands and now >= self.judged_from:
            self._judge(self._of(command.campaign), now, command=command)

    def brake(self, brake: Brake) -> None:
        """A brake is pulled or let go."""
        if self._obeys_commands:
            self._brakes[brake.brake] = brake

    def decision(self, decision: Decision) -> None:
        """What was really decided: to compare with, or where all begins."""
        if decision.at > LATEST_MS or decision.rule == REFUSED:
            return
        scope = campaign_scope(decision.campaign)
        if decision.at < self.judged_from:
            if self._retained:
                self._begin_with(scope, decision)
        elif decision.scope.startswith(KINDS):
            self.sharing.decided(decision)
        elif decision.scope == scope or decision.scope.startswith(f"{scope}/"):
            one = self._of(decision.campaign)
            if all((known.scope, known.epoch) != (decision.scope, decision.epoch) for known in one.really):
                one.really.append(decision)

    def _begin_with(self, scope: str, decision: Decision) -> None:
        if decision.scope.startswith(KINDS):
            self.sharing.begin_with(decision)
        elif decision.scope == scope or decision.scope.startswith(f"{scope}/"):
            one = self._of(decision.campaign)
            seen = self._rates(one, max(decision.at, self._now or 0)) if one.counting.results else None
            standing = campaign_as_decided(one.standing, scope, decision, seen)
            self._stands(one, standing, self.judged_from)
            self._enter(one, standing, self.judged_from)
            self.sharing.knows(decision, standing)

    def advance(self, now: int) -> None:
        """Let time pass: whatever is due until ``now`` happens, each at its own time.

        In a long silence nothing moves any more, and reviews wait for its end.
        """
        due = self._due
        silence = now if self._now is None else self._now + SILENCE_MS
        self._now = now
        self._ticks = True
        while due and due[0][0] <= now:
            at, kind, name = heapq.heappop(due)
            if kind == _REVIEW:
                one = self.tracked[name]
                if one.review_at == at and silence < at < now:
                    self._ask(one, now)
                elif one.review_at == at:
                    self._review(one, at)
            elif kind == _LATE:
                if self.tracked[name].is_late:
                    self._look(self.tracked[name], at)
            elif kind == _PROVIDERS:
                self._sort_out(self.tracked[name], at)
            elif kind == _PARTS:
                self._tell_parts(at)
            else:
                for campaign in sorted(self._minutes.pop(at // MINUTE_MS)):
                    self._moved(self.tracked[campaign], at)
        self._ticks = False

    @staticmethod
    def _is_above_limit(one: Tracked, now: int) -> bool:
        return is_above_limit(one.counting.windows(now), one.campaign.limits)

    def _is_held(self, one: Tracked) -> IsHeld | None:
        return one.holds.is_held if self._as_if_held and one.holds.concerns else None

    # -- what follows

    def _moved(self, one: Tracked, now: int) -> None:
        """A minute that counts has entered a window of the campaign, or left it."""
        if one.counting.windows(now) != one.counting.live.published:
            self._look(one, now)
            self._expect_parts(now)
        minute = now // MINUTE_MS
        if minute - one.forgot_at >= FORGET_EVERY_MIN:
            one.forgot_at = minute
            one.counting.forget(now)

    def _look(self, one: Tracked, now: int) -> None:
        """Judge a campaign by its windows as they are now."""
        live = one.counting.live
        live.published, live.published_at, one.is_late = one.counting.windows(now), now, False
        if now < self.judged_from:
            if one.standing is not None:
                self._follow(one, one.standing, now)
            return
        rates = self._rates(one, now)
        if one.trace is not None:
            one.trace.add(now, rates.verdicts)
        self._judge(one, now, rates=rates)

    def _follow(self, one: Tracked, standing: Standing, now: int) -> None:
        """Remember what rates say before the beginning, as the workers did; what they decided then is known."""
        scope = campaign_scope(one.campaign.campaign)
        after, decisions = judge(standing, scope=scope, campaign=one.campaign, now=now, rates=self._rates(one, now))
        if not decisions:
            one.standing = after

    def _rates(self, one: Tracked, now: int) -> RatesSnapshot:
        windows = one.counting.windows(now)
        priors = self._borrowing.priors(one, self.tracked, now)
        found = verdicts(windows, one.campaign.limits, priors.get(EVERYWHERE, {}))
        return RatesSnapshot(
            scope=campaign_scope(one.campaign.campaign),
            at=now,
            windows=windows,
            verdicts=found,
            providers=self._by_provider(one, found["block"].evidence, windows["24h"].block, now),
            priors=priors,
        )

    def _by_provider(self, one: Tracked, evidence: float, blocks: int, now: int) -> dict[str, dict[str, Counts]]:
        """The windows of single providers, when some turn the campaign away or are judged by themselves."""
        if evidence >= WARNING:
            one.turned_away = True
        if not blocks:
            one.turned_away = False
        elif not one.is_sorted_soon:
            one.is_sorted_soon = True
            heapq.heappush(self._due, ((now // _PROVIDERS_MS + 1) * _PROVIDERS_MS, _PROVIDERS, one.campaign.campaign))
        control = self._controls.get(one.campaign.campaign)
        if not one.turned_away and (control is None or not control.providers):
            return {}
        return one.counting.live.rolling.by_provider(now // MINUTE_MS)

    def _sort_out(self, one: Tracked, now: int) -> None:
        """Look at each provider by itself: of many, one may turn the campaign away though its own rate says nothing."""
        one.is_sorted_soon = False
        was_turned_away = one.turned_away
        one.turned_away = any(
            verdicts(windows, one.campaign.limits)["block"].evidence >= WARNING
            for windows in one.counting.live.rolling.by_provider(now // MINUTE_MS).values()
            if windows["24h"].block
        )
        if one.turned_away and not was_turned_away:
            self._look(one, now)

    def _review(self, one: Tracked, now: int) -> None:
        one.reviewed_at = now
        self._judge(one, now)
        if one.review_at is not None and one.review_at <= now:
            standing = one.standing
            is_idle = standing is not None and _time_moves_nothing(standing)
            self._ask(one, now + (SELDOM_MS if is_idle else AGAIN_MS))

    def _judge(
        self, one: Tracked, now: int, *, rates: RatesSnapshot | None = None, command: Command | None = None
    ) -> None:
        name = one.campaign.campaign
        scope = campaign_scope(name)
        before = one.standing or ladder.start(now)
        around = Around(is_stopped=is_pulled(self._brakes, "automation"))
        after, decisions = judge(
            before, scope=scope, campaign=one.campaign, now=now, rates=rates, command=command, around=around
        )
        if decisions:
            around = self._around(name, decisions, now, around)
            if rates is not None:  # references are words of a decision, and cost more than judging: they come now
                rates = msgspec.structs.replace(rates, recent=panes.references(one.counting.live.recent))
            after, decisions = judge(
                before, scope=scope, campaign=one.campaign, now=now, rates=rates, command=command, around=around
            )
        for decision in decisions:
            one.decisions.append(decision)
            part = decision.scope.removeprefix(scope)
            if decision.dry_run and not one.campaign.dry_run:
                continue
            if part.startswith(PROVIDER):
                one.holds.enter(decision.to, now, part.removeprefix(PROVIDER))
            elif not part:
                self._enter(one, after, now)
        if one.standing is None or decisions or command is not None:
            self._stands(one, after, now)
        one.standing = after

    def _enter(self, one: Tracked, standing: Standing, now: int) -> None:
        """From now on this holds of a campaign; of one in dry run, this would hold."""
        one.holds.enter(standing.judged if one.campaign.dry_run else effective(standing), now)

    def _stands(self, one: Tracked, standing: Standing, now: int) -> None:
        """Say what its sender may do, and when to look at it again."""
        one.standing = standing
        control = ladder.control(standing, one.campaign, in_force_since(standing))
        self._controls[one.campaign.campaign] = control
        self._parts_moved = True
        if why_again(control) is None:
            one.review_at = None
        else:
            self._ask(one, _next_review(one, now if self._ticks else now + 1))

    def _tell_parts(self, now: int) -> None:
        """Judge what campaigns share, and tell them what it allows; when nothing moves, once a minute is enough."""
        if not self._parts_moved and self._parts_at is not None and now - self._parts_at < PARTS_AGAIN_MS:
            heapq.heappush(self._due, (now + PARTS_EVERY_MS, _PARTS, ""))
            return
        self._parts_moved, self._parts_at = False, now
        known = {name: one for name, one in self.tracked.items() if one.is_known}
        members = (
            Member(one.campaign, self._controls.get(name), one.counting.live.rolling, one.partition)
            for name, one in known.items()
        )
        campaigns = {name: one.campaign for name, one in known.items()}
        is_stopped = is_pulled(self._brakes, "automation")
        commands, is_quiet = self.sharing.look(members, campaigns, now=now, is_stopped=is_stopped)
        for command in commands:
            self._judge(self.tracked[command.campaign], now, command=command)
        if is_quiet:
            self._parts_at = None
        else:
            heapq.heappush(self._due, (now + PARTS_EVERY_MS, _PARTS, ""))

    def _around(self, name: str, decisions: Sequence[Decision], now: int, around: Around) -> Around:
        """The policy isolates only so many campaigns an hour."""
        if not any(one.to == "isolated" and one.by == "policy" and not one.dry_run for one in decisions):
            return around
        share, at_least = self._cap
        why = capped(self._controls, campaign=name, now=now, share=share, at_least=at_least, recent={})
        return around if why is None else Around(is_stopped=around.is_stopped, capped=why)

    def _ask(self, one: Tracked, at: int) -> None:
        one.review_at = at
        heapq.heappush(self._due, (at, _REVIEW, one.campaign.campaign))

    def _expect_parts(self, now: int) -> None:
        """What campaigns share has moved: its parts are told at the next round ten seconds."""
        self._parts_moved = True
        if self._parts_at is None:
            self._parts_at = max(now, self.judged_from - 1)
            heapq.heappush(self._due, ((self._parts_at // PARTS_EVERY_MS + 1) * PARTS_EVERY_MS, _PARTS, ""))

    def _expect(self, name: str, fresh: Sequence[int], now: int) -> None:
        """Counts of these minutes will enter windows, if they lie ahead, and leave them."""
        this = now // MINUTE_MS
        for minute in fresh:
            for ahead in (0, *LENGTHS_MIN):
                due = minute + ahead
                if due <= this:
                    continue
                names = self._minutes.get(due)
                if names is None:
                    names = self._minutes[due] = set()
                    heapq.heappush(self._due, (due * MINUTE_MS, _MINUTE, ""))
                names.add(name)

    def _of(self, name: str) -> Tracked:
        one = self.tracked.get(name)
        if one is None:
            known = self._first.get(name)
            recorded = known or unknown(name)
            one = Tracked(recorded, self._what_if.applied(recorded), is_known=known is not None)
            one.trace = Trace() if name == self._traced else None
            self.tracked[name] = one
        return one


def _next_review(one: Tracked, now: int) -> int:
    """Every ten seconds, whatever happens between them; at the next second, if the last one was long ago."""
    if one.review_at is None:
        return max(-(-now // _SECOND_MS) * _SECOND_MS, one.reviewed_at + AGAIN_MS)
    if one.review_at - now <= AGAIN_MS:
        return one.review_at
    return one.reviewed_at + ((now - one.reviewed_at) // AGAIN_MS + 1) * AGAIN_MS  # it was asked seldom


def _time_moves_nothing(standing: Standing) -> bool:
    return (
        standing.judged in _STAYS
        and standing.operator == "enabled"
        and not standing.providers
        and standing.trial is None
    )

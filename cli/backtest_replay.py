"""The replay: records in the order of their time go in, and come out as the decisions that live would have made.

The same code as live counts (``policy.counts``, ``streams.panes``) and judges (``policy.judging``); what is done here
is what the workers' agents and timers do around it.  Time is that of the records: each is judged when it arrives (a
campaign that is well once a second), each campaign's windows move by the minute, and a campaign that is not healthy is
reviewed every ten seconds.
"""

from collections.abc import Mapping, Sequence

import msgspec

from agents.reviews import why_again
from agents.snapshots import EVERY_MS, is_above_limit
from cli.backtest_agenda import LATE, MINUTE, PARTS, PROVIDERS, REVIEW, Agenda, next_review, review_after
from cli.backtest_counting import IsHeld
from cli.backtest_limits import WhatIf
from cli.backtest_priors import Borrowing
from cli.backtest_records import LATEST_MS, Frame
from cli.backtest_shared import Sharing
from cli.backtest_trace import Trace
from cli.backtest_tracked import Tracked, unknown
from policy import ladder
from policy.auditing import REFUSED
from policy.brakes import capped, is_pulled
from policy.counts import MINUTE_MS
from policy.judging import PROVIDER, judge
from policy.ladder import Around, Standing
from policy.naming import campaign_scope
from policy.obeying import effective, in_force_since
from policy.priors import EVERYWHERE
from policy.retained import campaign_as_decided
from policy.sharing import AGAIN_MS as PARTS_AGAIN_MS
from policy.sharing import KINDS, Member
from policy.verdicts import WARNING, verdicts
from schemas.feedback import FeedbackEvent
from schemas.reputation import Brake, Command, Control, Counts, Decision, RatesSnapshot
from schemas.sending import Campaign
from streams import panes

FORGET_EVERY_MIN = 60
SILENCE_MS = 30 * 86_400_000


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
        self._agenda = Agenda()
        self._now: int | None = None
        self._ticks = False  # reviews come last of what is due at one time, and before what arrives then

    # -- what comes in

    def results(self, frame: Frame, partition: int, offset: int, now: int) -> None:
        """A frame of results arrives."""
        one = self._of(frame.campaign)
        one.partition = partition
        counted = one.counting.count(frame, partition, offset, now, self._is_held(one))
        if counted.fresh:
            self._agenda.counted(frame.campaign, counted.fresh, now)
        self._expect_parts(now)
        if counted.new and one.holds.concerns:
            one.holds.results(counted.new)
        live = one.counting.live
        is_soon = 0 <= now - live.published_at < EVERY_MS
        if not is_soon or counted.blocked or one.turned_away or self._is_above_limit(one, now):
            self._look(one, now)
        elif not one.is_late:
            one.is_late = True
            self._agenda.late(frame.campaign, live.published_at)

    def feedback(self, events: Sequence[FeedbackEvent], partition: int, offset: int, now: int) -> None:
        """A record of feedback arrives."""
        by_campaign: dict[str, list[FeedbackEvent]] = {}
        for event in events:
            by_campaign.setdefault(event.campaign, []).append(event)
        for name, own in by_campaign.items():
            one = self._of(name)
            one.partition = partition
            counted, fresh = one.counting.count_feedback(own, partition, offset, now, self._is_held(one))
            self._agenda.counted(name, fresh, now)
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
        silence = now if self._now is None else self._now + SILENCE_MS
        self._now = now
        self._ticks = True
        for at, what, name in self._agenda.take(now):
            if what == PARTS:
                self._tell_parts(at)
                continue
            one = self.tracked[name]
            if what == MINUTE:
                self._moved(one, at)
            elif what == PROVIDERS:
                self._sort_out(one, at)
            elif what == LATE and one.is_late:
                self._look(one, at)
            elif what == REVIEW and one.review_at == at:
                if silence < at < now:
                    self._ask(one, now)
                else:
                    self._review(one, at)
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
            self._agenda.providers(one.campaign.campaign, now)
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
            self._ask(one, review_after(one.standing, now))

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
            self._ask(one, next_review(one, now if self._ticks else now + 1))

    def _tell_parts(self, now: int) -> None:
        """Judge what campaigns share, and tell them what it allows; when nothing moves, once a minute is enough."""
        if not self._parts_moved and self._parts_at is not None and now - self._parts_at < PARTS_AGAIN_MS:
            self._agenda.parts(now)
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
            self._agenda.parts(now)

    def _around(self, name: str, decisions: Sequence[Decision], now: int, around: Around) -> Around:
        """The policy isolates only so many campaigns an hour."""
        if not any(one.to == "isolated" and one.by == "policy" and not one.dry_run for one in decisions):
            return around
        share, at_least = self._cap
        why = capped(self._controls, campaign=name, now=now, share=share, at_least=at_least, recent={})
        return around if why is None else Around(is_stopped=around.is_stopped, capped=why)

    def _ask(self, one: Tracked, at: int) -> None:
        one.review_at = at
        self._agenda.review(one.campaign.campaign, at)

    def _expect_parts(self, now: int) -> None:
        """What campaigns share has moved: its parts are told at the next round ten seconds."""
        self._parts_moved = True
        if self._parts_at is None:
            self._parts_at = max(now, self.judged_from - 1)
            self._agenda.parts(self._parts_at)

    def _of(self, name: str) -> Tracked:
        one = self.tracked.get(name)
        if one is None:
            known = self._first.get(name)
            recorded = known or unknown(name)
            one = Tracked(recorded, self._what_if.applied(recorded), is_known=known is not None)
            one.trace = Trace() if name == self._traced else None
            self.tracked[name] = one
        return one

"""One message: is it still to be sent, when is its turn, what came of it.

In this order, because each step may be the last: too old, suppressed, held back for now, its servers are left alone,
not its turn, no message can be made of it; then the intent is written down, then it is sent.
"""

from collections.abc import Callable, Sequence

import structlog

from policy.retries import PLAN_S
from schemas.delivery import DeliveryResult
from schemas.sending import Campaign
from smtp.attempts import Attempt, Envelope, Mailer, Reply, Withheld
from smtp.messages import Unsendable
from smtp.sending.backlog import Backlog, Job
from smtp.sending.compose import Composer
from smtp.sending.gate import Gate
from smtp.sending.memory import WITHHELD
from smtp.sending.metrics import SenderMetrics
from smtp.sending.outcomes import INTERNAL, UNCERTAIN, Known, Terms, result_of, tried_again
from smtp.sending.pace import Bucket
from smtp.sending.ports import Board, Clock, Inbox
from smtp.sending.recorder import Recorder

log = structlog.get_logger()

LOOK_AGAIN_S = 0.05
_CATCH_UP_WITHIN_S = 5.0
_ASK_AGAIN_MS = 600_000  # what control holds back is asked about again
_NOT_AT_ONCE_MS = 1_000
_NO_RESULT = "the sender ended between its intent to send the message and the result"
_TOO_OLD = "its time was over before it could be sent"


class Delivery:
    """Delivers the messages of one campaign, one call per message; called by many workers at once."""

    def __init__(
        self,
        *,
        gate: Gate,
        board: Board,
        inbox: Inbox,
        backlog: Backlog,
        later: Callable[[Job, int], None],
        composer: Composer,
        mailer: Mailer,
        recorder: Recorder,
        clock: Clock,
        jitter: Callable[[], float],
        metrics: SenderMetrics,
        plan_s: Sequence[int] = PLAN_S,
    ) -> None:
        self._gate = gate
        self._board = board
        self._inbox = inbox
        self._backlog = backlog
        self._later = later
        self._composer = composer
        self._mailer = mailer
        self._recorder = recorder
        self._clock = clock
        self._jitter = jitter
        self._metrics = metrics
        self._plan_s = plan_s
        self._bucket = Bucket()
        self._turns: dict[str, int] = {}  # at providers to which less may go: when the next message may
        self.takes_nothing_new = False
        self.begins_nothing = False

    async def deliver(self, job: Job) -> None:
        """Send one message, or find out that it must not or cannot be sent now.

        A message that makes us fail before anything was sent is tried again later, like any trouble that may pass:
        it must neither stop its neighbours nor bounce for a mistake of ours.
        """
        campaign = self._gate.campaign
        if campaign is None:  # then the gate closes, too
            self._backlog.put_back(job)
            return
        try:
            envelope = await self._prepared(job, campaign)
        except Exception:  # whatever it is, it is about this message, and it is logged
            log.exception("message cannot be prepared", campaign=campaign.campaign, message_id=job.message_id)
            failed = Reply(stage="resolve", text="mailcordon failed to prepare the message; its log says why")
            terms = self._terms(job, campaign)
            self._settle(job, tried_again(self._known(job), failed, INTERNAL, terms, self._jitter()))
            return
        if envelope is None:
            return
        await self._recorder.intend(job)
        began = self._clock.monotonic()
        attempt = await self._mailer.send(envelope, go=lambda: self._may_begin(job))
        self._metrics.attempt_s.observe(self._clock.monotonic() - began)
        self._conclude(job, attempt, campaign)

    async def _prepared(self, job: Job, campaign: Campaign) -> Envelope | None:
        """The envelope when the message's turn has come; None when it is settled or waits again."""
        if self._is_over(job, campaign):
            return None
        if due := self._not_before(job):
            self._later(job, due)
            return None
        is_paced = self._gate.per_second > 0
        if not await self._turn(job):
            self._backlog.put_back(job)
            return None
        if is_paced and self._is_over(job, campaign):  # it may have waited for minutes
            return None
        envelope = await self._composed(job, campaign)
        if isinstance(envelope, Unsendable):
            self._settle(job, self._known(job).result("bounced", category=envelope.reason, text=envelope.explain))
            return None
        return envelope

    def _not_before(self, job: Job) -> int:
        """When to look at a message again that has to wait although the campaign may send; 0 when it need not."""
        now = self._clock.now()
        if self._gate.is_selective and (due := self._held_back_until(job, now)) > now:
            return due
        job.turn_at = 0
        if closed_for_s := self._mailer.closed_for_s(job.domain):
            return now + max(1, round(closed_for_s * 1000))
        return 0

    def _held_back_until(self, job: Job, now: int) -> int:
        """What control says of this recipient and this provider alone.

        A message for a provider that is slowed gets its turn once, and goes when that has come.
        """
        if self._gate.holds_back(job.message.last_seen_at):
            return now + _ASK_AGAIN_MS
        provider = self._mailer.provider_of(job.domain)
        narrowed = self._gate.narrowed(provider)
        if narrowed is None:
            return 0
        if not narrowed.may_send:
            until = now + _ASK_AGAIN_MS if narrowed.until is None else narrowed.until
            return min(max(now + _NOT_AT_ONCE_MS, until), now + _ASK_AGAIN_MS)
        if not job.turn_at and narrowed.pace.per_second > 0:
            job.turn_at = max(now, self._turns.get(provider, 0))
            self._turns[provider] = job.turn_at + round(1000 / narrowed.pace.per_second)
        return job.turn_at

    def conclude_in_doubt(self, job: Job) -> None:
        """The message has an intent of an earlier sender and no result, and must not be sent twice."""
        self._settle(job, self._known(job).result("in_doubt", category=UNCERTAIN, text=_NO_RESULT))

    def conclude_expired(self, job: Job) -> None:
        """The message's time is over."""
        self._settle(job, self._known(job).result("expired", category="expired", text=_TOO_OLD))

    def is_too_old(self, job: Job) -> bool:
        """Is the message's time over?  Nobody can tell before the campaign is known."""
        campaign = self._gate.campaign
        return campaign is not None and self._terms(job, campaign).has_expired(self._clock.now())

    def _is_over(self, job: Job, campaign: Campaign) -> bool:
        if self._terms(job, campaign).has_expired(self._clock.now()):
            self.conclude_expired(job)
            return True
        if campaign.in_doubt == "hold" and job.key in job.lane.memory.doubtful:  # it said `resend` when it was queued
            self.conclude_in_doubt(job)
            return True
        suppressed, of_domain = self._board.suppressed, self._composer.domain_hash(job.domain)
        reason = suppressed(job.message.address_hash, campaign.campaign) or suppressed(of_domain, campaign.campaign)
        if reason:
            self._settle(job, self._known(job).result("suppressed", category=reason))
            return True
        return False

    async def _turn(self, job: Job) -> bool:
        """Wait for the message's turn at the pace that is allowed now; False when it must not be sent after all."""
        while self._may_begin(job) and not self.takes_nothing_new:
            wait_s = self._bucket.take(per_second=self._gate.per_second, now_s=self._clock.monotonic())
            if wait_s <= 0:
                return True
            await self._clock.sleep(min(wait_s, LOOK_AGAIN_S))
        if not self.takes_nothing_new:
            await self._clock.sleep(LOOK_AGAIN_S)
        return False

    async def _composed(self, job: Job, campaign: Campaign) -> Envelope | Unsendable:
        name = (campaign.campaign, job.content)
        template = self._board.templates.get(name)
        if template is None and await self._board.caught_up(_CATCH_UP_WITHIN_S):
            template = self._board.templates.get(name)
        now = self._clock.now()
        if not job.attempts or job.first_at is None:
            job.first_at = now
        return self._composer.envelope(
            job.message, campaign=campaign, template=template, now=now, first_at=job.first_at
        )

    def _may_begin(self, job: Job) -> bool:
        """The last question before MAIL FROM."""
        return (
            not self.begins_nothing
            and not job.lane.is_closing
            and self._gate.closed() is None
            and self._lets_go(job)
            and self._inbox.assured(job.lane.partition)
        )

    def _lets_go(self, job: Job) -> bool:
        if not self._gate.is_selective:
            return True
        narrowed = self._gate.narrowed(self._mailer.provider_of(job.domain))
        return (narrowed is None or narrowed.may_send) and not self._gate.holds_back(job.message.last_seen_at)

    def _conclude(self, job: Job, attempt: Attempt, campaign: Campaign) -> None:
        if isinstance(attempt, Withheld):
            self._metrics.withheld.inc()
            nothing = self._known(job, number=job.attempts)
            withheld = nothing.result("deferred", category=WITHHELD, next_attempt_at=nothing.now, text=attempt.text)
            self._recorder.settle(job, withheld)
            return
        terms = self._terms(job, campaign)
        self._settle(job, result_of(attempt, self._known(job), terms=terms, jitter=self._jitter()))

    def _settle(self, job: Job, result: DeliveryResult) -> None:
        self._metrics.count(result.outcome, result.provider)
        self._recorder.settle(job, result)

    def _terms(self, job: Job, campaign: Campaign) -> Terms:
        return Terms(
            starts_at=job.starts_at,
            expires_at=job.expires_at,
            max_age_s=campaign.max_age_s,
            in_doubt=campaign.in_doubt,
            plan_s=self._plan_s,
        )

    def _known(self, job: Job, *, number: int | None = None) -> Known:
        return Known(
            message_id=job.message.message_id,
            address_hash=job.message.address_hash,
            number=job.attempts + 1 if number is None else number,
            provider=self._mailer.provider_of(job.domain),
            now=self._clock.now(),
            domain=job.domain,
            flags=job.message.flags,
            list_source=job.message.source,
        )

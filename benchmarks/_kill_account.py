"""The account of a run with kills: what the topics say of each message, held against the receiving server's log."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks._kill_load import CAMPAIGN, number_of
from benchmarks._running import Failed
from schemas.codec import Malformed, decode
from schemas.delivery import FINAL, DeliveryFrame
from schemas.sending import Refused
from schemas.topics import BY_NAME, RESULTS

IN_DOUBT = 1
ACCEPTED = 2
OTHER = 4


@dataclass(slots=True)
class Account:
    """Of each message: how many final records (a result or a refusal), which, and how often it was received."""

    messages: int
    finals: bytearray = field(init=False)
    kinds: bytearray = field(init=False)
    received: bytearray = field(init=False)
    outcomes: Counter[str] = field(default_factory=Counter)
    final: int = 0
    lines: int = 0
    replies_lost: int = 0
    _newest: dict[int, int] = field(default_factory=dict)
    _read: int = 0

    def __post_init__(self) -> None:
        self.finals = bytearray(self.messages)
        self.kinds = bytearray(self.messages)
        self.received = bytearray(self.messages)

    def take_frame(self, raw: bytes) -> None:
        """A record of ``mail.delivery.results``; repeats of a ledger position are dropped, as readers do."""
        frame = decode(DeliveryFrame, raw, max_bytes=BY_NAME[RESULTS].max_bytes)
        if isinstance(frame, Malformed):
            raise Failed(frame.explain)
        if frame.campaign != CAMPAIGN or frame.ledger is None:
            return
        if frame.ledger.offset <= self._newest.get(frame.ledger.partition, -1):
            return
        self._newest[frame.ledger.partition] = frame.ledger.offset
        for result in frame.results:
            self.outcomes[result.outcome] += 1
            if result.outcome in FINAL:
                kind = {"accepted": ACCEPTED, "in_doubt": IN_DOUBT}.get(result.outcome, OTHER)
                self._finish(number_of(result.message_id), kind)

    def take_refusal(self, raw: bytes) -> None:
        """A record of ``mail.send.refused``."""
        refused = decode(Refused, raw)
        if isinstance(refused, Malformed) or refused.message_id is None:
            raise Failed(f"a refusal that nobody expects: {refused}")
        self.outcomes["refused"] += 1
        self._finish(number_of(refused.message_id), OTHER)

    def _finish(self, number: int, kind: int) -> None:
        self.final += not self.finals[number]
        self.finals[number] = min(255, self.finals[number] + 1)
        self.kinds[number] |= kind

    def read_log(self, log: Path) -> None:
        """What the server has received since this was called last."""
        with log.open("rb") as lines:
            lines.seek(self._read)
            fresh = lines.read()
        whole = fresh[: fresh.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.splitlines():
            self.lines += 1
            self.replies_lost += line.endswith(b"!")
            number = number_of(line.rstrip(b"!").decode())
            self.received[number] = min(255, self.received[number] + 1)

    @property
    def lost(self) -> int:
        """Messages without any final record, and those that are said to be accepted and never arrived."""
        return sum(
            not finals or (kind & ACCEPTED and not received)
            for finals, kind, received in zip(self.finals, self.kinds, self.received, strict=True)
        )

    @property
    def finals_twice(self) -> int:
        """Messages with more than one final record."""
        return sum(finals > 1 for finals in self.finals)

    @property
    def doubled(self) -> int:
        """Copies beyond the first that the server has received."""
        return sum(received - 1 for received in self.received if received > 1)

    @property
    def in_doubt(self) -> int:
        """Messages that are reported as in doubt."""
        return sum(kind & IN_DOUBT for kind in self.kinds)

    @property
    def in_doubt_received(self) -> int:
        """The part of them that did arrive."""
        pairs = zip(self.kinds, self.received, strict=True)
        return sum(1 for kind, received in pairs if kind & IN_DOUBT and received)

"""What a replay knows of one campaign."""

from dataclasses import dataclass, field

from cli.backtest_counting import Counting
from cli.backtest_holds import Holds
from cli.backtest_trace import Trace
from policy.standing import Standing
from schemas.reputation import Decision
from schemas.sending import Campaign, Mailbox


@dataclass(slots=True)
class Tracked:
    """One campaign in the replay."""

    recorded: Campaign
    campaign: Campaign  # with the limits of the what-if
    is_known: bool
    counting: Counting = field(default_factory=Counting)
    standing: Standing | None = None
    decisions: list[Decision] = field(default_factory=list)
    really: list[Decision] = field(default_factory=list)
    holds: Holds = field(default_factory=Holds)
    trace: Trace | None = None
    review_at: int | None = None
    reviewed_at: int = 0
    turned_away: bool = False  # the servers of some provider refuse more than a few
    is_late: bool = False  # its results wait for their second to be judged
    is_sorted_soon: bool = False  # its providers are looked at soon
    forgot_at: int = 0
    partition: int = 0  # where it is counted


def unknown(name: str) -> Campaign:
    """A campaign of which there is no record: the default limits hold for it."""
    sender = Mailbox(address="unknown@unknown.invalid")
    return Campaign(campaign=name, from_=sender, return_path_domain="unknown.invalid")

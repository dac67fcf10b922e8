"""Who passes complaints on to this installation, put in force for whatever counts."""

from cli.failures import WrongUse
from policy.providers import loops_of, put_loops_in_force
from policy.settings import Settings


def put_feedback_loops_in_force(settings: Settings) -> None:
    """The tally, a backtest and a recount divide complaints alike; a provider that nobody knows ends the command."""
    try:
        put_loops_in_force(loops_of(settings.feedback_loops, settings.providers.values()))
    except ValueError as wrong:
        raise WrongUse(f"feedback_loops: {wrong}") from wrong

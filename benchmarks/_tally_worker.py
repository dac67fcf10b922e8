"""The worker of production with the tally alone: no validation, no judge."""

from agents.worker_app import TALLY, worker_app
from cli import logs
from cli.broker import secret_file
from cli.lifetime import end_with
from cli.secrets import load_or_make
from cli.settings import load
from streams.runtime import run

# Seconds.  It is held while it is fed, and must not lose its partitions meanwhile.
_OPTIONS = {"broker_session_timeout": 60.0}


def main() -> int:
    """Run it until it is told to stop."""
    settings = load({})
    logs.configure(level=settings.log_level, form=settings.log_format, role="worker")
    end_with(settings.exit_with)
    return run(worker_app(settings, load_or_make(secret_file(settings)), parts=[TALLY], options=_OPTIONS))


if __name__ == "__main__":
    raise SystemExit(main())

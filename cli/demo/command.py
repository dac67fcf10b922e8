"""``mailcordon demo``."""

import asyncio
from pathlib import Path

import click

from cli import logs
from cli.demo.run import Course, run
from cli.settings import setting_options
from policy.settings import Settings


@click.command()
@click.option("--exit", "leave", is_flag=True, help="End when the account is drawn up, instead of staying up.")
@click.option(
    "--report",
    type=click.Path(path_type=Path, dir_okay=False, writable=True),
    metavar="FILE",
    help="Write the account as JSON to FILE.",
)
@click.option("--scale", default=1.0, show_default=True, type=click.FloatRange(0.01, 20), help="Size of the two lists.")
@click.option("--seed", default=1, show_default=True, help="The lists are the same for the same seed.")
@click.option(
    "--in-doubt",
    default="hold",
    show_default=True,
    type=click.Choice(["hold", "resend"]),
    help="What a sender does after a crash with a message whose fate it does not know.",
)
@click.option(
    "--per-second", default=0.0, show_default=True, type=click.FloatRange(0), help="Pace of each campaign; 0: no limit."
)
@click.option("--keep", is_flag=True, help="Keep the broker's data afterwards.")
@setting_options("web")
def demo(
    settings: Settings,
    leave: bool,
    report: Path | None,
    scale: float,
    seed: int,
    in_doubt: str,
    per_second: float,
    keep: bool,
) -> None:
    """Watch a bad campaign being isolated while a good one goes on.

    Starts a real Kafka, the worker, the controller, the return path, simulated mailbox providers, and one sender
    per campaign, all on loopback.  spring-sale has a clean list of 20,000; bought-list has 5,000 with 6 % unknown
    users and a few spam traps.  At the end stands an account: recipients in, final records out, nothing missing.

    Exit code 0 only if the account closes and bought-list alone was isolated.  While it runs, the other commands
    find it: try `mailcordon status` and `mailcordon why bought-list` in a second terminal.

    \b
    Examples:
      mailcordon demo
      mailcordon demo --exit --report report.json
    """
    logs.configure(level="warning", form=settings.log_format, role="demo")
    course = Course(
        scale=scale,
        seed=seed,
        report=report,
        stay=not leave,
        in_doubt=in_doubt,
        per_second=per_second,
        keep=keep,
    )
    if not asyncio.run(run(settings, course)):
        raise click.exceptions.Exit(1)

"""``mailcordon simulate-providers``: mailbox providers on this machine, as a command."""

from pathlib import Path

import click

from cli import logs
from cli.failures import OutsideFailed
from cli.lifetime import end_with
from cli.loops import run as run_on_loop
from cli.settings import setting_options
from policy.settings import Endpoint, Settings, endpoint, routes
from smtp import simulate
from smtp.simulate.config import TRAP_DOMAIN


@click.command(name="simulate-providers", epilog=simulate.table())
@click.option(
    "--listen",
    multiple=True,
    metavar="DOMAIN=HOST:PORT",
    help="A provider's domain and where it listens; repeat it.  Default: all of them on free ports of 127.0.0.1.",
)
@click.option("--log-folder", required=True, type=click.Path(path_type=Path, file_okay=False), help="Their logs.")
@click.option("--hand-back-to", metavar="HOST:PORT", help="The return path: gets bounces, complaints and trap mail.")
@click.option("--seed", default=1, show_default=True, help="The same seed, the same fate for the same messages.")
@click.option("--grey", default=5.0, show_default=True, help="Seconds after which greylisting lets a message in.")
@click.option("--slow", default=3.0, show_default=True, help="Seconds that a slow recipient takes.")
@click.option("--late", default=1.0, show_default=True, help="Seconds until a late bounce is sent back.")
@click.option("--complain", default=1.0, show_default=True, help="Seconds until a complaint is sent back.")
@click.option("--starttls", is_flag=True, help="Offer STARTTLS with a certificate made at start.")
@setting_options("trap_domains", "exit_with")
def simulate_providers(
    settings: Settings,
    listen: tuple[str, ...],
    log_folder: Path,
    hand_back_to: str | None,
    seed: int,
    grey: float,
    slow: float,
    late: float,
    complain: float,
    starttls: bool,
) -> None:
    """Simulate mailbox providers on this machine, to try a set-up before real mailboxes see it.

    Prints one line of JSON when all listen, with the routes to use.  What becomes of a message is said by the
    recipient's local part.

    \b
    Example:
      mailcordon simulate-providers --log-folder /tmp/providers --hand-back-to 127.0.0.1:2600
    """
    logs.configure(level=settings.log_level, form=settings.log_format, role="providers")
    end_with(settings.exit_with)
    config = simulate.Config(
        logs=log_folder,
        return_path=_endpoint("--hand-back-to", hand_back_to) if hand_back_to else None,
        trap_domains=settings.trap_domains or (TRAP_DOMAIN,),
        seed=seed,
        grey_s=grey,
        slow_s=slow,
        late_s=late,
        complain_s=complain,
        starttls=starttls,
    )
    if listen:
        try:
            config = simulate.listen_by_domain(config, routes(",".join(listen)))
        except ValueError as wrong:
            raise click.UsageError(f"--listen: {wrong}") from wrong
    try:
        run_on_loop(simulate.run(config, say=click.echo))
    except OSError as failed:
        raise OutsideFailed(f"the simulated providers cannot listen: {failed}") from failed


def _endpoint(option: str, text: str) -> Endpoint:
    try:
        return endpoint(text)
    except ValueError as wrong:
        raise click.UsageError(f"{option}: {wrong}") from wrong

"""The command line: every role and every operator's command of mailcordon."""

import logging

import click

from cli import (
    audit,
    backtest,
    brakes,
    campaigns,
    check,
    dead_letters,
    decisions,
    egress,
    export,
    feedback,
    held,
    roles,
    rules,
    send,
    suppressions,
    topics,
    traps,
    verify_counts,
)
from cli.demo.command import demo

EXIT_CODES = "Exit codes: 0 done, 1 the answer is no, 2 wrong use, 3 something outside failed."


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog=f"{EXIT_CODES}  Every setting is an option and an environment variable: see `mailcordon settings`.",
)
@click.version_option(package_name="mailcordon", prog_name="mailcordon")
def main() -> None:
    """kubectl cordon, for e-mail senders.

    Applications publish send requests to Kafka; each campaign is sent by its own sender; a campaign that hits spam
    traps, bounces or complaints beyond its limits is isolated within a second, while all others go on.

    \b
    First steps:
      mailcordon demo                              everything on this machine, with simulated mailbox providers
      mailcordon campaign apply campaign.json      make a campaign known
      mailcordon content apply content.json        its message template
      mailcordon send --campaign spring-sale --content hello-1 --recipients list.csv
      mailcordon status                            all campaigns: state, rates, limits
      mailcordon why spring-sale                   the reason of its last change of state
    """
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # commands say in a sentence what it says in ten lines


def _tell_exit_codes(command: click.Command) -> None:
    """Every command's help ends with the exit codes."""
    command.epilog = f"{EXIT_CODES}\n\n{command.epilog}" if command.epilog else EXIT_CODES
    if isinstance(command, click.Group):
        for one in command.commands.values():
            _tell_exit_codes(one)


for command in (
    roles.worker,
    roles.controller,
    roles.sender,
    roles.return_path,
    roles.simulate_providers,
    demo,
    campaigns.campaign,
    campaigns.content,
    send.send,
    check.check,
    held.held,
    decisions.status,
    decisions.why,
    decisions.isolate,
    decisions.release,
    decisions.override,
    brakes.brake,
    brakes.shadow,
    suppressions.suppress,
    rules.rules,
    feedback.feedback,
    traps.traps,
    verify_counts.verify_counts,
    audit.audit,
    backtest.backtest,
    export.export,
    dead_letters.dead_letters,
    egress.egress,
    topics.topics,
    topics.settings,
):
    _tell_exit_codes(command)
    main.add_command(command)

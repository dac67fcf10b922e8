"""The command line: every role and every operator's command of mailcordon."""

import importlib

import click

from cli import logs

_WHERE = {
    "worker": "cli.roles:worker",
    "controller": "cli.roles:controller",
    "sender": "cli.roles:sender",
    "return-path": "cli.roles:return_path",
    "simulate-providers": "cli.simulating:simulate_providers",
    "demo": "cli.demo.command:demo",
    "campaign": "cli.campaigns:campaign",
    "content": "cli.campaigns:content",
    "send": "cli.send:send",
    "check": "cli.check:check",
    "held": "cli.held:held",
    "status": "cli.decisions:status",
    "why": "cli.decisions:why",
    "isolate": "cli.decisions:isolate",
    "release": "cli.decisions:release",
    "override": "cli.decisions:override",
    "brake": "cli.brakes:brake",
    "shadow": "cli.brakes:shadow",
    "suppress": "cli.suppressions:suppress",
    "rules": "cli.rules:rules",
    "feedback": "cli.feedback:feedback",
    "traps": "cli.traps:traps",
    "verify-counts": "cli.verify_counts:verify_counts",
    "audit": "cli.audit:audit",
    "backtest": "cli.backtest:backtest",
    "export": "cli.export:export",
    "dead-letters": "cli.dead_letters:dead_letters",
    "egress": "cli.egress:egress",
    "install": "cli.install:install",
    "manifests": "cli.manifests:manifests",
    "topics": "cli.topics:topics",
    "settings": "cli.topics:settings",
}
EXIT_CODES = "Exit codes: 0 done, 1 the answer is no, 2 wrong use, 3 something outside failed."


class _Roster(click.Group):
    """The commands by name; a module is imported when its command is asked for.

    A sender runs for weeks, once per campaign, and would keep the memory of thirty commands that it is not.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_WHERE)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        where = _WHERE.get(cmd_name)
        if where is None:
            return None
        if cmd_name not in self.commands:
            module, _, name = where.partition(":")
            command: click.Command = getattr(importlib.import_module(module), name)
            _tell_exit_codes(command)
            self.add_command(command, cmd_name)
        return self.commands[cmd_name]


def _tell_exit_codes(command: click.Command) -> None:
    """Every command's help ends with the exit codes."""
    command.epilog = f"{EXIT_CODES}\n\n{command.epilog}" if command.epilog else EXIT_CODES
    if isinstance(command, click.Group):
        for one in command.commands.values():
            _tell_exit_codes(one)


@click.group(
    cls=_Roster,
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
    logs.quiet_clients()

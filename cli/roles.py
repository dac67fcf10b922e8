"""The roles as commands: worker, controller, sender, return path.  Each imports what it alone needs when it begins."""

import asyncio
from pathlib import Path

import click

from cli import broker as brokers
from cli import logs, secrets
from cli.access import say
from cli.failures import OutsideFailed, WrongUse
from cli.feedback_loops import put_feedback_loops_in_force
from cli.lifetime import end_with
from cli.loops import run as run_on_loop
from cli.rules import put_rules_in_force
from cli.settings import setting_options
from policy.settings import Settings, WrongSetting
from policy.tokens import Keys

FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


def _begin(settings: Settings, role: str) -> Keys:
    """What every role does first: logging, when to end, the installation's keys."""
    logs.configure(level=settings.log_level, form=settings.log_format, role=role)
    end_with(settings.exit_with)
    put_rules_in_force(settings.rules_file)
    put_feedback_loops_in_force(settings)
    return secrets.load_or_make(brokers.secret_file(settings))


def _ended(code: int, role: str) -> None:
    if code:
        raise OutsideFailed(f"{role} ended with an error, see its log above; nothing that it had taken is lost")


@click.command()
@setting_options(
    "web", "partitions", "outbound_partitions", "replication", "providers", "feedback_loops", "grace_s", "exit_with"
)
def worker(settings: Settings) -> None:
    """Validate, route, tally, judge: one of as many workers as there are partitions.

    Serves /stats/, /stats/campaigns/ID, /healthz, /readyz and /metrics; every worker gives the same answers.  Ends
    on SIGTERM, when what it had taken is finished.

    \b
    Example:
      mailcordon worker --kafka kafka-1:9092 --secret-file /run/secrets/mailcordon.json --web 0.0.0.0:6066
    """
    from agents.worker_app import worker_app
    from streams.runtime import run

    keys = _begin(settings, "worker")
    with brokers.broker(settings, say) as bootstrap:
        try:
            app = worker_app(settings, keys, bootstrap=bootstrap)
        except WrongSetting as wrong:
            raise WrongUse(str(wrong)) from wrong
        code = run(app)
    _ended(code, "worker")


@click.command()
@setting_options(
    "backend", "controller_web", "partitions", "namespace", "image", "grace_s", "exit_with", "sender_web", "smtp_routes"
)
def controller(settings: Settings) -> None:
    """Make Kubernetes (or this machine's processes) agree with what was decided, and keep it so.

    Every campaign that is known gets its sender; one that is isolated or retired loses it.  What it finds changed
    by others it puts right.  Safe with two running.

    \b
    Examples:
      mailcordon controller --backend kubernetes --namespace mail --kafka kafka-1:9092
      mailcordon controller --backend process
    """
    from cli.controller_role import run_controller

    _begin(settings, "controller")
    with brokers.broker(settings, say) as bootstrap:
        code = run_controller(settings, bootstrap=bootstrap)
    _ended(code, "controller")


@click.command()
@click.option("--campaign", required=True, metavar="ID", help="The campaign whose mail is sent.")
@click.option("--name", metavar="NAME", help="Stands in every result; tells replicas apart.  Default: from the host.")
@setting_options(
    "smtp_routes",
    "allow_private_mx",
    "connections",
    "deaf_after_s",
    "grace_s",
    "hostname",
    "bind",
    "egress_address",
    "egress_seen_by",
    "egress_proxy",
    "egress_proxy_auth_file",
    "egress_check",
    "smarthost",
    "smarthost_auth_file",
    "smarthost_ca_file",
    "mta_sts",
    "dane",
    "trust_resolver",
    "tls_ca_file",
    "dkim_folder",
    "sender_web",
    "providers",
    "shaping_file",
    "rules_file",
    "exit_with",
)
def sender(settings: Settings, campaign: str, name: str | None) -> None:
    """Send the mail of one campaign: Kafka in, SMTP out.

    Obeys mail.control before every MAIL FROM, and sends nothing while it cannot hear it.  Normally the controller
    starts senders; by hand it is good for a closer look.  Ends on SIGTERM, when what is in flight has its answer.

    \b
    Example:
      mailcordon sender --campaign spring-sale --smtp-routes "*=127.0.0.1:2525"
    """
    from cli.sender_role import run_sender

    keys = _begin(settings, "sender")
    folder = settings.dkim_folder or brokers.secret_file(settings).parent / "dkim"
    with brokers.broker(settings, say) as bootstrap:
        run_on_loop(run_sender(settings, campaign, keys, bootstrap=bootstrap, dkim_folder=folder, name=name))


@click.command(name="return-path")
@click.option("--certificate", type=FILE, help="PEM file; with --key it offers STARTTLS.")
@click.option("--key", type=FILE, help="PEM file of the certificate's key.")
@setting_options(
    "return_path",
    "return_path_web",
    "unsubscribe_web",
    "unsubscribe_certificate",
    "unsubscribe_key",
    "unsubscribe_plain_http",
    "webhooks",
    "webhooks_file",
    "own_domains",
    "rules_file",
    "trap_domains",
    "parsers",
    "parser_memory_mib",
    "parser_s",
    "hostname",
    "grace_s",
    "exit_with",
)
def return_path(settings: Settings, certificate: Path | None, key: Path | None) -> None:
    """Listen for bounces, complaints and trap mail, serve unsubscribe links, and make events of them.

    Takes mail for the campaigns' return path domains, --own-domains and --trap-domains, and relays nothing.  Answers
    250 only after Kafka has the event.  Reports without our signature are set aside as dead letters.

    \b
    Example:
      mailcordon return-path --return-path 0.0.0.0:25 --trap-domains traps.example --hostname mx.shop.example
    """
    if (certificate is None) != (key is None):
        raise click.UsageError("--certificate and --key belong together")
    from cli.return_path_role import run_return_path

    keys = _begin(settings, "return-path")
    with brokers.broker(settings, say) as bootstrap:
        asyncio.run(run_return_path(settings, keys, bootstrap=bootstrap, certificate=certificate, key=key))

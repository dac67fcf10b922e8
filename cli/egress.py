"""The way out of a sender, made of the settings; and the command that checks it."""

import asyncio
import json
import socket
from dataclasses import asdict
from typing import Any

import click

from cli import logs
from cli.failures import WrongUse
from cli.settings import setting_options
from policy.addresses import hostname
from policy.settings import Endpoint, Settings, endpoint
from smtp.attempts import Reply
from smtp.credentials import Credentials, UnusableCredentials, read_credentials
from smtp.egress.check import Check, Checked
from smtp.egress.outage import OurFault
from smtp.egress.ways import Egress
from smtp.mx import SMTP_PORT, NextHop, NextHops
from smtp.opener import Opener
from smtp.smarthost import Smarthost


def way_out(settings: Settings) -> Egress:
    """How connections leave; what cannot work is wrong use."""
    proxy = settings.egress_proxy
    if proxy is not None and proxy.kind == "haproxy2" and not settings.egress_address:
        raise WrongUse("haproxy2 must be told which address to send from: set MAILCORDON_EGRESS_ADDRESS")
    relay = settings.smarthost
    named = [relay.where] if relay is not None else []
    named += [settings.egress_seen_by] if settings.egress_seen_by is not None else []
    fixed = {*settings.smtp_routes.values(), *named}
    return Egress(
        bind=settings.bind,
        addresses=settings.egress_address,
        proxy=proxy,
        credentials=_credentials(settings.egress_proxy_auth_file) if proxy is not None else None,
        allow_private=settings.allow_private_mx,
        fixed=frozenset(fixed),
    )


def smarthost(settings: Settings) -> Smarthost | None:
    """The relay of all mail, if there is one."""
    relay = settings.smarthost
    if relay is None:
        return None
    if "*" in settings.smtp_routes:
        raise WrongUse("MAILCORDON_SMARTHOST and the route * of MAILCORDON_SMTP_ROUTES both want all mail: drop one")
    ca_file = settings.smarthost_ca_file
    if ca_file is not None and not ca_file.is_file():
        raise WrongUse(f"MAILCORDON_SMARTHOST_CA_FILE: there is no file {ca_file}")
    return Smarthost(
        where=relay.where,
        implicit_tls=relay.implicit_tls,
        credentials=_credentials(settings.smarthost_auth_file),
        ca_file=ca_file,
    )


def routes(settings: Settings) -> dict[str, Endpoint]:
    """Fixed next hops by domain, the smarthost for all that have none."""
    everybody = {"*": settings.smarthost.where} if settings.smarthost is not None else {}
    return everybody | dict(settings.smtp_routes)


async def check_of(settings: Settings, egress: Egress) -> Check:
    """How this way out is checked."""
    machine = await asyncio.to_thread(socket.getfqdn)
    relay = routes(settings).get("*")
    ehlo = hostname(settings.hostname) if settings.hostname else None
    if settings.hostname and ehlo is None:
        raise WrongUse(f"MAILCORDON_HOSTNAME: {settings.hostname!r} is no name that EHLO could say")
    return Check(
        egress=egress,
        hostname=ehlo,
        machine=hostname(machine) or "localhost",
        relay=str(relay) if relay is not None else None,
        mirror=settings.egress_seen_by,
    )


def _credentials(file: Any) -> Credentials | None:  # Any: Path | None, as click gives it
    if file is None:
        return None
    try:
        return read_credentials(file)
    except UnusableCredentials as wrong:
        raise WrongUse(str(wrong)) from wrong


@click.group()
def egress() -> None:
    """The way out of senders: source address, its name, proxy."""


@egress.command()
@click.option("--mx", metavar="HOST[:PORT]", help="Also connect to this mail server and say EHLO; sends nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@setting_options(
    "hostname",
    "bind",
    "egress_address",
    "egress_seen_by",
    "egress_proxy",
    "egress_proxy_auth_file",
    "smarthost",
    "smarthost_auth_file",
    "smarthost_ca_file",
    "smtp_routes",
    "allow_private_mx",
)
def check(settings: Settings, mx: str | None, as_json: bool) -> None:
    """Check source addresses: PTR, whether it leads back, whether EHLO says the same; proxy; and a connection.

    A sender checks the same before it takes mail (MAILCORDON_EGRESS_CHECK).  With --mx, `gmail.com` tries that
    domain's mail servers, `mx.example.com:25` a host: many networks keep port 25 shut.  A smarthost is tried with
    its password in any case.

    \b
    Example:
      mailcordon egress check --hostname mta1.shop.example --mx gmail.com --json
    """
    logs.configure(level=settings.log_level, form=settings.log_format, role="egress-check")
    checked, connection = asyncio.run(_check(settings, mx))
    ok = bool(checked.ok and (connection is None or connection["reached"]))
    if as_json:
        found = {
            "ok": ok,
            "why": checked.why,
            "ehlo": checked.ehlo,
            "proxy": str(settings.egress_proxy) if settings.egress_proxy is not None else None,
            "addresses": [asdict(one) for one in checked.identities],
            "connection": connection,
        }
        click.echo(json.dumps(found))
    else:
        _print(checked, connection)
    if not ok:
        raise SystemExit(1)


def _print(checked: Checked, connection: dict[str, Any] | None) -> None:
    click.echo(f"EHLO        {checked.ehlo}")
    for one in checked.identities:
        click.echo(f"address     {one.address}: {one.answer.replace('_', ' ')}")
        click.echo(f"  PTR       {', '.join(one.ptr) or '-'}")
        click.echo(f"  leads back  {', '.join(one.confirmed) or '-'}")
    if connection is not None:
        reached = "reached" if connection["reached"] else "not reached"
        click.echo(
            f"connection  {connection['host']}: {reached}{', ' + connection['why'] if connection['why'] else ''}"
        )
    ok = checked.ok and (connection is None or connection["reached"])
    click.echo(f"{'in order' if ok else 'NOT in order'}: {checked.why}")


async def _check(settings: Settings, mx: str | None) -> tuple[Checked, dict[str, Any] | None]:
    egress = way_out(settings)
    relay = smarthost(settings)
    mx = mx or (str(relay.where) if relay is not None else None)
    where = _server(mx) if mx is not None else None
    checked = await (await check_of(settings, egress))()
    if mx is None or where is None or checked.trouble is not None or checked.elsewhere is not None:
        return checked, None
    opener = Opener(hostname=checked.ehlo, egress=egress, smarthost=relay)
    return checked, await _try(mx, where, settings, opener)


def _server(mx: str) -> Endpoint:
    try:
        return endpoint(mx) if ":" in mx else Endpoint(mx, SMTP_PORT)
    except ValueError as wrong:
        raise WrongUse(f"--mx: {wrong}") from wrong


async def _try(mx: str, where: Endpoint, settings: Settings, opener: Opener) -> dict[str, Any]:
    """Connect as a sender would: EHLO, TLS, AUTH to a smarthost, and goodbye."""
    named = {where.host.lower(): where} if ":" in mx else {}
    hops = NextHops(routes(settings) | named, allow_private=settings.allow_private_mx)
    found = await hops.find(where.host.lower())
    tried: dict[str, Any] = {"host": mx, "reached": False, "why": None, "ip": None, "tls": None}
    if not isinstance(found, NextHop):
        return tried | {"why": found.text}
    for target in found.targets:
        opened = await opener.open(target)
        if not isinstance(opened, Reply):
            await opened.quit()
            return tried | {"host": f"{target.host}:{target.port}", "reached": True, "ip": opened.ip, "tls": opened.tls}
        named_in_text = opened.code is None or isinstance(opened, OurFault)
        said = opened.text if named_in_text else f"{opened.code} {opened.text}"
        tried |= {"host": f"{target.host}:{target.port}", "why": f"{opened.stage}: {said}", "ip": opened.ip}
    return tried

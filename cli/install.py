"""``mailcordon install``: how mailcordon gets into a cluster, and what is still missing there."""

import asyncio
import json
import os
import secrets
import textwrap
from collections.abc import Sequence
from pathlib import Path

import click

from agents.places import site_of
from cli.failures import OutsideFailed, SaysNo, WrongUse
from cli.settings import setting_options
from k8s.cluster import Permanent, Temporary
from k8s.installation import Finding, is_well
from k8s.patches import Site
from policy.settings import Endpoint, Settings, endpoint


def _endpoint(_context: click.Context, option: click.Parameter, text: str | None) -> Endpoint | None:
    try:
        return endpoint(text) if text is not None else None
    except ValueError as wrong:
        raise WrongUse(f"--{option.name}: {wrong}") from wrong


@click.command()
@click.option("--check", "is_check", is_flag=True, help="Look at the cluster and tell what is missing or wrong.")
@click.option(
    "--kubeconfig",
    metavar="FILE",
    envvar="KUBECONFIG",
    help="Who asks, and where; default: ~/.kube/config, inside a cluster the pod itself.  [env: KUBECONFIG]",
)
@click.option("--probe-egress", is_flag=True, help="With --check: try in a pod whether the network really filters.")
@click.option(
    "--probe",
    "target",
    metavar="HOST:PORT",
    callback=_endpoint,
    help="With --probe-egress: what to connect to, a server that takes connections; default: the return path.",
)
@click.option("--json", "as_json", is_flag=True, help="With --check: print one JSON object.")
@click.option("--try", "trial", metavar="HOST:PORT", callback=_endpoint, hidden=True)
@setting_options("namespace", "image")
def install(
    settings: Settings,
    is_check: bool,
    kubeconfig: str | None,
    probe_egress: bool,
    target: Endpoint | None,
    as_json: bool,
    trial: Endpoint | None,
) -> None:
    """Tell how to install mailcordon in a Kubernetes cluster, and with --check what is missing there.

    Without --check: the command lines for kubectl; nothing is done.  With --check every part is looked at, a line each
    with the fix.  It reads, and pretends some writes (dry run) that the guard must refuse; it never reads a Secret.
    With --probe-egress it also starts a pod for some seconds, which tries to connect as an isolated sender would.

    Exit code 0 if all is well, 1 if anything is missing, wrong or could not be looked at, 3 if the API server cannot
    be reached.

    \b
    Examples:
      mailcordon install
      mailcordon install --check --probe-egress
    """
    if trial is not None:
        _try(trial)
    if not is_check:
        if probe_egress or target is not None or as_json:
            raise WrongUse("--probe-egress, --probe and --json belong to --check")
        click.echo(_how(settings))
        return
    if target is not None and not probe_egress:
        raise WrongUse("--probe names what --probe-egress connects to: give both")
    try:
        findings = asyncio.run(_checked(kubeconfig, site_of(settings), probe_egress, target))
    except (Temporary, Permanent) as failed:
        raise OutsideFailed(str(failed)) from failed
    _tell(findings, as_json=as_json)
    if not is_well(findings):
        raise SaysNo(f"{sum(one.answer not in {'ok', 'skipped'} for one in findings)} of {len(findings)} are not well")


async def _checked(
    kubeconfig: str | None, site: Site, probe_egress: bool, target: Endpoint | None
) -> Sequence[Finding]:
    from k8s import egress_probe  # the Kubernetes client, which the command lines do without
    from k8s.installation_check import check
    from k8s.installation_reading import Reader

    async with Reader(kubeconfig) as reader:
        findings = await check(reader, site)
        if probe_egress:
            name = f"mailcordon-egress-probe-{secrets.token_hex(4)}"
            findings.append(await egress_probe.probe(reader, site, name, target))
        else:
            says = "whether the network really filters was not tried"
            findings.append(Finding("way out", "skipped", says, "--probe-egress"))
    return findings


def _tell(findings: Sequence[Finding], *, as_json: bool) -> None:
    if as_json:
        checks = [{"check": one.check, "answer": one.answer, "says": one.says, "fix": one.fix} for one in findings]
        click.echo(json.dumps({"ok": is_well(findings), "checks": checks}))
        return
    for one in findings:
        click.echo(f"{one.answer:<8} {one.check}: {one.says}")
        if one.fix and one.answer not in {"ok", "skipped"}:
            click.echo(f"{'':<8} fix: {one.fix}")


def _try(target: Endpoint) -> None:
    """What the probe's pod runs; its exit code is the answer."""
    from k8s.egress_probe import tried

    raise SystemExit(int(asyncio.run(tried(target))))


def _how(settings: Settings) -> str:
    from k8s.installation_reading import SHIPPED

    folder = os.path.relpath(SHIPPED) if SHIPPED.is_relative_to(Path.cwd()) else str(SHIPPED)
    return textwrap.dedent(f"""\
        # 1. Copy an overlay and make it yours: the image by digest, where Kafka is, how many of each role.
        cp -r {folder} manifests
        $EDITOR manifests/overlays/production/kustomization.yaml manifests/overlays/production/config.yaml

        # 2. The keys of this installation, once.  Keep a copy: without it nobody recognises suppressed addresses or
        #    bounces.
        kubectl create namespace {settings.namespace}
        printf '{{"key_id":"1","address":"%s","return_path":"%s"}}' \\
          "$(openssl rand -hex 32)" "$(openssl rand -hex 32)" > secrets.json
        kubectl create secret generic mailcordon-keys --namespace {settings.namespace} --from-file=secrets.json

        # 3. Look at what would change, and apply it.
        kubectl kustomize manifests/overlays/production | kubectl diff --server-side -f -
        kubectl kustomize manifests/overlays/production | kubectl apply --server-side -f -

        # 4. What is still missing?
        mailcordon install --check --probe-egress
        """).rstrip()

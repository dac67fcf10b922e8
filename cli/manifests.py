"""``mailcordon manifests``: the Kubernetes objects of one campaign, to be read, compared, or applied by a person."""

from pathlib import Path
from typing import get_args

import click

from agents.places import site_of
from cli.failures import WrongUse
from cli.files import read_records
from cli.settings import setting_options
from k8s import labels, patches, resource
from k8s.cluster import SenderSpec
from k8s.egress_addresses import Network, Unsuitable, egress_objects
from k8s.plan import desired
from policy.settings import Settings
from schemas.reputation import Control
from schemas.sending import Campaign, Pace

_DECISION = (labels.FENCE, labels.STATE, labels.REASON, labels.SINCE, labels.STOPPED)


@click.command()
@click.argument("campaign")
@click.option(
    "--file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="The campaign's file, for its resource, tenant and labels; without it there are none.",
)
@click.option("--egress", type=click.Choice(get_args(Network)), help="A source address of its own, by this network.")
@click.option(
    "--address",
    "addresses",
    multiple=True,
    metavar="ADDRESS",
    help="With --egress: the address that mail leaves from; an IPv4 and an IPv6 one may be given.",
)
@click.option("--pool", metavar="NAME", help="With --egress antrea: the ExternalIPPool that has the address.")
@setting_options(
    "namespace",
    "image",
    "grace_s",
    "allow_private_mx",
    "mta_sts",
    "smtp_routes",
    "smarthost",
    "egress_proxy",
)
def manifests(
    settings: Settings,
    campaign: str,
    file: Path | None,
    egress: Network | None,
    addresses: tuple[str, ...],
    pool: str | None,
) -> None:
    """Print the Kubernetes objects of a campaign as YAML.

    Without --egress: what the controller applies for it while it may send, without the decision (state, reason, fence),
    which is the controller's own to write.  They are for reading and comparing; the controller makes them itself.  With
    --file the Campaign comes first, which is yours to apply if the campaign is to be made by its resource.

    With --egress: the object that gives the sender a source address of its own in a network of Cilium, OVN-Kubernetes
    or Antrea.  It is cluster-wide, so you apply it and not the controller.  In any other network use the egress proxy
    (MAILCORDON_EGRESS_PROXY).

    \b
    Examples:
      mailcordon manifests spring-sale
      mailcordon manifests spring-sale --egress cilium --address 192.0.2.7 | kubectl apply --server-side -f -
    """
    site = site_of(settings)
    record = _record(campaign, file)
    spec = desired(campaign, record, None, grace_s=settings.grace_s).spec
    if egress is None:
        if addresses or pool:
            raise WrongUse("--address and --pool say how --egress gives an address; name the network, --egress cilium")
        click.echo(as_yaml([*([resource_of(spec, site, record)] if record else []), *owned(spec, site)]), nl=False)
        return
    try:
        click.echo(as_yaml(egress_objects(egress, spec, site, addresses, pool=pool)), nl=False)
    except Unsuitable as wrong:
        raise WrongUse(f"--address: {wrong}") from wrong


def resource_of(spec: SenderSpec, site: patches.Site, record: Campaign) -> patches.Body:
    """The campaign as a resource that a person may apply: the definition, and nothing that is the controller's."""
    body = resource.campaign_body(spec, site, _anything(spec), record)
    words = {key: value for key, value in body["metadata"]["labels"].items() if key not in _DECISION}
    defined = {key: value for key, value in body["spec"].items() if key not in {"decision", "origin"}}
    return body | {"metadata": body["metadata"] | {"labels": words}, "spec": defined}


def owned(spec: SenderSpec, site: patches.Site) -> list[patches.Body]:
    """What a campaign that may send owns, without what only a decision says."""
    anything = _anything(spec)
    bodies = [
        patches.service_account(spec, site),
        patches.service(spec, site),
        patches.network_policy(spec, site, anything, is_open=True),
        patches.pod_disruption_budget(spec, site),
        patches.deployment(spec, site, anything, replicas=spec.replicas),
    ]
    return [_without_decision(body) for body in bodies]


def _anything(spec: SenderSpec) -> Control:
    return Control(campaign=spec.campaign, epoch=1, may_send=True, pace=Pace(), state="healthy", reason="", at=0)


def as_yaml(bodies: list[patches.Body]) -> str:
    """Documents for kubectl."""
    import yaml  # only this command writes it

    return str(yaml.safe_dump_all(bodies, sort_keys=False, explicit_start=True, allow_unicode=True, width=120))


def _without_decision(body: patches.Body) -> patches.Body:
    metadata = body["metadata"]
    kept = {part: {k: v for k, v in metadata[part].items() if k not in _DECISION} for part in ("labels", "annotations")}
    return body | {"metadata": metadata | kept}


def _record(campaign: str, file: Path | None) -> Campaign | None:
    if file is None:
        return None
    found = {one.campaign: one for one in read_records(file, Campaign)}
    if campaign not in found:
        raise WrongUse(f"{file} has no campaign {campaign!r}; it has {', '.join(sorted(found))}")
    return found[campaign]

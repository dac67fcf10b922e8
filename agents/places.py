"""Where senders run: the place that the settings name, made when the controller starts."""

from collections.abc import Awaitable, Callable
from pathlib import Path

from k8s.cluster import Cluster
from k8s.keeper import Command, Environment
from k8s.metrics import Metrics
from k8s.patches import Site
from policy.settings import Settings

MakeCluster = Callable[[Metrics], Awaitable[Cluster]]


def processes(folder: Path, *, command: Command, environment: Environment) -> MakeCluster:
    """Local child processes, remembered in ``folder``; they outlive the controller."""

    async def make(_metrics: Metrics) -> Cluster:
        from k8s.process import ProcessCluster

        cluster = ProcessCluster(folder, command=command, environment=environment)
        await cluster.start()
        return cluster

    return make


def kubernetes(site: Site, *, kubeconfig: str | None = None) -> MakeCluster:
    """Deployments in one namespace, by the pod's own identity or a kubeconfig file."""

    async def make(metrics: Metrics) -> Cluster:
        from k8s.kubernetes import KubernetesCluster  # the client library, which the process backend does not need

        return await KubernetesCluster.connect(site, kubeconfig=kubeconfig, metrics=metrics)

    return make


def site_of(settings: Settings) -> Site:
    """What the settings say about all senders of an installation."""
    hops = list(settings.smtp_routes.values())
    hops += [one.where for one in (settings.smarthost, settings.egress_proxy) if one is not None]
    hops += [settings.egress_seen_by] if settings.egress_seen_by is not None else []
    return Site(
        namespace=settings.namespace,
        image=settings.image,
        private_mx=settings.allow_private_mx,
        mta_sts=settings.mta_sts,
        sees_addresses=settings.egress_seen_by is not None,
        hops=tuple(sorted((hop.host, hop.port) for hop in hops)),
    )

"""Looking at a cluster as the person at the terminal may: any object, rights, and writes that are only pretended.

Nothing here changes a cluster but the probe of the way out, which makes one pod and takes it away again.
"""

import asyncio
import contextlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
import yaml
from kubernetes.aio import client, config

from k8s.api import as_yaml
from k8s.cluster import Permanent, Temporary
from k8s.installation import Body, Denied, Seen
from k8s.installation_rights import Pretended, Right

SHIPPED = Path(__file__).parent / "manifests"
MERGE = "application/merge-patch+json"
_NAMES_ONLY = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
_AT_ONCE = 8
_MAX_SAID = 400


def shipped(folder: Path = SHIPPED / "base") -> list[Body]:
    """All objects of the kustomize base, as this mailcordon has them."""
    listed = yaml.safe_load((folder / "kustomization.yaml").read_text(encoding="utf-8"))["resources"]
    found = (yaml.safe_load_all((folder / name).read_text(encoding="utf-8")) for name in listed)
    return [one for each in found for one in each]


class Reader:
    """One person's connection to a cluster; whatever the API server says is an answer, an error is no answer."""

    def __init__(self, kubeconfig: str | None, *, timeout_s: float = 10.0) -> None:
        named = [Path(one).expanduser() for one in (kubeconfig or "").split(os.pathsep) if one]
        if named and not any(one.is_file() for one in named):
            raise Permanent(f"there is no kubeconfig {kubeconfig}")
        self._kubeconfig, self._timeout_s = kubeconfig, timeout_s
        self._slots = asyncio.Semaphore(_AT_ONCE)

    async def __aenter__(self) -> Self:
        settings = client.Configuration()
        try:
            if self._kubeconfig is None and "KUBERNETES_SERVICE_HOST" in os.environ:
                config.load_incluster_config(client_configuration=settings)  # type: ignore[no-untyped-call]  # client's own
            else:
                await config.load_kube_config(  # type: ignore[no-untyped-call]  # the client's own
                    config_file=self._kubeconfig, client_configuration=settings
                )
            token = await settings.get_api_key_with_prefix("BearerToken")
            tls = client.rest.RESTClientObject(settings).ssl_context
        except (config.ConfigException, OSError, ValueError) as wrong:
            raise Permanent(f"cannot find the Kubernetes API: {wrong}") from wrong
        self.server: str = settings.host
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=tls),
            headers={"Authorization": token} if token else {},
            timeout=aiohttp.ClientTimeout(total=self._timeout_s),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def get(self, path: str, *, names_only: bool = False) -> Seen:
        """One object; with ``names_only`` its metadata, and the API server sends nothing else."""
        status, body = await self._call("GET", path, accept=_NAMES_ONLY if names_only else "application/json")
        if status == 404:
            return None
        return body if status < 300 else Denied(_said(body))

    async def items(self, path: str) -> list[Body] | Denied:
        """All objects of a collection; none where the API server knows no such kind."""
        status, body = await self._call("GET", path)
        if status == 404:
            return []
        return list(body.get("items") or ()) if status < 300 else Denied(_said(body))

    async def pretend(
        self, what: str, method: str, path: str, body: Body, *, kind: str = "application/json"
    ) -> Pretended:
        """A write that goes through all of admission and is not stored."""
        status, answer = await self._call(method, f"{path}?dryRun=All", body, kind=kind)
        return Pretended(what, done=status < 300, said="" if status < 300 else _said(answer))

    async def create(self, path: str, body: Body) -> Body:
        """Make an object; raises when that is refused."""
        status, answer = await self._call("POST", path, body)
        if status >= 300:
            raise Permanent(f"the Kubernetes API refused it ({status}): {_said(answer)}")
        return answer

    async def delete(self, path: str) -> None:
        """Take an object away at once; one that is gone is as good."""
        await self._call("DELETE", path, {"gracePeriodSeconds": 0})

    async def who_may(self, rights: Iterable[Right], user: str, namespace: str) -> dict[Right, bool | Denied]:
        """What a user may do, by a review of each right; our own rights are asked as ours."""
        mine = await self._myself() == user
        listed = list(rights)
        answers = await asyncio.gather(*(self._may(one, None if mine else user, namespace) for one in listed))
        return dict(zip(listed, answers, strict=True))

    async def _may(self, right: Right, user: str | None, namespace: str) -> bool | Denied:
        spec: Body = {"resourceAttributes": right.asked(namespace)}
        kind = "SelfSubjectAccessReview"
        if user is not None:
            kind, spec = "SubjectAccessReview", spec | {"user": user, "groups": _groups(user)}
        path = f"/apis/authorization.k8s.io/v1/{kind.lower()}s"
        status, body = await self._call(
            "POST", path, {"apiVersion": "authorization.k8s.io/v1", "kind": kind, "spec": spec}
        )
        return bool(body["status"]["allowed"]) if status < 300 else Denied(_said(body))

    async def _myself(self) -> str:
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        status, body = await self._call("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", review)
        return str(body["status"]["userInfo"]["username"]) if status < 300 else ""

    async def _call(
        self,
        method: str,
        path: str,
        body: Body | None = None,
        *,
        kind: str = "application/json",
        accept: str = "application/json",
    ) -> tuple[int, Body]:
        headers = {"Content-Type": kind, "Accept": accept}
        data = None if body is None else as_yaml(body)
        try:
            async with (
                self._slots,
                self._session.request(method, self.server + path, data=data, headers=headers) as response,
            ):
                status, raw = response.status, await response.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as away:
            why = f"{type(away).__name__}: {away}" if str(away) else type(away).__name__
            raise Temporary(f"the Kubernetes API at {self.server} does not answer: {why}") from away
        answer: Any = {}  # Any: JSON
        with contextlib.suppress(ValueError):
            answer = json.loads(raw)
        if status == 401:
            raise Permanent(f"the Kubernetes API at {self.server} does not know you: {_said(answer)}")
        if status >= 500 or status == 429:
            raise Temporary(f"the Kubernetes API at {self.server} answered {status}: {_said(answer)}")
        return status, answer if isinstance(answer, dict) else {}


def _groups(user: str) -> list[str]:
    """The groups that the API server gives to a service account, by which roles may be bound to it."""
    parts = user.split(":")
    if parts[:2] != ["system", "serviceaccount"]:
        return ["system:authenticated"]
    return ["system:serviceaccounts", f"system:serviceaccounts:{parts[2]}", "system:authenticated"]


def _said(body: Mapping[str, Any]) -> str:
    return str(body.get("message", "") if isinstance(body, dict) else body)[:_MAX_SAID]

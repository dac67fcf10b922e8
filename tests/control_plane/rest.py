"""The Kubernetes API as raw JSON, for tests and the process kubelet: any path, any patch, any answer."""

import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
from kubernetes.aio import client, config

from k8s.api import as_yaml

APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"

_LONGEST_LINE = 8 * 1024 * 1024
Body = dict[str, Any]  # Any: JSON of the Kubernetes API


@dataclass(frozen=True, slots=True)
class Answer:
    """Status and body of one call."""

    status: int
    body: Any  # JSON of the Kubernetes API

    @property
    def ok(self) -> bool:
        """Was it done?"""
        return self.status < 300

    @property
    def message(self) -> str:
        """Why it was not done."""
        return str(self.body.get("message", "")) if isinstance(self.body, dict) else ""

    def wanted(self) -> Any:  # Any: JSON of the Kubernetes API
        """The body of an answer that must be a success."""
        assert self.ok, f"{self.status}: {self.message}"
        return self.body


class Rest:
    """One identity's connection, by a kubeconfig file; used within one event loop."""

    server: str

    def __init__(self, kubeconfig: Path, *, timeout_s: float = 30.0) -> None:
        self._kubeconfig, self._timeout_s = kubeconfig, timeout_s

    async def __aenter__(self) -> Self:
        settings = client.Configuration()
        await config.load_kube_config(config_file=str(self._kubeconfig), client_configuration=settings)
        token = await settings.get_api_key_with_prefix("BearerToken")
        self.server = settings.host
        self._session = aiohttp.ClientSession(
            settings.host,
            connector=aiohttp.TCPConnector(ssl=client.rest.RESTClientObject(settings).ssl_context, limit=64),
            headers={"Accept": "application/json"} | ({"Authorization": token} if token else {}),
            read_bufsize=_LONGEST_LINE,  # a watch sends an object per line
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def call(
        self, method: str, path: str, body: Body | None = None, *, kind: str = "application/json", **query: str | int
    ) -> Answer:
        """One call; whatever the API says is an answer, an error means that there was none."""
        data = None if body is None else as_yaml(body)
        timeout = aiohttp.ClientTimeout(total=self._timeout_s)
        headers = {"Content-Type": kind}
        async with self._session.request(
            method, path, data=data, headers=headers, params=query, timeout=timeout
        ) as response:
            raw = await response.read()
        try:
            return Answer(response.status, json.loads(raw or b"{}"))
        except ValueError:
            return Answer(response.status, raw.decode(errors="replace"))

    async def get(self, path: str, **query: str | int) -> Answer:
        """Read an object or a list."""
        return await self.call("GET", path, **query)

    async def create(self, path: str, body: Body, **query: str | int) -> Answer:
        """Post an object to its collection."""
        return await self.call("POST", path, body, **query)

    async def apply(self, path: str, body: Body, *, manager: str = "tests", force: bool = True) -> Answer:
        """Server-side apply of an object; it is called as its path says."""
        named = body | {"metadata": {"name": path.rpartition("/")[2]} | body.get("metadata", {})}
        forced = "true" if force else "false"
        return await self.call("PATCH", path, named, kind=APPLY, fieldManager=manager, force=forced)

    async def merge(self, path: str, body: Body, **query: str | int) -> Answer:
        """JSON merge patch."""
        return await self.call("PATCH", path, body, kind=MERGE, **query)

    async def strategic(self, path: str, body: Body) -> Answer:
        """Strategic merge patch, which knows the keys of lists."""
        return await self.call("PATCH", path, body, kind=STRATEGIC)

    async def delete(self, path: str, body: Body | None = None) -> Answer:
        """Ask for the end of an object."""
        return await self.call("DELETE", path, body)

    async def watch(self, path: str, version: str, **query: str | int) -> AsyncGenerator[Body]:
        """Events after a version, until the API ends the watch; bookmarks included."""
        asked = {"watch": "true", "resourceVersion": version, "allowWatchBookmarks": "true", **query}
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=self._timeout_s)
        async with self._session.get(path, params=asked, timeout=timeout) as response:
            async for line in response.content:
                yield json.loads(line)

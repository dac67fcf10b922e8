"""The Kubernetes API as far as we use it: get, apply, list and watch the objects of one namespace.

The only module that speaks with the client library, and only with its lower half: paths and raw JSON.  A typed list
of some hundred Deployments would hold the event loop for a quarter of a second, and the generated classes cost a
second and 35 MiB before the first call.
"""

import asyncio
import contextlib
import json
import random
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar
from urllib.parse import quote, urlencode

import aiohttp
import msgspec
from kubernetes.aio import client, config

from k8s.answers import Conflict, Expired, Guarded, NotServed, Unusable, failure
from k8s.cluster import Permanent, Temporary
from k8s.objects import ApiStatus, Page, Thing, Told, WatchEvent, thing_of

FIELD_MANAGER = "mailcordon-controller"
APPLY = "application/apply-patch+yaml"  # JSON is YAML but for one thing: see as_yaml
NO_OBJECT_HAS_THIS_VERSION = "1"
"""Applied to what was missing: an apply makes it whatever the version says, but is refused where an object has come."""

PAGE = 500
MAX_LINE = 4 << 20
"""Of a watch: etcd takes no object of more than 1.5 MiB, so a longer line is none of an API server's."""

TRIES = 4
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 2.0
"""A busy API refuses some calls of many: each is tried again by itself, or an act of twenty would never get through.
A longer patience than the longest pause is the caller's: it is told how long."""

WATCH_S = 300
SILENT_S = 90.0
"""A watch without events has a bookmark every minute; one that is silent for longer hangs."""

_SPARE_CONNECTIONS = 16
_LISTS = 3

Kind = Literal[
    "Campaign", "Deployment", "NetworkPolicy", "Service", "ServiceAccount", "PodDisruptionBudget", "Pod", "Event"
]
Body = dict[str, Any]  # Any: JSON of the Kubernetes API
Counted = Callable[[str, str, int], None]

T = TypeVar("T")

_PATHS: dict[Kind, tuple[str, str]] = {
    "Campaign": ("/apis/mailcordon.dev/v1alpha1", "campaigns"),
    "Deployment": ("/apis/apps/v1", "deployments"),
    "NetworkPolicy": ("/apis/networking.k8s.io/v1", "networkpolicies"),
    "Service": ("/api/v1", "services"),
    "ServiceAccount": ("/api/v1", "serviceaccounts"),
    "PodDisruptionBudget": ("/apis/policy/v1", "poddisruptionbudgets"),
    "Pod": ("/api/v1", "pods"),
    "Event": ("/api/v1", "events"),
}


@dataclass(frozen=True, slots=True)
class Listed:
    """All objects of a list, and the version of the namespace at which a watch goes on from there."""

    things: tuple[Thing, ...]
    version: str


class Api:
    """One client, one namespace, and a bound on what is in flight (the client has none of its own).

    ``counted`` is told verb, kind and status of every call (0: no answer).
    """

    def __init__(
        self,
        api: client.ApiClient,
        namespace: str,
        *,
        in_flight: int = 16,
        timeout_s: float = 10.0,
        chance: Callable[[], float] = random.random,
        counted: Counted = lambda *_: None,
    ) -> None:
        self.namespace, self.counted = namespace, counted
        self._client: Any = api  # Any: untyped below its generated classes
        self._client.rest_client.maxsize = in_flight + _SPARE_CONNECTIONS  # watches hold theirs for minutes
        self._slots = asyncio.Semaphore(in_flight)
        self._timeout_s, self._chance = timeout_s, chance

    async def get(self, kind: Kind, name: str) -> Thing | None:
        """One object, or None when there is none."""
        raw = await self._call("get", kind, "GET", name=name)
        return None if raw is None else _read(raw, thing_of)

    async def apply(self, kind: Kind, body: Body, *, over: Thing | None, status: bool = False) -> Thing:
        """Server-side apply of all that we own, over the version that was read (None: there was none).

        Raises :class:`Conflict` when that is not the newest version any more.  With ``status`` the status is applied.
        """
        version = over.metadata.resource_version if over else NO_OBJECT_HAS_THIS_VERSION
        guarded = body | {"metadata": body["metadata"] | {"resourceVersion": version}}
        query = {"fieldManager": FIELD_MANAGER, "force": "true", "fieldValidation": "Strict"}
        name = body["metadata"]["name"] + ("/status" if status else "")
        raw = await self._call("patch", kind, "PATCH", name=name, query=query, body=guarded)
        if raw is None:
            raise NotServed(f"{kind} or namespace {self.namespace} does not exist; apply k8s/manifests/base first")
        return _read(raw, thing_of)

    async def create(self, kind: Kind, body: Body) -> None:
        """Make an object that is never changed; :class:`Conflict` when it is there already."""
        if await self._call("create", kind, "POST", body=body) is None:
            raise NotServed(f"namespace {self.namespace} does not exist; apply k8s/manifests/base first")

    async def list(self, kind: Kind, labels: str = "") -> Listed:
        """All objects with these labels, page by page; begun anew when the pages get too old on the way."""
        for _ in range(_LISTS):
            with contextlib.suppress(Expired):
                return await self._list(kind, labels)
        raise Unusable(f"a list of {kind} objects expired {_LISTS} times while it was read")

    async def watch(self, kind: Kind, labels: str, version: str) -> AsyncIterator[Told]:
        """What happens to these objects after a version, until the API server ends it, which is normal.

        Raises :class:`Expired` when the version is too old to go on from.
        """
        query = {
            "watch": "true",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(round(WATCH_S * (1 + self._chance()))),
        }
        limits = aiohttp.ClientTimeout(total=None, sock_connect=self._timeout_s, sock_read=SILENT_S)
        selected = query | ({"labelSelector": labels} if labels else {})
        try:
            async with self._answer("watch", kind, "GET", query=selected, timeout=limits) as response:
                async for line in _lines(response.content):
                    yield _told(line)
        except _Missing:
            raise NotServed(f"the Kubernetes API has no kind {kind}") from None

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def _list(self, kind: Kind, labels: str) -> Listed:
        found: list[Thing] = []
        query = {"limit": str(PAGE)} | ({"labelSelector": labels} if labels else {})
        while True:
            raw = await self._call("list", kind, "GET", query=query)
            if raw is None:
                raise NotServed(f"the Kubernetes API has no kind {kind}")
            page = _read(raw, msgspec.json.Decoder(Page).decode)
            found += (_read(item, thing_of) for item in page.items or ())
            if not page.metadata.continue_:
                return Listed(tuple(found), page.metadata.resource_version)
            query["continue"] = page.metadata.continue_

    async def _call(
        self,
        verb: str,
        kind: Kind,
        method: str,
        *,
        name: str = "",
        query: dict[str, str] | None = None,
        body: Body | None = None,
    ) -> bytes | None:
        """One call: its answer, None for 404, or the error that tells the caller what to do."""
        for tries in range(1, TRIES + 1):
            try:
                return await self._once(verb, kind, method, name=name, query=query, body=body)
            except (Conflict, Expired, Guarded, Unusable):
                raise
            except Temporary as busy:
                pause_s = FIRST_PAUSE_S * 2**tries if busy.retry_after_s is None else busy.retry_after_s
                if tries == TRIES or pause_s > LONGEST_PAUSE_S:
                    raise
                await asyncio.sleep(pause_s * (1 + self._chance() / 2))
        raise AssertionError("the last try returns or raises")

    async def _once(self, verb: str, kind: Kind, method: str, **asked: Any) -> bytes | None:  # Any: handed through
        async with self._slots:
            limit = aiohttp.ClientTimeout(total=self._timeout_s)
            try:
                async with self._answer(verb, kind, method, timeout=limit, **asked) as response:
                    return await response.read()
            except _Missing:
                return None

    @contextlib.asynccontextmanager
    async def _answer(
        self,
        verb: str,
        kind: Kind,
        method: str,
        *,
        timeout: aiohttp.ClientTimeout,
        name: str = "",
        query: dict[str, str] | None = None,
        body: Body | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer to one request whose status is good; everything else is raised as what it means."""
        prefix, plural = _PATHS[kind]
        url = f"{self._client.configuration.host}{prefix}/namespaces/{quote(self.namespace)}/{plural}"
        url += (f"/{name}" if name else "") + (f"?{urlencode(query)}" if query else "")
        headers = {"Accept": "application/json", "User-Agent": FIELD_MANAGER}
        data: Body | str | None = body
        if method == "PATCH":
            headers["Content-Type"] = f"{APPLY}; charset=utf-8"  # by this the client leaves a text as it is
            data = None if body is None else as_yaml(body)
        status = 0
        try:
            await self._client.update_params_for_auth(headers, [], ["BearerToken"], url, method, body)
            asked = self._client.rest_client.request(method, url, headers=headers, body=data, _request_timeout=timeout)
            response: aiohttp.ClientResponse = (await asked).response
            try:
                status = response.status
                if status == 404:
                    raise _Missing
                if status >= 300:
                    raise failure(status, response.headers.get("Retry-After"), await response.read())
                yield response
            finally:
                response.release()
        except aiohttp.ServerDisconnectedError as gone:  # it closed an idle connection as we took it
            raise Temporary(f"the Kubernetes API hung up: {gone}", retry_after_s=0.0) from gone
        except (aiohttp.ClientError, OSError, TimeoutError) as away:
            raise Unusable(f"the Kubernetes API does not answer: {type(away).__name__}: {away}") from away
        finally:
            self.counted(verb, kind, status)


class _Missing(Exception):  # noqa: N818 - an answer
    """404: the object, or all that it would be part of, is not there."""


async def connect(namespace: str, *, kubeconfig: str | None, **bounds: Any) -> Api:  # Any: Api's own
    """A client with the pod's own identity, or with the one of a kubeconfig file."""
    settings: Any = client.Configuration()  # Any: untyped
    try:
        if kubeconfig:
            await config.load_kube_config(config_file=kubeconfig, client_configuration=settings)  # type: ignore[no-untyped-call]  # the client's own
        else:
            config.load_incluster_config(client_configuration=settings)  # type: ignore[no-untyped-call]  # as above
            settings.client_session_kwargs = {"trust_env": False}  # a proxy for the world is none for the API
    except (config.ConfigException, OSError) as wrong:
        where = f"kubeconfig {kubeconfig}" if kubeconfig else "the pod's service account (KUBECONFIG is not set)"
        raise Permanent(f"cannot find the Kubernetes API by {where}: {wrong}") from wrong
    return Api(client.ApiClient(settings), namespace, **bounds)


def as_yaml(body: Body) -> str:
    """A body as JSON that every YAML reader understands.

    JSON escapes a character beyond U+FFFF (an emoji) as two halves, and in YAML a half is no character: the API server
    refuses the whole object.  So those stay as they are; all others are escaped, because YAML allows only some.
    """
    text = json.dumps(body, ensure_ascii=False)
    return re.sub(r"[\x7f-\uffff]", lambda found: f"\\u{ord(found[0]):04x}", text)


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Lines of a watch; a last one without an end was cut off and is none."""
    rest = bytearray()
    async for chunk in content.iter_any():
        rest += chunk
        if b"\n" in chunk:
            *whole, last = rest.split(b"\n")
            rest = bytearray(last)
            for line in whole:
                if line:
                    yield bytes(line)
        if len(rest) > MAX_LINE:
            raise Unusable(f"a line of a watch is longer than {MAX_LINE} octets")


def _told(line: bytes) -> Told:
    event = _read(line, msgspec.json.Decoder(WatchEvent).decode)
    if event.type != "ERROR":
        return Told(event.type, _read(event.object, thing_of))
    status = _read(event.object, msgspec.json.Decoder(ApiStatus).decode)
    raise failure(status.code or 500, None, event.object)


def _read(raw: bytes | msgspec.Raw, read: Callable[[bytes], T]) -> T:
    try:
        return read(bytes(raw))
    except msgspec.MsgspecError as odd:
        raise Unusable(f"the Kubernetes API gave an answer that cannot be read: {odd}") from odd

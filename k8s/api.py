"""The Kubernetes API as far as we use it: get, apply and list five kinds of objects in one namespace.

The only module that speaks with the client library.  Answers are read as raw JSON: a typed list of some hundred
Deployments would hold the event loop for a quarter of a second.
"""

import asyncio
import contextlib
import json
import random
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import aiohttp
import msgspec
from kubernetes.aio import client, config

from k8s.cluster import Permanent, Temporary
from k8s.objects import ApiStatus, Thing, Things

FIELD_MANAGER = "mailcordon-controller"
APPLY = "application/apply-patch+yaml"  # JSON is YAML but for one thing: see as_yaml
NO_OBJECT_HAS_THIS_VERSION = "1"
"""Applied to what was missing: an apply makes it whatever the version says, but is refused where an object has come."""

PAGE = 500
MAX_SAID = 300

TRIES = 4
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 2.0
"""A busy API refuses some calls of many: each is tried again by itself, or an act of twenty would never get through.
A longer patience than the longest pause is the caller's: it is told how long."""

Kind = Literal["Deployment", "NetworkPolicy", "Service", "ServiceAccount", "Pod"]
Body = dict[str, Any]  # Any: JSON of the Kubernetes API

T = TypeVar("T")
_Call = Callable[..., Awaitable[aiohttp.ClientResponse]]


class Conflict(Temporary):
    """Somebody wrote between our reading and our writing."""


class _Unusable(Temporary):
    """No answer, or none that can be read: asking again at once would only take longer."""


@dataclass(frozen=True, slots=True)
class _Calls:
    get: _Call
    apply: _Call
    list: _Call


class Api:
    """One client, one namespace, and a bound on what is in flight (the client has none of its own)."""

    def __init__(
        self,
        api: client.ApiClient,
        namespace: str,
        *,
        in_flight: int = 16,
        timeout_s: float = 10.0,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.namespace = namespace
        self._client = api
        api.rest_client = _ApplyingRest(api.rest_client)  # type: ignore[assignment]  # as far as ApiClient uses it
        self._slots = asyncio.Semaphore(in_flight)
        self._timeout_s, self._chance = timeout_s, chance
        apps, core, networking = client.AppsV1Api(api), client.CoreV1Api(api), client.NetworkingV1Api(api)
        self._calls: dict[str, _Calls] = {
            "Deployment": _Calls(
                apps.read_namespaced_deployment_without_preload_content,
                apps.patch_namespaced_deployment_without_preload_content,
                apps.list_namespaced_deployment_without_preload_content,
            ),
            "NetworkPolicy": _Calls(
                networking.read_namespaced_network_policy_without_preload_content,
                networking.patch_namespaced_network_policy_without_preload_content,
                networking.list_namespaced_network_policy_without_preload_content,
            ),
            "Service": _Calls(
                core.read_namespaced_service_without_preload_content,
                core.patch_namespaced_service_without_preload_content,
                core.list_namespaced_service_without_preload_content,
            ),
            "ServiceAccount": _Calls(
                core.read_namespaced_service_account_without_preload_content,
                core.patch_namespaced_service_account_without_preload_content,
                core.list_namespaced_service_account_without_preload_content,
            ),
            "Pod": _Calls(
                core.read_namespaced_pod_without_preload_content,
                core.patch_namespaced_pod_without_preload_content,
                core.list_namespaced_pod_without_preload_content,
            ),
        }

    async def get(self, kind: Kind, name: str) -> Thing | None:
        """One object, or None when there is none."""
        return await self._call(self._calls[kind].get, Thing, name=name)

    async def apply(self, kind: Kind, body: Body, *, over: Thing | None) -> Thing:
        """Server-side apply of all that we own, over the version that was read (None: there was none).

        Raises :class:`Conflict` when that is not the newest version any more.
        """
        version = over.metadata.resource_version if over else NO_OBJECT_HAS_THIS_VERSION
        guarded = body | {"metadata": body["metadata"] | {"resourceVersion": version}}
        applied = await self._call(
            self._calls[kind].apply,
            Thing,
            name=body["metadata"]["name"],
            body=guarded,
            field_manager=FIELD_MANAGER,
            force=True,
            field_validation="Strict",
            _content_type=APPLY,
        )
        if applied is None:
            raise Permanent(f"namespace {self.namespace} does not exist; apply k8s/manifests/base first")
        return applied

    async def list(self, kind: Kind, labels: str) -> tuple[Thing, ...]:
        """All objects with these labels, page by page."""
        found: list[Thing] = []
        token: str | None = None
        while True:
            page = await self._call(self._calls[kind].list, Things, label_selector=labels, limit=PAGE, _continue=token)
            if page is None:
                return ()
            found += page.items or ()
            token = page.metadata.continue_
            if not token:
                return tuple(found)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()  # type: ignore[no-untyped-call]  # the client's own

    async def _call(self, call: _Call, answer: type[T], **arguments: Any) -> T | None:  # Any: the client's own
        """One call: its answer, None for 404, or the error that tells the caller what to do."""
        for tries in range(1, TRIES + 1):
            try:
                return await self._once(call, answer, arguments)
            except (Conflict, _Unusable):
                raise
            except Temporary as busy:
                pause_s = FIRST_PAUSE_S * 2**tries if busy.retry_after_s is None else busy.retry_after_s
                if tries == TRIES or pause_s > LONGEST_PAUSE_S:
                    raise
                await asyncio.sleep(pause_s * (1 + self._chance() / 2))
        raise AssertionError("the last try returns or raises")

    async def _once(self, call: _Call, answer: type[T], arguments: dict[str, Any]) -> T | None:  # Any: as above
        try:
            async with self._slots, asyncio.timeout(self._timeout_s):
                response = await call(namespace=self.namespace, **arguments)
                raw = await response.read()
        except aiohttp.ServerDisconnectedError as gone:  # it closed an idle connection as we took it
            raise Temporary(f"the Kubernetes API hung up: {gone}", retry_after_s=0.0) from gone
        except (aiohttp.ClientError, OSError, TimeoutError) as away:
            raise _Unusable(f"the Kubernetes API does not answer: {type(away).__name__}: {away}") from away
        if response.status == 404:
            return None
        if response.status >= 300:
            raise _failure(response.status, response.headers.get("Retry-After"), raw)
        try:
            return msgspec.json.decode(raw, type=answer)
        except msgspec.MsgspecError as odd:
            raise _Unusable(f"the Kubernetes API gave an answer that cannot be read: {odd}") from odd


class _ApplyingRest:
    """The client's transport, with bodies of applies as we write them: it escapes what YAML cannot read."""

    def __init__(self, rest: client.rest.RESTClientObject) -> None:
        self._rest = rest

    async def request(  # Any: the client's own
        self, method: str, url: str, headers: dict[str, str] | None = None, body: Any = None, **more: Any
    ) -> Any:
        if headers and headers.get("Content-Type") == APPLY:
            headers = headers | {"Content-Type": f"{APPLY}; charset=utf-8"}  # by this the client leaves a text as it is
            body = as_yaml(body)
        return await self._rest.request(  # type: ignore[no-untyped-call]  # the client's own
            method, url, headers=headers, body=body, **more
        )

    async def close(self) -> None:
        await self._rest.close()


def as_yaml(body: Body) -> str:
    """A body as JSON that every YAML reader understands.

    JSON escapes a character beyond U+FFFF (an emoji) as two halves, and in YAML a half is no character: the API server
    refuses the whole object.  So those stay as they are; all others are escaped, because YAML allows only some.
    """
    text = json.dumps(body, ensure_ascii=False)
    return re.sub(r"[\x7f-\uffff]", lambda found: f"\\u{ord(found[0]):04x}", text)


async def connect(namespace: str, *, kubeconfig: str | None = None) -> Api:
    """With the pod's own identity, or with the one of a kubeconfig file."""
    settings = client.Configuration()
    try:
        if kubeconfig:
            await config.load_kube_config(  # type: ignore[no-untyped-call]  # the client's own
                config_file=kubeconfig, client_configuration=settings
            )
        else:
            config.load_incluster_config(client_configuration=settings)  # type: ignore[no-untyped-call]  # as above
            settings.client_session_kwargs = {"trust_env": False}  # a proxy for the world is none for the API
    except (config.ConfigException, OSError) as wrong:
        where = f"kubeconfig {kubeconfig}" if kubeconfig else "the pod's service account (KUBECONFIG is not set)"
        raise Permanent(f"cannot find the Kubernetes API by {where}: {wrong}") from wrong
    return Api(client.ApiClient(settings), namespace)


def _failure(status: int, retry_after: str | None, raw: bytes) -> Exception:
    said, delay_s = _said(raw), _seconds(retry_after)
    match status:
        case 409:
            return Conflict(said)
        case 429:
            return Temporary(
                f"the Kubernetes API asks for patience: {said}", retry_after_s=1.0 if delay_s is None else delay_s
            )
        case 403:
            return Permanent(f"the controller may not do this (is its Role bound? is a quota used up?): {said}")
        case _ if status >= 500 or status in {401, 408}:
            return Temporary(f"the Kubernetes API answered {status}: {said}", retry_after_s=delay_s)
        case _:
            return Permanent(f"the Kubernetes API refused what we sent ({status}): {said}")


def _said(raw: bytes) -> str:
    with contextlib.suppress(msgspec.MsgspecError):
        return msgspec.json.decode(raw, type=ApiStatus).message[:MAX_SAID]
    return raw[:MAX_SAID].decode("utf-8", "replace")


def _seconds(retry_after: str | None) -> float | None:
    """Retry-After in seconds; the form with a date is not used by API servers and counts as none."""
    if retry_after is None or not retry_after.isascii() or not retry_after.isdigit():
        return None
    return float(retry_after)

"""A Kubernetes API server small enough to read: our kinds, server-side apply, watches, and every way to say no.

It keeps to what a real one was seen to do: an apply makes what is missing whatever its resourceVersion says; a
resourceVersion that is not the newest gets 409; the same apply again changes no version; replicas that are given up
fall back to 1; a Deployment's own count leaves out draining pods; an unknown field is a 400, a body that cannot be
a Deployment a 422.  A small loop plays controller-manager and kubelet: pods come, drain and go.

For tests: ``calls`` remembers what was asked, ``refuse_next`` answers with an error, ``die_at`` cuts the line before
or after the n-th call and stays dead until ``revive``, ``hold_drain`` keeps draining pods, ``allow`` is RBAC.
"""

import asyncio
import contextlib
import copy
import itertools
import json
import re
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from kubernetes.aio import client

from tests.doubles.fake_api_objects import Conflicts, Held, Leaves, flatten

KINDS = {
    "deployments": ("Deployment", "apps/v1"),
    "networkpolicies": ("NetworkPolicy", "networking.k8s.io/v1"),
    "services": ("Service", "v1"),
    "serviceaccounts": ("ServiceAccount", "v1"),
    "pods": ("Pod", "v1"),
    "poddisruptionbudgets": ("PodDisruptionBudget", "policy/v1"),
    "campaigns": ("Campaign", "mailcordon.dev/v1alpha1"),
    "events": ("Event", "v1"),
}
GROUPS = {
    "apps/v1": "apps",
    "networking.k8s.io/v1": "networking.k8s.io",
    "policy/v1": "policy",
    "mailcordon.dev/v1alpha1": "mailcordon.dev",
    "v1": "",
}
HAS_GENERATION = {"Deployment", "NetworkPolicy", "PodDisruptionBudget", "Campaign"}

SURROGATE = re.compile(r"(?<!\\)(?:\\\\)*\\u[dD][89abAB]")
"""Half a character as JSON escapes it: an apply is read as YAML, which knows no such escape."""

NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\Z")
LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?\Z")
LABEL_KEY = re.compile(r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?\Z")
_MOST_ANNOTATION_BYTES = 262_144


@dataclass(frozen=True)
class Called:
    """One call as RBAC sees it."""

    verb: str
    group: str
    resource: str
    name: str | None
    body: dict[str, Any] | None = None


class Refusal(Exception):  # noqa: N818 - an answer
    """An answer that is no."""

    def __init__(self, status: int, reason: str, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.reason, self.message, self.headers = status, reason, message, headers or {}


class FakeApi:
    """The server; ``async with FakeApi() as api`` and talk to ``api.url``."""

    def __init__(self, *namespaces: str, lag_s: float = 0.005, drain_s: float = 0.02, crd: bool = True) -> None:
        self.namespaces = set(namespaces or ("mailcordon",))
        self.crd = crd
        self.objects: dict[tuple[str, str, str], Held] = {}  # resource, namespace, name
        self.calls: list[Called] = []
        self.allow: set[tuple[str, str, str]] | None = None  # (verb, group, resource); None: everything
        self.lag_s, self.drain_s, self.hold_drain, self.answer_after_s = lag_s, drain_s, False, 0.0
        self.manager_is_down = False
        self.page: int | None = None
        self.die_at: tuple[int, str] | None = None
        self.dead = False
        self.methods: list[str] = []  # one of each request, in order of arrival
        self.most_in_flight = 0
        self.before_call: Callable[[Called], None] | None = None
        self._in_flight = 0
        self._refusals: deque[tuple[Callable[[Called], bool], Refusal]] = deque()
        self._version = 1000
        self._gone: list[tuple[int, tuple[str, str, str], dict[str, Any]]] = []  # version, what, as it was
        self.oldest = 0  # a watch from before this version has expired
        self._uids = itertools.count(1)
        self._drains: dict[str, float] = {}
        self._runner: web.AppRunner | None = None
        self._manager: asyncio.Task[None] | None = None
        self.url = ""

    async def __aenter__(self) -> "FakeApi":
        app = web.Application(middlewares=[self._wrap])
        for version in GROUPS:
            prefix = f"/apis/{version}" if "/" in version else f"/api/{version}"
            app.router.add_route("GET", prefix + "/namespaces/{namespace}/{resource}", self._list)
            app.router.add_route("POST", prefix + "/namespaces/{namespace}/{resource}", self._post)
            app.router.add_route("PATCH", prefix + "/namespaces/{namespace}/{resource}/{name}/status", self._status)
            app.router.add_route("GET", prefix + "/namespaces/{namespace}/{resource}/{name}", self._get)
            app.router.add_route("PATCH", prefix + "/namespaces/{namespace}/{resource}/{name}", self._patch)
            app.router.add_route("DELETE", prefix + "/namespaces/{namespace}/{resource}/{name}", self._delete)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        self._manager = asyncio.create_task(self._play_manager())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._manager is not None
        self._manager.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._manager
        assert self._runner is not None
        await self._runner.cleanup()

    @property
    def requests(self) -> int:
        """How many requests have come."""
        return len(self.methods)

    # What tests do to it.

    def refuse_next(
        self,
        status: int,
        *,
        times: int = 1,
        when: Callable[[Called], bool] = lambda _: True,
        retry_after_s: int | None = None,
        message: str = "told to refuse",
    ) -> None:
        """Answer the next calls that match with an error."""
        headers = {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}
        self._refusals.extend([(when, Refusal(status, "Told", message, headers))] * times)

    def revive(self) -> None:
        """Answer again, after ``die_at`` was reached."""
        self.die_at, self.dead = None, False

    def write(self, resource: str, name: str, changes: Leaves, *, manager: str, namespace: str = "mailcordon") -> None:
        """Somebody else writes some fields."""
        held = self.objects[resource, namespace, name]
        self._store((resource, namespace, name), held, held.updated(changes, manager))

    def remove(self, resource: str, name: str, *, namespace: str = "mailcordon") -> None:
        """Somebody else deletes an object."""
        self._forget((resource, namespace, name))

    def snapshot(self) -> dict[tuple[str, str, str], Held]:
        """Everything that is there, to be put back by ``restore``."""
        return copy.deepcopy(self.objects)

    def restore(self, objects: dict[tuple[str, str, str], Held]) -> None:
        """Go back to a snapshot."""
        self.objects = copy.deepcopy(objects)
        self.calls.clear()

    def state(self) -> dict[str, dict[str, Any]]:
        """Everything that lasts: objects without versions, for comparing two histories."""
        shown = {}
        for (resource, _, name), held in sorted(self.objects.items()):
            body = held.body()
            for key in ("resourceVersion", "uid", "generation", "managedFields", "creationTimestamp"):
                body["metadata"].pop(key, None)
            told = body.pop("status", {})
            if held.kind == "Campaign":
                body["conditions"] = {one["type"]: (one["status"], one["reason"]) for one in told.get("conditions", ())}
            for key in ("firstTimestamp", "lastTimestamp", "involvedObject"):
                body.pop(key, None)
            shown[f"{resource}/{name}"] = body
        return shown

    def verbs(self) -> set[tuple[str, str, str]]:
        """What was asked, as an RBAC rule would have to allow it."""
        return {(call.verb, call.group, call.resource) for call in self.calls}

    # Answers.

    @web.middleware
    async def _wrap(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.methods.append(request.method)
        number = self.requests
        self._in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self._in_flight)
        try:
            if self._is_dead(number, "before", request):
                return web.Response(status=503)  # nobody hears it: the line is cut
            await asyncio.sleep(self.answer_after_s)
            answer = await self._answer(request, handler)
            self._is_dead(number, "after", request)
            return answer
        finally:
            self._in_flight -= 1

    async def _answer(self, request: web.Request, handler: Any) -> web.StreamResponse:
        try:
            return await handler(request)
        except Refusal as no:
            status = {
                "kind": "Status",
                "apiVersion": "v1",
                "status": "Failure",
                "message": no.message,
                "reason": no.reason,
                "code": no.status,
            }
            return web.json_response(status, status=no.status, headers=no.headers)

    def _is_dead(self, number: int, moment: str, request: web.Request) -> bool:
        if self.die_at == (number, moment):
            self.dead = True
        if self.dead and request.transport is not None:
            request.transport.abort()
        return self.dead

    def _called(
        self, request: web.Request, verb: str, body: dict[str, Any] | None = None, *, sub: str = ""
    ) -> tuple[str, str, str]:
        resource, namespace = request.match_info["resource"], request.match_info["namespace"]
        if resource not in KINDS or (resource == "campaigns" and not self.crd):
            raise Refusal(404, "NotFound", f"no resource {resource}")
        group = GROUPS[KINDS[resource][1]]
        call = Called(verb, group, f"{resource}/{sub}" if sub else resource, request.match_info.get("name"), body)
        self.calls.append(call)
        if self.before_call is not None:
            self.before_call(call)
        self._check_allowed(call)
        for waiting in self._refusals:
            when, refusal = waiting
            if when(call):
                self._refusals.remove(waiting)
                raise refusal
        return resource, namespace, call.name or ""

    def _check_allowed(self, call: Called) -> None:
        if self.allow is not None and (call.verb, call.group, call.resource) not in self.allow:
            raise Refusal(403, "Forbidden", f"{call.resource} is forbidden: cannot {call.verb} resource")

    async def _list(self, request: web.Request) -> web.StreamResponse:
        if request.query.get("watch") == "true":
            return await self._watch(request)
        resource, namespace, _ = self._called(request, "list")
        found = [held.body() for _, held in sorted(self._selected(request, resource, namespace).items())]
        start, limit = int(request.query.get("continue") or 0), int(request.query.get("limit") or 0)
        size = min(filter(None, (limit, self.page)), default=len(found))
        more = {"continue": str(start + size)} if start + size < len(found) else {}
        kind, version = KINDS[resource]
        metadata = more | {"resourceVersion": str(self._version)}
        page = {
            "kind": f"{kind}List",
            "apiVersion": version,
            "metadata": metadata,
            "items": found[start : start + size],
        }
        return web.json_response(page)

    def _selected(self, request: web.Request, resource: str, namespace: str) -> dict[tuple[str, str, str], Held]:
        wanted = [pair.split("=", 1) for pair in request.query.get("labelSelector", "").split(",") if pair]
        return {
            key: held
            for key, held in self.objects.items()
            if key[:2] == (resource, namespace) and all(_labels(held).get(name) == value for name, value in wanted)
        }

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        resource, namespace, _ = self._called(request, "watch")
        since = int(request.query["resourceVersion"])
        answer = web.StreamResponse()
        await answer.prepare(request)
        if since < self.oldest:
            gone = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}
            await answer.write(json.dumps({"type": "ERROR", "object": gone}).encode() + b"\n")
            return answer
        known = {key for key, held in self._selected(request, resource, namespace).items() if held.version <= since}
        while since >= self.oldest and not self.dead and self._manager is not None and not self._manager.done():
            now, events = self._version, []
            for key, held in self._selected(request, resource, namespace).items():
                if held.version > since:
                    events.append((held.version, "MODIFIED" if key in known else "ADDED", held.body()))
                    known.add(key)
            for version, key, body in self._gone:
                if version > since and key[:2] == (resource, namespace):
                    events.append((version, "DELETED", body))
                    known.discard(key)
            for _, kind, body in sorted(events, key=lambda event: event[0]):
                await answer.write(json.dumps({"type": kind, "object": body}).encode() + b"\n")
            since = now
            await asyncio.sleep(0.002)
        return answer

    async def _post(self, request: web.Request) -> web.Response:
        body = await request.json()
        resource, namespace, _ = self._called(request, "create", body)
        key = (resource, namespace, body["metadata"]["name"])
        if key in self.objects:
            raise Refusal(409, "AlreadyExists", f'{resource} "{key[2]}" already exists')
        held = self._new(*key)
        held.leaves, held.version = flatten(body), self._next_version()
        self.objects[key] = held
        return web.json_response(held.body(), status=201)

    async def _status(self, request: web.Request) -> web.Response:
        body = json.loads(await request.text())
        resource, namespace, name = self._called(request, "patch", body, sub="status")
        held = self.objects.get((resource, namespace, name))
        if held is None:
            raise Refusal(404, "NotFound", f'{resource} "{name}" not found')
        self._check_versions(body, held)
        if held.status != body["status"]:
            held.status, held.version = body["status"], self._next_version()
        return web.json_response(held.body())

    async def _get(self, request: web.Request) -> web.Response:
        resource, namespace, name = self._called(request, "get")
        held = self.objects.get((resource, namespace, name))
        if held is None:
            raise Refusal(404, "NotFound", f'{resource} "{name}" not found')
        return web.json_response(held.body())

    async def _delete(self, request: web.Request) -> web.Response:
        key = self._called(request, "delete")
        if key not in self.objects:
            raise Refusal(404, "NotFound", f"{key[0]} not found")
        self._forget(key)
        return web.json_response({"kind": "Status", "status": "Success"})

    async def _patch(self, request: web.Request) -> web.Response:
        raw = await request.text()
        if request.content_type != "application/apply-patch+yaml":
            raise Refusal(415, "UnsupportedMediaType", f"this server only applies, got {request.content_type}")
        if SURROGATE.search(raw):
            raise Refusal(400, "BadRequest", "error decoding patch: yaml: found invalid Unicode character escape code")
        body = json.loads(raw)
        key = self._called(request, "patch", body)
        resource, namespace, name = key
        manager, force = request.query.get("fieldManager"), request.query.get("force") == "true"
        if not manager:
            raise Refusal(400, "BadRequest", "fieldManager is required for apply patch")
        if namespace not in self.namespaces:
            raise Refusal(404, "NotFound", f'namespaces "{namespace}" not found')
        live = self.objects.get(key)
        before = live or self._new(resource, namespace, name)
        self._check_versions(body, live)
        _check_shape(body, before)
        if live is None:
            self.calls.append(Called("create", GROUPS[KINDS[resource][1]], resource, name))
            self._check_allowed(self.calls[-1])
        try:
            after = before.applied(flatten(body), manager, force=force, defaults=_defaults(before.kind, body))
        except Conflicts as conflicts:
            raise Refusal(409, "Conflict", str(conflicts)) from conflicts
        _check_valid(after, live)
        self._store(key, live, after)
        return web.json_response(self.objects[key].body(), status=200 if live else 201)

    def _new(self, resource: str, namespace: str, name: str) -> Held:
        kind, version = KINDS[resource]
        return Held(kind, version, name, namespace, uid=f"uid-{next(self._uids)}")

    def _check_versions(self, body: dict[str, Any], live: Held | None) -> None:
        metadata = body.get("metadata", {})
        if "uid" in metadata and (live is None or metadata["uid"] != live.uid):
            raise Refusal(409 if live is None else 422, "Conflict", "Precondition failed: UID in precondition")
        asked = metadata.get("resourceVersion")
        if asked and live is not None and asked != str(live.version):
            raise Refusal(
                409, "Conflict", "the object has been modified; please apply your changes to the latest version"
            )

    def _store(self, key: tuple[str, str, str], live: Held | None, after: Held) -> None:
        if live is not None and live.same_as(after):
            return
        after.version = self._next_version()
        if after.kind in HAS_GENERATION:
            changed = live is None or live.spec() != after.spec()
            after.generation = (live.generation if live else 0) + changed
        self.objects[key] = after

    def _next_version(self) -> int:
        self._version += 1
        return self._version

    def _forget(self, key: tuple[str, str, str]) -> None:
        self._gone.append((self._next_version(), key, self.objects.pop(key).body()))

    # Controller-manager and kubelet.

    async def _play_manager(self) -> None:
        while True:
            await asyncio.sleep(self.lag_s)
            if not self.manager_is_down:
                self._manage()

    def _manage(self) -> None:
        now = asyncio.get_running_loop().time()
        wanted: dict[tuple[str, str], Held] = {
            (namespace, name): held
            for (resource, namespace, name), held in self.objects.items()
            if resource == "deployments"
        }
        pods = [(key, held) for key, held in self.objects.items() if key[0] == "pods"]
        for key, pod in pods:
            owner = (key[1], pod.status["owner"])
            if owner not in wanted:
                self._drain(key, pod, now)
            if pod.deleted_at and not self.hold_drain and self._drains[pod.uid] <= now:
                self._forget(key)
        for (namespace, name), held in wanted.items():
            mine = [(k, p) for k, p in pods if k[1] == namespace and p.status["owner"] == name and not p.deleted_at]
            replicas = held.leaves[("spec", "replicas")]
            for key, pod in mine[replicas:]:
                self._drain(key, pod, now)
            for _ in range(replicas - len(mine)):
                self._start_pod(namespace, name, held)
            status = {"observedGeneration": held.generation, "replicas": replicas, "readyReplicas": replicas}
            told = {field: value for field, value in status.items() if value}
            if held.status != told:
                held.status, held.version = told, self._next_version()

    def _drain(self, key: tuple[str, str, str], pod: Held, now: float) -> None:
        if not pod.deleted_at:
            pod.deleted_at = "2026-01-01T00:00:00Z"
            self._drains[pod.uid] = now + self.drain_s
            pod.version = self._next_version()

    def _start_pod(self, namespace: str, owner: str, deployment: Held) -> None:
        pod = self._new("pods", namespace, "")
        pod.name = f"{owner[:50]}-{pod.uid}"
        prefix = ("spec", "template", "metadata")
        metadata = {("metadata", *path[3:]): v for path, v in deployment.leaves.items() if path[:3] == prefix}
        pod.leaves, pod.version = metadata, self._next_version()
        pod.status = {"phase": "Running", "owner": owner, "conditions": [{"type": "Ready", "status": "True"}]}
        self.objects["pods", namespace, pod.name] = pod


def _labels(held: Held) -> dict[str, str]:
    return {path[2]: value for path, value in held.leaves.items() if path[:2] == ("metadata", "labels")}


def _defaults(kind: str, body: dict[str, Any]) -> Leaves:
    """What a server adds by itself; nobody owns it."""
    match kind:
        case "Deployment":
            names = [one.get("name") for one in body["spec"]["template"]["spec"]["containers"]]
            pulls = {
                ("spec", "template", "spec", "containers", (("name", name),), "imagePullPolicy"): "IfNotPresent"
                for name in names
            }
            return {("spec", "replicas"): 1, ("spec", "progressDeadlineSeconds"): 600, **pulls}
        case "Service":
            return {("spec", "clusterIP"): "10.0.0.1", ("spec", "sessionAffinity"): "None"}
        case "Campaign":
            return {("spec", "replicas"): 1, ("spec", "origin"): "Resource"}
        case _:
            return {}


def _check_shape(body: dict[str, Any], held: Held) -> None:
    metadata = body.get("metadata", {})
    if (body.get("kind"), body.get("apiVersion")) != (held.kind, held.api_version):
        raise Refusal(400, "BadRequest", f"this is no {held.kind}")
    if metadata.get("name") != held.name or metadata.get("namespace", held.namespace) != held.namespace:
        raise Refusal(400, "BadRequest", "the name of the object does not match the name on the URL")
    if held.kind == "Deployment" and not body.get("spec", {}).get("template", {}).get("spec", {}).get("containers"):
        raise Refusal(422, "Invalid", "Deployment is invalid: spec.template.spec.containers: Required value")
    if held.kind != "Campaign" and (unknown := unknown_fields(body)):
        raise Refusal(400, "BadRequest", f"strict decoding error: unknown field {unknown}")


def unknown_fields(body: dict[str, Any]) -> list[str]:
    """What the models of the client library (made from the API server's own description) do not take as it is."""
    models: dict[str, Any] = {
        "Deployment": client.V1Deployment,
        "NetworkPolicy": client.V1NetworkPolicy,
        "Service": client.V1Service,
        "ServiceAccount": client.V1ServiceAccount,
        "PodDisruptionBudget": client.V1PodDisruptionBudget,
    }
    read = models[body["kind"]].from_dict(body).model_dump(by_alias=True, exclude_none=True, mode="json")
    return list(_differences(body, read, ""))


def _differences(asked: Any, read: Any, path: str) -> Iterable[str]:
    if isinstance(asked, dict) and isinstance(read, dict):
        for key in asked:
            yield from _differences(asked[key], read.get(key), f"{path}.{key}")
    elif asked != read:
        yield path


def _check_valid(after: Held, live: Held | None) -> None:
    wrong: list[str] = []
    if not NAME.match(after.name):
        wrong.append(f"metadata.name: {after.name!r}")
    body = after.body()
    metadata = body["metadata"]
    template = body.get("spec", {}).get("template", {}).get("metadata", {}) if after.kind == "Deployment" else {}
    wrong += _wrong_labels(metadata.get("labels", {})) + _wrong_labels(template.get("labels", {}))
    if sum(len(k) + len(v.encode()) for k, v in metadata.get("annotations", {}).items()) > _MOST_ANNOTATION_BYTES:
        wrong.append("metadata.annotations: Too long")
    if after.kind == "Deployment":
        selector = _selector(after)
        if any(template.get("labels", {}).get(key) != value for key, value in selector.items()):
            wrong.append("spec.template.metadata.labels: `selector` does not match template `labels`")
        if live is not None and _selector(live) != selector:
            wrong.append("spec.selector: field is immutable")
        if not isinstance(after.leaves[("spec", "replicas")], int) or after.leaves[("spec", "replicas")] < 0:
            wrong.append("spec.replicas: must be greater than or equal to 0")
    if wrong:
        raise Refusal(422, "Invalid", f"{after.kind} is invalid: {'; '.join(wrong)}")


def _wrong_labels(labels: dict[str, str]) -> Iterable[str]:
    return [
        f"label {key}={value!r}"
        for key, value in labels.items()
        if not LABEL_KEY.match(key) or not isinstance(value, str) or not LABEL_VALUE.match(value)
    ]


def _selector(held: Held) -> dict[str, str]:
    prefix = ("spec", "selector", "matchLabels")
    return {path[3]: value for path, value in held.leaves.items() if path[:3] == prefix}

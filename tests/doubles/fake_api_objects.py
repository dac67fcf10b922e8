"""Server-side apply as far as our objects need it: owners of fields, conflicts, give-up, no-op, versions.

An object is held as leaves: path -> value.  A path's segments are keys of JSON objects and, in the lists that
Kubernetes merges by key, ``("name", "sender")`` pairs; every other list is one leaf.
"""

import copy
from dataclasses import dataclass, field
from typing import Any

Path = tuple[Any, ...]
Leaves = dict[Path, Any]

# list -> the fields that tell its elements apart (x-kubernetes-list-map-keys)
MERGE_KEYS: dict[str, tuple[str, ...]] = {
    "containers": ("name",),
    "env": ("name",),
    "volumes": ("name",),
    "volumeMounts": ("mountPath",),
    "containers.ports": ("containerPort", "protocol"),
    "Service.ports": ("port", "protocol"),
}
NOT_OWNED = {("apiVersion",), ("kind",)}
IDENTITY = ("name", "namespace", "uid", "resourceVersion", "generation", "creationTimestamp", "managedFields")


def flatten(body: dict[str, Any]) -> Leaves:
    """The leaves of an object that somebody can own."""
    leaves: Leaves = {}
    _flatten(body, (), str(body.get("kind", "")), leaves)
    return {
        path: value
        for path, value in leaves.items()
        if path not in NOT_OWNED and not (path[0] == "metadata" and path[1] in IDENTITY) and path[0] != "status"
    }


def unflatten(leaves: Leaves) -> dict[str, Any]:
    """The object of some leaves."""
    tree: dict[Any, Any] = {}
    for path, value in leaves.items():
        here = tree
        for segment in path[:-1]:
            here = here.setdefault(segment, {})
        here[path[-1]] = copy.deepcopy(value)
    return _untree(tree)


def _flatten(value: Any, path: Path, kind: str, leaves: Leaves) -> None:
    if isinstance(value, dict) and value and not (kind == "Campaign" and path[:1] == ("spec",) and len(path) == 2):
        for key, one in value.items():
            _flatten(one, (*path, key), kind, leaves)
        return
    keys = _merge_keys(path, kind) if isinstance(value, list) else None
    if keys is None or not value:
        leaves[path] = copy.deepcopy(value)
        return
    for element in value:
        _flatten(element, (*path, tuple((key, element.get(key)) for key in keys)), kind, leaves)


def _merge_keys(path: Path, kind: str) -> tuple[str, ...] | None:
    last = path[-1]
    if last == "ports":
        return (
            MERGE_KEYS["Service.ports" if kind == "Service" else "containers.ports"] if "egress" not in path else None
        )
    return MERGE_KEYS.get(last) if isinstance(last, str) else None


def _untree(tree: Any) -> Any:
    if not isinstance(tree, dict):
        return tree
    if tree and all(isinstance(key, tuple) for key in tree):
        return [_untree(element) for element in tree.values()]
    return {key: _untree(value) for key, value in tree.items()}


class Conflicts(Exception):  # noqa: N818 - an answer
    """Fields that others own with other values."""

    def __init__(self, owners: dict[str, list[str]]) -> None:
        said = "; ".join(f'conflict with "{owner}": {", ".join(paths)}' for owner, paths in owners.items())
        super().__init__(f"Apply failed with {sum(map(len, owners.values()))} conflict(s): {said}")


@dataclass
class Held:
    """One object as the server holds it."""

    kind: str
    api_version: str
    name: str
    namespace: str
    uid: str
    leaves: Leaves = field(default_factory=dict)
    owners: dict[tuple[str, str], set[Path]] = field(default_factory=dict)  # (manager, Apply or Update) -> paths
    version: int = 0
    generation: int = 0
    status: dict[str, Any] = field(default_factory=dict)
    deleted_at: str | None = None

    def body(self) -> dict[str, Any]:
        """What a reader gets; empty lists and objects of the spec are left out, as Go's omitempty does."""
        shown = unflatten({path: value for path, value in self.leaves.items() if value not in ([], {}, None)})
        metadata = shown.setdefault("metadata", {})
        metadata |= {
            "name": self.name,
            "namespace": self.namespace,
            "uid": self.uid,
            "creationTimestamp": f"2026-01-01T00:00:00.{int(self.uid.rpartition('-')[2]):06}Z",
            "resourceVersion": str(self.version),
            "managedFields": [{"manager": manager, "operation": op} for manager, op in self.owners],
        }
        if self.generation:
            metadata["generation"] = self.generation
        if self.deleted_at:
            metadata["deletionTimestamp"] = self.deleted_at
        status = {"status": copy.deepcopy(self.status)} if self.status else {}
        return {"apiVersion": self.api_version, "kind": self.kind, **shown, **status}

    def applied(self, config: Leaves, manager: str, *, force: bool, defaults: Leaves) -> "Held":
        """The object after an apply of ``config`` by ``manager``."""
        me = (manager, "Apply")
        owners = {who: set(paths) for who, paths in self.owners.items()}
        leaves = dict(self.leaves)
        if not force and (against := self._against(config, me)):
            raise Conflicts(against)
        for path in owners.get(me, set()) - set(config):  # given up
            if not any(path in paths for who, paths in owners.items() if who != me):
                leaves.pop(path, None)
        for path, value in config.items():
            if path not in leaves or leaves[path] != value:
                for who, paths in owners.items():
                    if who != me:
                        paths.discard(path)
            _drop_under(leaves, path)
            leaves[path] = copy.deepcopy(value)
        owners[me] = set(config)
        for path, value in defaults.items():
            leaves.setdefault(path, value)
        return self._with(leaves, {who: paths for who, paths in owners.items() if paths})

    def _against(self, config: Leaves, me: tuple[str, str]) -> dict[str, list[str]]:
        changed = [path for path, value in config.items() if path not in self.leaves or self.leaves[path] != value]
        against: dict[str, list[str]] = {}
        for path in changed:
            for who, paths in self.owners.items():
                if who != me and path in paths:
                    against.setdefault(who[0], []).append("." + ".".join(map(str, path)))
        return against

    def updated(self, changes: Leaves, manager: str) -> "Held":
        """The object after somebody wrote some fields (kubectl scale, an autoscaler, kubectl edit)."""
        me = (manager, "Update")
        leaves = dict(self.leaves)
        owners = {who: set(paths) - set(changes) for who, paths in self.owners.items()}
        for path, value in changes.items():
            _drop_under(leaves, path)
            leaves[path] = copy.deepcopy(value)
        owners[me] = owners.get(me, set()) | set(changes)
        return self._with(leaves, {who: paths for who, paths in owners.items() if paths})

    def _with(self, leaves: Leaves, owners: dict[tuple[str, str], set[Path]]) -> "Held":
        after = copy.copy(self)
        after.leaves, after.owners = leaves, owners
        return after

    def same_as(self, other: "Held") -> bool:
        """Would storing ``other`` change nothing?"""
        return self.leaves == other.leaves and self.owners == other.owners

    def spec(self) -> Leaves:
        """The leaves that a generation counts."""
        return {path: value for path, value in self.leaves.items() if path[0] != "metadata"}


def _drop_under(leaves: Leaves, path: Path) -> None:
    """An object that becomes a scalar (or the other way round) leaves nothing behind."""
    for known in [one for one in leaves if one != path and (one[: len(path)] == path or path[: len(one)] == one)]:
        del leaves[known]

"""What a container's words mean on this machine, decided without touching it: environment, arguments, paths, addresses.

There is no file system and no network of a pod's own.  So a path below a mount point is replaced by where the volume
lies here, and "every address" by the pod's own: pods that listen on the same port do not meet.
"""

import base64
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Pod = Mapping[str, Any]  # Any: JSON of the Kubernetes API

_REFERENCE = re.compile(r"\$\$|\$\(([A-Za-z0-9_.-]+)\)")
_EVERYWHERE = re.compile(r"(?<![\w.:])(?:0\.0\.0\.0|\[::\]):(?=\d)")


class Unplayable(Exception):  # noqa: N818 - says what is so
    """The pod asks for something that is not there, or that the process kubelet cannot do; ``reason`` is the API's."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def here(address: str) -> str:
    """Where a pod's address lies on this machine: 10.200.0.7 is 127.200.0.7.

    The API cannot be told loopback addresses: an EndpointSlice with one is refused.
    """
    return re.sub(r"^10\.", "127.", address)


@dataclass(frozen=True, slots=True)
class Words:
    """How the words of one container are read."""

    mounts: Mapping[str, Path] = field(default_factory=dict)
    address: str = "127.0.0.1"

    def placed(self, text: str) -> str:
        """Paths and addresses of the pod as paths and addresses of this machine."""
        text = _EVERYWHERE.sub(f"{self.address}:", text)
        if not self.mounts:
            return text
        points = "|".join(re.escape(point) for point in sorted(self.mounts, key=len, reverse=True))
        return re.sub(rf"(?<![\w./-])(?:{points})(?![\w.-])", lambda found: str(self.mounts[found[0]]), text)


def expanded(text: str, environment: Mapping[str, str]) -> str:
    """``$(NAME)`` becomes the variable's value, ``$$`` a dollar; what is not known stays (core/v1 Container)."""

    def value(found: re.Match[str]) -> str:
        return "$" if found[1] is None else environment.get(found[1], found[0])

    return _REFERENCE.sub(value, text)


def variables_of(container: Pod, sources: "Sources") -> dict[str, str]:
    """The variables of a container: first those of whole ConfigMaps and Secrets, then single ones, later ones count.

    Nothing is placed yet: arguments may refer to them, and a path that is placed twice is a wrong one.
    """
    variables: dict[str, str] = {}
    for one in container.get("envFrom") or ():
        prefix = one.get("prefix") or ""
        for kind, reference in (("ConfigMap", one.get("configMapRef")), ("Secret", one.get("secretRef"))):
            if reference:
                found = sources.keys(kind, reference["name"], optional=bool(reference.get("optional")))
                variables |= {prefix + name: value.decode() for name, value in found.items()}
    for one in container.get("env") or ():
        if "valueFrom" not in one:
            variables[one["name"]] = expanded(one.get("value") or "", variables)
        elif (value := _from(one["valueFrom"], sources)) is not None:
            variables[one["name"]] = value
    return variables


def _from(source: Pod, sources: "Sources") -> str | None:
    match source:
        case {"fieldRef": {"fieldPath": path}}:
            return field_of(sources.pod, path)
        case {"configMapKeyRef": reference}:
            return _key("ConfigMap", reference, sources)
        case {"secretKeyRef": reference}:
            return _key("Secret", reference, sources)
    raise Unplayable("CreateContainerConfigError", f"a variable's value from {', '.join(source)} is not played")


def _key(kind: str, reference: Pod, sources: "Sources") -> str | None:
    optional = bool(reference.get("optional"))
    value = sources.keys(kind, reference["name"], optional=optional).get(reference["key"])
    if value is None and not optional:
        raise Unplayable(
            "CreateContainerConfigError", f"couldn't find key {reference['key']} in {kind} {reference['name']}"
        )
    return None if value is None else value.decode()


class Sources:
    """What a pod's variables and volumes are made of: the pod, and the ConfigMaps and Secrets that it names."""

    def __init__(self, pod: Pod, objects: Mapping[tuple[str, str], Pod | None], address: str) -> None:
        self.pod = {**pod, "status": {**pod.get("status", {}), "podIP": address, "hostIP": "127.0.0.1"}}
        self._objects = objects

    def keys(self, kind: str, name: str, *, optional: bool) -> Mapping[str, bytes]:
        """The content of a ConfigMap or Secret by key."""
        there = self._objects.get((kind, name))
        if there is None:
            if optional:
                return {}
            raise Unplayable("CreateContainerConfigError", f'{kind.lower()} "{name}" not found')
        plain, encoded = there.get("data") or {}, there.get("binaryData") or {}
        if kind == "Secret":
            plain, encoded = {}, plain
        return {key: text.encode() for key, text in plain.items()} | {
            key: base64.b64decode(text) for key, text in encoded.items()
        }


def field_of(pod: Pod, path: str) -> str:
    """A field as the downward API tells it."""
    found = re.fullmatch(r"metadata\.(labels|annotations)\['([^']+)'\]", path)
    if found:
        return str((pod["metadata"].get(found[1]) or {}).get(found[2], ""))
    value: Any = pod
    for part in path.split("."):
        value = value.get(part, {})
    if path in {"metadata.labels", "metadata.annotations"}:
        return "\n".join(f'{name}="{text}"' for name, text in sorted((value or {}).items()))
    return value if isinstance(value, str) else ""


def needed_objects(pod: Pod) -> set[tuple[str, str]]:
    """Kind and name of every ConfigMap and Secret that a pod reads."""
    return set(_needed(pod["spec"]))


def _needed(part: Any) -> Iterator[tuple[str, str]]:
    """Wherever the specification names one: volumes and projections, single variables, whole environments."""
    if isinstance(part, list):
        for one in part:
            yield from _needed(one)
    elif isinstance(part, dict):
        for name, kind in _NAMED_BY.items():
            reference = part.get(name)
            if isinstance(reference, dict):
                called = reference.get("name") or reference.get("secretName")
                if called:
                    yield kind, called
        for one in part.values():
            yield from _needed(one)


_NAMED_BY: Mapping[str, str] = {
    "configMap": "ConfigMap",
    "configMapRef": "ConfigMap",
    "configMapKeyRef": "ConfigMap",
    "secret": "Secret",
    "secretRef": "Secret",
    "secretKeyRef": "Secret",
}


def port_of(container: Pod, port: int | str) -> int:
    """A port by number or by name."""
    if isinstance(port, int):
        return port
    for one in container.get("ports") or ():
        if one.get("name") == port:
            return int(one["containerPort"])
    return int(port)


def wanted_command(container: Pod, entry_point: Sequence[str] | None, image: str) -> tuple[Sequence[str], list[str]]:
    """The entry point of this machine, which is taken as it is, and the words of the container that follow it."""
    command, arguments = list(container.get("command") or ()), list(container.get("args") or ())
    if command:
        return (), command + arguments
    if entry_point is None:
        raise Unplayable("ErrImagePull", f"image {image} stands for no program here, and the container has no command")
    return entry_point, arguments

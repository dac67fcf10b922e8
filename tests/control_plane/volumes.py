"""A pod's volumes as folders of this machine, written when it starts and removed when it ends."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.control_plane import kubeconfig
from tests.control_plane.pod_words import Pod, Sources, Unplayable, field_of
from tests.control_plane.rest import Rest

ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
"""Where the API server mounts the token of the pod's own identity, if it has one."""


async def written(pod: Pod, folder: Path, sources: Sources, rest: Rest) -> dict[str, Path]:
    """Write every volume of a pod; folders by the volume's name."""
    found = {}
    for volume in pod["spec"].get("volumes") or ():
        home = folder / volume["name"]
        found[volume["name"]] = await _one(volume, home, pod, sources, rest)
    return found


async def _one(volume: Pod, home: Path, pod: Pod, sources: Sources, rest: Rest) -> Path:
    match volume:
        case {"hostPath": {"path": path}}:
            return Path(path)
        case {"emptyDir": _}:
            _put(home, {}, volume)
        case {"configMap": source}:
            _put(home, _chosen("ConfigMap", source["name"], source, sources), source)
        case {"secret": source}:
            _put(home, _chosen("Secret", source["secretName"], source, sources), source)
        case {"downwardAPI": source}:
            _put(home, _downward(source, sources), source)
        case {"projected": source}:
            for one in source["sources"]:
                _put(home, await _projected(one, pod, sources, rest), source)
        case _:
            kinds = ", ".join(key for key in volume if key != "name")
            raise Unplayable("FailedMount", f"volume {volume['name']} is of a kind that is not played: {kinds}")
    return home


async def _projected(source: Pod, pod: Pod, sources: Sources, rest: Rest) -> Mapping[str, bytes]:
    match source:
        case {"configMap": one}:
            return _chosen("ConfigMap", one["name"], one, sources)
        case {"secret": one}:
            return _chosen("Secret", one["name"], one, sources)
        case {"downwardAPI": one}:
            return _downward(one, sources)
        case {"serviceAccountToken": one}:
            return {one["path"]: await _token(one, pod, rest)}
    raise Unplayable("FailedMount", f"a projection of a kind that is not played: {', '.join(source)}")


async def _token(wanted: Pod, pod: Pod, rest: Rest) -> bytes:
    """A token of the pod's ServiceAccount that ends with the pod."""
    metadata = pod["metadata"]
    bound = {"kind": "Pod", "apiVersion": "v1", "name": metadata["name"], "uid": metadata["uid"]}
    asked: dict[str, Any] = {"expirationSeconds": wanted.get("expirationSeconds", 3600), "boundObjectRef": bound}
    if "audience" in wanted:
        asked["audiences"] = [wanted["audience"]]
    account = pod["spec"].get("serviceAccountName") or "default"
    path = f"/api/v1/namespaces/{metadata['namespace']}/serviceaccounts/{account}/token"
    answer = await rest.create(path, {"spec": asked})
    if not answer.ok:
        raise Unplayable("FailedMount", answer.message)
    return str(answer.body["status"]["token"]).encode()


def _chosen(kind: str, name: str, source: Pod, sources: Sources) -> Mapping[str, bytes]:
    """All keys under their own names, or the named ones under the names that are asked for."""
    found = sources.keys(kind, name, optional=bool(source.get("optional")))
    if not source.get("items"):
        return found
    missing = [item["key"] for item in source["items"] if item["key"] not in found]
    if missing and not source.get("optional"):
        raise Unplayable("FailedMount", f"{kind} {name} has no key {', '.join(missing)}")
    return {item["path"]: found[item["key"]] for item in source["items"] if item["key"] in found}


def _downward(source: Pod, sources: Sources) -> Mapping[str, bytes]:
    return {
        item["path"]: field_of(sources.pod, item["fieldRef"]["fieldPath"]).encode()
        for item in source.get("items") or ()
    }


def _put(home: Path, files: Mapping[str, bytes], source: Pod) -> None:
    mode = source.get("defaultMode", 0o644)
    home.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_bytes(content)
        path.chmod(mode)


def mounts(container: Pod, volumes: Mapping[str, Path]) -> dict[str, Path]:
    """Where a container's mount points lie."""
    return dict(_mounts(container, volumes))


def _mounts(container: Pod, volumes: Mapping[str, Path]) -> Iterator[tuple[str, Path]]:
    for mount in container.get("volumeMounts") or ():
        yield mount["mountPath"].rstrip("/"), volumes[mount["name"]] / (mount.get("subPath") or "")


def identity(mounted: Mapping[str, Path], home: Path, namespace: str, server: str) -> Path | None:
    """A kubeconfig for the pod's own identity, if it has one: clients look at a fixed path, which is not ours."""
    account = mounted.get(ACCOUNT)
    if account is None:
        return None
    return kubeconfig.write(
        home / "kubeconfig", server=server, ca=account / "ca.crt", token_file=account / "token", namespace=namespace
    )

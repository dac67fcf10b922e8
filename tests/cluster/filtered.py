"""A pod whose network is its own and obeys the NetworkPolicies of its namespace, as a pod's program.

It runs `mailcordon` with its arguments in the network of tests/k8s/filtering.py, behind which a host and a name server
are.  What no policy allows to anybody is dropped: that is looked up for names and for the port of the last argument.
"""

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from k8s.installation_traffic import selects  # noqa: E402 - the path is set above
from tests.control_plane.rest import Rest  # noqa: E402 - as above
from tests.k8s.filtering import network  # noqa: E402 - as above

HOME = Path(os.environ["HOME"])  # PLANE/kubelet/pods/UID, as the kubelet of the tests has it


async def policies() -> list[Any]:
    """What holds for this pod's way out."""
    async with Rest(HOME.parents[2] / "admin.kubeconfig") as rest:
        pods = (await rest.get("/api/v1/pods")).wanted()["items"]
        [pod] = [one["metadata"] for one in pods if one["metadata"]["uid"] == HOME.name]
        path = f"/apis/networking.k8s.io/v1/namespaces/{pod['namespace']}/networkpolicies"
        found = (await rest.get(path)).wanted()["items"]
    specs = [one["spec"] for one in found if "Egress" in one["spec"]["policyTypes"]]
    return [one for one in specs if selects(one["podSelector"], pod["labels"])]


def is_allowed(holding: list[Any], protocol: str, port: int) -> bool:
    """To anybody: a rule for some peers only is none for the host behind this network."""
    rules = [rule for one in holding for rule in one.get("egress") or () if not rule.get("to")]
    ports = [one for rule in rules for one in rule.get("ports") or [{"port": port, "protocol": protocol}]]
    return not holding or any((one["protocol"], one.get("port", port)) == (protocol, port) for one in ports)


def main() -> int:
    """Exit as the command does."""
    holding = asyncio.run(policies())
    with network(HOME) as net:
        for protocol, port in (("UDP", 53), ("TCP", int(sys.argv[-1].rpartition(":")[2]))):
            if not is_allowed(holding, protocol, port):
                net.rule("blackhole", "ipproto", protocol.lower(), "dport", str(port))
        return net.run(sys.executable, "-m", "cli", *sys.argv[1:]).returncode


if __name__ == "__main__":
    raise SystemExit(main())

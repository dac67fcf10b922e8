"""The cluster that these tests run on: the one that a kubeconfig names, else a control plane of our own."""

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest

from tests.control_plane.plane import ControlPlane
from tests.control_plane.rest import Rest

GIVEN = os.environ.get("MAILCORDON_TEST_KUBECONFIG") or os.environ.get("KUBECONFIG")
"""Read before a test's environment is emptied of settings."""

HERE = Path(__file__).parent
IMAGES = {
    "draining": [sys.executable, "-I", "-S", str(HERE / "draining.py")],
    "filtered": [sys.executable, str(HERE / "filtered.py")],
}
"""Programs of this folder that pods may run by the name of an image."""

T = TypeVar("T")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test of this folder needs a cluster, so none of them is part of the fast tests."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.cluster)


@dataclass(frozen=True, slots=True)
class Given:
    """Somebody's cluster: what ours has, without the right to stop any of it."""

    kubeconfig_file: Path

    def kubeconfig(self, user: str = "admin") -> Path:
        """The one that was given: nobody else is known here."""
        if user != "admin":
            pytest.skip(f"needs the user {user}, whom only our own control plane knows")
        return self.kubeconfig_file

    def run_kubectl(self, *arguments: str, user: str = "admin", stdin: str = "") -> str:
        """What kubectl prints; raises with what it complains about."""
        if shutil.which("kubectl") is None:
            pytest.skip("kubectl is not on PATH")
        command = ["kubectl", f"--kubeconfig={self.kubeconfig(user)}", *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane | Given]:
    """One cluster for the whole run."""
    if GIVEN:
        yield Given(Path(GIVEN).expanduser())
        return
    with ControlPlane(tmp_path_factory.mktemp("plane"), images=IMAGES) as own:
        yield own


@pytest.fixture
def own_plane(plane: ControlPlane | Given) -> ControlPlane:
    """The control plane as one that may be stopped, and whose pods are processes of this machine."""
    if not isinstance(plane, ControlPlane):
        pytest.skip("needs our own control plane: parts of it are stopped, or pods must be processes of this machine")
    return plane


@pytest.fixture
async def rest(plane: ControlPlane | Given) -> AsyncIterator[Rest]:
    """Raw calls as an administrator."""
    async with Rest(plane.kubeconfig()) as one:
        yield one


@pytest.fixture
async def namespace(rest: Rest, unique: str) -> AsyncIterator[str]:
    """A namespace of the test's own; its end is asked for and not waited for, because that takes seconds."""
    name = f"mailcordon-{unique}"
    (await rest.create("/api/v1/namespaces", {"metadata": {"name": name}})).wanted()

    async def account() -> bool:
        return (await rest.get(f"/api/v1/namespaces/{name}/serviceaccounts/default")).ok

    await until(account, what="the namespace has its default account, without which no pod is admitted")
    yield name
    with contextlib.suppress(OSError):
        await rest.delete(f"/api/v1/namespaces/{name}")


async def until(told: Callable[[], Awaitable[T]], *, within_s: float = 60.0, what: str = "it") -> T:
    """Wait for a condition and answer what made it true; say what was missing."""
    deadline = time.monotonic() + within_s
    while not (answer := await told()):
        assert time.monotonic() < deadline, f"not within {within_s} s: {what}"
        await asyncio.sleep(0.05)
    return answer

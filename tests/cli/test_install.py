"""``mailcordon install``: command lines that can be followed, and an API server that is not there is exit code 3."""

import json
import socket
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cli.install import install
from k8s.installation_reading import SHIPPED


def run(*arguments: str) -> Result:
    return CliRunner().invoke(install, arguments, env={"KUBECONFIG": None})


def kubeconfig(folder: Path, server: str) -> str:
    file = folder / "kubeconfig"
    told = {
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    file.write_text(json.dumps(told), encoding="utf-8")
    return str(file)


def test_without_check_it_tells_how_and_does_nothing() -> None:
    answer = run("--namespace", "mail")

    assert answer.exit_code == 0
    assert "kubectl kustomize manifests/overlays/production | kubectl apply --server-side -f -" in answer.output
    assert "kubectl create namespace mail\n" in answer.output
    assert (SHIPPED / "overlays" / "production" / "kustomization.yaml").is_file()


@pytest.mark.parametrize(
    "arguments",
    [("--json",), ("--probe-egress",), ("--check", "--probe", "192.0.2.1:25"), ("--check", "--probe", "nonsense")],
)
def test_options_that_belong_together_are_asked_for_together(arguments: tuple[str, ...]) -> None:
    assert run(*arguments).exit_code == 2


def test_an_api_server_that_is_not_there_is_something_outside(tmp_path: Path) -> None:
    with socket.socket() as taken:  # bound and not listening
        taken.bind(("127.0.0.1", 0))
        file = kubeconfig(tmp_path, f"http://127.0.0.1:{taken.getsockname()[1]}")

        answer = run("--check", "--kubeconfig", file)

    assert answer.exit_code == 3
    assert "does not answer" in answer.output


def test_a_kubeconfig_that_is_not_there_is_named() -> None:
    answer = run("--check", "--kubeconfig", "/nowhere/config")

    assert answer.exit_code == 3
    assert "/nowhere/config" in answer.output


def test_what_the_probes_pod_runs_answers_by_its_exit_code() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert run("--try", f"127.0.0.1:{server.getsockname()[1]}").exit_code == 1

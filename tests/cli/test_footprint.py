"""A sender keeps only what it needs in memory: there is one per campaign, and each of them runs for weeks."""

import json
import subprocess
import sys

_SENDER = "import json, sys, cli.main, cli.roles, cli.sender_role; print(json.dumps(sorted(sys.modules)))"
_FOR_OTHERS = {"agents", "aiohttp", "aiosmtpd", "faust", "flufl", "k8s", "kubernetes", "mode", "rich", "pygments"}


def test_a_sender_imports_nothing_that_only_others_need() -> None:
    said = subprocess.run([sys.executable, "-c", _SENDER], capture_output=True, check=True, text=True)
    modules = set(json.loads(said.stdout))

    assert {name.partition(".")[0] for name in modules} & _FOR_OTHERS == set()
    assert {name for name in modules if name.startswith(("smtp.simulate", "smtp.return_path", "cli.demo"))} == set()

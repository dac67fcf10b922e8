"""A controller whose senders are sleepers, as a process that tests may kill: BOOTSTRAP FOLDER PORT PREFIX."""

import sys
from pathlib import Path

from agents.controller_app import controller_app
from agents.places import processes
from k8s.cluster import SenderSpec
from k8s.reconcile import Habits
from policy.settings import Endpoint, Settings
from streams.runtime import run

SLEEPER = Path(__file__).parents[1] / "k8s" / "sleeper.py"


def command(spec: SenderSpec, ordinal: int) -> list[str]:
    return [sys.executable, "-I", "-S", str(SLEEPER), spec.campaign, str(ordinal), "polite"]


def main() -> int:
    bootstrap, folder, port, prefix = sys.argv[1:]
    settings = Settings(controller_web=Endpoint("127.0.0.1", int(port)), grace_s=2)
    app = controller_app(
        settings,
        bootstrap=bootstrap,
        make_cluster=processes(Path(folder), command=command, environment=lambda *_: {"DRAIN_S": "0.1"}),
        app_id=f"{prefix}.controller",
        habits=Habits(grace_s=2, resync_s=1.0),
        options={"broker_session_timeout": 6.0},
    )
    return run(app)


if __name__ == "__main__":
    sys.exit(main())

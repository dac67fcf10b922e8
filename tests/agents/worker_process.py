"""A worker as a process of its own, for tests that kill it or run two: `python worker_process.py '{…}'`."""

import json
import logging
import sys
from typing import Any

from agents.worker_app import worker_app
from policy.settings import Endpoint, Settings
from policy.tokens import Keys
from streams.runtime import run

KEYS = Keys(address=b"a" * 32, return_path=b"r" * 32)


def main(orders: dict[str, Any]) -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    app = worker_app(
        Settings(
            web=Endpoint("127.0.0.1", orders["port"]),
            partitions=orders["partitions"],
            isolate_percent=100,  # the tests of an hour isolate more than a policy may
            isolate_at_least=10_000,
        ),
        KEYS,
        bootstrap=orders["bootstrap"],
        app_id=orders["app_id"],
        instance_id=orders["instance_id"],
        options={"broker_session_timeout": 6.0, "broker_heartbeat_interval": 0.5},
    )
    return run(app)


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))

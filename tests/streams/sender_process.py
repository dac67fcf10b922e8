"""A sender as a process of its own, for tests that kill it: ``python -m tests.streams.sender_process JSON``."""

import asyncio
import json
import sys
from pathlib import Path

import click

from cli.logs import configure
from cli.sender_role import run_sender
from policy.settings import Endpoint, Settings
from policy.tokens import Keys

if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    configure(level="info", form="text", role="sender")
    settings = Settings(
        smtp_routes={"*": Endpoint("127.0.0.1", given["smtp"])},
        sender_web=Endpoint("127.0.0.1", 0),
        hostname="me.example",
        connections=given["connections"],
        grace_s=10,
        retries=(2,),
    )
    work = run_sender(
        settings,
        given["campaign"],
        Keys(address=b"a" * 32, return_path=b"r" * 32),
        bootstrap=given["bootstrap"],
        dkim_folder=Path("/nonexistent"),
        name=given["name"],
        session_s=given["session_s"],
    )
    try:
        asyncio.run(work)
    except click.ClickException as ended:
        ended.show()
        sys.exit(ended.exit_code)

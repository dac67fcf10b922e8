"""A worker of one page and one agent, for the tests of how an app is run.

Arguments: broker, topic prefix, port of its pages, and what goes wrong ("nothing", "start", "hang").
"""

import asyncio
import sys
from typing import Any

from faust.web import Request, View, Web

from streams.runtime import SafeApp, run


def made(bootstrap: str, prefix: str, port: int, wrong: str) -> SafeApp:
    app = SafeApp(
        f"{prefix}-small",
        broker=f"kafka://{bootstrap}",
        web_enabled=True,
        web_bind="127.0.0.1",
        web_port=port,
        topic_disable_leader=True,
    )

    @app.page("/ready")
    async def ready(view: View, _request: Request) -> Any:
        return view.text("yes" if app.is_ready else "no")

    @app.agent(app.topic(f"{prefix}-source"))
    async def answer(stream: Any) -> None:
        async for event in stream.held():
            await app.topic(f"{prefix}-sink").send(value=event.value)
            if wrong == "hang":
                await asyncio.Event().wait()

    if wrong == "start":

        def broken(_web: Web) -> None:
            raise OSError("the port is taken")

        app.on_webserver_init = broken  # type: ignore[method-assign]
    return app


def main() -> int:
    _, bootstrap, prefix, port, wrong = sys.argv
    return run(made(bootstrap, prefix, int(port), wrong), stop_within_s=3.0)


if __name__ == "__main__":
    sys.exit(main())

"""The measuring tools of an unpacked Postfix, as the benchmarks run them."""

import asyncio
import os
import socket
import subprocess

import pytest

from benchmarks import _postfix_tools
from benchmarks._clients import SmtpSource, ours
from benchmarks._debian import Unavailable, command_of, root_of
from benchmarks._postfix_tools import SINK, SOURCE, as_nobody, tool
from benchmarks._running import Failed, free_port
from tests.mta.conftest import cannot_run
from tests.smtp.servers import Script, scripted, until


def test_smtp_source_and_smtp_sink_run_from_the_unpacked_package() -> None:
    try:
        root = root_of("postfix", say=print)
    except Unavailable as why:
        cannot_run(why)
    port = free_port()
    sink = subprocess.Popen([command_of(root, f"usr/sbin/{SINK}"), *as_nobody(), f"127.0.0.1:{port}", "100"])
    try:
        asyncio.run(until(lambda: _listens(port)))
        source = [command_of(root, f"usr/sbin/{SOURCE}"), "-d", "-s", "2", "-m", "20", f"127.0.0.1:{port}"]
        assert subprocess.run(source, check=False, timeout=20).returncode == 0
        assert sink.poll() is None
    finally:
        sink.kill()
        sink.wait()


async def test_our_client_and_smtp_source_are_measured_over_the_same_way() -> None:
    try:
        source = SmtpSource(command_of(root_of("postfix", say=print), f"usr/sbin/{SOURCE}"))
    except Unavailable as why:
        cannot_run(why)
    async with scripted(Script(ehlo=b"250-sink.example\r\n250 PIPELINING\r\n")) as sink, ours() as client:
        for one in (client, source):
            turn = await one.turn(port=sink.port, messages=30, size=1_200, connections=2)
            assert turn.events == 30
            assert turn.cpu_s > 0
        assert len(sink.taken) == 60


def test_an_installed_tool_is_taken_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_postfix_tools, "_INSTALLED_IN", os.defpath)
    assert str(tool("env")).endswith("/env")


def test_a_tool_that_cannot_be_had_is_told_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_way(package: str, **_: object) -> None:
        raise Unavailable(f"{package}: no apt here")

    monkeypatch.setattr(_postfix_tools, "_INSTALLED_IN", "/nowhere")
    monkeypatch.setattr(_postfix_tools, "root_of", no_way)
    with pytest.raises(Failed, match=r"apt-get install postfix.*no apt here"):
        tool(SINK)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0

"""Tools of MCP servers, with a real server of the package `mcp` as a local process and on loopback."""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from gristmill.engines.contract import ToolCall
from gristmill.engines.errors import EngineDead
from gristmill.records.errors import UserError
from gristmill.stages.tools.contract import ToolResult, TrajectoryState
from gristmill.stages.tools.spec import ToolSpec
from gristmill.stages.tools.toolset import Toolset
from tests.s3server import free_port

SERVER = '''
import os, sys, time
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError

server = MCPServer("weather", log_level="CRITICAL")

@server.tool()
def weather(city: str, day: int = 1) -> str:
    """The weather of a city."""
    if city == "nowhere":
        raise ToolError("no such city")
    if city == "slow":
        time.sleep(5)
    if city == "end":
        os._exit(3)
    return f"{city}: sun on day {day}" if city != "long" else "x" * 300

@server.tool()
def secret() -> str:
    """Not to be offered."""
    return "s"

options = {"port": int(sys.argv[1])} if len(sys.argv) > 1 else {}
server.run("streamable-http" if options else "stdio", **options)
'''


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("server") / "server.py"
    path.write_text(SERVER)
    return str(path)


def opened(**keys: Any) -> Toolset:
    toolset = Toolset([ToolSpec("mcp", only=("weather",), timeout_s=1.0, **keys)], 1, 100)
    toolset.check()
    toolset.open()
    return toolset


@pytest.fixture(scope="module")
def toolset(program: str) -> Iterator[Toolset]:
    toolset = opened(command=(sys.executable, program))
    yield toolset
    toolset.close()


def ask(toolset: Toolset, **arguments: Any) -> ToolResult:
    return toolset.call(ToolCall("1", "weather", json.dumps(arguments)), TrajectoryState())


def test_a_local_server(toolset: Toolset) -> None:
    (definition,) = toolset.definitions
    assert definition["function"]["name"] == "weather" and not toolset.is_deterministic
    assert ask(toolset, city="Rome", day=2) == ToolResult("Rome: sun on day 2")
    assert ask(toolset, city="long").text == "x" * 100 + "\n[cut: 200 more characters]"
    assert ask(toolset, day=2).failure == "bad_arguments"
    failed = ask(toolset, city="nowhere")
    assert failed.failure == "failed" and "no such city" in failed.text
    assert ask(toolset, city="slow") == ToolResult("Error: no answer within 1 s", "failed")
    assert ask(toolset, city="Bonn") == ToolResult("Bonn: sun on day 1")


def test_where_a_server_listens_is_no_identity(program: str) -> None:
    def identity(**keys: Any) -> Any:
        return Toolset([ToolSpec("mcp", **keys)], 1, 100).identity()

    url = "http://127.0.0.1:{}/mcp"
    assert identity(url=url.format(20001)) == identity(url=url.format(20002), timeout_s=5.0)
    assert identity(command=("a", "b")) != identity(command=("a", "c"))


def test_a_lost_server_ends_the_engine_and_a_new_one_goes_on(toolset: Toolset) -> None:
    for city in ("end", "Rome"):
        with pytest.raises(EngineDead, match="MCP server"):
            ask(toolset, city=city)
    toolset.close()
    toolset.open()
    assert ask(toolset, city="Rome") == ToolResult("Rome: sun on day 1")


def test_a_server_on_loopback(program: str) -> None:
    port = free_port()
    with subprocess.Popen([sys.executable, program, str(port)], stderr=subprocess.DEVNULL) as process:
        try:
            while process.poll() is None:  # until it listens; the test has a time-out
                with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
            toolset = opened(url=f"http://127.0.0.1:{port}/mcp")
            assert ask(toolset, city="Rome") == ToolResult("Rome: sun on day 1")
            process.kill()
            process.wait()
            with pytest.raises(EngineDead, match="MCP server http"):
                ask(toolset, city="Rome")
            toolset.close()
        finally:
            process.kill()


def test_servers_that_cannot_be_used_are_refused_in_a_line(program: str, tmp_path: Path) -> None:
    for keys, message in (
        ({"command": (sys.executable, "-c", "print(1)")}, "does not start"),
        ({"command": ("no-such-program",)}, "no program 'no-such-program' on this machine"),
        ({"url": "http://127.0.0.1:20001/mcp"}, "does not start"),
    ):
        with pytest.raises(UserError, match=message) as error:
            opened(**keys)
        assert "\n" not in str(error.value)
    missing = Toolset([ToolSpec("mcp", command=(sys.executable, program), only=("wether",))], 1, 100)
    with pytest.raises(UserError, match="has no tool 'wether' .known: secret, weather"):
        missing.open()

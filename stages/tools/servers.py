"""Tools of MCP servers (Model Context Protocol): local processes, or servers on this machine by HTTP.

A server runs outside the sandbox, with the rights of the worker that starts it. Its answers may depend on anything, so
a run with one promises no equal bytes.
"""

import asyncio
import ipaddress
import logging
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from gristmill.engines.errors import EngineDead
from gristmill.records.errors import UserError
from gristmill.records.extras import check_installed
from gristmill.stages.tools.contract import NOTHING, Tool, ToolFailed, TrajectoryState, cut

START_S = 60.0  # for a server to start and list its tools
SLACK_S = 5.0  # beyond the time-out of a call, after which the server counts as lost
MAX_PAGES = 100  # of the list of tools


def check_loopback(url: str) -> None:
    """Raise ValueError for a URL that is not http on this machine."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    is_local = host == "localhost"
    with suppress(ValueError):
        is_local = is_local or ipaddress.ip_address(host).is_loopback
    if parts.scheme != "http" or not is_local:
        raise ValueError(f"url {url!r}: an MCP server must be on this machine, e.g. http://127.0.0.1:8000/mcp")


def check_package() -> None:
    """Raise UserError if the package of the protocol is missing."""
    check_installed("mcp", "mcp")


class Server:
    """A connection to a server, on an event loop in a thread of its own."""

    def __init__(self, command: Sequence[str], url: str | None, timeout_s: float) -> None:
        self.where = url or " ".join(command)
        self._command, self._url, self._timeout_s = list(command), url, timeout_s
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="mcp", daemon=True)
        self._client: Any = None
        self._stop: asyncio.Event | None = None
        self._life: Future[None] | None = None  # ends when the connection does

    def open(self, only: Sequence[str], max_chars: int) -> list[Tool]:
        """Connect, and list the tools; those named in `only`, if any are. Raises UserError."""
        check_package()
        logging.getLogger("mcp").setLevel(logging.CRITICAL)  # what goes wrong is in the errors below, in a line
        self._thread.start()
        ready: Future[list[Any]] = Future()
        self._life = asyncio.run_coroutine_threadsafe(self._live(ready), self._loop)
        try:
            listed = ready.result(START_S)
        except FutureTimeout:
            self.close()
            raise UserError(f"MCP server {self.where}: no answer within {START_S:g} s") from None
        except Exception as error:  # noqa: BLE001 - whatever keeps a server from starting
            self.close()
            raise UserError(f"MCP server {self.where} does not start: {_line(error)}") from None
        names = [tool.name for tool in listed]
        if missing := [name for name in only if name not in names]:
            self.close()
            raise UserError(f"MCP server {self.where} has no tool '{missing[0]}' (known: {', '.join(sorted(names))})")
        chosen = [tool for tool in listed if not only or tool.name in only]
        return [ServerTool(self, t.name, t.description or t.name, t.input_schema, max_chars) for t in chosen]

    async def _live(self, ready: "Future[list[Any]]") -> None:
        """Hold the connection until `close`. It must be entered and left in one task."""
        from mcp import Client, StdioServerParameters

        self._stop = asyncio.Event()
        target: Any = self._url or StdioServerParameters(command=self._command[0], args=self._command[1:])
        try:
            async with Client(target, read_timeout_seconds=self._timeout_s) as client:
                tools, cursor = [], None
                for _ in range(MAX_PAGES):
                    page = await client.list_tools(cursor=cursor)
                    tools += page.tools
                    cursor = page.next_cursor
                    if cursor is None:
                        break
                self._client = client
                ready.set_result(tools)
                await self._stop.wait()
        except BaseException as error:
            if not ready.done():
                ready.set_exception(error if isinstance(error, Exception) else RuntimeError(repr(error)))
            raise
        finally:
            self._client = None

    def call(self, name: str, arguments: Mapping[str, Any]) -> str:
        """The text of an answer. Raises ToolFailed, and EngineDead when the server is lost."""
        if self._client is None:
            raise EngineDead(f"MCP server {self.where} is lost")
        work = asyncio.run_coroutine_threadsafe(self._client.call_tool(name, dict(arguments)), self._loop)
        try:
            answer = work.result(self._timeout_s + SLACK_S)
        except FutureTimeout:
            work.cancel()
            raise ToolFailed(f"no answer within {self._timeout_s:g} s") from None
        except Exception as error:
            from mcp import MCPError
            from mcp.types import CONNECTION_CLOSED, REQUEST_TIMEOUT

            if isinstance(error, MCPError) and error.code == REQUEST_TIMEOUT:
                raise ToolFailed(f"no answer within {self._timeout_s:g} s") from None
            if isinstance(error, MCPError) and error.code != CONNECTION_CLOSED:
                raise ToolFailed(_line(error)) from None
            raise EngineDead(f"MCP server {self.where}: {_line(error)}") from error
        parts = [getattr(part, "text", None) or f"[{part.type}]" for part in answer.content]
        text = "\n".join(parts)
        if answer.is_error:
            raise ToolFailed(text or "the tool failed")
        return text or NOTHING

    def close(self) -> None:
        """End the connection, and the process of a local server."""
        if not self._thread.is_alive():
            return
        life = self._life
        if life is not None:
            if self._stop is not None:
                self._loop.call_soon_threadsafe(self._stop.set)
            with suppress(Exception):
                life.result(10.0)
            life.cancel()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10.0)


class ServerTool(Tool):
    """A tool of an MCP server."""

    def __init__(
        self, server: Server, name: str, description: str, parameters: Mapping[str, Any], max_chars: int
    ) -> None:
        super().__init__(name, description, parameters)
        self._server, self._max_chars = server, max_chars

    def call(self, arguments: Mapping[str, Any], state: TrajectoryState) -> str:
        try:
            return cut(self._server.call(self.name, arguments), self._max_chars)
        except ToolFailed as error:
            raise ToolFailed(cut(str(error), self._max_chars)) from None


def _line(error: BaseException) -> str:
    """The first cause in a group of errors, in a line."""
    while isinstance(error, BaseExceptionGroup) and error.exceptions:
        error = error.exceptions[0]
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]

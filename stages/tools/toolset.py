"""The tools of a method or a stage, from their tables: defined when the recipe is compiled, opened in workers."""

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from gristmill.engines.contract import ToolCall
from gristmill.records.errors import UserError
from gristmill.records.schema import clean
from gristmill.records.spec import literals, nearest
from gristmill.records.stores.digest import digest_bytes
from gristmill.records.stores.opening import read_bytes
from gristmill.stages.sandbox.runner import Sandbox
from gristmill.stages.sandbox.runner import check as check_sandbox
from gristmill.stages.tools.contract import ERROR, Failure, Tool, ToolFailed, ToolResult, TrajectoryState
from gristmill.stages.tools.corpus import CorpusTool
from gristmill.stages.tools.sandbox_tools import FunctionTool, Interpreter, SandboxTool, harness
from gristmill.stages.tools.schema import function_schemas
from gristmill.stages.tools.servers import Server, check_package
from gristmill.stages.tools.spec import NAMES, ToolSpec
from gristmill.stages.verify.schemas import check_schema, validator

REVISION = 1  # to be raised when the same call gets another answer
NUM_THREADS = 32  # calls that wait for a tool at once; those in the sandbox are limited by its workers
MAX_DIGITS = 20  # of an integer in arguments
TOO_DEEP = "they are nested too deeply"
MAX_MESSAGE = 300  # characters of what is wrong with arguments, which the message quotes
# Keys that are not identity: contents count in place of paths, and a server may move to another port.
PLACES = ("file", "path", "url", "timeout_s")
UNNAMED = "unreadable_call"  # name, in a row, of a call that cannot be read
UNREADABLE = "unreadable"  # key, in a row, of arguments that cannot be read


class Toolset:
    """All tools of a recipe. It can be pickled, and it is opened only in workers."""

    def __init__(self, specs: Sequence[ToolSpec], workers: int, max_chars: int) -> None:
        """workers: processes of the sandbox. max_chars: of a result; longer ones are cut with a note.

        Raises UserError for files that define no tools, and for two tools of one name.
        """
        self.specs = tuple(specs)
        self._workers, self._max_chars = workers, max_chars
        self._digests: list[dict[str, Any]] = []
        self._tools: list[Tool] = [tool for spec in specs for tool in self._defined(spec)]
        self._server_tools: list[Tool] = []  # of servers, known while they are open
        self._servers: list[Server] = []
        self._sandbox: Sandbox | None = None
        self._validators: dict[str, Any] = {}
        self.threads: ThreadPoolExecutor | None = None
        self._check_names()

    def __getstate__(self) -> dict[str, Any]:
        return {
            **self.__dict__,
            "_server_tools": [],
            "_servers": [],
            "_sandbox": None,
            "_validators": {},
            "threads": None,
        }

    def _defined(self, spec: ToolSpec) -> list[Tool]:
        """The tools of a table that are known before anything runs."""
        name = spec.name or NAMES.get(spec.kind, "")
        if spec.kind == "file":
            assert spec.file is not None
            data = read_bytes(spec.file)
            self._digests.append({"file": digest_bytes(data)})
            try:
                source = data.decode("utf-8-sig")
            except UnicodeDecodeError as error:
                raise UserError(f"{spec.file}: not UTF-8: {error}") from None
            schemas = function_schemas(source, spec.file)
            names = [schema.name for schema in schemas]
            for name in spec.only:
                if name not in names:
                    raise UserError(f"{spec.file}: it has no tool '{name}'{nearest(name, names)}")
            chosen = [schema for schema in schemas if not spec.only or schema.name in spec.only]
            settings = spec.limits, self._max_chars, spec.deterministic
            return [FunctionTool(source, schema, *settings) for schema in chosen]
        if spec.kind == "python":
            self._digests.append({})
            return [Interpreter(name, spec.description, spec.limits, self._max_chars, spec.deterministic)]
        if spec.kind == "corpus":
            assert spec.path is not None
            tool = CorpusTool(spec.path, spec.column, spec.num_passages, name, spec.description, self._max_chars)
            self._digests.append({"corpus": tool.digest})
            return [tool]
        self._digests.append({})
        return []

    def _check_names(self) -> None:
        names = [tool.name for tool in self.tools]
        for name in names:
            if names.count(name) > 1:
                raise UserError(f"tools: two are named '{name}'; leave one out with only, or give it another name")

    @property
    def tools(self) -> list[Tool]:
        return [*self._tools, *self._server_tools]

    @property
    def definitions(self) -> list[dict[str, Any]]:
        """All tools in the chat format; those of servers once they are open."""
        return [tool.definition for tool in self.tools]

    @property
    def is_deterministic(self) -> bool:
        """Whether equal calls have equal answers."""
        return all(spec.is_deterministic for spec in self.specs)

    def identity(self) -> list[dict[str, Any]]:
        """Literals that change answers: contents in place of paths, and of a server its command and `only`."""
        tables = [{k: v for k, v in literals(spec).items() if k not in PLACES} for spec in self.specs]
        return [{**table, **digest, "revision": REVISION} for table, digest in zip(tables, self._digests)]

    def check(self) -> None:
        """Preflight. Raises UserError where tools cannot run here. Starts nothing."""
        if any(isinstance(tool, SandboxTool) for tool in self._tools):
            check_sandbox()
        for tool in self._tools:
            if isinstance(tool, CorpusTool):
                tool.check()
        for spec in self.specs:
            if spec.kind == "mcp":
                check_package()
                if spec.command and shutil.which(spec.command[0]) is None:
                    raise UserError(f"tools: no program '{spec.command[0]}' on this machine (PATH) for {spec.label}")

    def open(self) -> None:
        """Start sandbox, servers and indexes. Raises UserError when one cannot start."""
        if self.threads is not None:
            return
        self.threads = ThreadPoolExecutor(NUM_THREADS, thread_name_prefix="tools")
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        for tool in self._tools:
            if isinstance(tool, CorpusTool):
                tool.open()
            if isinstance(tool, SandboxTool):
                self._sandbox = self._sandbox or Sandbox(self._workers, harness())
                tool.sandbox = self._sandbox
        for spec in self.specs:
            if spec.kind == "mcp":
                server = Server(spec.command, spec.url, spec.timeout_s)
                self._servers.append(server)
                self._server_tools += server.open(spec.only, self._max_chars)
        self._check_names()
        for tool in self.tools:
            try:
                check_schema(tool.parameters)
            except ValueError as error:
                raise UserError(f"tools: the schema of '{tool.name}': {_short(str(error))}") from None
            self._validators[tool.name] = validator(tool.parameters)

    def close(self) -> None:
        """End sandbox, servers and threads. Safe at any time."""
        servers, self._servers, self._server_tools = self._servers, [], []
        for server in servers:
            server.close()
        for tool in self._tools:
            if isinstance(tool, SandboxTool):
                tool.sandbox = None
        sandbox, self._sandbox = self._sandbox, None
        if sandbox is not None:
            sandbox.close()
        threads, self.threads = self.threads, None
        if threads is not None:
            threads.shutdown(wait=False, cancel_futures=True)

    def call(self, call: ToolCall, state: TrajectoryState) -> ToolResult:
        """The answer to a call as the model sees it: a wrong call gets an error message.

        Raises EngineDead when the server of a tool is lost.
        """
        names = [tool.name for tool in self.tools]
        tool = next((tool for tool in self.tools if tool.name == call.name), None)
        arguments = arguments_of(call.arguments)
        if not call.name or (call.name == UNNAMED and tool is None):  # a row says it by that name
            return _failure("bad_json", "the call could not be read; it must be JSON with a name and arguments")
        if tool is None:
            return _failure("unknown_tool", f"there is no tool '{call.name[:64]}' (known: {', '.join(names)})")
        if arguments is None:
            return _failure("bad_json", f"the arguments of {tool.name} are not a JSON object")
        if problem := self._problem(tool.name, arguments):
            if arguments.keys() == {UNREADABLE}:  # a row says it by that key
                return _failure("bad_json", f"the arguments of {tool.name} are not a JSON object")
            return _failure("bad_arguments", f"the arguments of {tool.name} do not fit its schema: {problem}")
        try:
            return ToolResult(clean(tool.call(arguments, state)))
        except ToolFailed as error:
            return _failure("failed", str(error))
        except RecursionError:  # of arguments that the schema leaves open
            return _failure("bad_arguments", f"the arguments of {tool.name} do not fit its schema: {TOO_DEEP}")

    def _problem(self, name: str, arguments: Mapping[str, Any]) -> str | None:
        try:
            errors = self._validators[name].iter_errors(arguments)
            first = min(errors, key=lambda e: (e.json_path, e.message), default=None)
        except RecursionError:
            return TOO_DEEP
        return None if first is None else _short(f"{first.json_path}: {first.message}")


def arguments_of(text: str) -> dict[str, Any] | None:
    """The arguments that a call states, None where they are no JSON object; no text at all is no arguments.

    NaN, infinities, floats beyond the range of float64 and integers beyond 64 bits are no JSON here: readers of the
    rows do not take them.
    """
    if not text.strip():
        return {}
    try:
        value = json.loads(text, parse_constant=_refuse, parse_int=_integer, parse_float=_float)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _refuse(constant: str) -> Any:
    raise ValueError(constant)


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS or not -(2**63) <= int(digits) < 2**64:
        raise ValueError(digits)
    return int(digits)


def _float(digits: str) -> float:
    if not math.isfinite(value := float(digits)):
        raise ValueError(digits)
    return value


def arguments_text(text: str) -> str:
    """The arguments as the JSON text of an object: chat templates and trainers take no other.

    Those that are none stand as they were written under the key UNREADABLE.
    """
    arguments = arguments_of(text)
    return clean(json.dumps({UNREADABLE: text} if arguments is None else arguments, ensure_ascii=False))


def _failure(kind: Failure, text: str) -> ToolResult:
    return ToolResult(clean(f"{ERROR}{text}"), kind)


def _short(text: str) -> str:
    return " ".join(text.split())[:MAX_MESSAGE]

"""The process of a program: it runs the program and then does what the tests ask of it.

A program can do what it likes here. Its tests run in another process (judge.py), and nothing that is said here makes a
program pass, unless it has no tests: then only this process can say that it ran to its end.
"""

import ast
import builtins
import contextlib
import io
import json
import os
import random
import sys
import types
from collections.abc import Callable
from typing import Any

from gristmill.stages.sandbox import operations, wire
from gristmill.stages.sandbox.mirrors import number_of
from gristmill.stages.sandbox.peer import Peer
from gristmill.stages.sandbox.report import PROGRAM, TESTS, line_of, report_of

MAX_REPORT = 65536
MISSING = object()
Statement = types.CodeType | Exception  # code, or why there is none: an error when its turn comes
UNREADABLE = (SyntaxError, ValueError, RecursionError, MemoryError)


def new_space() -> dict[str, Any]:
    return {"__name__": "__main__", "__builtins__": builtins}


def parse_tests(text: str) -> ast.Module | Exception:
    """The syntax tree of tests, or why there is none."""
    try:
        return ast.parse(text, TESTS)
    except UNREADABLE as error:
        return error


def statements_of(tree: ast.Module | Exception) -> list[Statement]:
    if isinstance(tree, Exception):
        return []
    return [_compiled(statement) for statement in tree.body]


def _compiled(statement: ast.stmt) -> Statement:
    try:
        return compile(ast.Module([statement], []), TESTS, "exec")
    except UNREADABLE as error:
        return error


def run_alone(program: str, tests: str, report_fd: int) -> None:
    """Run a program, and after it tests in its own namespace, and write a report. The program can forge it."""
    write, dumps, flush = os.write, json.dumps, sys.stdout.flush  # before the program can replace them
    random.seed(0)
    space = new_space()
    report: dict[str, Any] = {"verdict": "passed", "at": "program"}
    try:
        tree = parse_tests(tests)
        statements = statements_of(tree)
        exec(compile(program, PROGRAM, "exec"), space)
        report["at"] = "tests"
        if isinstance(tree, Exception):
            raise tree
        for number, statement in enumerate(statements):
            report["test"] = number
            if isinstance(statement, Exception):
                raise statement
            exec(statement, space)
        report.pop("test", None)
    except BaseException as error:  # noqa: BLE001 - whatever a program raises is a finding
        if isinstance(error, MemoryError):
            space.clear()
        report |= report_of(error, report["at"], line_of(error))
    with contextlib.suppress(BaseException):
        flush()
    write(report_fd, dumps(report).encode()[:MAX_REPORT])


def run_for_tests(program: str, read_fd: int, write_fd: int) -> None:
    """Run a program, say how it ended, and serve its tests until they end."""
    random.seed(0)
    space = new_space()
    peer = ProgramPeer(read_fd, write_fd, space)
    try:
        exec(compile(program, PROGRAM, "exec"), space)
    except BaseException as error:  # noqa: BLE001
        report = report_of(error, "program", line_of(error))
        if isinstance(error, MemoryError):
            space.clear()
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
        wire.send(write_fd, {"end": report})
        return
    with contextlib.suppress(BaseException):
        sys.stdout.flush()
    wire.send(write_fd, {"names": [name for name in space if isinstance(name, str) and not name.startswith("__")]})
    with contextlib.suppress(wire.PeerEnded):
        peer.serve()


class ProgramPeer(Peer):
    """The program's end. Its messages carry the globals that the tests read, and what it prints while they capture."""

    def __init__(self, read_fd: int, write_fd: int, space: dict[str, Any]) -> None:
        super().__init__(read_fd, write_fd, False, PROGRAM)
        self.operations = operations.of_program(self, self.watch)
        self._space, self._names, self._sent = space, (), {}  # type: tuple[dict[str, Any], tuple[str, ...], dict[str, Any]]
        self._capture: dict[str, tuple[Any, io.StringIO]] = {}  # stream: (the original, what takes its place)
        self._originals: dict[str, Any] = {}  # of names of modules that the tests have replaced

    def watch(self, names: tuple[str, ...]) -> None:
        self._names = names

    def outgoing(self) -> dict[str, Any]:
        changes = []
        for name in self._names:
            value = self._space.get(name, MISSING)
            if value is not MISSING and value is not self._sent.get(name, MISSING):
                self._sent[name] = value
                changes.append([name, self.encode(value)])
        texts = {name: self._take(stream) for name, (_, stream) in self._capture.items()}
        if not self._capture:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
        return {key: part for key, part in (("g", changes), ("out", texts)) if part}

    def _take(self, stream: io.StringIO) -> str:
        text = stream.getvalue()
        stream.seek(0)
        stream.truncate()
        return text

    def incoming(self, message: dict[str, Any]) -> None:
        """Take on the state of the tests' process: streams and functions that it has replaced, depth of recursion."""
        if "q" not in message and "state" not in message:
            return
        state = message.get("state", {})
        for name in ("stdout", "stderr"):
            if name in state.get("capture", ()) and name not in self._capture:
                self._capture[name] = (getattr(sys, name), io.StringIO())
                setattr(sys, name, self._capture[name][1])
            elif name not in state.get("capture", ()) and name in self._capture:
                original, stream = self._capture.pop(name)
                if getattr(sys, name) is stream:
                    setattr(sys, name, original)
        self._replace({name: self.decode(form) for name, form in state.get("patches", {}).items()})
        if "recursion" in state:
            sys.setrecursionlimit(state["recursion"])

    def _replace(self, patches: dict[str, Any]) -> None:
        for name in [name for name in self._originals if name not in patches]:
            module, _, attribute = name.rpartition(".")
            setattr(sys.modules[module], attribute, self._originals.pop(name))
        for name, value in patches.items():
            module, _, attribute = name.rpartition(".")
            current = getattr(sys.modules[module], attribute)
            self._originals.setdefault(name, current)
            if current is not value:
                is_function = callable(value) and number_of(value) is not None
                setattr(
                    sys.modules[module], attribute, _function(value) if is_function and module == "builtins" else value
                )


def _function(target: Callable[..., Any]) -> Callable[..., Any]:
    def function(*arguments: Any, **options: Any) -> Any:
        return target(*arguments, **options)

    return function

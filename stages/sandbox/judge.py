"""The process of the tests: it runs their statements and says whether they pass. It never runs code of the program.

The names that the program binds are proxies here (mirrors.py). The tests' own names stay here: the program cannot read
them, nor the tests' text, which is read after the program's process was forked.
"""

import ast
import builtins
import random
import sys
from typing import Any

from gristmill.stages.sandbox import guard, wire
from gristmill.stages.sandbox.names import MODULES
from gristmill.stages.sandbox.peer import Peer
from gristmill.stages.sandbox.program import MISSING, new_space, parse_tests, statements_of
from gristmill.stages.sandbox.references import Unsupported
from gristmill.stages.sandbox.report import TESTS, detail, place, report_of

PROGRAM_VERDICTS = ("error", "syntax", "memory", "files", "exited")
# What tests replace for a while, and the program must see: the text says where it is.
PATCHES = {
    "builtins": ("input", "print", "open"),
    "sys": ("stdin", "argv"),
    "time": ("sleep", "time", "monotonic", "perf_counter"),
    "random": ("random", "randint", "choice", "choices", "shuffle", "sample", "uniform", "randrange", "gauss"),
}
SHARED = "; shared = true runs the tests in the program's own process"


def judge(tests: str, read_fd: int, write_fd: int) -> dict[str, Any]:
    """The report of the tests of a program; {"verdict": "gone"} if the program's process ended too soon."""
    tree = parse_tests(tests)
    statements = statements_of(tree)
    report: dict[str, Any] = {"verdict": "passed", "at": "program"}
    random.seed(0)
    space = new_space()
    peer = TestsPeer(read_fd, write_fd, space)
    try:
        names = _start(read_fd)
        if isinstance(names, dict):
            return names
        report["at"] = "tests"
        if isinstance(tree, Exception):
            return report | report_of(tree, "tests", detail(tree, None))
        watched, modules = names_of(tree, names)
        space.update({name: sys.modules[name] for name in modules})
        peer.request("watch", watched)
        for number, statement in enumerate(statements):
            report["test"] = number
            if isinstance(statement, Exception):
                raise statement
            exec(statement, space)
            if peer.fatal is not None:
                raise peer.fatal
        report.pop("test", None)
        return report
    except BaseException as error:  # noqa: BLE001 - whatever tests raise is a finding
        return report | _report_of(peer.fatal or error, peer)


def _report_of(error: BaseException, peer: "TestsPeer") -> dict[str, Any]:
    at = place(error, TESTS)
    if isinstance(error, wire.PeerEnded):
        return {"verdict": "gone"}
    if isinstance(error, wire.BadMessage):
        return {"verdict": "error", "detail": f"BadMessage: the program disturbs its connection to the tests ({error})"}
    if isinstance(error, Unsupported):
        return {"verdict": "error", "detail": detail(error, at, f"TestsUnsupported: {error}{SHARED}")}
    line = detail(error, at)
    if peer.notes and isinstance(error, AssertionError | TypeError):
        line += f" ({peer.notes[-1]})"
    return report_of(error, "tests", line)


def _start(read_fd: int) -> list[str] | dict[str, Any]:
    """The names that the program binds, or the report of its end."""
    message = wire.receive(read_fd)
    names = message.get("names") if isinstance(message, dict) else None
    if isinstance(names, list) and all(isinstance(name, str) for name in names):
        return names
    end = message.get("end") if isinstance(message, dict) else None
    if isinstance(end, dict) and end.get("verdict") in PROGRAM_VERDICTS and isinstance(end.get("detail", ""), str):
        return {"verdict": end["verdict"], "at": "program", **({"detail": end["detail"]} if "detail" in end else {})}
    raise wire.BadMessage("no start")


def names_of(tree: ast.Module, names: list[str]) -> tuple[tuple[str, ...], list[str]]:
    """The names in tests that are the program's, and those of modules of the standard library.

    Builtin functions stay what they are, so that a program cannot give its tests another `abs`; but they are the
    program's if the tests use nothing else of it. A module that a program imports for its tests stays what it is too.
    """
    nodes = list(ast.walk(tree))
    used = {node.id for node in nodes if isinstance(node, ast.Name)}
    owners = {node.value.id for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)}
    modules = sorted(owners.intersection(names, MODULES))
    texts = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    used = (used | texts.intersection(names)) - set(modules)
    others = {name for name in used if not hasattr(builtins, name)}
    return tuple(sorted(others if others.intersection(names) else used)), modules


class TestsPeer(Peer):
    """The tests' end. Its messages carry the state of this process that the program must see."""

    __test__ = False

    def __init__(self, read_fd: int, write_fd: int, space: dict[str, Any]) -> None:
        super().__init__(read_fd, write_fd, True, TESTS)
        self.operations = dict(guard.OPERATIONS)
        self.fatal: BaseException | None = None
        self.notes: list[str] = []
        self._space, self._own, self._bound = space, set(), {}  # type: tuple[dict[str, Any], set[str], dict[str, Any]]
        self._streams = {"stdout": sys.stdout, "stderr": sys.stderr}
        self._recursion = sys.getrecursionlimit()
        self._originals = {
            f"{module}.{name}": getattr(sys.modules[module], name)
            for module, attributes in PATCHES.items()
            for name in attributes
        }
        random.seed = self._seed

    def _seed(self, *arguments: Any, **options: Any) -> None:
        random.Random.seed(random._inst, *arguments, **options)
        self.request("seed", *arguments)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def exportable(self, value: Any) -> bool:
        return guard.exportable(value)

    def request(self, operation: str, *parts: Any) -> Any:
        try:
            return super().request(operation, *parts)
        except (Unsupported, wire.PeerEnded, wire.BadMessage) as error:
            self.fatal = self.fatal or error  # for good, whatever the tests catch
            raise

    def outgoing(self) -> dict[str, Any]:
        state: dict[str, Any] = {}
        capture = [name for name, stream in self._streams.items() if getattr(sys, name) is not stream]
        if capture:
            state["capture"] = capture
        patches = {}
        for name, original in self._originals.items():
            module, _, attribute = name.rpartition(".")
            value = getattr(sys.modules[module], attribute, original)
            if value is not original:
                patches[name] = self.encode(value)
        if patches:
            state["patches"] = patches
        if sys.getrecursionlimit() != self._recursion:
            state["recursion"] = sys.getrecursionlimit()
        return {"state": state} if state else {}

    def incoming(self, message: dict[str, Any]) -> None:
        for name, form in message.get("g", []):
            value, current = self.decode(form), self._space.get(name, MISSING)
            if name not in self._own and current is self._bound.get(name, MISSING):
                self._space[name] = self._bound[name] = value
            else:
                self._own.add(name)  # the tests have bound it
        for name, text in message.get("out", {}).items():
            if name in self._streams and text:
                getattr(sys, name).write(str(text))

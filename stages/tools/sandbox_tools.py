"""Tools that run in the sandbox: the functions of a Python file, and a Python interpreter.

Every call is a process of its own, without network, with the files of the standard library and an empty folder. So a
call depends on its arguments alone, and for the interpreter on the cells before it: these are run again, without their
output, in each call. A trajectory that starts again elsewhere needs nothing of the machine that was lost.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gristmill.stages.sandbox.runner import Job, Limits, Outcome, Sandbox, Warm
from gristmill.stages.tools.contract import NOTHING, Tool, ToolFailed, TrajectoryState, cut, object_schema
from gristmill.stages.tools.schema import FunctionSchema

HARNESS, CLOCK = "_gristmill_tools", "_gristmill_clock"  # modules of the sandbox, made of harness.py and clock.py
PYTHON = """Runs Python code and returns its output, and the value of its last statement if that is an expression. \
Variables, functions and imports persist between calls. Only the standard library is available, and there is \
no network access."""


def harness() -> Warm:
    """What jails prepare for tools: the modules HARNESS and CLOCK."""
    lines = ["import sys, types"]
    for name, file in ((HARNESS, "harness.py"), (CLOCK, "clock.py")):
        source = Path(__file__).with_name(file).read_text(encoding="utf-8")
        lines.append(f"sys.modules[{name!r}] = types.ModuleType({name!r})")
        lines.append(f"exec(compile({source!r}, {file!r}, 'exec'), sys.modules[{name!r}].__dict__)")
    return Warm("\n".join(lines))


class SandboxTool(Tool):
    """Base of the tools in the sandbox; `sandbox` is set while the tools are open."""

    sandbox: Sandbox | None = None

    def __init__(self, schema: FunctionSchema, limits: Limits, max_chars: int, deterministic: bool) -> None:
        """deterministic: whether the clock and the random numbers of the system are fixed."""
        super().__init__(schema.name, schema.description, schema.parameters)
        self.deterministic = deterministic
        self.limits = limits
        self.max_chars = max_chars

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "sandbox": None}

    def _run(self, function: str, *arguments: Any) -> tuple[str, str | None]:
        """(text, error) of the harness: what the code says, and what it has raised. Raises ToolFailed."""
        assert self.sandbox is not None
        builtins = f"{CLOCK}.fix()" if self.deterministic else "{}"
        literals = f"*json.loads({json.dumps(arguments)!r}), {self.max_chars}, {builtins}"
        program = f"import json, {HARNESS}, {CLOCK}\n{HARNESS}.{function}({literals})\n"
        outcome = self.sandbox.one(Job(program), self.limits)
        try:
            answer = json.loads(outcome.output.rstrip().rpartition("\n")[2])
        except (ValueError, RecursionError):
            answer = None
        if outcome.verdict != "passed" or not isinstance(answer, dict):
            raise ToolFailed(self._ending(outcome))
        text, error, more = answer.get("text", ""), answer.get("error"), answer.get("more", 0)
        text = cut(text, self.max_chars, more) if isinstance(text, str) and type(more) is int else ""
        return text, cut(error, self.max_chars) if isinstance(error, str) else None

    def _ending(self, outcome: Outcome) -> str:
        """Why there is no answer."""
        limits = self.limits
        return {
            "timeout": f"stopped: it took more than {limits.cpu_s:g} s of CPU time or {limits.wall_s:g} s in all",
            "memory": f"stopped: it needed more than {limits.memory_mb} MiB of memory",
            "output": f"stopped: it printed more than {limits.output_kb} KiB",
            "files": f"stopped: it wrote more than {limits.scratch_mb} MiB of files",
        }.get(outcome.verdict, "its process ended without an answer")


class FunctionTool(SandboxTool):
    """A function of a tool file."""

    def __init__(
        self, source: str, schema: FunctionSchema, limits: Limits, max_chars: int, deterministic: bool
    ) -> None:
        super().__init__(schema, limits, max_chars, deterministic)
        self.source = source

    def call(self, arguments: Mapping[str, Any], state: TrajectoryState) -> str:
        text, error = self._run("answer_call", self.source, self.name, dict(arguments))
        if error is not None:
            raise ToolFailed(error)
        return text or NOTHING


class Interpreter(SandboxTool):
    """A Python interpreter whose state lasts for a trajectory.

    A cell that is stopped at a limit leaves nothing; one that raises leaves what it did before. The limits of a call
    hold for its cell and the cells before it together.
    """

    def __init__(self, name: str, description: str, limits: Limits, max_chars: int, deterministic: bool) -> None:
        parameters = object_schema({"code": {"type": "string", "description": "Python code"}}, ["code"])
        super().__init__(FunctionSchema(name, description or PYTHON, parameters), limits, max_chars, deterministic)

    def call(self, arguments: Mapping[str, Any], state: TrajectoryState) -> str:
        code = arguments["code"]
        text, error = self._run("answer_cells", [*state.cells, code])
        state.cells.append(code)
        if error is not None:
            raise ToolFailed(f"{error}\n{text}".rstrip())
        return text or NOTHING

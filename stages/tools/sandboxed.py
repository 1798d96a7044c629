"""Tools that run in the sandbox: the functions of a Python file, and a Python interpreter.

Every call is a process of its own, without network, with the files of the standard library and an empty folder. So a
call depends on its arguments alone, and for the interpreter on the cells before it: these are run again, without their
output, in each call. A trajectory that starts again elsewhere needs nothing of the machine that was lost.
"""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from gristmill.stages.sandbox.runner import Job, Limits, Outcome, Sandbox
from gristmill.stages.tools.contract import Tool, ToolFailed, TrajectoryState, cut, object_schema
from gristmill.stages.tools.schema import FunctionSchema

PYTHON = """Runs Python code and returns what it prints, and the value of the expression that it ends in. Variables, \
functions and imports stay for the next call. Only the standard library is there, and no network."""


@cache
def harness() -> str:
    return Path(__file__).with_name("harness.py").read_text(encoding="utf-8")


class Sandboxed(Tool):
    """Base of the tools in the sandbox; `sandbox` is set while the tools are open."""

    sandbox: Sandbox | None = None

    def __init__(self, schema: FunctionSchema, limits: Limits, max_chars: int) -> None:
        super().__init__(schema.name, schema.description, schema.parameters)
        self.limits = limits
        self.max_chars = max_chars

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "sandbox": None}

    def _run(self, function: str, *arguments: Any) -> dict[str, str]:
        """The answer of the harness: `text`, and `error` where the code has raised. Raises ToolFailed."""
        assert self.sandbox is not None
        program = f"{harness()}\n\n{function}(*json.loads({json.dumps(arguments)!r}), {self.max_chars})\n"
        outcome = self.sandbox.one(Job(program), self.limits)
        try:
            answer = json.loads(outcome.output.rstrip().rpartition("\n")[2])
        except (ValueError, RecursionError):
            answer = None
        if outcome.verdict != "passed" or not isinstance(answer, dict):
            raise ToolFailed(self._ending(outcome))
        return {name: text for name, text in answer.items() if isinstance(text, str)}

    def _ending(self, outcome: Outcome) -> str:
        """Why there is no answer."""
        limits = self.limits
        return {
            "timeout": f"stopped: it took more than {limits.cpu_s:g} s of CPU time or {limits.wall_s:g} s in all",
            "memory": f"stopped: it needed more than {limits.memory_mb} MiB of memory",
            "output": f"stopped: it printed more than {limits.output_kb} KiB",
            "files": f"stopped: it wrote more than {limits.scratch_mb} MiB of files",
        }.get(outcome.verdict, "its process ended without an answer")


class FunctionTool(Sandboxed):
    """A function of a tool file."""

    def __init__(self, source: str, schema: FunctionSchema, limits: Limits, max_chars: int) -> None:
        super().__init__(schema, limits, max_chars)
        self.source = source

    def call(self, arguments: Mapping[str, Any], state: TrajectoryState) -> str:
        answer = self._run("answer_call", self.source, self.name, dict(arguments))
        if "error" in answer:
            raise ToolFailed(answer["error"])
        return answer.get("text", "")


class Interpreter(Sandboxed):
    """A Python interpreter whose state lasts for a trajectory.

    A cell that is stopped at a limit leaves nothing; one that raises leaves what it did before. The limits of a call
    hold for its cell and the cells before it together.
    """

    def __init__(self, name: str, description: str, limits: Limits, max_chars: int) -> None:
        parameters = object_schema({"code": {"type": "string", "description": "Python code"}}, ["code"])
        super().__init__(FunctionSchema(name, description or PYTHON, parameters), limits, max_chars)

    def call(self, arguments: Mapping[str, Any], state: TrajectoryState) -> str:
        code = arguments["code"]
        answer = self._run("answer_cells", [*state.cells, code])
        state.cells.append(code)
        text = answer.get("text", "")
        if "error" in answer:
            raise ToolFailed(cut(f"{answer['error']}\n{text}".rstrip(), self.max_chars))
        return text or "(no output)"

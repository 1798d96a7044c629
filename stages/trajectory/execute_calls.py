"""Runs the calls of a row again, and rejects rows whose calls do not do what they say.

Each call is validated against the schema of its tool and executed. Without a reference, the answers in the messages
must be those that the tools give. With one, a column of right calls, the results of both are compared: another call
with the same result is as good (Patil et al. 2025, BFCL, evaluates by execution as well).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from gristmill.engines.contract import ToolCall
from gristmill.records.spec import placement
from gristmill.stages.contract import Findings, Stage
from gristmill.stages.tools.contract import ToolResult, TrajectoryState
from gristmill.stages.tools.spec import ToolSpec
from gristmill.stages.tools.toolset import Toolset
from gristmill.stages.trajectory.messages import Message, calls_of, is_messages

MAX_DETAIL = 500


@dataclass(frozen=True)
class ExecuteCallsSpec:
    """Keys of the stage `execute_calls`."""

    tools: tuple[ToolSpec, ...]  # The tools, a table each, as in the methods with tools; without kind "mcp".
    column: str = "messages"  # Column with the messages, whose calls are run.
    # Column with the right calls as JSON: [{"name": ..., "arguments": {...}}]. By default the answers in the messages
    # are the reference.
    reference: str | None = None
    must_succeed: bool = True  # Whether a row with a call that fails is rejected.
    max_result_chars: int = 4000  # Characters of a tool's result, as in the method that made the rows.
    workers: int = placement(1)  # Processes of the sandbox in each worker of the run.

    def __post_init__(self) -> None:
        if not self.tools:
            raise ValueError("tools needs at least one table")
        if any(not tool.is_deterministic for tool in self.tools):
            raise ValueError("tools: a stage gives the same verdict again, so its tools must be deterministic")
        if self.max_result_chars < 1 or self.workers < 1:
            raise ValueError("max_result_chars and workers must be at least 1")


class ExecuteCalls(Stage):
    """Adds `execute_calls_verdict` and `execute_calls_detail`, which names the call and what is wrong with it.

    Verdicts: passed, no_calls, wrong_call (unknown tool, or arguments that do not fit), failed_call (its tool
    raises), differs (another result), no_reference. A row whose verdict is not passed is rejected for it.
    """

    kind: ClassVar[str] = "execute_calls"
    Spec: ClassVar[type] = ExecuteCallsSpec
    reads_text: ClassVar[bool] = False
    spec: ExecuteCallsSpec

    def __init__(self, spec: ExecuteCallsSpec, name: str | None = None) -> None:
        super().__init__(spec, name)
        self._toolset = Toolset(spec.tools, spec.workers, spec.max_result_chars)
        self._is_open = False

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_is_open": False}

    def columns(self) -> list[pa.Field]:
        return [pa.field(f"{self.name}_{what}", pa.string()) for what in ("verdict", "detail")]

    def reads(self) -> list[str]:
        return [self.spec.column, *([self.spec.reference] if self.spec.reference else [])]

    def refuses(self, field: pa.Field) -> str | None:
        if field.name == self.spec.reference:
            return None if pa.types.is_string(field.type) else "holds no text"
        return None if is_messages(field.type) else "holds no messages with role and content"

    def identity(self) -> dict[str, Any]:
        return {**super().identity(), "tools": self._toolset.identity()}

    def check(self) -> None:
        self._toolset.check()

    def open(self) -> None:
        self._toolset.open()
        self._is_open = True

    def close(self) -> None:
        self._toolset.close()
        self._is_open = False

    def find(self, rows: pa.RecordBatch) -> Findings:
        if not self._is_open:
            self.open()
        references = rows.column(self.spec.reference).to_pylist() if self.spec.reference else [None] * rows.num_rows
        pairs = list(zip(rows.column(self.spec.column).to_pylist(), references))
        assert self._toolset.threads is not None
        verdicts = list(self._toolset.threads.map(lambda pair: self._judge(pair[0] or [], pair[1]), pairs))
        columns = [pa.array([v[0] for v in verdicts], pa.string())]
        columns.append(pa.array([(v[1] or "")[:MAX_DETAIL] or None for v in verdicts], pa.string()))
        reasons = [None if verdict == "passed" else verdict for verdict, _ in verdicts]
        return Findings(dict(zip([f.name for f in self.columns()], columns)), pa.array(reasons, pa.string()))

    def _judge(self, messages: Sequence[Message], reference: str | None) -> tuple[str, str | None]:
        """(verdict, detail) of a row."""
        calls = [ToolCall(*call) for message in messages if message for call in calls_of(message)]
        if not calls:
            return "no_calls", None
        results = self._run(calls)
        for call, result in zip(calls, results):
            if result.failure and self.spec.must_succeed:
                verdict = "failed_call" if result.failure == "failed" else "wrong_call"
                return verdict, f"{call.name}: {result.text}"
        if self.spec.reference is None:
            answers = {m.get("tool_call_id"): m.get("content") for m in messages if m and m.get("role") == "tool"}
            expected = [answers.get(call.id) for call in calls]
        else:
            right = reference_calls(reference)
            if not right:
                return "no_reference", None
            expected = [result.text for result in self._run(right)]
        for call, result, answer in zip(calls, results, expected):
            if result.text != answer:
                return "differs", f"{call.name}: {result.text[:200]!r}, expected {(answer or '')[:200]!r}"
        if len(calls) != len(expected):
            return "differs", f"{len(calls)} calls, expected {len(expected)}"
        return "passed", None

    def _run(self, calls: Sequence[ToolCall]) -> list[ToolResult]:
        """The results of calls, one after another: an interpreter keeps its state from call to call."""
        state = TrajectoryState()
        return [self._toolset.call(call, state) for call in calls]


def reference_calls(text: str | None) -> list[ToolCall]:
    """The calls in a JSON list of {"name", "arguments"}, also inside "function"; none where it is no such list."""
    try:
        tables = [table.get("function", table) for table in json.loads(text or "")]
        named = [(table["name"], table.get("arguments", {})) for table in tables]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return []
    return [ToolCall("", str(name), a if isinstance(a, str) else json.dumps(a)) for name, a in named]

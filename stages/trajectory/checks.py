"""Bounds on trajectories: how many calls they make, of which tools, how many fail, and how many are repeated."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from gristmill.stages.contract import Findings, Stage
from gristmill.stages.tools.contract import ERROR
from gristmill.stages.tools.toolset import arguments_of
from gristmill.stages.trajectory.messages import Message, calls_of, is_messages


@dataclass(frozen=True)
class TrajectorySpec:
    """Keys of the stage `trajectory`. Without bounds it only rejects trajectories that are no valid dialogue."""

    column: str = "messages"  # Column with the messages.
    # Column with the tools as JSON text; a call of another tool is unknown. By default `tools`, if the row has it.
    tools: str | None = None
    min_calls: int = 0  # Calls at least.
    max_calls: int | None = None  # Calls at most.
    max_turns: int | None = None  # Messages of the assistant at most.
    must_call: tuple[str, ...] = ()  # Names of tools that must be called, each with an answer that is no error.
    max_unknown: int | None = None  # Calls of tools that the row does not have, at most; 0 rejects any.
    # Calls at most that repeat one before them, with the same tool and arguments and no other call between them.
    max_repeats: int | None = None
    max_failed_share: float = 1.0  # Largest share of calls that an error message answers.
    errors: tuple[str, ...] = (ERROR.strip(),)  # Words that the content of an error message begins with.
    # Whether the last message must be the assistant's, with a text and no calls. A text that only repeats an error
    # message of a tool is rejected as "error_answer".
    need_answer: bool = True

    def __post_init__(self) -> None:
        bounds = (self.min_calls, self.max_calls, self.max_turns, self.max_unknown, self.max_repeats)
        if any(bound is not None and bound < 0 for bound in bounds):
            raise ValueError("bounds must not be negative")
        if self.max_calls is not None and self.max_calls < max(self.min_calls, len(self.must_call)):
            raise ValueError("max_calls is below min_calls, or below the number of tools in must_call")
        if not 0 <= self.max_failed_share <= 1:
            raise ValueError("max_failed_share must lie in 0..1")
        if any(not word for word in self.errors):
            raise ValueError("errors: an empty word begins every message")


@dataclass(frozen=True)
class Tally:
    """What is counted of a trajectory."""

    turns: int
    calls: int
    unknown: int
    repeats: int
    failed: int
    working_tools: frozenset[str]  # names of tools with an answer that is no error
    problem: str | None  # why the messages are no valid dialogue
    has_answer: bool
    repeats_error: bool  # whether the answer only repeats an error message


class Trajectory(Stage):
    """Adds `trajectory_turns`, `_calls`, `_unknown`, `_repeats` (int32), and `_failed_share` (float32).

    Reasons, the first that applies: malformed (a call without an answer, an answer without a call, two calls of one
    id), no_answer, few_calls, many_calls, many_turns, unknown_tool, repeated_calls, failed_calls, missing_tool.
    """

    kind: ClassVar[str] = "trajectory"
    Spec: ClassVar[type] = TrajectorySpec
    reads_text: ClassVar[bool] = False
    spec: TrajectorySpec

    def columns(self) -> list[pa.Field]:
        counts = [pa.field(f"{self.name}_{what}", pa.int32()) for what in ("turns", "calls", "unknown", "repeats")]
        return [*counts, pa.field(f"{self.name}_failed_share", pa.float32())]

    def reads(self) -> list[str]:
        return [self.spec.column, *([self.spec.tools] if self.spec.tools else [])]

    def refuses(self, field: pa.Field) -> str | None:
        if field.name == self.spec.tools:
            return None if pa.types.is_string(field.type) else "holds no text"
        return None if is_messages(field.type) else "holds no messages with role and content"

    def find(self, rows: pa.RecordBatch) -> Findings:
        tallies = [
            tally(messages or [], names, self.spec.errors)
            for messages, names in zip(rows.column(self.spec.column).to_pylist(), self._names(rows))
        ]
        shares = [t.failed / t.calls if t.calls else 0.0 for t in tallies]
        counts = [[getattr(t, name) for t in tallies] for name in ("turns", "calls", "unknown", "repeats")]
        columns = [*(pa.array(values, pa.int32()) for values in counts), pa.array(shares, pa.float32())]
        reasons = [self._reason(t, share) for t, share in zip(tallies, shares)]
        return Findings(dict(zip([f.name for f in self.columns()], columns)), pa.array(reasons, pa.string()))

    def _names(self, rows: pa.RecordBatch) -> list[frozenset[str] | None]:
        """The names of the tools of each row; None where the row says nothing of them."""
        column = self.spec.tools or "tools"
        if column not in rows.schema.names or not pa.types.is_string(rows.schema.field(column).type):
            return [None] * rows.num_rows
        return [tool_names(text) for text in rows.column(column).to_pylist()]

    def _reason(self, counts: Tally, failed_share: float) -> str | None:
        spec = self.spec
        verdicts = (
            ("malformed", counts.problem is not None),
            ("no_answer", spec.need_answer and not counts.has_answer),
            ("error_answer", spec.need_answer and counts.repeats_error),
            ("few_calls", counts.calls < spec.min_calls),
            ("many_calls", spec.max_calls is not None and counts.calls > spec.max_calls),
            ("many_turns", spec.max_turns is not None and counts.turns > spec.max_turns),
            ("unknown_tool", spec.max_unknown is not None and counts.unknown > spec.max_unknown),
            ("repeated_calls", spec.max_repeats is not None and counts.repeats > spec.max_repeats),
            ("failed_calls", failed_share > spec.max_failed_share),
            ("missing_tool", not counts.working_tools.issuperset(spec.must_call)),
        )
        return next((reason for reason, applies in verdicts if applies), None)


def tally(messages: Sequence[Message], names: frozenset[str] | None, errors: Sequence[str]) -> Tally:
    """The counts of a trajectory. `names`: of the tools that the row has; None: any tool counts as known."""
    turns = calls = unknown = repeats = failed = 0
    problem = None if messages and all(messages) else "no messages"
    open_calls: dict[str, str] = {}  # name by id
    failures: list[str] = []  # error messages
    ids: set[str] = set()
    working_tools: set[str] = set()
    before: tuple[str, Any] | None = None
    for message in (message for message in messages if message):
        role = message.get("role")
        if role == "tool":
            name = open_calls.pop(message.get("tool_call_id") or "", None)
            problem = problem or ("an answer without a call" if name is None else None)
            if (failure := _failure_of(message, errors)) is not None:
                failed += 1
                failures.append(failure)
            elif name is not None:
                working_tools.add(name)
            continue
        problem = problem or ("a call without an answer" if open_calls else None)
        turns += role == "assistant"
        for call_id, name, arguments in calls_of(message):
            calls += 1
            problem = problem or ("two calls of one id" if call_id in ids or not call_id else None)
            ids.add(call_id)
            open_calls[call_id] = name
            unknown += names is not None and name not in names
            key = name, _canonical(arguments)
            repeats += key == before
            before = key
    problem = problem or ("a call without an answer" if open_calls else None)
    last = messages[-1] if messages and messages[-1] else {}
    has_answer = last.get("role") == "assistant" and bool((last.get("content") or "").strip()) and not calls_of(last)
    repeats_error = has_answer and _repeats(last, failures, errors)
    return Tally(turns, calls, unknown, repeats, failed, frozenset(working_tools), problem, has_answer, repeats_error)


def _failure_of(message: Message, errors: Sequence[str]) -> str | None:
    """What an error message says after the word that it begins with; None for any other message."""
    text = (message.get("content") or "").strip()
    return next((text.removeprefix(word).strip() for word in errors if text.startswith(word)), None)


def _repeats(answer: Message, failures: Sequence[str], errors: Sequence[str]) -> bool:
    """Whether an answer is an error message, or at least half of one of the trajectory, or at most twice of it."""
    if _failure_of(answer, errors) is not None:
        return True
    text = (answer.get("content") or "").strip()
    pairs = [sorted((text, failure), key=len) for failure in failures]
    return any(short in long and 2 * len(short) >= len(long) for short, long in pairs)


def tool_names(text: str | None) -> frozenset[str] | None:
    """The names in a JSON list of tools in the chat format; None where there is none."""
    try:
        tools = json.loads(text or "")
        return frozenset(tool.get("function", tool)["name"] for tool in tools)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _canonical(arguments: str) -> str:
    """Arguments in one form, so that blanks and the order of keys do not count."""
    value = arguments_of(arguments)
    return arguments if value is None else json.dumps(value, sort_keys=True)

"""Base of the methods whose model calls tools."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from gristmill.engines.contract import ToolCall
from gristmill.generators.text.agent.turns import CALL_ONLY, PROTOCOL, Way
from gristmill.generators.text.contract import Method, Session
from gristmill.records.spec import placement
from gristmill.records.stores.digest import digest_bytes
from gristmill.stages.tools.contract import ToolResult, TrajectoryState
from gristmill.stages.tools.spec import ToolSpec
from gristmill.stages.tools.toolset import Toolset


@dataclass(frozen=True)
class ToolSettings:
    """Settings of every method with tools."""

    tools: tuple[ToolSpec, ...] = ()  # the tools, a table each, at least one; docs/agents.md has their keys
    # How the model calls tools: "native", in the format of its chat template, which the engine reads; "json", by JSON
    # in structured output, for models whose template knows no tools.
    calls: Way = "native"
    max_result_chars: int = 4000  # characters of a tool's result; longer ones are cut, with a note
    workers: int = placement(2)  # processes of the sandbox for each replica

    def check_tools(self) -> None:
        """Raise ValueError for settings without a tool, and for bounds below 1."""
        if not self.tools:
            raise ValueError("tools needs at least one table, e.g. [[method.tools]] with kind = 'python'")
        if self.max_result_chars < 1 or self.workers < 1:
            raise ValueError("max_result_chars and workers must be at least 1")


class ToolMethod(Method):
    """Base of the methods with tools: opens and closes them with the replica. Their specs have `tools` and `calls`."""

    keeps_turns = True

    def __init__(self, spec: Any) -> None:
        super().__init__(spec)
        self.toolset = Toolset(spec.tools, spec.workers, spec.max_result_chars)

    @property
    def calls_tools(self) -> bool:
        return bool(self.spec.calls == "native")

    @property
    def is_repeatable(self) -> bool:
        return self.toolset.is_deterministic

    def identity(self) -> dict[str, Any]:
        kept = {name: value for name, value in super().identity().items() if name not in ("tools", "workers")}
        protocol = {"protocol": [PROTOCOL, CALL_ONLY]} if self.spec.calls == "json" else {}
        return {**kept, "tools": self.toolset.identity(), **protocol}

    def check(self) -> None:
        self.toolset.check()

    def open(self) -> None:
        self.toolset.open()

    def close(self) -> None:
        self.toolset.close()

    async def answers(self, session: Session, calls: Sequence[ToolCall], state: TrajectoryState) -> list[ToolResult]:
        """The results of the calls of a turn, run one after another in their order.

        Where the engine's answers are kept for a restart, results are kept beside them and not asked for again.
        """
        return [await self._answer(session, call, state) for call in calls]

    async def _answer(self, session: Session, call: ToolCall, state: TrajectoryState) -> ToolResult:
        key, num_cells = _result_key(call, state), len(state.cells)
        if isinstance(kept := session.value(key), dict):
            state.cells += kept["cells"]
            return ToolResult(kept["text"], kept["failure"])
        result = await session.blocking(self.toolset.threads, partial(self.toolset.call, call, state))
        session.keep(key, {"text": result.text, "failure": result.failure, "cells": state.cells[num_cells:]})
        return result


def _result_key(call: ToolCall, state: TrajectoryState) -> str:
    """Names a kept result: by the call and what it depends on.

    Two attempts at an ask may call different tools at the same place, and only an equal call may take the result.
    """
    return f"tool {call.id} {digest_bytes(json.dumps([call.name, call.arguments, state.cells]).encode())}"

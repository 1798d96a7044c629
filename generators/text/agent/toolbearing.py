"""Base of the methods whose model calls tools."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from gristmill.engines.contract import ToolCall
from gristmill.generators.text.agent.turns import CALL_ONLY, PROTOCOL
from gristmill.generators.text.contract import Method, Session
from gristmill.stages.tools.contract import ToolResult, TrajectoryState
from gristmill.stages.tools.toolset import Toolset


class Toolbearing(Method):
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
        """The results of the calls of a turn, run one after another in their order."""
        return [await session.blocking(self.toolset.threads, partial(self.toolset.call, c, state)) for c in calls]

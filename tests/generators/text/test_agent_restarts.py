"""A trajectory that is cut off in the middle: on an engine whose answers are kept, finished turns are not repeated."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gristmill.engines.contract import Reply, ToolCall
from gristmill.engines.errors import EngineDead
from gristmill.engines.recorded import RecordedEngine, RowEngine
from gristmill.generators.text.agent.method import Agent
from gristmill.generators.text.contract import Session
from gristmill.records.output.answers import AnswerFolder
from gristmill.records.stores.local import LocalStore
from gristmill.stages.tools.contract import ToolResult, TrajectoryState
from tests.generators.text.script import OnScript, asks

TABLE = {"tools": [{"kind": "python"}], "max_turns": 6}


def call(code: str) -> Reply:
    return Reply("", "tool_calls", 3, 2, tool_calls=(ToolCall("x", "python", json.dumps({"code": code})),), cost=0.25)


TURNS = [call("x = 20"), call("1 / 0"), call("x += 1\nx"), Reply("21", "stop", 3, 2, cost=0.25)]


class Mortal:
    """Answers turn by turn, and fails for good once it has answered `life` calls."""

    synchronous = False
    num_slots = 4
    flush_s = 0.01

    def __init__(self, life: int) -> None:
        self.life, self.num_calls = life, 0

    async def chat(self, prompt: Any, sampling: Any, seed: int, form: Any = None) -> Reply:
        await asyncio.sleep(0)
        if self.num_calls >= self.life:
            raise EngineDead("lost")
        self.num_calls += 1
        return TURNS[sum(message["role"] == "assistant" for message in prompt)]

    def close(self) -> None:
        pass


class PaidAgent(OnScript):
    """An agent whose calls cost money; `results` are those of the tools that were really run."""

    is_paid = True

    def __init__(self, life: int, folder: AnswerFolder | None) -> None:
        super().__init__("agent", TABLE, {})
        self.engine, self.answers, self.results = Mortal(life), folder, []  # type: ignore[assignment]

    def open_engine(self) -> Any:
        return self.engine

    def open(self) -> None:
        super().open()
        assert isinstance(self._engine, RecordedEngine) and isinstance(self.program, Agent)
        toolset, run = self.program.toolset, self.program.toolset.call

        def counted(*arguments: Any) -> ToolResult:
            result = run(*arguments)
            self.results.append(result.text)
            return result

        toolset.call = counted  # type: ignore[method-assign]


@pytest.fixture(scope="module")
def whole() -> Iterator[dict[str, Any]]:
    """The row of a run that nothing disturbs."""
    generator = PaidAgent(4, None)
    generator.open()
    (row,) = asyncio.run(generator.make(asks([{"text": "Twenty and one?"}]))).to_pylist()
    generator.close()
    assert (row["reject"], row["text"], row["num_calls"], row["num_failed_calls"]) == (None, "21", 3, 1)
    yield row


def test_a_kept_result_serves_only_the_same_call(tmp_path: Path) -> None:
    """Two attempts that answer the first turn differently keep results at the same place, and a third has both."""
    folder = AnswerFolder(LocalStore(str(tmp_path)), "f" * 32)
    for answer in ("x = 1", "x = 20"):
        generator = PaidAgent(4, folder)
        generator.open()

        async def keep_results(generator: PaidAgent = generator, answer: str = answer) -> list[ToolResult]:
            calls = (ToolCall("same", "python", json.dumps({"code": f"{answer}\nx"})),)
            async with generator._engine.log(0) as log:
                session = Session(RowEngine(generator._engine, log, "a" * 32), 1, {})
                return await generator.program.answers(session, calls, TrajectoryState())

        assert [result.text for result in asyncio.run(keep_results())] == [answer[4:]]
        generator.close()


@pytest.mark.parametrize("life", range(4))
def test_finished_turns_are_replayed_and_the_next_one_goes_on(life: int, whole: dict[str, Any], tmp_path: Path) -> None:
    folder = AnswerFolder(LocalStore(str(tmp_path)), "f" * 32)
    first, second = PaidAgent(life, folder), PaidAgent(4 - life, folder)
    first.open()
    with pytest.raises(EngineDead):
        asyncio.run(first.make(asks([{"text": "Twenty and one?"}])))
    first.close()
    second.open()
    (row,) = asyncio.run(second.make(asks([{"text": "Twenty and one?"}]))).to_pylist()
    second.close()
    assert row == whole, "the variable of the first cell is there although another process has run it"
    assert second.engine.num_calls == 4 - life and first.engine.num_calls == life
    assert first.results + second.results == [
        "(no output)",
        "Error: ZeroDivisionError: division by zero (line 1)",
        "21",
    ]

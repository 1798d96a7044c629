"""An agent: a loop of model turns and tool calls, after ReAct (Yao et al. 2022, arXiv 2210.03629).

Each row is a whole trajectory: the question, every call with its result or its error message, and the final answer. An
ask keeps nothing outside itself, so an ask that starts again on another machine, with the same seed and deterministic
tools, becomes the same row.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from gristmill.engines.errors import AskRefused
from gristmill.generators.text import contract
from gristmill.generators.text.agent.tool_method import ToolMethod, ToolSettings
from gristmill.generators.text.agent.turns import (
    Turn,
    assistant_texts,
    calls_with_ids,
    json_turn,
    native_turn,
    result_message,
    tools_text,
)
from gristmill.generators.text.contract import Ask, Session, Template
from gristmill.generators.text.prompts import columns_of, render
from gristmill.records.templates import template_text
from gristmill.stages.tools.contract import TrajectoryState
from gristmill.stages.trajectory.messages import MESSAGES

SYSTEM = template_text(contract.__file__, "agent/system")


@dataclass(frozen=True)
class AgentSpec(ToolSettings):
    """Settings of `agent`. The call is named `turn` in the column `turns`."""

    template: str = "{text}"  # the user's message; `{column}` stands for a column of the source
    system: str = SYSTEM  # system message, with columns like `template`; empty: none
    max_turns: int = 8  # turns of the model; a row that still calls tools in the last one is refused as "max_turns"
    min_calls: int = 0  # calls before a final answer; a row with fewer is refused as "few_calls"
    # Whether the last turn must be the answer: no tool is offered in it. Otherwise it may be one call too many.
    must_answer: bool = False

    def __post_init__(self) -> None:
        Template(self.template)
        Template(self.system)
        self.check_tools()
        if self.max_turns < 1 or self.min_calls < 0:
            raise ValueError("max_turns must be at least 1, min_calls at least 0")
        if self.min_calls and self.max_turns < 2:
            raise ValueError("min_calls needs max_turns of at least 2: a turn for a call, and one for the answer")
        if self.must_answer and self.max_turns < 2:
            raise ValueError("must_answer needs max_turns of at least 2, or no tool is ever offered")


class Agent(ToolMethod):
    """Keeps `messages` and `tools` as trainers take them; `text` is the final answer.

    `num_turns` counts the model's turns, `num_calls` its calls, `num_failed_calls` those that an error message
    answered.
    """

    kind = "agent"
    revision = 1
    Spec = AgentSpec
    spec: AgentSpec

    def __init__(self, spec: AgentSpec) -> None:
        super().__init__(spec)
        self._template, self._system = Template(spec.template), Template(spec.system)

    @property
    def payload(self) -> list[pa.Field]:
        counts = [pa.field(name, pa.int32()) for name in ("num_turns", "num_calls", "num_failed_calls")]
        texts = [pa.field(name, pa.string()) for name in ("question", "text")]
        return [texts[0], MESSAGES, pa.field("tools", pa.string()), texts[1], *counts]

    def fields_read(self) -> list[str]:
        return columns_of([self._template, self._system], ())

    def most_tokens(self, max_tokens: int) -> int | None:
        return self.spec.max_turns * max_tokens

    def kept_texts(self, ask: Ask, payload: Mapping[str, Any]) -> list[str]:
        return assistant_texts(payload["messages"])

    async def run(self, ask: Ask, session: Session) -> dict[str, Any]:
        question = render(self._template, ask.fields)
        system = self._system.render(ask.fields)
        messages: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
        messages.append({"role": "user", "content": question})
        trajectory = _Trajectory(self, ask, session, messages)
        answer = await trajectory.finish()
        return {
            "question": question,
            "messages": messages,
            "tools": tools_text(self.toolset.definitions),
            "text": answer,
            "num_turns": trajectory.num_turns,
            "num_calls": trajectory.num_calls,
            "num_failed_calls": trajectory.num_failed,
        }


class _Trajectory:
    """The run of an ask, which adds to `messages`."""

    def __init__(self, agent: Agent, ask: Ask, session: Session, messages: list[dict[str, Any]]) -> None:
        self._agent, self._ask, self._session, self._messages = agent, ask, session, messages
        self._tools = agent.toolset.definitions
        self._state = TrajectoryState()
        self.num_turns = self.num_calls = self.num_failed = 0

    async def finish(self) -> str:
        """Go on to the final answer, and return it. Raises AskRefused when there is none."""
        spec = self._agent.spec
        while True:
            turn = await self._turn()
            self._messages.append(turn.message())
            if not turn.calls:
                break
            if self.num_turns == spec.max_turns:
                raise AskRefused("max_turns")
            results = await self._agent.answers(self._session, turn.calls, self._state)
            self._messages += [result_message(call, result) for call, result in zip(turn.calls, results)]
            self.num_failed += sum(result.failure is not None for result in results)
        if not turn.text:
            raise AskRefused("empty_answer")
        if self.num_calls < spec.min_calls:
            raise AskRefused("few_calls")
        return turn.text

    async def _turn(self) -> Turn:
        """The next turn of the model. Raises AskRefused for a turn with calls that was cut off."""
        spec = self._agent.spec
        can_call = not spec.must_answer or self.num_turns < spec.max_turns - 1
        about = self._session, self._messages, self._tools, "turn"
        try:
            if spec.calls == "json":
                can_answer = self.num_calls >= spec.min_calls or not can_call
                text, calls, reply = await json_turn(*about, can_answer, can_call)
            else:
                text, calls, reply = await native_turn(*about, can_call)
        except AskRefused as refused:
            if refused.reason == "context_length" and self.num_turns:
                raise AskRefused("context_full", refused.detail) from refused
            raise
        if calls and reply.finish == "length":
            raise AskRefused("cut_turn")
        turn = Turn(text, calls_with_ids(calls, self._ask.seed, self.num_calls), reply)
        self.num_turns += 1
        self.num_calls += len(turn.calls)
        return turn

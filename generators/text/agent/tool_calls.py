"""Single calls of tools: a question, the tools on offer, the right call and its result.

After the generators of function-calling data: a question is written for a drawn tool, the call is validated against the
schema, and then executed (Liu et al. 2024, APIGen, arXiv 2406.18518). With several samples the results can be compared.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from gristmill.engines.errors import AskRefused
from gristmill.generators.text import contract
from gristmill.generators.text.agent.tool_method import ToolMethod, ToolSettings
from gristmill.generators.text.agent.turns import (
    Turn,
    UnreadableTurn,
    assistant_texts,
    calls_with_ids,
    json_turn,
    native_turn,
    result_message,
    tools_text,
)
from gristmill.generators.text.answers import full_text, strip_label
from gristmill.generators.text.contract import Ask, Session, Template, mix
from gristmill.generators.text.prompts import column, render
from gristmill.generators.text.steps import Steps, StepsSpec
from gristmill.records.templates import template_text
from gristmill.stages.tools.contract import ToolResult, TrajectoryState
from gristmill.stages.tools.toolset import arguments_of
from gristmill.stages.trajectory.messages import MESSAGES

QUESTION = template_text(contract.__file__, "tool_calls/question")
TARGET = -2  # salt of the draw


@dataclass(frozen=True)
class ToolCallsSpec(ToolSettings, StepsSpec):
    """Settings of `tool_calls`.

    Calls: `question` ({tools}, {tool}, {topic}), the user's question; `call`, which has no template and gets the
    question.
    """

    TEMPLATES = {"question": QUESTION, "call": ""}
    HOLES = {"question": ("tools", "tool")}

    topic: str = "topic"  # source column that sets the scene of a question
    # template of source columns that is the question, e.g. "{question}"; default: the model writes it
    given_question: str = ""
    # Whether a row is refused as "other_tool" unless its calls use the tool that the question was written for.
    must_match: bool = True
    samples: int = 1  # calls of the model for each question; from 2 on, `results` has the result of each

    def __post_init__(self) -> None:
        column(self.topic)
        Template(self.given_question)
        self.check_tools()
        if self.samples < 1:
            raise ValueError("samples must be at least 1")
        if "call" in self.templates:
            raise ValueError("templates.call: this call gets the question; use `system`")
        if self.given_question and not self.must_match:
            raise ValueError("must_match has no effect with given_question, which is written for no tool")
        super().__post_init__()

    @property
    def call_names(self) -> list[str]:
        return ["call"] if self.given_question else ["question", "call"]


class ToolCalls(ToolMethod, Steps):
    """Keeps `question`, `messages` (with the calls and their results), `tools`, `calls` and `result`.

    `calls` are the calls as JSON, [{"name", "arguments"}]; `result` is what the tools answered, a line each; `tool` is
    the tool that the question was written for; `text` is question and calls. A row is refused as "no_call",
    "wrong_call" (it does not fit its schema), "failed_call" (its tool raised) or "other_tool". With `samples`, the
    first right sample makes the row, and `results` has the result of each, null for a wrong one.
    """

    kind = "tool_calls"
    revision = 1
    Spec = ToolCallsSpec
    method_holes: ClassVar[frozenset[str]] = frozenset({"tools", "tool", "topic"})
    spec: ToolCallsSpec

    def __init__(self, spec: ToolCallsSpec) -> None:
        super().__init__(spec)
        self._topic, self._question_template = column(spec.topic), Template(spec.given_question)

    @property
    def payload(self) -> list[pa.Field]:
        texts = [pa.field(name, pa.string()) for name in ("tool", "question", "tools", "calls", "result", "text")]
        results = [pa.field("results", pa.list_(pa.string()))] if self.spec.samples > 1 else []
        return [*texts[1 if self.spec.given_question else 0 :], MESSAGES, *results]

    def fields_read(self) -> list[str]:
        if self.spec.given_question:
            return self.columns_of(self._question_template)
        is_used = "topic" in self._prompts["question"].names
        return self.columns_of(*([self._topic] if is_used else []))

    def ways(self) -> list[dict[str, int]]:
        return [{**dict.fromkeys(self.spec.call_names, 1), "call": self.spec.samples}]

    def kept_texts(self, ask: Ask, payload: Mapping[str, Any]) -> list[str]:
        question = [] if self.spec.given_question else [payload["question"]]
        return [*question, *assistant_texts(payload["messages"])]

    async def run(self, ask: Ask, session: Session) -> dict[str, Any]:
        definitions = self.toolset.definitions
        names = [each["function"]["name"] for each in definitions]
        target = names[mix(ask.seed, TARGET) % len(names)]
        question = await self._question(ask, session, definitions, target)
        system = self._system.render(ask.fields)
        messages: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
        messages.append({"role": "user", "content": question})
        samples = [await self._sample(ask, session, messages, at) for at in range(self.spec.samples)]
        must_use = target if self.spec.must_match and not self.spec.given_question else None
        problems = [_problem(turn, results, must_use) for turn, results in samples]
        if all(problems):
            raise AskRefused(problems[0] or "")
        turn, results = samples[problems.index(None)]
        calls = [{"name": call.name, "arguments": arguments_of(call.arguments)} for call in turn.calls]
        calls_text = json.dumps(calls, ensure_ascii=False)
        answers = [result_message(call, result) for call, result in zip(turn.calls, results)]
        texts = [None if problem else _text(results) for problem, (_, results) in zip(problems, samples)]
        return {
            **({} if self.spec.given_question else {"tool": target}),
            **({"results": texts} if self.spec.samples > 1 else {}),
            "question": question,
            "messages": [*messages, turn.message(), *answers],
            "tools": tools_text(definitions),
            "calls": calls_text,
            "result": _text(results),
            "text": f"{question}\n\n{calls_text}",
        }

    async def _question(self, ask: Ask, session: Session, definitions: list[dict[str, Any]], target: str) -> str:
        if self.spec.given_question:
            return render(self._question_template, ask.fields)
        listed = "\n".join(json.dumps(each["function"], ensure_ascii=False) for each in definitions)
        fields = {**ask.fields, "tools": listed, "tool": target}
        if "topic" in self._prompts["question"].names:
            fields["topic"] = render(self._topic, ask.fields)
        return strip_label(full_text(await self.say(session, "question", fields), "question"), "request", "question")

    async def _sample(
        self, ask: Ask, session: Session, messages: list[dict[str, Any]], number: int
    ) -> tuple[Turn, list[ToolResult]]:
        """A turn with calls, and their results. An answer in JSON that cannot be read is a turn without calls."""
        tools, sampling = self.toolset.definitions, self.spec.sampling.get("call", {})
        if self.spec.calls == "json":
            try:
                text, calls, reply = await json_turn(session, messages, tools, "call", False, **sampling)
            except UnreadableTurn as error:
                text, calls, reply = error.reply.text.strip(), (), error.reply
        else:
            text, calls, reply = await native_turn(session, messages, tools, "call", **sampling)
        turn = Turn(text, calls_with_ids(calls, ask.seed, 1000 * number), reply)
        return turn, await self.answers(session, turn.calls, TrajectoryState())


def _problem(turn: Turn, results: list[ToolResult], target: str | None) -> str | None:
    """Why a turn makes no row."""
    if not turn.calls:
        return "cut_call" if turn.reply.finish == "length" else "no_call"
    failures = [result.failure for result in results if result.failure]
    if failures:
        return "failed_call" if failures[0] == "failed" else "wrong_call"
    return None if target is None or any(call.name == target for call in turn.calls) else "other_tool"


def _text(results: list[ToolResult]) -> str:
    return "\n".join(result.text for result in results)

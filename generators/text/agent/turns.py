"""A turn of a model that may call tools, in one of two ways.

"native": the chat template shows the tools, and the engine takes the calls out of the answer. "json": the system
message lists the tools, and every answer is a JSON object by a schema, either a call or the final answer; so any model
with structured output can be used, also one whose template knows no tools. The messages of a row are the same.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from gristmill.engines.contract import Reply, ToolCall
from gristmill.engines.errors import AskRefused
from gristmill.generators.text import contract
from gristmill.generators.text.answers import first_object
from gristmill.generators.text.contract import Session, Template, mix
from gristmill.generators.text.steps import object_of
from gristmill.records.schema import clean
from gristmill.records.templates import template_text
from gristmill.stages.tools.contract import ToolResult
from gristmill.stages.tools.toolset import UNNAMED, arguments_text
from gristmill.stages.trajectory.messages import Message, calls_of

Way = Literal["native", "json"]
ID_CHARS, ID_LENGTH = "0123456789abcdefghijklmnopqrstuvwxyz", 9  # some chat templates take ids of nine such characters
PROTOCOL = template_text(contract.__file__, "agent/json")
CALL_ONLY = template_text(contract.__file__, "tool_calls/json")


class UnreadableTurn(AskRefused):
    """An answer in JSON that is no turn, or that was cut off."""

    def __init__(self, reply: Reply) -> None:
        super().__init__("cut_turn" if reply.finish == "length" else "unreadable_turn")
        self.reply = reply


@dataclass(frozen=True)
class Turn:
    """What the model says: calls, or without any a final answer."""

    text: str
    calls: tuple[ToolCall, ...]
    reply: Reply

    def message(self) -> dict[str, Any]:
        """The turn as a message of the trajectory."""
        calls = [
            {
                "id": c.id,
                "type": "function",
                "function": {"name": c.name or UNNAMED, "arguments": arguments_text(c.arguments)},
            }
            for c in self.calls
        ]
        message: dict[str, Any] = {"role": "assistant", "content": self.text}
        if self.reply.reasoning:
            message["reasoning_content"] = clean(self.reply.reasoning)
        return {**message, **({"tool_calls": calls} if calls else {})}


def call_id(seed: int, number: int) -> str:
    """The id of call `number` of an ask: the same whatever engine answers."""
    draw = mix(seed, 1_000_000 + number)
    return "".join(ID_CHARS[draw // 36**at % 36] for at in range(ID_LENGTH))


def calls_with_ids(reply_calls: Sequence[ToolCall], seed: int, num_before: int) -> tuple[ToolCall, ...]:
    """The calls of a turn, with ids that follow from the seed; `num_before` calls came before them."""
    return tuple(
        ToolCall(call_id(seed, num_before + at), clean(call.name), call.arguments)
        for at, call in enumerate(reply_calls)
    )


def result_message(call: ToolCall, result: ToolResult) -> dict[str, Any]:
    """The answer to a call as a message."""
    return {"role": "tool", "content": result.text, "tool_call_id": call.id, "name": call.name or UNNAMED}


def assistant_texts(messages: Sequence[Message]) -> list[str]:
    """What the model wrote in each of its messages, calls included, as the column `turns` has it."""
    texts = []
    for message in messages:
        if message["role"] == "assistant":
            calls = [f"{name}({arguments})" for _, name, arguments in calls_of(message)]
            texts.append("\n".join([*([message["content"]] if message["content"] else []), *calls]))
    return texts


def tools_text(definitions: Sequence[Mapping[str, Any]]) -> str:
    """The tools as JSON text, the value of the column `tools`."""
    return json.dumps(list(definitions), ensure_ascii=False)


async def native_turn(
    session: Session,
    messages: Sequence[Message],
    tools: Sequence[Mapping[str, Any]],
    name: str,
    can_call: bool = True,
    **sampling: Any,
) -> tuple[str, tuple[ToolCall, ...], Reply]:
    """(text, calls, reply) of a turn whose calls the engine reads."""
    reply = await session.chat(list(messages), None, name, tools if can_call else (), **sampling)
    return reply.text.strip(), reply.tool_calls, reply


async def json_turn(
    session: Session,
    messages: Sequence[Message],
    tools: Sequence[Mapping[str, Any]],
    name: str,
    can_answer: bool = True,
    can_call: bool = True,
    **sampling: Any,
) -> tuple[str, tuple[ToolCall, ...], Reply]:
    """(text, calls, reply) of a turn in JSON. Raises UnreadableTurn."""
    prompt = _in_json(messages, tools, can_answer)
    reply = await session.chat(prompt, turn_schema(tools if can_call else (), can_answer), name, **sampling)
    turn = first_object(reply.text)
    if turn is None:
        raise UnreadableTurn(reply)
    if can_answer and isinstance(turn.get("answer"), str) and "tool" not in turn:
        return turn["answer"].strip(), (), reply
    tool, arguments = turn.get("tool"), turn.get("arguments", {})
    if not isinstance(tool, str):
        raise UnreadableTurn(reply)
    return "", (ToolCall("", tool, json.dumps(arguments, ensure_ascii=False)),), reply


def turn_schema(tools: Sequence[Mapping[str, Any]], can_answer: bool) -> dict[str, Any]:
    """The JSON schema of a turn: a call of one of the tools, or a final answer."""
    functions = [tool["function"] for tool in tools]
    calls = [object_of(tool={"const": f["name"]}, arguments=f["parameters"]) for f in functions]
    answer = [object_of(answer={"type": "string", "minLength": 1})] if can_answer else []
    shapes = [*calls, *answer]
    return {"anyOf": shapes} if len(shapes) > 1 else shapes[0]


def _in_json(messages: Sequence[Message], tools: Sequence[Mapping[str, Any]], can_answer: bool) -> list[dict[str, Any]]:
    """The messages for a model that calls tools by JSON: calls are its answers, and results are the user's messages."""
    listed = "\n".join(json.dumps(tool["function"], ensure_ascii=False) for tool in tools)
    protocol = Template(PROTOCOL if can_answer else CALL_ONLY).render({"tools": listed})
    system = [m["content"] for m in messages if m["role"] == "system"]
    prompt: list[dict[str, Any]] = [{"role": "system", "content": "\n\n".join([*system, protocol])}]
    for message in messages:
        if message["role"] == "system":
            continue
        role, content = message["role"], message["content"]
        if message.get("tool_calls"):
            function = message["tool_calls"][0]["function"]
            arguments = json.loads(function["arguments"])
            content = json.dumps({"tool": function["name"], "arguments": arguments}, ensure_ascii=False)
        elif role == "assistant":
            content = json.dumps({"answer": content}, ensure_ascii=False)
        elif role == "tool":
            role, content = "user", f"Result of {message['name']}:\n{content}"
        prompt.append({"role": role, "content": content})
    return prompt

"""Tool calls in the text of an answer: vLLM's parsers take them out, by the format that a model was trained on."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from gristmill.engines.contract import Reply, ToolCall
from gristmill.records.errors import UserError
from gristmill.records.spec import nearest

Tools = Sequence[Mapping[str, Any]]  # functions in the chat format
Render = Callable[[list[dict[str, Any]], Tools], str]  # a chat with tools as the text that the model reads
MARK = "shown_to_the_model"
MARKED = {"name": MARK, "description": "", "parameters": {"type": "object", "properties": {}}}
OPEN, CLOSE = "<tool_call>", "</tool_call>"  # around the JSON of a call, in the format of Hermes
UNREADABLE = ""  # name of a call that cannot be read; its arguments are the text


def with_objects(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The messages with the arguments of calls as objects, as chat templates read them."""
    return [{**m, "tool_calls": [_with_object(c) for c in m["tool_calls"]]} if m.get("tool_calls") else dict(m)
            for m in messages]  # fmt: skip


def _with_object(call: Mapping[str, Any]) -> dict[str, Any]:
    function = call["function"]
    if isinstance(function["arguments"], str):
        function = {**function, "arguments": json.loads(function["arguments"])}
    return {**call, "function": function}


def check_parser(name: str) -> None:
    """Raise UserError when vLLM has no parser of this name."""
    from vllm.tool_parsers import ToolParserManager

    names = ToolParserManager.list_registered()
    if name not in names:
        raise UserError(f"tool_parser: vLLM has no parser '{name}'{nearest(name, names)}")


class ToolParser:
    """A parser of vLLM for one tokenizer. It keeps nothing between answers."""

    def __init__(self, name: str, tokenizer: Any, render: Render) -> None:
        """Raises UserError when there is no such parser, when it does not fit the tokenizer, or when the chat template
        does not show tools to the model."""
        check_parser(name)
        from vllm.tool_parsers import ToolParserManager

        self._class = ToolParserManager.get_tool_parser(name)
        self._tokenizer = tokenizer
        try:
            self._class(tokenizer)
        except Exception as error:  # noqa: BLE001 - parsers look for tokens of their models
            raise UserError(f"tool_parser '{name}' does not fit the model: {error}") from None
        try:
            text = render([{"role": "user", "content": "ready?"}], [{"type": "function", "function": MARKED}])
        except Exception as error:  # noqa: BLE001 - a template is a program and can fail in any way
            raise UserError(f"model: its chat template fails with tools: {error}") from None
        if MARK not in text:
            raise UserError(
                "model: its chat template does not show tools to the model; give a chat_template that does, or let the "
                'method write calls as JSON (calls = "json")'
            )

    def _request(self, tools: Tools) -> Any:
        from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest

        return ChatCompletionRequest(messages=[], model="", tools=[dict(tool) for tool in tools], tool_choice="auto")

    def sampling(self, sampling: Mapping[str, Any], tools: Tools) -> Mapping[str, Any]:
        """The sampling settings with which the parser sees calls: some models mark them by special tokens."""
        request = self._request(tools)
        parser = self._class(self._tokenizer, request.tools)
        adjusted = parser.adjust_request(request)
        return sampling if adjusted.skip_special_tokens else {**sampling, "skip_special_tokens": False}

    def parted(self, reply: Reply, tools: Tools) -> Reply:
        """The reply with its calls apart from its text."""
        text, calls = self.part(reply.text, tools)
        finish = "tool_calls" if calls and reply.finish == "stop" else reply.finish
        return replace(reply, text=text, tool_calls=calls, finish=finish)

    def part(self, text: str, tools: Tools) -> tuple[str, tuple[ToolCall, ...]]:
        """(the text without calls, the calls).

        Text with the mark of a call that the parser cannot read is a call without a name (UNREADABLE).
        """
        request = self._request(tools)
        parser = self._class(self._tokenizer, request.tools)
        try:
            answer = parser.extract_tool_calls(text, request)
        except Exception:  # noqa: BLE001 - a parser meets text of any form
            return text, (ToolCall("call_0", UNREADABLE, text),)
        if answer.tools_called:
            calls = [
                ToolCall(f"call_{number}", call.function.name, call.function.arguments)
                for number, call in enumerate(answer.tool_calls)
            ]
            return (answer.content or "").strip(), tuple(calls)
        mark = getattr(parser, "tool_call_start_token", None)
        if isinstance(mark, str) and mark.strip() and mark in text:
            before, _, call = text.partition(mark)
            return before.strip(), (ToolCall("call_0", UNREADABLE, call),)
        return text, ()


def hermes_calls(text: str) -> tuple[str, tuple[ToolCall, ...]]:
    """(the text before calls in the format of Hermes, the calls), without vLLM: for scripted answers."""
    before, *parts = text.split(OPEN)
    calls = []
    for number, part in enumerate(parts):
        body = part.partition(CLOSE)[0].strip()
        try:
            call = json.loads(body)
            name, arguments = call["name"], call.get("arguments", {})
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            name, arguments = UNREADABLE, body
        written = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
        calls.append(ToolCall(f"call_{number}", name if isinstance(name, str) else UNREADABLE, written))
    return before.strip() if calls else text, tuple(calls)

"""The body of a request: OpenAI's parameters in their place, and what a server does not have left out or renamed."""

import json
from collections.abc import Mapping
from typing import Any

from gristmill.engines.contract import NUM_CANDIDATES, AnswerForm, Messages
from gristmill.engines.endpoint.settings import EndpointSettings
from gristmill.engines.endpoint.structure import DIALECTS, Dialect, response_format

CHAT_PATH, TEXT_PATH = "/chat/completions", "/completions"
# Parameters of OpenAI. Others, such as top_k, are of vLLM, SGLang and their like; all are fields of one JSON object.


class RequestWriter:
    """Writes the bodies of the requests to one endpoint, and learns which parameters its server lacks."""

    # Parameters that a request can do without or has under another name.
    adaptable = ("seed", "max_tokens", "top_logprobs", "logprobs")

    def __init__(self, spec: EndpointSettings) -> None:
        self.spec = spec
        self.path = CHAT_PATH if spec.chat else TEXT_PATH
        self.dialect: Dialect = DIALECTS[0]
        self.notes: list[str] = []  # what a user should know of the server
        self._sends_seed = True
        self._tokens_key = "max_tokens"
        self._num_candidates = NUM_CANDIDATES if spec.chat else 5

    def body(self, prompt: Messages, sampling: Mapping[str, Any], seed: int, form: AnswerForm) -> dict[str, Any]:
        """The body of the request of a call."""
        body: dict[str, Any] = {"model": self.spec.model, **self.spec.extra_body, **sampling}
        if "max_tokens" in body and self._tokens_key != "max_tokens":
            body[self._tokens_key] = body.pop("max_tokens")
        if self._sends_seed:
            body["seed"] = seed
        if self.spec.chat:
            body["messages"] = messages_of(prompt)
        else:
            body["prompt"] = prompt if isinstance(prompt, str) else "\n\n".join(m.get("content") or "" for m in prompt)
        if form.json_schema:
            body["response_format"] = response_format(form.json_schema)
        elif form.is_structured:
            body |= self.dialect(form)
        if form.tools:
            body["tools"] = [dict(tool) for tool in form.tools]
        if form.logprobs:
            chat_keys = {"logprobs": True, "top_logprobs": self._num_candidates}
            body |= chat_keys if self.spec.chat else {"logprobs": self._num_candidates}
        return body

    def adapt(self, parameter: str) -> bool:
        """Send no more a parameter that the server lacks; False when it is needed or has been left out already."""
        if parameter == "seed" and self._sends_seed:
            self._sends_seed = False
            self.notes.append("it takes no seed: the same ask gets another answer each time")
            return True
        if parameter == "max_tokens" and self._tokens_key == "max_tokens" and self.spec.chat:
            self._tokens_key = "max_completion_tokens"
            return True
        if parameter in ("top_logprobs", "logprobs") and self._num_candidates > 5:
            self._num_candidates = 5  # some servers give no more
            return True
        return False


def messages_of(prompt: Messages) -> list[dict[str, Any]]:
    """The messages of a chat in OpenAI's form, where the arguments of tool calls are JSON text."""
    if isinstance(prompt, str):
        return [{"role": "user", "content": prompt}]
    return [_message(message) for message in prompt]


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    if not message.get("tool_calls"):
        return dict(message)
    calls = []
    for call in message["tool_calls"]:
        function = dict(call["function"])
        if not isinstance(function.get("arguments"), str):
            function["arguments"] = json.dumps(function.get("arguments") or {}, ensure_ascii=False)
        calls.append({**call, "type": "function", "function": function})
    return {**message, "tool_calls": calls}


def num_chars(prompt: Messages) -> int:
    """Characters of a prompt, about."""
    return len(prompt) if isinstance(prompt, str) else sum(len(m.get("content") or "") + 16 for m in prompt)

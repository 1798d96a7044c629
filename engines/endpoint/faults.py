"""What a failed call means: the ask is refused, the run must stop, or the call is sent again."""

import json
import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Literal

from gristmill.records.errors import UserError
from gristmill.records.masking.masks import masked_text
from gristmill.records.printable import printable_line

# "ask": only this call is refused. "run": every call will be. "parameter": the server lacks a parameter of the request.
# "busy": the server has too much to do, or is not there. "broken": no answer, and the call itself may be the reason.
Kind = Literal["ask", "run", "parameter", "busy", "broken"]

MAX_CHARS = 200  # of a server's message
MAX_RETRY_AFTER_S = 600.0


class EndpointDown(UserError):
    """The endpoint gives no answer, or refuses all: the run stops, and the same command resumes it."""


@dataclass(frozen=True)
class Rule:
    """Applies to a response with one of `statuses` (all if empty) and a body that matches `pattern` (any if empty)."""

    kind: Kind
    reason: str  # of the reject, or what is wrong, in words
    statuses: frozenset[int] = frozenset()
    pattern: str = ""

    def applies(self, status: int, body: str) -> bool:
        if self.statuses and status not in self.statuses:
            return False
        return not self.pattern or re.search(self.pattern, body, re.IGNORECASE) is not None


NO_MODEL, NO_PATH = "it has no such model", "it has no such path"
REFUSALS = frozenset({400, 403, 409, 413, 422})
# The first that applies. The patterns are words of OpenAI, Azure, Anthropic, Google, OpenRouter, vLLM and SGLang.
RULES = (
    Rule(
        "run",
        "no quota is left",
        frozenset({400, 402, 403, 429}),
        r"insufficient_quota|exceeded your current quota|billing_(hard_limit|not_active)|credit balance|"
        r"insufficient (credit|balance|fund)|payment required",
    ),
    Rule("run", "no quota is left", frozenset({402})),
    Rule(
        "ask",
        "content_filter",
        REFUSALS | {451},
        r"content_?filter|content[_ ]policy|ResponsibleAIPolicy|moderation|flagged|safety (system|filter)",
    ),
    Rule(
        "ask",
        "context_length",
        REFUSALS,
        r"context_length|context (length|window|size)|maximum (input|model|context) (length|tokens)|max_model_len|"
        r"(prompt|input|request|messages?) (is|are) too (long|large)|too many (input )?tokens|longer than the model|"
        r"reduce the length|string_above_max_length",
    ),
    Rule("ask", "context_length", frozenset({413})),
    Rule("run", "the key is not accepted", frozenset({401})),
    Rule("run", "the key is not accepted", frozenset({400, 403}), r"invalid_?\s?api_?\s?key|api key not valid"),
    Rule("run", "access is refused", frozenset({403})),
    Rule(
        "run",
        NO_MODEL,
        frozenset({400, 404, 422}),
        r"model_not_found|(unknown|invalid|no such) model|model\W.{0,80}(not found|does not exist|not available)|"
        r"not a valid model",
    ),
    Rule("run", NO_PATH, frozenset({404, 405, 410, 501})),
    Rule("ask", "engine_refused", REFUSALS),
    Rule("busy", "too many calls", frozenset({408, 425, 429})),
    Rule("busy", "overloaded", frozenset({503, 529})),
    Rule("broken", "server error", frozenset(range(500, 600))),
    Rule("run", "unexpected response"),
)

# Words of a refused request that mean that the server lacks the parameter, not that its value is wrong.
LACKING = r"unsupported|unrecognized|unknown|unexpected|not (supported|permitted|allowed)|extra (inputs|fields)|invalid"


class Fault(Exception):
    """A call without an answer. `detail` is one line without secrets."""

    def __init__(
        self, kind: Kind, reason: str, detail: str = "", retry_after_s: float = 0.0, parameter: str = ""
    ) -> None:
        super().__init__(kind, reason, detail)
        self.kind, self.reason, self.detail = kind, reason, detail
        self.retry_after_s, self.parameter = retry_after_s, parameter

    @property
    def words(self) -> str:
        return f"{self.reason}: {self.detail}" if self.detail else self.reason

    @property
    def is_absence(self) -> bool:
        """Whether the server lacks the model or the path."""
        return self.reason in (NO_MODEL, NO_PATH)

    @property
    def weight(self) -> int:
        """How much it counts against a call: a lost time-out costs more than an error."""
        return 0 if self.kind in ("busy", "run") else 2 if self.reason == "time-out" else 1


def response_fault(status: int, body: Any, headers: Mapping[str, str], parameters: tuple[str, ...] = ()) -> Fault:
    """The fault of a response with an error. `parameters`: those that a request can do without, or name otherwise."""
    text = body if isinstance(body, str) else json.dumps(body, ensure_ascii=False, default=str)
    detail = f"HTTP {status}: {message_of(body)}"
    if status in (400, 422) and re.search(LACKING, text, re.IGNORECASE):
        stated = _field(body, "param")
        for name in parameters:
            if stated == name or (stated is None and re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text)):
                return Fault("parameter", "engine_refused", detail, parameter=name)
    rule = next(rule for rule in RULES if rule.applies(status, text))
    return Fault(rule.kind, rule.reason, detail, retry_after(headers))


def message_of(body: Any) -> str:
    """The message of an error in one line, without secrets."""
    message = _field(body, "message") or _field(body, "detail") or body
    text = message if isinstance(message, str) else json.dumps(message, ensure_ascii=False, default=str)
    if re.match(r"\s*(<!doctype|<html)", text, re.IGNORECASE):
        title = re.search(r"<title>(.*?)</title>", text, re.IGNORECASE | re.DOTALL)
        text = f"an HTML page{f' ({title[1].strip()})' if title else ''}"
    return clean_line(text)


def clean_line(text: str) -> str:
    text = printable_line(masked_text(" ".join(text.split())))
    return text if len(text) <= MAX_CHARS else f"{text[: MAX_CHARS - 3]}..."


def _field(body: Any, name: str) -> Any:
    """A field of an error in one of its usual places: {"error": {...}}, {"error": "..."} or {...}."""
    if not isinstance(body, Mapping):
        return None
    error = body.get("error")
    if isinstance(error, Mapping) and error.get(name) is not None:
        return error[name]
    if isinstance(error, str) and name == "message":
        return error
    return body.get(name)


def retry_after(headers: Mapping[str, str]) -> float:
    """Seconds that a server asks to wait; 0 where it does not say."""
    for name, scale in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        value = headers.get(name)
        if value is None:
            continue
        try:
            seconds = float(value) * scale
        except ValueError:
            try:
                seconds = parsedate_to_datetime(value).timestamp() - time.time()
            except (TypeError, ValueError):
                continue
        if math.isfinite(seconds):
            return min(max(0.0, seconds), MAX_RETRY_AFTER_S)
    return 0.0

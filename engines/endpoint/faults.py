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
MAX_MATCHED = 4000  # characters of it that are compared with words
QUOTES = ("input", "ctx", "url")  # keys of an error of pydantic that quote the request or say nothing
# The same in its text form, which vLLM sends.
INPUT_QUOTE = r"""['"]input['"]\s*:.*?(?=['"](?:ctx|url)['"]\s*:|\}\s*,\s*\{\s*['"]type['"]|$)"""
MAX_RETRY_AFTER_S = 600.0


class EndpointDown(UserError):
    """The endpoint gives no answer, or refuses all: the run stops, and the same command resumes it."""


@dataclass(frozen=True)
class Rule:
    """Applies to a response by its status, and by a pattern in its message or among its codes.

    `statuses`: all if empty. `pattern`: words of the message. `codes`: words of its code, type, status or reason, which
    are more certain than a message. With neither the status decides alone.
    """

    kind: Kind
    reason: str  # of the reject, or what is wrong, in words
    statuses: frozenset[int] = frozenset()
    pattern: str = ""
    codes: str = ""

    def applies(self, status: int, message: str, codes: str) -> bool:
        if self.statuses and status not in self.statuses:
            return False
        if not self.pattern and not self.codes:
            return True
        return _has(self.codes, codes) or _has(self.pattern, message)


def _has(pattern: str, text: str) -> bool:
    return bool(pattern) and re.search(pattern, text, re.IGNORECASE) is not None


NO_MODEL, NO_PATH = "it has no such model", "it has no such path"
REFUSALS = frozenset({400, 403, 409, 413, 422})
NO_QUOTA = r"insufficient_(quota|balance|credit|fund)|exceeded_current_quota|billing_|payment_required"
# The first that applies. The words are those of OpenAI, Azure, Anthropic, Google, OpenRouter, vLLM, SGLang and TGI.
RULES = (
    # Many servers say "quota" of a limit for each minute: there only a code tells that nothing is left.
    Rule("run", "no quota is left", frozenset({429}), codes=NO_QUOTA),
    Rule(
        "run",
        "no quota is left",
        frozenset({400, 403}),
        r"exceeded your current quota|credit balance|insufficient (credit|balance|fund)|payment required",
        NO_QUOTA,
    ),
    Rule("run", "no quota is left", frozenset({402})),
    Rule(
        "ask",
        "content_filter",
        REFUSALS | {451},
        r"content_?filter|content[_ ]policy|ResponsibleAIPolicy|moderation|flagged|safety (system|filter)",
        r"content_?filter|content_policy|ResponsibleAIPolicy|moderation",
    ),
    Rule(
        "ask",
        "context_length",
        REFUSALS,
        r"context_length|context (length|window|size)|maximum (input|model|context) (length|tokens)|max_model_len|"
        r"(prompt|input|request|messages?) (is|are) too (long|large)|too many (input )?tokens|longer than the model|"
        r"reduce the length|maximum number of tokens|must have less than \d+ tokens|tokens.{0,3}\+ .?max_new_tokens",
        r"context_length|string_above_max_length|request_too_large",
    ),
    Rule("ask", "context_length", frozenset({413})),
    Rule("run", "the key is not accepted", frozenset({401})),
    Rule(
        "run",
        "the key is not accepted",
        frozenset({400, 403}),
        r"invalid\s?api\s?key|api key not valid",
        r"invalid_?api_?key|api_key_invalid|authentication_error|unauthenticated",
    ),
    Rule("run", "access is refused", frozenset({403}), codes=r"permission_(error|denied)|access_?denied"),
    Rule("run", "access is refused", frozenset({403})),
    Rule(
        "run",
        NO_MODEL,
        frozenset({400, 404, 422}),
        r"(unknown|invalid|no such) model|models?\W.{0,80}(not found|does not exist|not available)|"
        r"not a valid model|^model: ",
        r"model_not_found|modelnotfound|deploymentnotfound",
    ),
    Rule("run", NO_PATH, frozenset({404, 405, 410, 501})),
    Rule("ask", "engine_refused", REFUSALS),
    Rule("busy", "too many calls", frozenset({408, 425, 429})),
    Rule("busy", "overloaded", frozenset({503, 529})),
    Rule("broken", "server error", frozenset({424, *range(500, 600)})),  # 424: of TGI, for a failed generation
    Rule("run", "unexpected response"),
)
STATUSES_OF_ALL = frozenset({401, 402, 404, 405, 410, 501})  # what has one of these concerns every call

# Words of a refused request that mean that the server lacks the parameter, not that its value is wrong.
LACK_WORDS = (
    r"unsupported|unrecognized|unknown|unexpected|not (supported|permitted|allowed)|extra (inputs|fields)|extra_forbid"
)
# The message speaks of a parameter, not of a text that has its name in it.
PARAMETER_MENTION = (
    r"(parameters?|arguments?|fields?|keys?|property|properties|inputs?|name)\b[^.'\"`]{0,30}[ '\"`]NAME(?!\w)|"
    r"(?<![\w. ])['\"`]?NAME['\"`]?(:| is| are)? ?(not |un|extra |cannot )|"
    r"(un|not )support(ed)? (the )?['\"`]?NAME(?!\w)|body['\"]?(, ?|\.| -> )['\"]?NAME(?!\w)"
)
# Of these a server may allow fewer.
COUNTS = ("top_logprobs", "logprobs")
TOO_MANY = r"maximum|greater than|less than|<=|at most|between|exceed|allowed|range"
OTHER_NAME = {"max_tokens": "max_completion_tokens"}  # a parameter that is renamed only where the message says so


class Fault(Exception):
    """A call without an answer. `detail` is one line without secrets."""

    def __init__(
        self,
        kind: Kind,
        reason: str,
        detail: str = "",
        retry_after_s: float = 0.0,
        parameter: str = "",
        is_certain: bool = True,
        cost: float = 0.0,
    ) -> None:
        """`is_certain`: whether a code or a status says so, not only the words of a message.

        `cost`: money paid for the call, in the currency of the run.
        """
        super().__init__(kind, reason, detail)
        self.kind, self.reason, self.detail = kind, reason, detail
        self.retry_after_s, self.parameter = retry_after_s, parameter
        self.is_certain, self.cost = is_certain, cost

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
        return 0 if self.kind == "busy" else 2 if self.reason == "time-out" else 1


def response_fault(status: int, body: Any, headers: Mapping[str, str], parameters: tuple[str, ...] = ()) -> Fault:
    """The fault of a response with an error. `parameters`: those that a request can do without, or name otherwise."""
    body = body[0] if isinstance(body, list) and body else body  # Google sends a list
    message, codes, detail = message_text(body)[:MAX_MATCHED], _codes(body), f"HTTP {status}: {message_of(body)}"
    rule = next(rule for rule in RULES if rule.applies(status, message, codes))
    if status in (400, 422) and rule.reason not in ("content_filter", "context_length", "no quota is left"):
        stated_name = _field(body, "param")
        for name in parameters:
            if stated_name in (None, "", name) and _is_lacking(name, message, name == stated_name):
                return Fault("parameter", "engine_refused", detail, parameter=name)
    wait_s = retry_after(headers)
    if rule.reason == "no quota is left" and status == 429 and wait_s:
        rule = Rule("busy", "too many calls")
    is_certain = status in STATUSES_OF_ALL or _has(rule.codes, codes)
    return Fault(rule.kind, rule.reason, detail, wait_s, is_certain=is_certain)


def _is_lacking(name: str, message: str, is_stated: bool) -> bool:
    """Whether a message says that the server lacks a parameter, or allows less of it. `is_stated`: it is about it."""
    if not is_stated and not _has(PARAMETER_MENTION.replace("NAME", re.escape(name)), message):
        return name in COUNTS and _has(r"\blogprobs?\b", message) and _has(r"greater than|max(imum)? allowed", message)
    if name in COUNTS and _has(TOO_MANY, message):
        return True
    return _has(LACK_WORDS, message) and OTHER_NAME.get(name, "") in message


def _codes(body: Any) -> str:
    """What an error states beside its message, in one text."""
    details = _field(body, "details")
    inner = _field(body, "innererror")
    places = [body, *(details if isinstance(details, list) else ()), inner]
    names = ("code", "type", "status", "reason", "error_type")
    return " ".join(str(value) for place in places for name in names if (value := _field(place, name)) is not None)


def message_text(body: Any) -> str:
    """The message of an error: what the server says, not what it quotes of the request."""
    message = _field(body, "message") or _field(body, "detail") or body
    if isinstance(message, list):  # of FastAPI, one entry for each fault
        message = [
            {key: value for key, value in entry.items() if key not in QUOTES} if isinstance(entry, Mapping) else entry
            for entry in message
        ]
    text = message if isinstance(message, str) else json.dumps(message, ensure_ascii=False, default=str)
    if re.match(r"\s*(<!doctype|<html)", text, re.IGNORECASE):
        title = re.search(r"<title>([^<]{0,200})</title>", text, re.IGNORECASE)
        text = f"an HTML page{f' ({title[1].strip()})' if title else ''}"
    return re.sub(INPUT_QUOTE, "", text, flags=re.DOTALL)


def message_of(body: Any) -> str:
    """The message of an error in one line, without secrets."""
    return clean_line(message_text(body))


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

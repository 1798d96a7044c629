"""Reads the JSON of an answer. Whatever is missing or misshapen in it is a fault, and the call is sent again."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from gristmill.engines.contract import Logprobs, Reply, ToolCall
from gristmill.engines.endpoint.faults import Fault, clean_line, message_of, response_fault
from gristmill.engines.endpoint.settings import EndpointSettings
from gristmill.engines.logprobs import logprobs_of

CHARS_PER_TOKEN = 4  # of English text, where a server states no usage


def read_answer(data: Any, spec: EndpointSettings, prompt_chars: int, wants_logprobs: bool = False) -> Reply:
    """The reply in the JSON of a response. Raises Fault for any other JSON."""
    if not isinstance(data, Mapping):
        raise Fault("broken", "malformed answer", f"no JSON object but {message_of(data)}")
    if data.get("error"):
        # Some routers answer 200 and put the error of the provider into the body.
        code = data["error"].get("code") if isinstance(data["error"], Mapping) else None
        raise response_fault(code if isinstance(code, int) and 400 <= code < 600 else 502, data, {})
    try:
        choice = data["choices"][0]
        content = choice["message"] if spec.chat else choice
        finish = choice.get("finish_reason") or "stop"
        text = content.get("content" if spec.chat else "text")
        calls = tuple(_tool_call(call) for call in content.get("tool_calls") or ())
        reasoning = content.get("reasoning_content") or content.get("reasoning")
        refusal = content.get("refusal")
        logprobs = choice.get("logprobs") if wants_logprobs else None
        places = read_logprobs(logprobs, spec.chat) if logprobs else None
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        words = f"{type(error).__name__}: {message_of(data)}"
        raise Fault("broken", "malformed answer", words, cost=stated_cost(data, spec)) from None
    if not isinstance(text, str | None) or not isinstance(reasoning, str | None) or not isinstance(finish, str):
        raise Fault("broken", "malformed answer", "its text is no text", cost=stated_cost(data, spec))
    tokens_in, tokens_cached, tokens_out, tokens_reasoning = read_usage(data, prompt_chars, text or "", reasoning or "")
    num_answer = tokens_out - tokens_reasoning
    if reasoning and text and spec.chat and logprobs and places and len(places[0]) == tokens_out:
        # The logprobs are those of all tokens: which of them spell the answer is known.
        num_answer = num_spelling(text, [str(token.get("token") or "") for token in logprobs["content"]]) or num_answer
        tokens_reasoning = tokens_out - num_answer
    cost = spec.cost(tokens_in, tokens_cached, tokens_out)
    if finish == "error":
        words = "the server stopped in the middle of the answer"
        raise Fault("broken", "server error", words, cost=stated_cost(data, spec))
    if finish == "content_filter" and not text:
        raise Fault("ask", "content_filter", "the endpoint withholds the answer", cost=cost)
    if refusal and not text:
        raise Fault("ask", "model_refused", clean_line(str(refusal)), cost=cost)
    return Reply(
        text or "",
        finish,
        tokens_in,
        tokens_out,
        reasoning,
        tokens_reasoning,
        calls,
        answer_logprobs(places, num_answer if reasoning else len(places[0])) if places else None,
        tokens_cached,
        cost,
    )


def stated_cost(data: Any, spec: EndpointSettings) -> float:
    """The price of an answer that is of no use, by the usage that it states; 0 where it states none."""
    tokens_in, tokens_cached, tokens_out, _ = read_usage(data if isinstance(data, Mapping) else {}, 0, "", "")
    return spec.cost(tokens_in, tokens_cached, tokens_out)


def _tool_call(call: Mapping[str, Any]) -> ToolCall:
    function = call["function"]
    return ToolCall(str(call.get("id") or ""), str(function["name"]), str(function.get("arguments") or ""))


def read_usage(data: Mapping[str, Any], prompt_chars: int, text: str, reasoning: str) -> tuple[int, int, int, int]:
    """(tokens in, of these from a cache, tokens out, of these reasoning); estimates where they are not stated."""
    usage = data.get("usage")
    usage = usage if isinstance(usage, Mapping) else {}
    num_chars = len(text) + len(reasoning)
    tokens_in = _count(usage, "prompt_tokens", -(-prompt_chars // CHARS_PER_TOKEN))
    tokens_out = _count(usage, "completion_tokens", -(-num_chars // CHARS_PER_TOKEN))
    cached = min(_count(usage.get("prompt_tokens_details"), "cached_tokens", 0), tokens_in)
    share = round(tokens_out * len(reasoning) / num_chars) if num_chars else 0
    # Servers that part the reasoning without counting it state 0.
    thought = min(_count(usage.get("completion_tokens_details"), "reasoning_tokens", share) or share, tokens_out)
    return tokens_in, cached, tokens_out, thought


def _count(counts: Any, name: str, default: int) -> int:
    value = counts.get(name) if isinstance(counts, Mapping) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else default


def read_logprobs(logprobs: Mapping[str, Any], is_chat: bool) -> tuple[list[float], list[list[float]]]:
    """The logprobs of the tokens, and those of the candidates at the place of each."""
    if is_chat:
        tokens = logprobs.get("content") or []
        chosen = [float(token["logprob"]) for token in tokens]
        return chosen, [[float(c["logprob"]) for c in token.get("top_logprobs") or ()] for token in tokens]
    pairs = zip(logprobs.get("token_logprobs") or (), logprobs.get("top_logprobs") or itertools.repeat(None))
    places = [(float(value), [float(v) for v in (top or {}).values()]) for value, top in pairs if value is not None]
    return [chosen for chosen, _ in places], [top for _, top in places]


def num_spelling(text: str, tokens: Sequence[str]) -> int:
    """The number of last tokens that spell a text; 0 if they do not."""
    spelled = ""
    for number, token in enumerate(reversed(tokens), 1):
        spelled = token + spelled
        if text.strip() in spelled:
            return number
    return 0


def answer_logprobs(places: tuple[list[float], list[list[float]]], num_answer: int) -> Logprobs | None:
    """The logprobs of the answer, the last `num_answer` tokens: some servers state those of the reasoning too."""
    tokens, candidates = places[0][-num_answer:], places[1][-num_answer:]
    if not num_answer:
        return None
    return logprobs_of(tokens, [place for place in candidates if place])

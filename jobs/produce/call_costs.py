"""The cost of the calls of a run before they are made: from rows of its output, else a bound from the recipe."""

import asyncio
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gristmill.engines.contract import FREE_TEXT, AnswerForm, Messages, Reply
from gristmill.engines.errors import AskRefused
from gristmill.generators.contract import Generator, fields_of
from gristmill.generators.text.contract import Ask, Session
from gristmill.jobs.recipes.checks import has_price, service_of
from gristmill.jobs.recipes.compile import CompiledRecipe
from gristmill.records.output.summary import Summary
from gristmill.records.pairs import OTHER, OTHER_ID
from gristmill.stages.contract import Stage
from gristmill.stages.judging.judge import Judge

NUM_ROWS = 32  # of the source, whose prompts are measured
CHARS_PER_TOKEN = 4  # of English; the tokenizer of an endpoint is not known here
MAX_TOKENS = 1024  # where the sampling states none


@dataclass(frozen=True)
class CallCost:
    """The cost of the calls for an ask, those of the stages included, in cluster.currency."""

    per_ask: float
    is_bound: bool  # whether it is an upper bound: no row of this output has been made yet
    basis: str  # where it comes from


def call_cost(compiled: CompiledRecipe, totals: Summary) -> CallCost | None:
    """The cost of an ask; None where no part of the recipe has a price of calls."""
    if not any(has_price(part) for part in compiled.paid_parts):
        return None
    if totals.asks:
        return CallCost(totals.paid / totals.asks, False, f"{totals.asks:,} rows of this output")
    generators = compiled.generator.parts
    division = compiled.plan.division
    weights = division.weights if division else [1.0]
    bounds = [
        weight * _price(part, *_generator_tokens(compiled, part))
        for part, weight in zip(generators, weights)
        if has_price(part)
    ]
    # With a column of the source, all asks may be those of the dearest.
    bound = max(bounds, default=0.0) if division and division.column else sum(bounds)
    text_tokens = max(_answer_tokens(compiled, part) for part in generators)
    for judge in filter(has_price, compiled.stages):
        if isinstance(judge, Judge):
            bound += _price(judge, *_judge_tokens(judge, text_tokens))
    basis = f"max_tokens, and prompts of the first rows at {CHARS_PER_TOKEN} characters a token"
    return CallCost(bound, True, basis)


def _price(part: Generator | Stage, tokens_in: float, tokens_out: float) -> float:
    """The cost of so many tokens without a cache."""
    price_in, price_out = (getattr(service_of(part), name, 0.0) for name in ("price_in", "price_out"))
    return float(tokens_in * price_in + tokens_out * price_out) / 1e6


def _max_tokens(part: Any) -> int:
    return int(getattr(part, "sampling", {}).get("max_tokens") or MAX_TOKENS)


def _answer_tokens(compiled: CompiledRecipe, part: Generator) -> float:
    """The most tokens that an ask writes; for a generator without a method, those of a row of the source."""
    if compiled.method is None or part.method is None:
        return _mean([len(text) for text in _texts(compiled)]) / CHARS_PER_TOKEN
    max_tokens = _max_tokens(part)
    return float(compiled.method.most_tokens(max_tokens) or max_tokens)


def _generator_tokens(compiled: CompiledRecipe, part: Generator) -> tuple[float, float]:
    """(tokens in, tokens out) of an ask, both at most. The prompt of a later call may hold all answers before it."""
    max_tokens, most = _max_tokens(part), _answer_tokens(compiled, part)
    probes = [_first_calls(compiled, part, text) for text in _texts(compiled)]
    num_calls = max([math.ceil(most / max_tokens), *(probe.num_calls for probe in probes)])
    prompt = _mean([probe.num_chars / probe.num_calls for probe in probes if probe.num_calls]) / CHARS_PER_TOKEN
    answers_in_prompts = max_tokens * num_calls * (num_calls - 1) / 2
    return num_calls * prompt + answers_in_prompts, max(most, num_calls * max_tokens)


def _judge_tokens(judge: Judge, text_tokens: float) -> tuple[float, float]:
    """(tokens in, tokens out) of a row whose texts have so many tokens each; as many steps as are judged."""
    num_steps = judge.spec.max_steps if judge.spec.mode == "steps" else 1
    step = "x" * max(1, math.ceil(text_tokens * CHARS_PER_TOKEN / num_steps))
    calls = judge.mode.calls(dict.fromkeys(judge.reads(), "\n\n".join([step] * num_steps)))
    chars = sum(len(call.prompt) for call in calls)
    return chars / CHARS_PER_TOKEN, float(len(calls) * _max_tokens(judge))


def _texts(compiled: CompiledRecipe) -> list[str]:
    """The asks of the first rows of the source, as JSON texts. A row stands for its own partner: both are as long."""
    rows = compiled.source.rows(0, min(compiled.source.num_rows, NUM_ROWS))
    if compiled.recipe.pairs is None:
        return [text for _, text in rows]
    asks = [(row_id, fields) for row_id, text in rows if (fields := fields_of(text)) is not None]
    return [json.dumps({**fields, OTHER: fields, OTHER_ID: row_id}) for row_id, fields in asks]


def _mean(numbers: list[float]) -> float:
    return sum(numbers) / len(numbers) if numbers else 0.0


class Probe:
    """An engine that counts the first calls of an ask and answers none."""

    synchronous = True

    def __init__(self) -> None:
        self.num_calls = self.num_chars = 0

    async def chat(
        self, prompt: Messages, sampling: Mapping[str, Any], seed: int, form: AnswerForm = FREE_TEXT
    ) -> Reply:
        texts = [prompt] if isinstance(prompt, str) else [str(message.get("content") or "") for message in prompt]
        self.num_calls += 1
        self.num_chars += sum(map(len, texts)) + (len(json.dumps(form.tools, default=str)) if form.tools else 0)
        raise AskRefused("probe")


def _first_calls(compiled: CompiledRecipe, part: Generator, text: str) -> Probe:
    """The calls that a row begins with."""
    probe, fields = Probe(), fields_of(text)
    if compiled.method is not None and fields is not None:
        sampling, form = getattr(part, "sampling", {}), getattr(part, "form", FREE_TEXT)
        try:
            asyncio.run(compiled.method.run(Ask("0" * 32, 0, fields), Session(probe, 0, sampling, form)))
        except (AskRefused, RecursionError):
            pass
    return probe

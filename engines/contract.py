"""The engine contract: one prompt in, one reply out. vLLM, an endpoint or a script answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

# A user message, or messages {"role", "content", ...} as chat templates take them, with "tool_calls" and tool results.
Messages = str | Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class AnswerForm:
    """The form of an answer beyond its sampling: its structure, the tools that it may call, and its logprobs.

    At most one of `json_schema`, `choice`, `regex` and `grammar` is set.
    """

    json_schema: Mapping[str, Any] | None = None  # JSON schema of the answer
    choice: tuple[str, ...] = ()  # the answer is one of these texts
    regex: str | None = None  # the answer matches this regular expression
    grammar: str | None = None  # the answer follows this context-free grammar (EBNF)
    tools: tuple[Mapping[str, Any], ...] = ()  # functions, as in the chat format: {"type": "function", "function": ...}
    logprobs: bool = False  # whether the reply states the logprobs of the answer
    reasoning: bool = False  # whether the reply parts the reasoning from the answer

    @property
    def is_structured(self) -> bool:
        return bool(self.json_schema or self.choice or self.regex or self.grammar)

    def literals(self) -> dict[str, Any]:
        """The keys that are set, for an identity."""
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name)}


FREE_TEXT = AnswerForm()
UNFINISHED = "reasoning"  # finish of a reply whose reasoning has no end: it has no answer
NUM_CANDIDATES = 10  # most probable tokens at each place, of which the entropy is taken


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool in a reply."""

    id: str
    name: str
    arguments: str  # JSON text as the model wrote it, which may be broken


@dataclass(frozen=True, slots=True)
class Logprobs:
    """Logprobs of the answer's tokens, in nats: natural logarithms of the model's probabilities before sampling."""

    mean: float
    min: float
    entropy: float  # mean over the tokens of the entropy of their candidates; see engines/logprobs.py


@dataclass(frozen=True, slots=True)
class Reply:
    """The reply of an engine to a call."""

    text: str  # the answer, without the reasoning
    finish: str = "stop"  # "stop", "length", "tool_calls", UNFINISHED, ...
    tokens_in: int = 0
    tokens_out: int = 0  # all tokens that the model wrote, reasoning included
    reasoning: str | None = None  # what the model thought before the answer; None: nothing, or no engine parts it
    tokens_reasoning: int = 0  # of `tokens_out`: before the answer
    tool_calls: tuple[ToolCall, ...] = ()
    logprobs: Logprobs | None = None
    tokens_cached: int = 0  # of `tokens_in`: read from the server's cache
    cost: float = 0.0  # money paid for the call, in the currency of the run; 0 where devices are paid by time


def with_finish(reply: Reply) -> Reply:
    """`reply` with the finish UNFINISHED if its tokens ran out before its reasoning had an end."""
    has_ended = reply.finish != "length" or reply.text.strip() or reply.tool_calls
    return reply if has_ended or not reply.reasoning else replace(reply, finish=UNFINISHED)


class ChatEngine(Protocol):
    """An engine that answers prompts: gristmill.engines.vllm.Engine, an endpoint, the canned engine, any such class.

    An engine may also have `num_slots: int`, the calls that it works on at once, and `count_tokens(text) -> int`, by
    its tokenizer.
    """

    synchronous: bool  # `chat` never waits, so its coroutine runs without an event loop

    async def chat(
        self, prompt: Messages, sampling: Mapping[str, Any], seed: int, form: AnswerForm = FREE_TEXT
    ) -> Reply:
        """One completion. Raises AskRefused when this ask cannot be served, EngineDead when the engine has failed."""


class ServedEngine(ChatEngine, Protocol):
    """A ChatEngine that a part opens, asks for facts and closes."""

    def check_user_turn(self) -> None:
        """Raise UserError when the engine cannot let the model write a user's message."""

    async def facts(self) -> dict[str, Any]:
        """What a manifest records of the open engine, as literals."""

    def close(self) -> None:
        """Free what the engine holds; safe at any time."""

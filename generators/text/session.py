"""The calls of an ask: seeds, turns, tokens and money, whatever engine answers."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from typing import Any, TypeVar

from gristmill.engines.contract import FREE_TEXT, AnswerForm, ChatEngine, Messages, Reply, with_finish
from gristmill.engines.errors import AskRefused
from gristmill.records.ids import GOLDEN, MASK_64, mix_bits
from gristmill.records.schema import clean

T = TypeVar("T")
FINISH_RANK = {"tool_calls": -1, "stop": 0, "length": 1}  # any other finish is worse


def mix(seed: int, salt: int) -> int:
    """An int in [0, 2^63) from (seed, salt): splitmix64, cheap enough to draw per row and per call."""
    return mix_bits((seed + (salt + 1) * GOLDEN) & MASK_64) >> 1


class Session:
    """The calls of an ask: gives every call its own seed, keeps the turns and adds up the tokens."""

    __slots__ = (
        *("_engine", "_form", "_on_reply", "_sampling", "_seed"),
        *("calls", "cost", "finish", "replies", "tokens_in", "tokens_out", "turns"),
    )

    def __init__(
        self,
        engine: ChatEngine,
        seed: int,
        sampling: Mapping[str, Any],
        form: AnswerForm = FREE_TEXT,
        on_reply: Callable[[Reply], None] | None = None,
    ) -> None:
        """`form`: of every answer, unless a call states its own. `on_reply` gets every reply as it arrives."""
        self._engine = engine
        self._on_reply = on_reply
        self._seed = seed
        self._sampling = sampling
        self._form = form
        self.calls = 0
        self.tokens_in = 0
        self.tokens_out = 0
        self.cost = 0.0  # money paid for the calls, those that were refused included
        self.finish: str | None = None  # the worst of all calls
        self.turns: list[dict[str, Any] | None] = []  # None while a call is running
        self.replies: list[Reply | None] = []  # of the turns

    async def chat(
        self,
        prompt: Messages,
        json_schema: Mapping[str, Any] | None = None,
        turn: str = "answer",
        tools: Sequence[Mapping[str, Any]] = (),
        **sampling: Any,
    ) -> Reply:
        """One call. `prompt` is a user message or a list of {"role", "content"}; `sampling` overrides the recipe's.

        json_schema: structure of this answer, in place of the recipe's. tools: functions that the model may call.

        If the last message is engines.user_turn.USER_TURN, the model writes the user's message; see `writes_user`.
        Turns keep the order of the calls, whichever is answered first.
        """
        seed = mix(self._seed, self.calls)
        at = self.calls
        self.calls += 1
        self.turns.append(None)
        self.replies.append(None)
        settings = {**self._sampling, **sampling} if sampling else self._sampling
        form = self._form
        if json_schema or tools:
            form = AnswerForm(json_schema, tools=tuple(tools), logprobs=form.logprobs, reasoning=form.reasoning)
        try:
            reply = with_finish(await self._engine.chat(prompt, settings, seed, form))
        except AskRefused as refused:
            self.cost += refused.cost
            raise
        self.cost += reply.cost
        if self._on_reply is not None:
            self._on_reply(reply)
        self.tokens_in += reply.tokens_in
        self.tokens_out += reply.tokens_out
        if self.finish is None or FINISH_RANK.get(reply.finish, 2) > FINISH_RANK.get(self.finish, 2):
            self.finish = reply.finish
        last_prompt = prompt if isinstance(prompt, str) else (prompt[-1].get("content") or "") if prompt else ""
        self.replies[at] = reply
        self.turns[at] = {
            "turn": turn,
            "prompt": clean(last_prompt),
            "text": clean(reply_text(reply)),
            "tokens_in": reply.tokens_in,
            "tokens_out": reply.tokens_out,
            **({"reasoning": reply.reasoning and clean(reply.reasoning)} if form.reasoning else {}),
        }
        return reply

    @property
    def synchronous(self) -> bool:
        """Whether nothing may wait: the engine answers at once, and its coroutines run without an event loop."""
        return self._engine.synchronous

    async def blocking(self, threads: Executor | None, work: Callable[[], T]) -> T:
        """The value of `work`, which may block: in one of `threads`, or here if nothing may wait."""
        if self.synchronous:
            return work()
        return await asyncio.get_running_loop().run_in_executor(threads, work)

    async def chats(
        self,
        prompts: Sequence[Messages],
        json_schema: Mapping[str, Any] | None = None,
        turn: str = "answer",
        **sampling: Any,
    ) -> list[Reply]:
        """A call for each of `prompts`, all at once, each with its own seed; the replies in order.

        Raises AskRefused for the first refusal, after all calls are done: so costs do not depend on timing.
        """
        calls = [self._outcome(prompt, json_schema, turn, **sampling) for prompt in prompts]
        if self._engine.synchronous:
            outcomes = [await call for call in calls]
        else:
            outcomes = await asyncio.gather(*calls)
        for outcome in outcomes:
            if isinstance(outcome, AskRefused):
                raise outcome
        return [outcome for outcome in outcomes if isinstance(outcome, Reply)]

    def value(self, key: str) -> Any:
        """What `keep` has kept under this name for this ask, also before a restart; None for nothing."""
        find = getattr(self._engine, "value", None)
        return find(key) if find is not None else None

    def keep(self, key: str, literals: Any) -> None:
        """Keep literals, such as the result of a tool, beside the answers of an engine whose answers are kept."""
        note = getattr(self._engine, "keep", None)
        if note is not None:
            note(key, literals)

    async def _outcome(self, *call: Any, **sampling: Any) -> Reply | AskRefused:
        try:
            return await self.chat(*call, **sampling)
        except AskRefused as refused:
            return refused


def reply_text(reply: Reply) -> str:
    """What a reply says, its tool calls included."""
    calls = [f"{call.name}({call.arguments})" for call in reply.tool_calls]
    return "\n".join([*([reply.text] if reply.text or not calls else []), *calls])

"""The columns of a row that come from its replies, whatever its method: reasoning, logprobs, turns, kept tokens."""

from collections.abc import Sequence
from math import isnan
from typing import Any

import pyarrow as pa

from gristmill.engines.contract import AnswerForm, ChatEngine, Reply
from gristmill.generators.text.answers import first_object
from gristmill.generators.text.contract import TOKENS_KEPT, TURNS, Session
from gristmill.generators.text.session import reply_text
from gristmill.records.schema import REASONING, TOKENS_REASONING, clean, cost_field

# Mean and least logprob of the answer's tokens, and their mean entropy, in nats; null for an answer of several calls.
LOGPROBS = [pa.field(name, pa.float32()) for name in ("logprob_mean", "logprob_min", "entropy")]

COST = cost_field("cost")  # money paid for the calls of a row, those that were refused included


class ReplyColumns:
    """The payload columns that a generator adds to those of its method.

    `reasoning` is what the model thought before the row's answer, null where it did not think and for an answer of
    several calls; `tokens_reasoning` counts the tokens of `tokens_out` before the answers of all calls.
    """

    def __init__(self, form: AnswerForm, keeps_turns: bool, is_paid: bool) -> None:
        self._form = form
        self._keeps_turns = keeps_turns
        self._is_paid = is_paid

    @property
    def fields(self) -> list[pa.Field]:
        """The columns, in their order in a row."""
        return [
            *([TOKENS_KEPT, turns_field(self._form.reasoning)] if self._keeps_turns else []),
            *([REASONING, TOKENS_REASONING] if self._form.reasoning else []),
            *(LOGPROBS if self._form.logprobs else []),
            *([COST] if self._is_paid else []),
        ]

    def values(
        self, session: Session, engine: ChatEngine, answer: str | None, kept_texts: Sequence[str] = ()
    ) -> dict[str, Any]:
        """The values for a row with this answer and these texts of the model; without an answer, for a reject."""
        replies = [reply for reply in session.replies if reply is not None]
        reply = None
        if self._form.reasoning or self._form.logprobs:
            reply = replies[-1] if answer is None and replies else reply_with(answer or "", replies)
        values: dict[str, Any] = {}
        if self._keeps_turns:
            # A call beside one that failed may have been cancelled without an answer.
            values[TURNS.name] = [turn for turn in session.turns if turn]
            if answer is not None:
                num_reasoning = reply.tokens_reasoning if reply and self._form.reasoning else 0
                values[TOKENS_KEPT.name] = tokens_kept(kept_texts, session, engine, num_reasoning)
        if self._form.reasoning:
            values[REASONING.name] = reply.reasoning if reply else None
            values[TOKENS_REASONING.name] = sum(each.tokens_reasoning for each in replies)
        if self._form.logprobs and answer is not None and reply and reply.logprobs:
            logprobs = reply.logprobs
            numbers = (logprobs.mean, logprobs.min, logprobs.entropy)
            values |= {f.name: None if isnan(number) else number for f, number in zip(LOGPROBS, numbers)}
        if self._is_paid:
            values[COST.name] = session.cost
        return values


def turns_field(has_reasoning: bool) -> pa.Field:
    """The column `turns`, whose entries have their reasoning if rows have theirs."""
    entries = [*TURNS.type.value_type, *([REASONING] if has_reasoning else [])]
    return pa.field(TURNS.name, pa.list_(pa.struct(entries)))


def reply_with(answer: str, replies: Sequence[Reply]) -> Reply | None:
    """The last reply that is the answer of a row or, without one, the last that contains it. None: no single reply."""
    answer = answer.strip()
    if not answer:
        return replies[0] if len(replies) == 1 else None
    texts = [clean(reply.text).strip() for reply in replies]
    whole = [reply for reply, text in zip(replies, texts) if text == answer]
    parts = [reply for reply, text in zip(replies, texts) if answer in text or answer in _values(text)]
    return next(reversed(whole or parts), None)


def _values(text: str) -> list[str]:
    """The texts in an answer that is a JSON object."""
    values = (first_object(text) or {}).values() if text.startswith("{") else ()
    return [value.strip() for value in values if isinstance(value, str)]


def tokens_kept(texts: Sequence[str], session: Session, engine: ChatEngine, num_reasoning: int = 0) -> int:
    """Tokens of texts that a row keeps and of its reasoning, at most those that its calls wrote.

    A text that is the whole of an answer counts as the tokens of that answer. Any other is counted by the tokenizer of
    the engine, or where the engine has none by its share of the characters of all answers.
    """
    replies = [reply for reply in session.replies if reply is not None]
    answers = {clean(reply_text(reply)).strip(): reply.tokens_out - reply.tokens_reasoning for reply in replies}
    num_answers = sum(reply.tokens_out - reply.tokens_reasoning for reply in replies)
    count = getattr(engine, "count_tokens", None)
    num_chars = sum(len(clean(reply_text(reply))) for reply in replies)
    total = 0
    for text in map(str.strip, map(clean, texts)):
        if text in answers:
            total += answers[text]
        elif text:
            total += count(text) if count else -(-num_answers * len(text) // max(1, num_chars))
    return min(total, num_answers) + num_reasoning

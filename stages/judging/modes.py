"""The three ways to judge a row: which calls it takes, and what their answers come to."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import pyarrow as pa

from gristmill.engines.vllm import Reply
from gristmill.stages.judging.answers import read_score, read_scores, schema_of
from gristmill.stages.judging.spec import JudgeSpec
from gristmill.stages.judging.steps import split_steps

Texts = Mapping[str, str | None]  # the columns of a row that the mode reads


class Call(NamedTuple):
    """One call of a row; calls of other keys have other seeds."""

    key: str
    prompt: str


class Mode(ABC):
    """Base of the modes. A call that the engine refused has None for a reply."""

    names: ClassVar[tuple[str, ...]] = ("score",)  # of the scores that an answer holds

    def __init__(self, spec: JudgeSpec) -> None:
        self.spec = spec

    @property
    def json_schema(self) -> dict[str, Any]:
        return schema_of(self.names, self.spec.low, self.spec.high)

    def reads(self) -> list[str]:
        """The columns, all of text."""
        return [self.spec.column, *([self.spec.question] if self.spec.question else [])]

    @abstractmethod
    def columns(self) -> list[tuple[str, pa.DataType]]:
        """(name without the stage's, type) of what is found; tokens come after them."""

    @abstractmethod
    def calls(self, row: Texts) -> list[Call]:
        """What to ask about a row; a null text is an empty one."""

    @abstractmethod
    def findings(self, row: Texts, replies: Sequence[Reply | None]) -> tuple[tuple[Any, ...], str | None]:
        """(a value a column, null or the reason of the reject) from the replies to `calls`, in their order."""

    def _question(self, row: Texts) -> dict[str, str]:
        return {"question": row[self.spec.question] or ""} if self.spec.question is not None else {}


class Pointwise(Mode):
    """One score of one text."""

    def columns(self) -> list[tuple[str, pa.DataType]]:
        return [("score", pa.int32())]

    def calls(self, row: Texts) -> list[Call]:
        return [Call("", self.spec.ask(row[self.spec.column] or ""))]

    def findings(self, row: Texts, replies: Sequence[Reply | None]) -> tuple[tuple[Any, ...], str | None]:
        spec, reply = self.spec, replies[0]
        score = read_score(reply.text, spec.low, spec.high) if reply else None
        if spec.min_score is None:
            return (score,), None
        return (score,), "no_score" if score is None else "score" if score < spec.min_score else None


class Pairwise(Mode):
    """Two texts scored side by side, in both orders.

    A model that compares prefers a place (Zheng et al. 2023, Judging LLM-as-a-Judge, section 3.4): so, as there, a text
    wins only when it wins in both orders, and two orders that do not agree make a tie.
    `winner`: "a" (the column `first`), "b" or "tie". `margin`: score of `first` less that of `second`, in points of the
    scale, mean of both orders. `consistent`: whether both orders have the same winner or are both ties.
    All three are null unless both answers can be read.
    """

    names = ("a", "b")

    def reads(self) -> list[str]:
        return [self.spec.first, self.spec.second, *([self.spec.question] if self.spec.question else [])]

    def columns(self) -> list[tuple[str, pa.DataType]]:
        return [("winner", pa.string()), ("margin", pa.float32()), ("consistent", pa.bool_())]

    def calls(self, row: Texts) -> list[Call]:
        first, second = row[self.spec.first] or "", row[self.spec.second] or ""
        asked = self._question(row)
        return [
            Call("ab", self.spec.ask(a=first, b=second, **asked)),
            Call("ba", self.spec.ask(a=second, b=first, **asked)),
        ]

    def findings(self, row: Texts, replies: Sequence[Reply | None]) -> tuple[tuple[Any, ...], str | None]:
        spec = self.spec
        scores = [read_scores(r.text, self.names, spec.low, spec.high) if r else None for r in replies]
        forth, back = scores
        if forth is None or back is None:
            is_wanted = spec.must_agree or spec.must_win or spec.min_margin is not None
            return (None, None, None), "no_score" if is_wanted else None
        margins = forth[0] - forth[1], back[1] - back[0]
        signs = [(m > 0) - (m < 0) for m in margins]
        is_consistent = signs[0] == signs[1]
        winner = {1: "a", -1: "b", 0: "tie"}[signs[0]] if is_consistent else "tie"
        margin = sum(margins) / 2
        reason = None
        if spec.must_agree and not is_consistent:
            reason = "position_bias"
        elif spec.must_win and winner != "a":
            reason = "loser"
        elif spec.min_margin is not None and abs(margin) < spec.min_margin:
            reason = "margin"
        return (winner, margin, is_consistent), reason


class Steps(Mode):
    """A score for each step of a worked solution, given those before it: process supervision (Lightman et al. 2023,
    Let's Verify Step by Step). stages/judging/steps.py says where steps begin.

    `steps`: the scores in order, null for an answer that cannot be read. `first_bad`: the place in `steps` of the first
    score below `min_score`, or, where that is not given, below the middle of the scale (3 of 1..5, 0 of -1..1); null
    when there is none. `num_steps`: how many there are; with more than `max_steps` the other two are null.
    """

    def columns(self) -> list[tuple[str, pa.DataType]]:
        return [("steps", pa.list_(pa.int32())), ("first_bad", pa.int32()), ("num_steps", pa.int32())]

    def calls(self, row: Texts) -> list[Call]:
        steps = split_steps(row[self.spec.column] or "")
        if len(steps) > self.spec.max_steps:
            return []
        asked = self._question(row)
        return [
            Call(f"step-{at}", self.spec.ask(before="\n\n".join(steps[:at]) or "(none)", step=step, **asked))
            for at, step in enumerate(steps)
        ]

    def findings(self, row: Texts, replies: Sequence[Reply | None]) -> tuple[tuple[Any, ...], str | None]:
        spec = self.spec
        num_steps = len(split_steps(row[spec.column] or ""))
        if num_steps > spec.max_steps:
            return (None, None, num_steps), "too_many_steps" if spec.min_score is not None else None
        scores = [read_score(r.text, spec.low, spec.high) if r else None for r in replies]
        least = spec.min_score if spec.min_score is not None else math.ceil((spec.low + spec.high) / 2)
        first_bad = next((at for at, score in enumerate(scores) if score is not None and score < least), None)
        reason = None
        if spec.min_score is not None:
            if first_bad is not None:
                reason = "step"
            elif not scores or None in scores:
                reason = "no_score"
        return (scores, first_bad, num_steps), reason


MODES: dict[str, type[Mode]] = {"pointwise": Pointwise, "pairwise": Pairwise, "steps": Steps}

"""The three modes of a judge: which calls a row needs, and what the answers mean."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import pyarrow as pa

from gristmill.engines.contract import Reply
from gristmill.stages.judging.answers import read_score, read_scores, schema_of
from gristmill.stages.judging.spec import RubricSpec
from gristmill.stages.judging.steps import split_steps

Texts = Mapping[str, str | None]  # columns of a row that the mode reads


class Call(NamedTuple):
    """A call for a row. Calls with different keys have different seeds."""

    key: str
    prompt: str


class Mode(ABC):
    """Base class of the modes. The reply to a call that the engine refused is None."""

    names: ClassVar[tuple[str, ...]] = ("score",)  # of the scores in an answer

    def __init__(self, spec: RubricSpec) -> None:
        self.spec = spec

    @property
    def json_schema(self) -> dict[str, Any]:
        """The schema of an answer."""
        return schema_of(self.names, self.spec.low, self.spec.high)

    def reads(self) -> list[str]:
        """The columns that it reads, all of text."""
        return [self.spec.column, *([self.spec.question] if self.spec.question else [])]

    @abstractmethod
    def columns(self) -> list[tuple[str, pa.DataType]]:
        """(name without the stage's name, type) of each finding; the token counts follow them."""

    @abstractmethod
    def calls(self, row: Texts) -> list[Call]:
        """The calls for a row; a null text counts as empty."""

    @abstractmethod
    def findings(self, row: Texts, replies: Sequence[Reply | None]) -> tuple[tuple[Any, ...], str | None]:
        """(a value for each column, None or a reject reason) from the replies to `calls`, in their order."""

    def _question(self, row: Texts) -> dict[str, str]:
        return {"question": row[self.spec.question] or ""} if self.spec.question is not None else {}


class Pointwise(Mode):
    """Scores a text."""

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
    """Scores two texts side by side, in both orders.

    A model that compares two texts prefers a position (Zheng et al. 2023, Judging LLM-as-a-Judge, section 3.4). So, as
    there, a text wins only if it wins in both orders, and two orders that disagree are a tie.

    `winner`: "a" (the column `first`), "b" or "tie". `margin`: score of `first` minus that of `second`, in points of
    the scale, mean of both orders. `consistent`: whether both orders have the same winner or are both ties. All three
    are null unless both answers are readable.
    """

    names = ("a", "b")

    def reads(self) -> list[str]:
        return [self.spec.first, self.spec.second, *([self.spec.question] if self.spec.question else [])]

    def columns(self) -> list[tuple[str, pa.DataType]]:
        return [("winner", pa.string()), ("margin", pa.float32()), ("consistent", pa.bool_())]

    def calls(self, row: Texts) -> list[Call]:
        first, second = row[self.spec.first] or "", row[self.spec.second] or ""
        question = self._question(row)
        return [
            Call("ab", self.spec.ask(a=first, b=second, **question)),
            Call("ba", self.spec.ask(a=second, b=first, **question)),
        ]

    def findings(self, row: Texts, replies: Sequence[Reply | None]) -> tuple[tuple[Any, ...], str | None]:
        spec = self.spec
        scores = [read_scores(r.text, self.names, spec.low, spec.high) if r else None for r in replies]
        forward, backward = scores
        if forward is None or backward is None:
            is_required = spec.must_agree or spec.must_win or spec.min_margin is not None
            return (None, None, None), "no_score" if is_required else None
        margins = forward[0] - forward[1], backward[1] - backward[0]
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
    """Scores each step of a worked solution, given the steps before it.

    This is process supervision (Lightman et al. 2023, Let's Verify Step by Step). steps.py defines where steps begin.

    `steps`: the scores in order, null for an unreadable answer. `first_bad`: index in `steps` of the first score below
    `min_score` or, without `min_score`, below the middle of the scale (3 of 1..5, 0 of -1..1); null if there is none.
    `num_steps`: the number of steps. With more than `max_steps`, the other two are null.
    """

    def columns(self) -> list[tuple[str, pa.DataType]]:
        return [("steps", pa.list_(pa.int32())), ("first_bad", pa.int32()), ("num_steps", pa.int32())]

    def calls(self, row: Texts) -> list[Call]:
        steps = split_steps(row[self.spec.column] or "")
        if len(steps) > self.spec.max_steps:
            return []
        question = self._question(row)
        return [
            Call(f"step-{at}", self.spec.ask(before="\n\n".join(steps[:at]) or "(none)", step=step, **question))
            for at, step in enumerate(steps)
        ]

    def findings(self, row: Texts, replies: Sequence[Reply | None]) -> tuple[tuple[Any, ...], str | None]:
        spec = self.spec
        num_steps = len(split_steps(row[spec.column] or ""))
        if num_steps > spec.max_steps:
            return (None, None, num_steps), "too_many_steps" if spec.min_score is not None else None
        scores = [read_score(r.text, spec.low, spec.high) if r else None for r in replies]
        min_score = spec.min_score if spec.min_score is not None else math.ceil((spec.low + spec.high) / 2)
        first_bad = next((at for at, score in enumerate(scores) if score is not None and score < min_score), None)
        reason = None
        if spec.min_score is not None:
            if first_bad is not None:
                reason = "step"
            elif not scores or None in scores:
                reason = "no_score"
        return (scores, first_bad, num_steps), reason


MODES: dict[str, type[Mode]] = {"pointwise": Pointwise, "pairwise": Pairwise, "steps": Steps}

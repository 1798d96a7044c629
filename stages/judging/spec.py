"""The keys of a judge, and what goes with what."""

from dataclasses import dataclass
from typing import Literal

from gristmill.engines.served import ModelSpec
from gristmill.records.spec import later
from gristmill.stages.judging.prompts import POINTWISE, default_prompt

# What each mode has beside the keys of all (model, prompt, low, high, mode), and the columns' holes in its prompt.
OWN = {
    "pointwise": ("column", "min_score"),
    "pairwise": ("first", "second", "question", "must_agree", "must_win", "min_margin"),
    "steps": ("column", "question", "min_score", "max_steps"),
}
HOLES = {"pointwise": ("text",), "pairwise": ("a", "b"), "steps": ("before", "step")}


@dataclass(frozen=True)
class JudgeSpec(ModelSpec):
    """The model, and what it is asked. Sampling is greedy unless given.

    mode: "pointwise" scores a text, "pairwise" compares two, "steps" scores each step of a worked solution.
    prompt: the rubric, with {low} and {high}, and {text}; pairwise: {a} and {b}; steps: {before} and {step}; and
    {question}, where `question` names a column.
    low, high: the scale, both ends included.
    column: the text of pointwise, the solution of steps. min_score: pointwise rows below it are rejected as
    "judge:score", steps below it as "judge:step", what has no score as "judge:no_score"; None: nothing is rejected.
    question: pairwise and steps: the column of what the texts answer; none unless given.
    first, second: the columns that pairwise compares. must_agree: reject a pair whose two orders give different
    winners, as "judge:position_bias". must_win: reject it unless `first` is the winner, as "judge:loser".
    min_margin: reject it as "judge:margin" when the scores differ by less on average over the two orders.
    max_steps: a solution of more steps is not judged, and rejected as "judge:too_many_steps" with min_score.
    """

    prompt: str = POINTWISE
    column: str = "text"
    low: int = 1
    high: int = 5
    min_score: int | None = None
    mode: Literal["pointwise", "pairwise", "steps"] = later("pointwise")
    first: str = later("chosen")
    second: str = later("rejected")
    question: str | None = later(None)
    must_agree: bool = later(False)
    must_win: bool = later(False)
    min_margin: float | None = later(None)
    max_steps: int = later(32)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.low >= self.high:
            raise ValueError("low must be below high")
        if self.min_score is not None and not self.low <= self.min_score <= self.high:
            raise ValueError(f"min_score must lie in {self.low}..{self.high}")
        self._check_keys()
        if self.max_steps < 1:
            raise ValueError("max_steps must be at least 1")
        if self.min_margin is not None and not 0 < self.min_margin <= self.high - self.low:
            raise ValueError(f"min_margin must be above 0 and at most {self.high - self.low}, the width of the scale")
        if self.first == self.second:
            raise ValueError("first and second must be two columns")
        if self.prompt == POINTWISE:  # the key was not given
            object.__setattr__(self, "prompt", default_prompt(self.mode, self.question is not None))
        self._check_prompt()

    def _check_keys(self) -> None:
        """A key of another mode would do nothing."""
        for mode, keys in OWN.items():
            for key in keys:
                if key not in OWN[self.mode] and getattr(self, key) != self.__dataclass_fields__[key].default:
                    raise ValueError(f'{key} goes with mode = "{mode}", not with "{self.mode}"')

    def _check_prompt(self) -> None:
        needed = [*HOLES[self.mode], *(["question"] if self.question is not None else [])]
        holes = ", ".join(f"{{{name}}}" for name in (*needed, "low"))
        try:
            self.ask(**dict.fromkeys(needed, "x"))
        except (KeyError, IndexError, ValueError):
            hint = " ({question} goes with question = a column)" if self.mode != "pointwise" else ""
            raise ValueError(f"prompt may hold {holes} and {{high}}{hint}; write other braces twice") from None
        for name in needed:
            if f"{{{name}}}" not in self.prompt:
                raise ValueError(f"prompt must hold {{{name}}}")

    def ask(self, text: str = "", **texts: str) -> str:
        """The prompt, with the texts put in for its holes."""
        named = {"text": text, **texts} if self.mode == "pointwise" else texts
        return self.prompt.format_map({**named, "low": self.low, "high": self.high})

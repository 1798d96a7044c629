"""The keys of a judge, and which keys belong to which mode."""

from dataclasses import MISSING, dataclass, fields
from typing import Literal

from gristmill.engines.endpoint.spec import EndpointSpec
from gristmill.engines.served import ModelService, ModelSpec
from gristmill.records.spec import later
from gristmill.stages.judging.prompts import POINTWISE, default_prompt

# Keys of each mode beyond those of all modes (model, prompt, low, high, mode), and the placeholders of its prompt.
MODE_KEYS = {
    "pointwise": ("column", "min_score"),
    "pairwise": ("first", "second", "question", "must_agree", "must_win", "min_margin"),
    "steps": ("column", "question", "min_score", "max_steps"),
}
PLACEHOLDERS = {"pointwise": ("text",), "pairwise": ("a", "b"), "steps": ("before", "step")}


@dataclass(frozen=True)
class RubricSpec:
    """Keys of every judge, whatever answers.

    Placeholders of the prompt: {low} and {high}; {text} in pointwise; {a} and {b} in pairwise; {before} and {step} in
    steps; {question} if `question` names a column.
    """

    prompt: str = POINTWISE  # Rubric with placeholders; by default one of the mode.
    # Column with the text (pointwise) or the solution (steps); messages, e.g. of a trajectory, are read as a whole.
    column: str = "text"
    low: int = 1  # Lowest score of the scale, included.
    high: int = 5  # Highest score of the scale, included.
    # Least score that passes. Lower rows are rejected as "judge:score", solutions with a lower step as "judge:step",
    # and missing scores as "judge:no_score". By default nothing is rejected.
    min_score: int | None = None
    # "pointwise" scores a text, "pairwise" compares two texts, "steps" scores each step of a worked solution.
    mode: Literal["pointwise", "pairwise", "steps"] = later("pointwise")
    first: str = later("chosen")  # Pairwise: column with the text that should win.
    second: str = later("rejected")  # Pairwise: column with the text to compare it with.
    # Pairwise and steps: column with the question that the texts answer; by default there is none.
    question: str | None = later(None)
    # Pairwise: reject a row whose two orders have different winners, as "judge:position_bias".
    must_agree: bool = later(False)
    must_win: bool = later(False)  # Pairwise: reject a row unless `first` wins, as "judge:loser".
    # Pairwise: least difference of the scores, mean of both orders; smaller ones are rejected as "judge:margin". By
    # default any margin passes.
    min_margin: float | None = later(None)
    # Steps: longest solution that is judged, in steps; with `min_score`, longer ones are rejected as
    # "judge:too_many_steps".
    max_steps: int = later(32)

    def __post_init__(self) -> None:
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
        if self.prompt == POINTWISE:  # the key is at its default
            object.__setattr__(self, "prompt", default_prompt(self.mode, self.question is not None))
        self._check_prompt()

    def _check_keys(self) -> None:
        """Raise ValueError for a key of another mode, which would have no effect."""
        for mode, keys in MODE_KEYS.items():
            for key in keys:
                if key not in MODE_KEYS[self.mode] and getattr(self, key) != self.__dataclass_fields__[key].default:
                    raise ValueError(f'{key} goes with mode = "{mode}", not with "{self.mode}"')

    def _check_prompt(self) -> None:
        names = [*PLACEHOLDERS[self.mode], *(["question"] if self.question is not None else [])]
        placeholders = ", ".join(f"{{{name}}}" for name in (*names, "low"))
        try:
            self.ask(**dict.fromkeys(names, "x"))
        except (KeyError, IndexError, ValueError):
            hint = " ({question} goes with question = a column)" if self.mode != "pointwise" else ""
            raise ValueError(f"prompt may hold {placeholders} and {{high}}{hint}; write other braces twice") from None
        for name in names:
            if f"{{{name}}}" not in self.prompt:
                raise ValueError(f"prompt must hold {{{name}}}")

    def ask(self, text: str = "", **texts: str) -> str:
        """The prompt with the texts in its placeholders."""
        values = {"text": text, **texts} if self.mode == "pointwise" else texts
        return self.prompt.format_map({**values, "low": self.low, "high": self.high})


@dataclass(frozen=True)
class JudgeSpec(RubricSpec, ModelSpec):
    """Keys of the stage `judge`: those of a model and of a rubric. Sampling is greedy by default, with 32 tokens for a
    reply, or 4096 if `reasoning_parser` is set: the model then thinks before its score.
    """

    model: str = ""  # As for a teacher; either this or `endpoint`.
    # The judge behind an HTTP interface, in place of `model`: the keys of kind = "endpoint".
    endpoint: EndpointSpec | None = later(None)

    def __post_init__(self) -> None:
        ModelSpec.__post_init__(self)
        RubricSpec.__post_init__(self)
        self._check_service()

    @property
    def service(self) -> ModelService:
        """What serves the model of the judge."""
        return self.endpoint or self

    def _check_service(self) -> None:
        """Raise ValueError for a judge without a model or with two, and for keys of vLLM beside an endpoint."""
        if self.endpoint is None:
            if not self.model:
                raise ValueError(
                    "key 'model' is missing (or the table 'endpoint', for a judge behind an HTTP interface)"
                )
            return
        for one in fields(ModelSpec):
            default = (
                one.default_factory() if one.default is MISSING and one.default_factory is not MISSING else one.default
            )
            if getattr(self, one.name) not in (default, ""):
                raise ValueError(f"{one.name} goes with a judge that vLLM serves; an endpoint has keys of its own")

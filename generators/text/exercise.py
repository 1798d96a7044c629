"""Exercises with their solutions after Phi-1 (Gunasekar et al. 2023, section 2.2, CodeExercises).

The model writes an exercise on a topic and then solves it. Topic, audience, difficulty and form vary: these constraints
keep k samples of a topic from being the same exercise k times.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from gristmill.engines.errors import AskRefused
from gristmill.generators.text.answers import full_text, strip_label
from gristmill.generators.text.contract import Ask, Session, pick
from gristmill.generators.text.prompts import column, drawn_columns, render
from gristmill.generators.text.steps import Steps, StepsSpec
from gristmill.generators.text.textbook import AUDIENCES
from gristmill.records.templates import template_texts

DIFFICULTIES = ("easy", "moderate", "hard")
FORMS = (
    "a question that asks for an explanation",
    "a problem with numbers to work out",
    "a comparison of two things",
    "a decision in a realistic situation",
    "a false claim to detect and correct",
    "a task in two or three small steps",
)
CHOICES = ("audience", "difficulty", "form")


@dataclass(frozen=True)
class ExerciseSpec(StepsSpec):
    """Settings of `exercise`. Calls: `exercise` ({topic}), `solution` ({exercise}).

    Templates may also hold {audience}, {difficulty}, {form} and columns of the source.
    """

    TEMPLATES = template_texts(__file__, "exercise", "exercise", "solution")
    HOLES = {"exercise": ("topic",), "solution": ("exercise",)}

    topic: str = "topic"  # source column of the topic
    audiences: tuple[str, ...] = AUDIENCES  # audiences, drawn by the row's seed
    difficulties: tuple[str, ...] = DIFFICULTIES  # difficulties, drawn by the row's seed
    forms: tuple[str, ...] = FORMS  # forms of exercise, drawn by the row's seed
    min_words: int = 5  # words of an exercise below which it is refused as "short"

    def __post_init__(self) -> None:
        column(self.topic)
        if not self.audiences or not self.difficulties or not self.forms:
            raise ValueError("audiences, difficulties and forms need at least one entry each")
        if self.min_words < 1:
            raise ValueError("min_words must be at least 1")
        super().__post_init__()


class Exercise(Steps):
    """Draws audience, difficulty and form, writes an exercise, solves it; `text` is both."""

    kind = "exercise"
    revision = 2
    Spec = ExerciseSpec
    method_holes: ClassVar[frozenset[str]] = frozenset({"topic", "exercise", *CHOICES})
    spec: ExerciseSpec

    def __init__(self, spec: ExerciseSpec) -> None:
        super().__init__(spec)
        self._topic = column(spec.topic)

    @property
    def payload(self) -> list[pa.Field]:
        drawn = drawn_columns(CHOICES, [*self._prompts.values(), self._system])
        return [pa.field(name, pa.string()) for name in ("instruction", "output", "topic", *drawn, "text")]

    def fields_read(self) -> list[str]:
        return self.columns_of(self._topic)

    def kept_texts(self, ask: Ask, payload: Mapping[str, Any]) -> list[str]:
        return [payload["instruction"], payload["output"]]

    async def run(self, ask: Ask, session: Session) -> dict[str, Any]:
        choices = {
            "topic": render(self._topic, ask.fields),
            "audience": pick(self.spec.audiences, ask.seed, -2),
            "difficulty": pick(self.spec.difficulties, ask.seed, -3),
            "form": pick(self.spec.forms, ask.seed, -4),
        }
        fields = {**ask.fields, **choices}
        reply = full_text(await self.say(session, "exercise", fields), "exercise")
        exercise = strip_label(reply, "exercise", "question", "problem")
        if len(exercise.split()) < self.spec.min_words:
            raise AskRefused("short", exercise)
        solution_reply = full_text(await self.say(session, "solution", {**fields, "exercise": exercise}), "solution")
        solution = strip_label(solution_reply, "solution")
        return {"instruction": exercise, "output": solution, **choices, "text": f"{exercise}\n\n{solution}"}

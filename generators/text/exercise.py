"""Exercises with their solutions after Phi-1 (Gunasekar et al. 2023, section 2.2, CodeExercises).

The model first writes an exercise on a topic, then solves what it has written. Topic, audience, difficulty and form are
the variety: constraining each prompt is what keeps k samples of one topic from being one exercise k times.
"""

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from generators.text.answers import said, unlabelled, whole
from generators.text.contract import Ask, Method, Session, Template, conversation, pick
from generators.text.prompts import checked, column, columns_of
from generators.text.textbook import AUDIENCES
from stages.engine import AskRefused

DIFFICULTIES = ("easy", "of medium difficulty", "hard")
FORMS = (
    "a question that asks for an explanation",
    "a problem with numbers to work out",
    "a comparison of two things",
    "a decision in a real situation",
    "a wrong claim that has to be found out and put right",
    "a task in two or three small steps",
)
TEMPLATE = """Write one exercise about {topic} for {audience}. It is {difficulty}, and it is {form}.

Say everything that is needed to solve it. Write the exercise alone, without its solution."""
SOLUTION = """Solve the exercise below for {audience}. Give the reason for each step in full sentences, and end with \
the answer.

Exercise:
{exercise}"""
DRAWN = ("audience", "difficulty", "form")


@dataclass(frozen=True)
class ExerciseSpec:
    """Two calls a row: `template` asks for an exercise, `solution` for the solution of it.

    template may use {topic}, {audience}, {difficulty}, {form} and any column of the source; it must use {topic}.
    solution must use {exercise}, what the first call wrote, and may use all the others.
    topic: the source column of the topic. audiences, difficulties, forms: what is drawn from, by the row's seed.
    min_words: an exercise with fewer is refused as "short". system: the system message of both calls.
    """

    template: str = TEMPLATE
    solution: str = SOLUTION
    system: str = ""
    topic: str = "topic"
    audiences: tuple[str, ...] = AUDIENCES
    difficulties: tuple[str, ...] = DIFFICULTIES
    forms: tuple[str, ...] = FORMS
    min_words: int = 5

    def __post_init__(self) -> None:
        checked("template", self.template, "topic")
        checked("solution", self.solution, "exercise")
        Template(self.system)
        column(self.topic)
        if not self.audiences or not self.difficulties or not self.forms:
            raise ValueError("audiences, difficulties and forms need at least one entry each")
        if self.min_words < 1:
            raise ValueError("min_words must be at least 1")


class Exercise(Method):
    """Draws audience, difficulty and form, writes an exercise, solves it; `text` is both."""

    kind = "exercise"
    Spec = ExerciseSpec
    keeps_turns = True

    def __init__(self, spec: ExerciseSpec) -> None:
        super().__init__(spec)
        self._template = Template(spec.template)
        self._solution = Template(spec.solution)
        self._system = Template(spec.system)
        self._topic = column(spec.topic)

    @property
    def payload(self) -> list[pa.Field]:
        return [pa.field(name, pa.string()) for name in ("instruction", "output", "topic", *DRAWN, "text")]

    def fields_read(self) -> list[str]:
        own = {"topic", *DRAWN}
        first = columns_of([self._template, self._system], own, self.spec.topic)
        return columns_of([self._solution], {"exercise", *own}, *first)

    async def run(self, ask: Ask, session: Session) -> dict[str, Any]:
        drawn = {
            "topic": self._topic.render(ask.fields),
            "audience": pick(self.spec.audiences, ask.seed, -2),
            "difficulty": pick(self.spec.difficulties, ask.seed, -3),
            "form": pick(self.spec.forms, ask.seed, -4),
        }
        # The system message comes before there is an exercise, so it has no such hole.
        system = self._system.render({**ask.fields, **drawn})
        written = await session.chat(
            conversation(system, self._template.render({**ask.fields, **drawn})), turn="exercise"
        )
        exercise = unlabelled(whole(written), "exercise", "question", "problem")
        if len(exercise.split()) < self.spec.min_words:
            raise AskRefused("short", exercise)
        prompt = self._solution.render({**ask.fields, **drawn, "exercise": exercise})
        solution = unlabelled(said(await session.chat(conversation(system, prompt), turn="solution")), "solution")
        return {"instruction": exercise, "output": solution, **drawn, "text": f"{exercise}\n\n{solution}"}

"""Mathematics: a problem, a worked solution and its final answer, by one sample or by the majority of several.

The vote is self-consistency (Wang et al. 2022, arXiv 2203.11171); problems that are made after a seed are after Phi and
MetaMath (Yu et al. 2023, arXiv 2309.12284). The stage `consistency` keeps what the samples agree on, the stage `answer`
what agrees with a reference of the source.
"""

import zlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from gristmill.engines.contract import Reply
from gristmill.engines.errors import AskRefused
from gristmill.generators.text.answers import full_text
from gristmill.generators.text.contract import Ask, Session, Template, mix
from gristmill.generators.text.prompts import column, render
from gristmill.generators.text.steps import Steps, StepsSpec
from gristmill.records.schema import clean
from gristmill.records.templates import template_texts
from gristmill.stages.verify.answer_text import Rule, extract, key


@dataclass(frozen=True)
class MathSpec(StepsSpec):
    """Settings of `math`. Calls: `problem` ({seed}), `solution` ({problem}); both may hold columns of the source."""

    TEMPLATES = template_texts(__file__, "math", "problem", "solution")
    HOLES = {"problem": ("seed",), "solution": ("problem",)}

    seed: str = "text"  # source column with the subject of the problem
    # template of source columns that is the problem, e.g. "{question}"; default: the model writes it
    given_problem: str = ""
    samples: int = 1  # solutions for each problem, whose majority is the answer
    # rules that find the final answer (boxed, hash, phrase, number, whole); the first that finds one applies
    extract: tuple[Rule, ...] = ("boxed", "hash", "phrase")

    def __post_init__(self) -> None:
        column(self.seed)
        Template(self.given_problem)
        if self.samples < 1:
            raise ValueError("samples must be at least 1")
        if not self.extract:
            raise ValueError("extract must name at least one rule, e.g. 'phrase'")
        super().__post_init__()

    @property
    def call_names(self) -> list[str]:
        return ["solution"] if self.given_problem else ["problem", "solution"]


class Math(Steps):
    """One call for the problem, unless it is given, and `samples` gathered ones for its solution."""

    kind = "math"
    revision = 1
    Spec = MathSpec
    method_holes: ClassVar[frozenset[str]] = frozenset({"seed", "problem"})
    spec: MathSpec

    def __init__(self, spec: MathSpec) -> None:
        super().__init__(spec)
        self._seed, self._problem = column(spec.seed), Template(spec.given_problem)

    @property
    def payload(self) -> list[pa.Field]:
        """`answers` has one entry for each sample, null where no answer could be found."""
        return [
            pa.field("instruction", pa.string()),
            pa.field("solution", pa.string()),
            pa.field("answer", pa.string()),
            pa.field("answers", pa.list_(pa.string())),
            pa.field("text", pa.string()),
        ]

    def fields_read(self) -> list[str]:
        return self.columns_of(self._problem if self.spec.given_problem else self._seed)

    def ways(self) -> list[dict[str, int]]:
        return [{**dict.fromkeys(self.spec.call_names, 1), "solution": self.spec.samples}]

    def example_reply(self, prompt: str, seed: int) -> str | None:
        """A problem and its solution at once; three of four solutions of a problem agree."""
        first, second = zlib.crc32(prompt.encode()) % 1000, 7 + (mix(seed, 0) % 4 == 0)
        return (
            f"A shelf holds {first} books, and {second} more are put on it. How many books are on the shelf?\n\n"
            f"There are {first} books at first. Then {second} are added: {first} + {second} = {first + second}. "
            f"The answer is {first + second}."
        )

    def kept_texts(self, ask: Ask, payload: Mapping[str, Any]) -> list[str]:
        return [*([] if self.spec.given_problem else [payload["instruction"]]), payload["solution"]]

    async def run(self, ask: Ask, session: Session) -> dict[str, Any]:
        if self.spec.given_problem:
            fields = {**ask.fields, "problem": render(self._problem, ask.fields)}
        else:
            fields = {**ask.fields, "seed": render(self._seed, ask.fields)}
            fields["problem"] = full_text(await self.say(session, "problem", fields), "problem")
        replies = await self.say_all(session, "solution", [fields] * self.spec.samples)
        answers = [self._answer(reply) for reply in replies]
        majority_answer = majority(answers)
        if majority_answer is None:
            raise AskRefused("no_answer")
        problem, solution = fields["problem"], replies[majority_answer].text.strip()
        return {
            "instruction": problem,
            "solution": solution,
            "answer": answers[majority_answer],
            "answers": answers,
            "text": f"{problem}\n\n{solution}",
        }

    def _answer(self, reply: Reply) -> str | None:
        """The final answer of a solution; a solution that was cut off has none, whatever it says on the way."""
        found = extract(reply.text, self.spec.extract) if reply.finish != "length" else None
        return None if found is None else clean(found)


def majority(answers: list[str | None]) -> int | None:
    """The number of the first answer that is one of the most frequent; of several such, the first. None: no answer.

    Answers are the same when their numbers are equal, or their texts up to looks (stages/verify/answer_text.py).
    """
    keys = [None if answer is None else key(answer) for answer in answers]
    counts = Counter(k for k in keys if k is not None)
    if not counts:
        return None
    most = max(counts.values())
    return next(at for at, k in enumerate(keys) if k is not None and counts[k] == most)

"""Compares the final answer of a row with a reference, first by text and plain numbers, then by algebra.

Algebra is math_verify over sympy (LaTeX, sets, intervals, matrices, equations, units), each comparison in a process of
its own with a deadline. It is used only for pairs that text and numbers cannot decide.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import pyarrow as pa

from gristmill.records.spec import later, used_if
from gristmill.stages.contract import Findings
from gristmill.stages.verify.algebra import Algebraic, AlgebraSpec
from gristmill.stages.verify.answer_text import Rule, compare, extract, normal
from gristmill.stages.verify.difficulty import check_bounds, fields_of, pass_rate, reason_of, refusal_of

VERDICTS = ("right", "wrong", "unreadable", "timeout", "no_answer", "no_reference")
MAX_KEPT_CHARS = 2000  # of an answer in the findings, which are evidence and not a copy of the row


@dataclass(frozen=True)
class AnswerSpec:
    """Keys of the stage `answer`."""

    column: str = "answer"  # Column with the row's answer, or with text that contains it.
    # Column with the right answer, or with text that contains it; without a match of `extract` it is used as a whole.
    reference: str = "reference"
    # Rules that find the answer in a text; the first that matches applies: "boxed", "hash", "phrase", "number",
    # "whole".
    extract: tuple[Rule, ...] = ("boxed", "hash", "phrase", "whole")
    # Verdicts that pass: of "right", "wrong", "unreadable", "timeout", "no_answer" and "no_reference".
    keep: tuple[str, ...] = ("right",)
    # Whether algebra compares what text and plain numbers cannot decide; otherwise such rows are "unreadable".
    math: bool = True
    # Limits of a comparison by algebra.
    algebra: AlgebraSpec = field(default_factory=AlgebraSpec, metadata=used_if("math"))
    # Column with the answers of several samples to a row's problem, a list of texts, whose pass rate is added.
    samples: str | None = later(None)
    # Least share of `samples` that must be right; a row below it is rejected as too_hard. It keeps problems of some
    # difficulty.
    min_pass_rate: float = later(0.0)
    max_pass_rate: float = later(1.0)  # Largest share of `samples` that may be right; above it a row is too_easy.

    def __post_init__(self) -> None:
        check_bounds(self.samples, self.min_pass_rate, self.max_pass_rate)
        if not self.extract:
            raise ValueError("extract must name at least one rule, e.g. 'whole'")
        for verdict in self.keep:
            if verdict not in VERDICTS:
                raise ValueError(f"keep: no verdict '{verdict}' (known: {', '.join(VERDICTS)})")


class Answer(Algebraic):
    """Adds `answer_found`, `answer_expected` (as they stand in row and reference) and `answer_verdict`.

    Verdicts: right, wrong, unreadable, timeout, no_answer, no_reference. A row whose verdict is not in `keep` is
    rejected for it.

    With `samples` it also adds `answer_pass_rate` (the share of samples that are right, null without a reference) and
    `answer_num_samples`. Further reasons: too_hard, too_easy.
    """

    kind: ClassVar[str] = "answer"
    revision: ClassVar[int] = 2  # 2: the order counts in lists without brackets and in words of single letters
    Spec: ClassVar[type] = AnswerSpec
    spec: AnswerSpec

    def columns(self) -> list[pa.Field]:
        texts = [pa.field(f"{self.name}_{what}", pa.string()) for what in ("found", "expected", "verdict")]
        return [*texts, *fields_of(self.name, self.spec.samples)]

    def reads(self) -> list[str]:
        return [self.spec.column, self.spec.reference, *([self.spec.samples] if self.spec.samples else [])]

    def refuses(self, field: pa.Field) -> str | None:
        return refusal_of(field) if field.name == self.spec.samples else super().refuses(field)

    def find(self, rows: pa.RecordBatch) -> Findings:
        rules, spec = self.spec.extract, self.spec
        answers = [extract(text, rules) for text in rows.column(spec.column).to_pylist()]
        references = [extract(text, (*rules, "whole")) for text in rows.column(spec.reference).to_pylist()]
        lists = rows.column(spec.samples).to_pylist() if spec.samples else [None] * rows.num_rows
        samples = [[extract(text, rules) for text in texts or []] for texts in lists]
        compared = [[self._plain(each, right) for each in (a, *s)] for a, s, right in zip(answers, samples, references)]
        by_pair = (
            self._algebra.compare([v for row in compared for v in row if isinstance(v, tuple)]) if spec.math else {}
        )
        judged = [[by_pair.get(v, "unreadable") if isinstance(v, tuple) else v for v in row] for row in compared]
        verdicts = [row[0] for row in judged]
        rates = [
            None if right is None else pass_rate([v == "right" for v in row[1:]])
            for row, right in zip(judged, references)
        ]
        columns = [
            pa.array([_shorten(a) for a in answers], pa.string()),
            pa.array([_shorten(a) for a in references], pa.string()),
            pa.array(verdicts, pa.string()),
            pa.array(rates, pa.float32()),
            pa.array([len(row) for row in samples], pa.int32()),
        ]
        bounds = spec.min_pass_rate, spec.max_pass_rate
        reasons = [
            v if v not in spec.keep else reason_of(rate, *bounds) if spec.samples else None
            for v, rate in zip(verdicts, rates)
        ]
        return Findings(dict(zip([f.name for f in self.columns()], columns)), pa.array(reasons, pa.string()))

    def _plain(self, answer: str | None, reference: str | None) -> str | tuple[str, str]:
        """The verdict by text and plain numbers, or the pair that algebra must compare."""
        if reference is None:
            return "no_reference"
        if answer is None:
            return "no_answer"
        return compare(answer, reference) or (normal(answer), normal(reference))


def _shorten(answer: str | None) -> str | None:
    return None if answer is None else answer[:MAX_KEPT_CHARS]

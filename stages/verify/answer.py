"""Compares the final answer of a row with a reference, first by text and plain numbers, then by algebra.

Algebra is math_verify over sympy (LaTeX, sets, intervals, matrices, equations, units), each comparison in a process of
its own with a deadline. It is used only for pairs that text and numbers cannot decide.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import pyarrow as pa

from gristmill.records.spec import used_if
from gristmill.stages.contract import Findings
from gristmill.stages.verify.algebra import Algebraic, AlgebraSpec
from gristmill.stages.verify.answer_text import Rule, compare, extract, normal

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

    def __post_init__(self) -> None:
        if not self.extract:
            raise ValueError("extract must name at least one rule, e.g. 'whole'")
        for verdict in self.keep:
            if verdict not in VERDICTS:
                raise ValueError(f"keep: no verdict '{verdict}' (known: {', '.join(VERDICTS)})")


class Answer(Algebraic):
    """Adds `answer_found`, `answer_expected` (as they stand in row and reference) and `answer_verdict`.

    Verdicts: right, wrong, unreadable, timeout, no_answer, no_reference. A row whose verdict is not in `keep` is
    rejected for it.
    """

    kind: ClassVar[str] = "answer"
    Spec: ClassVar[type] = AnswerSpec
    spec: AnswerSpec

    def columns(self) -> list[pa.Field]:
        return [pa.field(f"{self.name}_{what}", pa.string()) for what in ("found", "expected", "verdict")]

    def reads(self) -> list[str]:
        return [self.spec.column, self.spec.reference]

    def find(self, rows: pa.RecordBatch) -> Findings:
        rules = self.spec.extract
        answers = [extract(text, rules) for text in rows.column(self.spec.column).to_pylist()]
        references = [extract(text, (*rules, "whole")) for text in rows.column(self.spec.reference).to_pylist()]
        plain = [self._plain(answer, right) for answer, right in zip(answers, references)]
        verdicts = [v if isinstance(v, str) else "unreadable" for v in plain]
        if self.spec.math:
            by_pair = self._algebra.compare([v for v in plain if isinstance(v, tuple)])
            verdicts = [by_pair[v] if isinstance(v, tuple) else v for v in plain]
        values = ([_shorten(a) for a in answers], [_shorten(a) for a in references], verdicts)
        names = [f.name for f in self.columns()]
        reasons = pa.array([None if v in self.spec.keep else v for v in verdicts], pa.string())
        return Findings({n: pa.array(v, pa.string()) for n, v in zip(names, values)}, reasons)

    def _plain(self, answer: str | None, reference: str | None) -> str | tuple[str, str]:
        """The verdict by text and plain numbers, or the pair that algebra must compare."""
        if reference is None:
            return "no_reference"
        if answer is None:
            return "no_answer"
        return compare(answer, reference) or (normal(answer), normal(reference))


def _shorten(answer: str | None) -> str | None:
    return None if answer is None else answer[:MAX_KEPT_CHARS]

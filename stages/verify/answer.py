"""Compares a row's final answer with a reference: by text and plain numbers first, by algebra where these cannot tell.

Algebra is math_verify over sympy (LaTeX, sets, intervals, matrices, equations, units), each comparison in a process of
its own with a deadline.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import pyarrow as pa

from gristmill.records.spec import used_if
from gristmill.stages.contract import Findings
from gristmill.stages.verify.algebra import Algebraic, AlgebraSpec
from gristmill.stages.verify.answer_text import Rule, compare, extract, normal

VERDICTS = ("right", "wrong", "unreadable", "timeout", "no_answer", "no_reference")
MAX_KEPT_CHARS = 2000  # of an answer in the findings: evidence, not a copy of the row


@dataclass(frozen=True)
class AnswerSpec:
    """`column` holds the row's answer, or text to find it in by `extract` (see answer_text.extract: the first rule that
    finds one counts); `reference` the right one, or text with it, by the same rules and else as a whole."""

    column: str = "answer"
    reference: str = "reference"
    extract: tuple[Rule, ...] = ("boxed", "hash", "phrase", "whole")
    keep: tuple[str, ...] = ("right",)  # verdicts that pass
    math: bool = True  # false: text and plain numbers alone; what these cannot tell is "unreadable"
    algebra: AlgebraSpec = field(default_factory=AlgebraSpec, metadata=used_if("math"))

    def __post_init__(self) -> None:
        if not self.extract:
            raise ValueError("extract must name at least one rule, e.g. 'whole'")
        for verdict in self.keep:
            if verdict not in VERDICTS:
                raise ValueError(f"keep: no verdict '{verdict}' (known: {', '.join(VERDICTS)})")


class Answer(Algebraic):
    """Findings: `answer_found` and `answer_expected`, as they stand in row and reference, and `answer_verdict` (right,
    wrong, unreadable, timeout, no_answer, no_reference). A row whose verdict is not in `keep` is rejected for it."""

    kind: ClassVar[str] = "answer"
    Spec: ClassVar[type] = AnswerSpec
    spec: AnswerSpec

    def columns(self) -> list[pa.Field]:
        return [pa.field(f"{self.name}_{what}", pa.string()) for what in ("found", "expected", "verdict")]

    def reads(self) -> list[str]:
        return [self.spec.column, self.spec.reference]

    def find(self, rows: pa.RecordBatch) -> Findings:
        rules = self.spec.extract
        found = [extract(text, rules) for text in rows.column(self.spec.column).to_pylist()]
        expected = [extract(text, (*rules, "whole")) for text in rows.column(self.spec.reference).to_pylist()]
        told = [self._plain(one, other) for one, other in zip(found, expected)]
        verdicts = [v if isinstance(v, str) else "unreadable" for v in told]
        if self.spec.math:
            by_pair = self._algebra.tell([v for v in told if isinstance(v, tuple)])
            verdicts = [by_pair[v] if isinstance(v, tuple) else v for v in told]
        values = ([_cut(a) for a in found], [_cut(a) for a in expected], verdicts)
        names = [f.name for f in self.columns()]
        reasons = pa.array([None if v in self.spec.keep else v for v in verdicts], pa.string())
        return Findings({n: pa.array(v, pa.string()) for n, v in zip(names, values)}, reasons)

    def _plain(self, found: str | None, expected: str | None) -> str | tuple[str, str]:
        """The verdict, or the pair that algebra must tell about."""
        if expected is None:
            return "no_reference"
        if found is None:
            return "no_answer"
        return compare(found, expected) or (normal(found), normal(expected))


def _cut(answer: str | None) -> str | None:
    return None if answer is None else answer[:MAX_KEPT_CHARS]

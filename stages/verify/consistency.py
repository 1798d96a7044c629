"""Keeps the answer that most of k independent samples of an ask agree on: self-consistency.

Wang et al. 2022 (arXiv 2203.11171), section 2: the samples' reasoning is left out of account and the most frequent
final answer taken. The share of samples that gave it tells how sure the model is (their section 3.5).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import numpy as np
import pyarrow as pa

from gristmill.records.spec import used_if
from gristmill.stages.contract import Findings
from gristmill.stages.verify.algebra import Algebraic, AlgebraSpec, Equality
from gristmill.stages.verify.answer_text import Rule, compare, extract, key, normal


@dataclass(frozen=True)
class ConsistencySpec:
    """`column` is a list of texts, one a sample; the answer is found in each by `extract`, as in the stage `answer`."""

    column: str = "answers"
    min_share: float = 0.5  # of all samples, those without an answer included
    own: str | None = None  # the row's own answer, which must be the majority's; default: `answer`, where there is one
    extract: tuple[Rule, ...] = ("boxed", "hash", "phrase", "whole")
    math: bool = False  # let algebra tell whether answers that differ as text are the same
    algebra: AlgebraSpec = field(default_factory=AlgebraSpec, metadata=used_if("math"))

    def __post_init__(self) -> None:
        if not 0 <= self.min_share <= 1:
            raise ValueError("min_share must lie in 0..1")
        if not self.extract:
            raise ValueError("extract must name at least one rule, e.g. 'whole'")


class Vote(NamedTuple):
    """`answer` as the first of those who voted for it wrote it."""

    answer: str
    votes: int
    share: float  # of all samples


class Consistency(Algebraic):
    """Findings: `consistency_answer`, `consistency_share` (float32) and `consistency_votes` (int32).

    Of answers with equally many votes, the one that was given first wins. Reasons: no_answer (no sample has one), share
    (below `min_share`), minority (the row's own answer is not the majority's; `own = ""` leaves this out).
    """

    kind: ClassVar[str] = "consistency"
    Spec: ClassVar[type] = ConsistencySpec
    reads_text: ClassVar[bool] = False
    spec: ConsistencySpec

    def columns(self) -> list[pa.Field]:
        types = {"answer": pa.string(), "share": pa.float32(), "votes": pa.int32()}
        return [pa.field(f"{self.name}_{what}", type_) for what, type_ in types.items()]

    def reads(self) -> list[str]:
        return [self.spec.column, *([self.spec.own] if self.spec.own else [])]

    def refuses(self, field: pa.Field) -> str | None:
        if field.name == self.spec.own:
            return None if pa.types.is_string(field.type) else "holds no text"
        is_texts = pa.types.is_list(field.type) and pa.types.is_string(field.type.value_type)
        return None if is_texts else "is no list of texts"

    def find(self, rows: pa.RecordBatch) -> Findings:
        rules = self.spec.extract
        samples = [s or [] for s in rows.column(self.spec.column).to_pylist()]
        answers = [[a for text in texts if (a := extract(text, rules)) is not None] for texts in samples]
        own = [_as_sampled(mine, given) for mine, given in zip(self._own(rows), answers)]
        asked = [[*given, *([mine] if mine else [])] for given, mine in zip(answers, own)]
        told = self._told(asked)
        votes = [majority(given, len(texts), told) for given, texts in zip(answers, samples)]
        reasons = [self._reason(vote, mine, told) for vote, mine in zip(votes, own)]
        shares = np.array([v.share if v else 0.0 for v in votes], np.float32)
        columns = (
            pa.array([v.answer if v else None for v in votes], pa.string()),
            pa.array(shares, mask=np.array([v is None for v in votes], bool)),
            pa.array([v.votes if v else None for v in votes], pa.int32()),
        )
        names = [f.name for f in self.columns()]
        return Findings(dict(zip(names, columns)), pa.array(reasons, pa.string()))

    def _own(self, rows: pa.RecordBatch) -> list[str | None]:
        """The row's own answer; "" for a row without one, None where none is to be compared."""
        name = "answer" if self.spec.own is None else self.spec.own
        if name not in rows.schema.names or not pa.types.is_string(rows.schema.field(name).type):
            return [None] * rows.num_rows
        return [extract(text, self.spec.extract) or "" for text in rows.column(name).to_pylist()]

    def _reason(self, vote: Vote | None, own: str | None, told: dict[tuple[str, str], Equality]) -> str | None:
        if vote is None:
            return "no_answer"
        if vote.share < self.spec.min_share:
            return "share"
        return "minority" if own is not None and not is_same(own, vote.answer, told) else None

    def _told(self, asked: Sequence[Sequence[str]]) -> dict[tuple[str, str], Equality]:
        """What algebra says of each two answers of a row that text and plain numbers cannot tell apart."""
        if not self.spec.math:
            return {}
        pairs = []
        for given in asked:
            distinct = list({key(answer): answer for answer in reversed(given)}.values())
            for at, one in enumerate(distinct):
                pairs += [(normal(one), normal(other)) for other in distinct[:at] if compare(one, other) is None]
        return self._algebra.tell(sorted({(min(pair), max(pair)) for pair in pairs}))


def _as_sampled(own: str | None, samples: Sequence[str]) -> str | None:
    """`own` as the first sample that is the same text up to looks wrote it: algebra is asked of that one alone."""
    mark = key(own) if own else None
    return next((sample for sample in samples if key(sample) == mark), own)


def is_same(one: str, other: str, told: dict[tuple[str, str], Equality]) -> bool:
    plain = compare(one, other)
    if plain is not None:
        return plain == "right"
    pair = normal(one), normal(other)
    return told.get((min(pair), max(pair))) == "right"


def majority(answers: Sequence[str], num_samples: int, told: dict[tuple[str, str], Equality]) -> Vote | None:
    """The answer with the most votes, of equals the one given first; None without answers.

    An answer votes for the first one before it that is the same. Sameness as rounded numbers have it is not transitive,
    so which is first matters: it is the order of the samples.
    """
    leaders: list[str] = []
    votes: list[int] = []
    seen: dict[str, int] = {}
    for answer in answers:
        mark = key(answer)
        if mark not in seen:
            found = (at for at, leader in enumerate(leaders) if is_same(answer, leader, told))
            seen[mark] = next(found, len(leaders))
            if seen[mark] == len(leaders):
                leaders.append(answer)
                votes.append(0)
        votes[seen[mark]] += 1
    if not leaders:
        return None
    best = votes.index(max(votes))
    return Vote(leaders[best], votes[best], votes[best] / num_samples)

"""Self-consistency: keeps the answer that most of k independent samples of an ask agree on.

Wang et al. 2022 (arXiv 2203.11171), section 2: the samples' reasoning is ignored and the most frequent final answer
wins. The share of samples with that answer measures the model's confidence (their section 3.5).
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

MAX_ANSWERS = 256  # different answers of a row: each is compared with those before it
TOO_MANY = "too_many_answers"


@dataclass(frozen=True)
class ConsistencySpec:
    """Keys of the stage `consistency`."""

    # Column with the samples, a list of texts; a row with more than 256 different answers is rejected as
    # `too_many_answers`.
    column: str = "answers"
    min_share: float = 0.5  # Least share of all samples, those without an answer included, that must agree; 0 to 1.
    # Column with the row's answer, which must be that of the majority; by default `answer`, if the row has it, and ""
    # for none.
    own: str | None = None
    # Rules that find the answer in a sample, as in the stage `answer`.
    extract: tuple[Rule, ...] = ("boxed", "hash", "phrase", "whole")
    math: bool = False  # Whether algebra compares answers that differ as text; it takes time for each pair of answers.
    # Limits of a comparison by algebra.
    algebra: AlgebraSpec = field(default_factory=AlgebraSpec, metadata=used_if("math"))

    def __post_init__(self) -> None:
        if not 0 <= self.min_share <= 1:
            raise ValueError("min_share must lie in 0..1")
        if not self.extract:
            raise ValueError("extract must name at least one rule, e.g. 'whole'")


class Vote(NamedTuple):
    """The winning answer, in the words of the first sample that gave it."""

    answer: str
    votes: int
    share: float  # of all samples


class Consistency(Algebraic):
    """Adds `consistency_answer`, `consistency_share` (float32) and `consistency_votes` (int32).

    Of answers with equal votes, the one given first wins. Reasons: no_answer (no sample has one), too_many_answers
    (more than 256 different ones), share (below `min_share`), minority (the row's answer is not the majority's; `own
    = ""` turns this off).
    """

    kind: ClassVar[str] = "consistency"
    revision: ClassVar[int] = 3  # 3: comparisons as in `answer`
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
        return None if is_texts else "is not a list of texts"

    def find(self, rows: pa.RecordBatch) -> Findings:
        rules = self.spec.extract
        samples = [s or [] for s in rows.column(self.spec.column).to_pylist()]
        answers = [[a for text in texts if (a := extract(text, rules)) is not None] for texts in samples]
        are_many = [len({key(answer) for answer in others}) > MAX_ANSWERS for others in answers]
        answers = [[] if is_many else others for others, is_many in zip(answers, are_many)]
        row_answers = [_as_sampled(answer, others) for answer, others in zip(self._row_answers(rows), answers)]
        to_compare = [[*others, *([answer] if answer else [])] for others, answer in zip(answers, row_answers)]
        equalities = self._equalities(to_compare)
        votes = [majority(others, len(texts), equalities) for others, texts in zip(answers, samples)]
        reasons = [
            TOO_MANY if is_many else self._reason(vote, answer, equalities)
            for vote, answer, is_many in zip(votes, row_answers, are_many)
        ]
        shares = np.array([v.share if v else 0.0 for v in votes], np.float32)
        columns = (
            pa.array([v.answer if v else None for v in votes], pa.string()),
            pa.array(shares, mask=np.array([v is None for v in votes], bool)),
            pa.array([v.votes if v else None for v in votes], pa.int32()),
        )
        names = [f.name for f in self.columns()]
        return Findings(dict(zip(names, columns)), pa.array(reasons, pa.string()))

    def _row_answers(self, rows: pa.RecordBatch) -> list[str | None]:
        """The answer of each row; "" for a row without one, None if none is compared."""
        name = "answer" if self.spec.own is None else self.spec.own
        if name not in rows.schema.names or not pa.types.is_string(rows.schema.field(name).type):
            return [None] * rows.num_rows
        return [extract(text, self.spec.extract) or "" for text in rows.column(name).to_pylist()]

    def _reason(self, vote: Vote | None, answer: str | None, equalities: dict[tuple[str, str], Equality]) -> str | None:
        if vote is None:
            return "no_answer"
        if vote.share < self.spec.min_share:
            return "share"
        return "minority" if answer is not None and not is_same(answer, vote.answer, equalities) else None

    def _equalities(self, answers: Sequence[Sequence[str]]) -> dict[tuple[str, str], Equality]:
        """The verdicts of algebra on each two answers of a row that text and plain numbers cannot decide."""
        if not self.spec.math:
            return {}
        pairs = []
        for row in answers:
            distinct = list({key(answer): answer for answer in reversed(row)}.values())
            for at, one in enumerate(distinct):
                pairs += [(normal(one), normal(other)) for other in distinct[:at] if compare(one, other) is None]
        return self._algebra.compare(sorted({(min(pair), max(pair)) for pair in pairs}))


def _as_sampled(answer: str | None, samples: Sequence[str]) -> str | None:
    """`answer` as written by the first sample with equal text but for formatting, so that algebra compares it once."""
    answer_key = key(answer) if answer else None
    return next((sample for sample in samples if key(sample) == answer_key), answer)


def is_same(one: str, other: str, equalities: dict[tuple[str, str], Equality]) -> bool:
    """Whether two answers are the same by text, plain numbers or the verdicts of algebra."""
    plain = compare(one, other)
    if plain is not None:
        return plain == "right"
    pair = normal(one), normal(other)
    return equalities.get((min(pair), max(pair))) == "right"


def majority(answers: Sequence[str], num_samples: int, equalities: dict[tuple[str, str], Equality]) -> Vote | None:
    """The answer with the most votes, of equals the one given first; None without answers.

    An answer votes for the first one before it that is the same. Sameness as rounded numbers have it is not transitive,
    so which is first matters: it is the order of the samples.
    """
    leaders: list[str] = []
    votes: list[int] = []
    leader_of: dict[str, int] = {}
    for answer in answers:
        answer_key = key(answer)
        if answer_key not in leader_of:
            matches = (number for number, leader in enumerate(leaders) if is_same(answer, leader, equalities))
            leader_of[answer_key] = next(matches, len(leaders))
            if leader_of[answer_key] == len(leaders):
                leaders.append(answer)
                votes.append(0)
        votes[leader_of[answer_key]] += 1
    if not leaders:
        return None
    best = votes.index(max(votes))
    return Vote(leaders[best], votes[best], votes[best] / num_samples)

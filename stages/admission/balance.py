"""Balances a corpus at commit: quotas and a largest share for the labels of a column (topic, difficulty, score, ...).

The last step before release: generate, verify, dedup, balance. A row over its label's quota is rejected, and may be
asked for anew by a run that goes on until every quota is full.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from gristmill.stages.admission.contract import Admission, AdmissionBook, AdmissionVerdict, ReadKept

QUOTA, SHARE, NO_LABEL = "quota", "share", "no_label"


@dataclass(frozen=True)
class BalanceSpec:
    """column: holds the label: text, a whole number or a truth value, of payload or findings.

    quotas: the most kept rows, by label. other: that of every label not named; null: no quota, 0: none is wanted.
    max_share: no label may hold more than this share of the kept rows, but for `slack_rows` rows: the first row of a
    run is all of it. allow_null: rows without a label pass and are counted as "".
    """

    column: str
    quotas: dict[str, int] = field(default_factory=dict)
    other: int | None = None
    max_share: float | None = None
    slack_rows: int = 32
    allow_null: bool = False

    def __post_init__(self) -> None:
        if not self.column:
            raise ValueError("column must name the column of the labels")
        if not self.quotas and self.other is None and self.max_share is None:
            raise ValueError("give quotas = {label = rows, ...}, other = rows for each label, or max_share")
        if any(quota < 0 for quota in self.quotas.values()) or (self.other is not None and self.other < 0):
            raise ValueError("a quota must not be negative")
        if self.max_share is not None and not 0 < self.max_share < 1:
            raise ValueError(f"max_share must lie between 0 and 1, not {self.max_share}")
        if self.slack_rows < 1:
            raise ValueError("slack_rows must be at least 1: the first row of a run is all of it")

    def quota(self, label: str) -> int | None:
        return self.quotas.get(label, self.other)


class Balance(Admission):
    """Adds nothing: the label is there already. Rejects as `quota`, `share` and `no_label`."""

    kind: ClassVar[str] = "balance"
    Spec: ClassVar[type] = BalanceSpec
    reads_text: ClassVar[bool] = False
    spec: BalanceSpec

    def reads(self) -> list[str]:
        return [self.spec.column]

    def refuses(self, field: pa.Field) -> str | None:
        kind = field.type
        fits = pa.types.is_string(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)
        return None if fits else f"holds no labels: {kind} is neither text nor a whole number"

    def labels(self, batch: Any) -> list[str]:
        return ["" if label is None else label for label in self.offers(batch)]

    def offers(self, batch: Any) -> list[Any]:
        column = batch.column(self.spec.column)
        texts: list[Any] = pc.cast(column, pa.string()).to_pylist()
        return texts

    def new_book(self) -> AdmissionBook:
        return LabelBook(self.spec)

    def refill(self, book: AdmissionBook, admitted: Mapping[str, int], kept: ReadKept) -> None:
        assert isinstance(book, LabelBook)
        book.counts = Counter(admitted)
        book.num_kept = sum(admitted.values())

    def is_full(self, admitted: Mapping[str, int]) -> bool:
        spec = self.spec
        return spec.other == 0 and all(admitted.get(label, 0) >= quota for label, quota in spec.quotas.items())


class LabelBook(AdmissionBook):
    """Kept rows by label."""

    def __init__(self, spec: BalanceSpec) -> None:
        self.spec = spec
        self.counts: Counter[str] = Counter()
        self.num_kept = 0

    def judge(self, offer: Any, ask: int) -> AdmissionVerdict:
        spec = self.spec
        if offer is None and not spec.allow_null:
            return AdmissionVerdict(NO_LABEL)
        label = offer or ""
        held, quota = self.counts[label] + 1, spec.quota(label)
        if quota is not None and held > quota:
            return AdmissionVerdict(QUOTA)
        if spec.max_share is not None and held > spec.max_share * (self.num_kept + 1) + spec.slack_rows:
            return AdmissionVerdict(SHARE)
        return AdmissionVerdict()

    def admit(self, offer: Any, ask: int) -> None:
        self.counts[offer or ""] += 1
        self.num_kept += 1

    def retract(self, offer: Any, ask: int) -> None:
        self.counts[offer or ""] -= 1
        self.num_kept -= 1

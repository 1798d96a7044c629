"""Balances a corpus at commit: quotas and a largest share for the labels of a column (topic, difficulty, score, ...).

It is the last step before release: generate, verify, dedup, balance. A row over the quota of its label is rejected. A
run that goes on until every quota is full can ask for such a row again.
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
    """Keys of the stage `balance`; at least one of `quotas`, `other` and `max_share` is required."""

    column: str  # Column with the label, of payload or findings: text, an integer or a boolean.
    quotas: dict[str, int] = field(default_factory=dict)  # Largest number of kept rows by label.
    # Largest number of kept rows of each label that `quotas` does not name; 0 rejects them, and by default there is no
    # limit.
    other: int | None = None
    # Largest share of the kept rows that one label may hold, between 0 and 1; by default there is no limit.
    max_share: float | None = None
    # Rows that a label may exceed `max_share` by; at least 1, because the first row of a run is all of it.
    slack_rows: int = 32
    allow_null: bool = False  # Whether rows without a label pass; they count under the label "".

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
        """Largest number of kept rows of `label`; None: no limit."""
        return self.quotas.get(label, self.other)


class Balance(Admission):
    """Adds no column. Rejects rows as `quota`, `share` and `no_label`."""

    kind: ClassVar[str] = "balance"
    Spec: ClassVar[type] = BalanceSpec
    reads_text: ClassVar[bool] = False
    spec: BalanceSpec

    def reads(self) -> list[str]:
        return [self.spec.column]

    def refuses(self, field: pa.Field) -> str | None:
        kind = field.type
        fits = pa.types.is_string(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)
        return None if fits else f"holds no labels: {kind} is neither text, nor an integer, nor a boolean"

    def labels(self, batch: Any) -> list[str]:
        return ["" if label is None else label for label in self.offers(batch)]

    def offers(self, batch: Any) -> list[Any]:
        column = batch.column(self.spec.column)
        texts: list[Any] = pc.cast(column, pa.string()).to_pylist()
        return texts

    def new_book(self) -> AdmissionBook:
        return LabelBook(self.spec)

    def refill(self, book: AdmissionBook, counts: Mapping[str, int], read_rows: ReadKept) -> None:
        assert isinstance(book, LabelBook)
        book.counts = Counter(counts)
        book.num_rows = sum(counts.values())

    def is_full(self, counts: Mapping[str, int]) -> bool:
        spec = self.spec
        return spec.other == 0 and all(counts.get(label, 0) >= quota for label, quota in spec.quotas.items())


class LabelBook(AdmissionBook):
    """Number of kept rows by label."""

    def __init__(self, spec: BalanceSpec) -> None:
        self.spec = spec
        self.counts: Counter[str] = Counter()
        self.num_rows = 0

    def judge(self, offer: Any, ask: int) -> AdmissionVerdict:
        spec = self.spec
        if offer is None and not spec.allow_null:
            return AdmissionVerdict(NO_LABEL)
        label = offer or ""
        held, quota = self.counts[label] + 1, spec.quota(label)
        if quota is not None and held > quota:
            return AdmissionVerdict(QUOTA)
        if spec.max_share is not None and held > spec.max_share * (self.num_rows + 1) + spec.slack_rows:
            return AdmissionVerdict(SHARE)
        return AdmissionVerdict()

    def admit(self, offer: Any, ask: int) -> None:
        self.counts[offer or ""] += 1
        self.num_rows += 1

    def retract(self, offer: Any, ask: int) -> None:
        self.counts[offer or ""] -= 1
        self.num_rows -= 1

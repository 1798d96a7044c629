"""Replays admission: each verdict must follow from the rows kept before it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from gristmill.records.schema import REJECT
from gristmill.stages.admission.contract import Admission


@dataclass(frozen=True)
class AdmissionRows:
    """What the replay needs of the rows of a lot, kept and rejected."""

    rows: list[int]
    rejects: list[str | None]
    offers: list[list[Any]]  # by stage

    @classmethod
    def of(cls, stages: Sequence[Admission], whole: pa.Table) -> "AdmissionRows":
        rows, rejects = whole.column("row").to_pylist(), whole.column(REJECT.name).to_pylist()
        return cls(rows, rejects, [stage.offers(whole) for stage in stages])


class AdmissionAudit:
    """Fresh admission books that go through the lots of a run in order."""

    def __init__(self, stages: Sequence[Admission], lot_size: int) -> None:
        self.stages, self.lot_size = stages, lot_size
        self.books = [stage.new_book() for stage in stages]

    def lot(self, whole: AdmissionRows, lot: int) -> list[str]:
        """The errors in a lot: at most one line per stage."""
        rows, rejects = whole.rows, whole.rejects
        errors: dict[str, str] = {}
        for at in np.argsort(rows, kind="stable").tolist():
            refused_by = (rejects[at] or "").partition(":")[0]
            ask = lot * self.lot_size + rows[at]
            for stage, book, offer in zip(self.stages, self.books, whole.offers):
                if rejects[at] is not None and refused_by != stage.name:
                    continue
                reason = book.judge(offer[at], ask).reason
                verdict = f"{stage.name}:{reason}" if reason else None
                # Seed rows of the source are not read here, and a row may be refused because of one.
                if verdict != rejects[at] and not (stage.has_seeds and verdict is None):
                    state = f"rejected as {rejects[at]}" if rejects[at] else "kept"
                    errors.setdefault(stage.name, f"row {rows[at]} is {state}, but by the rows before it is {verdict}")
            if rejects[at] is None:
                for book, offer in zip(self.books, whole.offers):
                    book.admit(offer[at], ask)
        return [f"lot {lot}: {line}" for line in errors.values()]

"""What stages that admit a row by those kept before it share: the verdict comes when lots commit, in lot order.

After duplicates, and row by row, each such stage of a recipe is asked in turn. A row that is refused leaves no trace:
it claims nothing in the dedup index, and so never makes a duplicate of a good row. The verdict hangs on the kept rows
before it alone, not on which worker was first.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from gristmill.records.schema import REJECT
from gristmill.stages.contract import Findings, Stage
from gristmill.stages.dedup.bandindex import NOBODY

ReadKept = Callable[[list[str]], Iterator[tuple[int, pa.Table]]]  # columns -> (lot, kept rows) of all committed lots


@dataclass(frozen=True)
class AdmissionVerdict:
    """A verdict on one row: null or the reason, and values for the stage's columns."""

    reason: str | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)


class AdmissionBook(ABC):
    """What is known of the rows kept so far. The driver holds it; it must stay small and quick."""

    @abstractmethod
    def judge(self, offer: Any, ask: int) -> AdmissionVerdict:
        """The verdict on a row, without a change. `ask` is its number in the run."""

    @abstractmethod
    def admit(self, offer: Any, ask: int) -> None:
        """The row is kept."""

    @abstractmethod
    def retract(self, offer: Any, ask: int) -> None:
        """The row admitted last of all is not kept after all."""


class Admission(Stage):
    """Base of these stages. `find` leaves the columns null; verdict and evidence come at commit."""

    has_seeds: ClassVar[bool] = False  # whether rows of the source count as kept before the first

    def find(self, rows: pa.RecordBatch) -> Findings:
        return self._nothing(rows.num_rows)

    @abstractmethod
    def offers(self, batch: Any) -> list[Any]:
        """For every row of a processed lot, dead ones too, what the verdict needs to know of it; small, pickles."""

    @abstractmethod
    def new_book(self) -> AdmissionBook:
        """A book in which no row is kept yet."""

    @abstractmethod
    def refill(self, book: AdmissionBook, admitted: Mapping[str, int], kept: ReadKept) -> None:
        """Bring a new book to what is committed: from the run's counts by label, or by reading kept rows."""

    def labels(self, batch: Any) -> list[str] | None:
        """The label by which each row of a batch or table is counted in the run's summary; null: nothing is counted."""
        return None

    def is_full(self, admitted: Mapping[str, int]) -> bool:
        """Whether no further row can be admitted, whatever it is; `admitted` counts kept rows by label."""
        return False


def tally(stages: Sequence[Admission], batch: Any) -> tuple[dict[str, dict[str, int]], dict[str, dict[str, int]]]:
    """(offered, admitted) of a finished lot, a batch or a table: rows by stage and label that came to each stage, and
    those of them that are kept. A row that a later one of `stages` refused was offered to all before."""
    reject = batch.column(REJECT.name).to_pylist()
    offered: dict[str, dict[str, int]] = {}
    admitted: dict[str, dict[str, int]] = {}
    for place, stage in enumerate(stages):
        labels = stage.labels(batch)
        if labels is None:
            continue
        later = {s.name for s in stages[place:]}
        came, kept = Counter[str](), Counter[str]()
        for label, reason in zip(labels, reject):
            if reason is None:
                kept[label] += 1
            if reason is None or reason.partition(":")[0] in later:
                came[label] += 1
        offered[stage.name], admitted[stage.name] = dict(sorted(came.items())), dict(sorted(kept.items()))
    return offered, admitted


def is_full(stages: Iterable[Stage], admitted: Mapping[str, Mapping[str, int]]) -> bool:
    """Whether one of `stages` can admit no further row; `admitted`: kept rows by stage and label."""
    return any(isinstance(s, Admission) and s.is_full(admitted.get(s.name, {})) for s in stages)


@dataclass(frozen=True)
class LotVerdicts:
    """What was decided of a lot at commit, row by row."""

    owners: np.ndarray  # int64: see gristmill.stages.dedup.contract; NOBODY for a row that is kept, refused or dead
    refused: Sequence[str | None]  # "stage:reason"
    evidence: Mapping[str, Sequence[Any]] = field(default_factory=dict)  # column -> value per row, null: none


def resolve_admitting(
    resolve: Callable[[np.ndarray], np.ndarray], alive: np.ndarray, first_owner: int, admit: Callable[[int], bool]
) -> tuple[np.ndarray, np.ndarray]:
    """What `resolve` says of rows, where one that is no duplicate is kept only if `admit(ask number)` says so.

    `resolve(alive)`: owners int64 (n,) of the rows bool (n,), see stages.dedup.bandindex.resolve. `admit` is asked
    in the
    order of the rows. Answers with the owners, and with the rows bool (n,) that are alive and were not refused: those
    that were have NOBODY, and nobody is a duplicate of them.
    """
    living = alive.copy()
    owners = resolve(living)
    for row in np.flatnonzero(alive).tolist():
        twin = owners[row] - first_owner
        if twin >= 0 and not living[twin]:
            owners = resolve(living)  # a row that was refused meanwhile has no duplicates
        if owners[row] == NOBODY and not admit(first_owner + row):
            living[row] = False
    return owners, living

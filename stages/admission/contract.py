"""The contract of admission stages: they accept or reject a row by the rows kept before it, at commit and in lot order.

At commit, after dedup and row by row, each admission stage of a recipe judges a row in turn. A rejected row leaves no
trace: it claims nothing in the dedup index, so it never makes a good row a duplicate. The verdict depends only on the
rows kept before, not on which worker was first.
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
    """Verdict on a row: None or a reject reason, and values for the stage's columns."""

    reason: str | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)


class AdmissionBook(ABC):
    """The state of an admission stage: what it records of the kept rows.

    The driver holds it, so it must be small and fast.
    """

    @abstractmethod
    def judge(self, offer: Any, ask: int) -> AdmissionVerdict:
        """The verdict on a row; changes nothing.

        `offer` comes from `Admission.offers`, `ask` is the row's number in the run.
        """

    @abstractmethod
    def admit(self, offer: Any, ask: int) -> None:
        """Record a row as kept."""

    @abstractmethod
    def retract(self, offer: Any, ask: int) -> None:
        """Undo the last `admit`."""


class Admission(Stage):
    """Base class of admission stages. `find` leaves the columns null; verdicts and evidence come at commit."""

    has_seeds: ClassVar[bool] = False  # whether the rows of the source count as kept before the run

    def find(self, rows: pa.RecordBatch) -> Findings:
        return self._null_findings(rows.num_rows)

    @abstractmethod
    def offers(self, batch: Any) -> list[Any]:
        """What the verdict needs to know of each row of a processed lot, dead rows included; small, and it pickles."""

    @abstractmethod
    def new_book(self) -> AdmissionBook:
        """A book without kept rows."""

    @abstractmethod
    def refill(self, book: AdmissionBook, counts: Mapping[str, int], read_rows: ReadKept) -> None:
        """Bring a new book to the committed state, from the run's counts by label or by reading kept rows."""

    def labels(self, batch: Any) -> list[str] | None:
        """The label by which the run's summary counts each row of a batch or table; None: it counts nothing."""
        return None

    def is_full(self, counts: Mapping[str, int]) -> bool:
        """Whether no further row can be admitted; `counts` counts kept rows by label."""
        return False


def tally(stages: Sequence[Admission], batch: Any) -> tuple[dict[str, dict[str, int]], dict[str, dict[str, int]]]:
    """(offered, admitted) of a finished lot, given as a batch or a table: rows by stage and label.

    A row is offered to a stage if neither an earlier stage nor dedup rejected it; it is admitted if it is kept. A row
    that a later one of `stages` rejected was offered to all stages before that.
    """
    reject = batch.column(REJECT.name).to_pylist()
    offers: dict[str, dict[str, int]] = {}
    admissions: dict[str, dict[str, int]] = {}
    for place, stage in enumerate(stages):
        labels = stage.labels(batch)
        if labels is None:
            continue
        later = {s.name for s in stages[place:]}
        num_offers, num_admissions = Counter[str](), Counter[str]()
        for label, reason in zip(labels, reject):
            if reason is None:
                num_admissions[label] += 1
            if reason is None or reason.partition(":")[0] in later:
                num_offers[label] += 1
        offers[stage.name], admissions[stage.name] = (
            dict(sorted(num_offers.items())),
            dict(sorted(num_admissions.items())),
        )
    return offers, admissions


def is_full(stages: Iterable[Stage], counts: Mapping[str, Mapping[str, int]]) -> bool:
    """Whether one of `stages` can admit no further row; `counts` counts kept rows by stage and label."""
    return any(isinstance(s, Admission) and s.is_full(counts.get(s.name, {})) for s in stages)


@dataclass(frozen=True)
class LotVerdicts:
    """The verdicts on a lot at commit, row by row."""

    owners: np.ndarray  # int64, see stages/dedup/contract.py; NOBODY: the row is kept, rejected or dead
    reasons: Sequence[str | None]  # "stage:reason" of an admission stage
    evidence: Mapping[str, Sequence[Any]] = field(default_factory=dict)  # values per row by column; None: no value
    closed_at: int | None = None  # with `limits.exact`, the number of kept rows of the run that this lot completes


def resolve_admitting(
    resolve: Callable[[np.ndarray], np.ndarray],
    alive: np.ndarray,
    first_owner: int,
    admit: Callable[[int], bool],
    room: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Verdicts of `resolve`, where a row that is not a duplicate is kept only if `admit(ask number)` accepts it.

    `resolve(alive)` returns owners int64 (n,) for the living rows, bool (n,) (see stages.dedup.bandindex.resolve).
    `admit` is called in row order. Returns the owners and the rows, bool (n,), that are alive and accepted. A rejected
    row has the owner NOBODY, and no row is its duplicate. `room`: the number of rows that may be kept; once they are,
    `admit` is not called again, and the rows after the last of them are neither accepted nor duplicates.
    """
    living = alive.copy()
    owners = resolve(living)
    for row in np.flatnonzero(alive).tolist():
        if room is not None and room <= 0:
            living[row:], owners[row:] = False, NOBODY
            break
        twin = owners[row] - first_owner
        if twin >= 0 and not living[twin]:
            owners = resolve(living)  # the twin was rejected in the meantime, so it has no duplicates
        if owners[row] == NOBODY:
            living[row] = admit(first_owner + row)
            room = room - 1 if room is not None and living[row] else room
    return owners, living

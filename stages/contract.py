"""The stage contract and its eight laws.

A stage takes a RecordBatch and returns the same rows in the same order with more columns:
 1. the same rows; 2. in the same order; 3. identity and provenance untouched; 4. only the declared columns are
 added; 5. `reject` goes only from null to a reason; 6. dead rows pass through untouched (their findings are null);
 7. the same batch twice gives the same answer; 8. it pickles before `open()` and takes an empty batch.

The base class keeps the laws by construction: `find` sees the living rows only and answers with columns.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from gristmill.engines.needs import Needs
from gristmill.records.readers.sources import Source
from gristmill.records.schema import REJECT


@dataclass(frozen=True)
class Findings:
    """What `Stage.find` answers: one array per declared column and, per row, null or the reason of the reject."""

    columns: Mapping[str, pa.Array] = field(default_factory=dict)
    reasons: pa.Array | None = None  # string array; null = passes


@dataclass(frozen=True)
class RunContext:
    """The run that a stage is part of."""

    source: Source
    fingerprint: str
    generation: int
    lot_size: int


class Stage(ABC):
    """Base of every stage. Subclasses set `kind` and `Spec`, declare `columns()` and `reads()`, and write `find`."""

    kind: ClassVar[str]
    Spec: ClassVar[type]
    reads_text: ClassVar[bool] = True  # whether all columns that it reads must hold text

    def __init__(self, spec: Any, name: str | None = None) -> None:
        self.spec = spec
        self.name = name or self.kind  # stands before the colon in `reject`

    def columns(self) -> list[pa.Field]:
        """The findings that this stage adds, in order."""
        return []

    def reads(self) -> list[str]:
        """Columns that must be there before this stage; checked against the recipe's schema before a run."""
        return ["text"]

    def refuses(self, field: pa.Field) -> str | None:
        """Why a column that it reads will not do ("holds no text"), or null."""
        return "holds no text" if self.reads_text and not pa.types.is_string(field.type) else None

    def bind(self, run: RunContext) -> None:  # noqa: B027
        """Take from the run what the stage needs of it: called once, when the recipe is compiled."""

    def identity(self) -> dict[str, Any]:
        """Literals beyond the spec that change findings, e.g. digests of the benchmark files it reads."""
        return {}

    def check(self) -> None:  # noqa: B027
        """Preflight: raise UserError when a file or package that `open` needs is missing. Cheap; loads nothing big."""

    @property
    def needs(self) -> Needs | None:
        """What a replica takes, for a stage with an engine that must live in a pool; None: a CPU worker runs it."""
        return None

    @property
    def progress(self) -> tuple[int, int]:
        """(rows, tokens_out) that this replica has finished so far, lots in flight included."""
        return 0, 0

    def close(self) -> None:  # noqa: B027
        """Free the device, before a replica is killed."""

    def open(self) -> None:  # noqa: B027 - most stages have nothing to open
        """Load what the stage needs, once per worker process, before the first `run`."""

    @abstractmethod
    def find(self, rows: pa.RecordBatch) -> Findings:
        """Findings for `rows`, all alive, at least one. Must be deterministic."""

    async def find_pooled(self, rows: pa.RecordBatch) -> Findings:
        """As `find`, for a stage that lives in a pool: several lots may be under way at once."""
        return self.find(rows)

    def run(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """`batch` with this stage's columns added before `reject`, and `reject` filled for the rows it refuses."""
        living = self._living(batch)
        return self._joined(batch, self.find(living) if living.num_rows else self._nothing(0))

    async def run_pooled(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        living = self._living(batch)
        return self._joined(batch, await self.find_pooled(living) if living.num_rows else self._nothing(0))

    def refuse(self, batch: pa.RecordBatch, reason: str) -> pa.RecordBatch:
        """`batch` with every living row rejected for `reason` and no findings: they could not be had."""
        num_living = batch.column(REJECT.name).null_count
        found = self._nothing(num_living)
        return self._joined(batch, Findings(found.columns, pa.repeat(pa.scalar(reason), num_living)))

    def _nothing(self, num_rows: int) -> Findings:
        return Findings({f.name: pa.nulls(num_rows, f.type) for f in self.columns()})

    def _living(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        reject = batch.column(REJECT.name)
        return batch if reject.null_count == batch.num_rows else batch.filter(reject.is_null())

    def _joined(self, batch: pa.RecordBatch, found: Findings) -> pa.RecordBatch:
        """`batch` with what was found on its living rows."""
        reject = batch.column(REJECT.name)
        places = None
        if reject.null_count < batch.num_rows:
            alive = reject.is_null().cast(pa.int32())
            places = pc.if_else(reject.is_null(), pc.subtract(pc.cumulative_sum(alive), 1), None)
        columns = []
        for declared in self.columns():
            column = found.columns[declared.name]
            columns.append(column.take(places) if places is not None else column)
        if found.reasons is not None:
            reasons = found.reasons.take(places) if places is not None else found.reasons
            named = pc.binary_join_element_wise(pa.scalar(self.name), reasons.cast(pa.string()), ":")
            reject = pc.coalesce(reject, named)
        kept = [n for n in batch.schema.names if n != REJECT.name]
        return pa.RecordBatch.from_arrays(
            [*(batch.column(n) for n in kept), *columns, reject],
            schema=pa.schema([*(batch.schema.field(n) for n in kept), *self.columns(), REJECT]),
        )

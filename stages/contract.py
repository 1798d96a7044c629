"""The contract of a stage, and its eight laws.

A stage takes a RecordBatch and returns the same rows in the same order with more columns:
 1. It returns the same rows.
 2. It returns them in the same order.
 3. It leaves identity, provenance and every other column as they are.
 4. It adds only the columns that it declares, before `reject`.
 5. It changes `reject` only from null to a reason, "stage:reason".
 6. It passes dead rows through untouched; their findings are null.
 7. It gives the same answer for the same batch.
 8. It pickles before `open()` and takes an empty batch.

The base class keeps most laws by construction: `find` sees only the living rows and returns only columns.
`gristmill.testing.check_stage` checks all eight for any stage.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from gristmill.engines.needs import Needs
from gristmill.engines.throttle import Throttle
from gristmill.records.output.answers import AnswerFolder
from gristmill.records.pins import Pins
from gristmill.records.schema import REJECT

if TYPE_CHECKING:  # readers import pandas, which a replica does not need
    from gristmill.records.readers.sources import Source


@dataclass(frozen=True)
class Findings:
    """Result of `Stage.find`: an array for each declared column and, for each row, null or a reject reason."""

    columns: Mapping[str, pa.Array] = field(default_factory=dict)
    reasons: pa.Array | None = None  # string array; null: the row passes


@dataclass(frozen=True)
class RunContext:
    """The run that a stage is part of."""

    source: "Source"
    fingerprint: str
    generation: int
    lot_size: int


class Stage(ABC):
    """Base class of all stages.

    A subclass sets `kind` and `Spec`, declares `columns()` and `reads()`, and implements `find`. It raises `revision`
    whenever its findings or verdicts change for the same rows and the same spec.
    """

    kind: ClassVar[str]  # the name in a recipe's [[stages]]
    Spec: ClassVar[type]  # frozen dataclass of the keys in a recipe
    revision: ClassVar[int] = 1  # part of the identity: outputs of another revision are not resumed
    reads_text: ClassVar[bool] = True  # whether every column in `reads()` must be text
    compares_rows: ClassVar[bool] = False  # whether a verdict depends on other rows of the lot; then it has no pool
    pins: Pins | None = None  # the inputs of the run, which `open` must find unchanged; set by the compiler
    answers: AnswerFolder | None = None  # where a stage whose calls are paid for keeps answers; set when a run starts

    def __init__(self, spec: Any, name: str | None = None) -> None:
        self.spec = spec
        self.name = name or self.kind  # the part before the colon in `reject`

    def columns(self) -> list[pa.Field]:
        """Fields that this stage adds, in order."""
        return []

    def reads(self) -> list[str]:
        """Names of the columns that must exist before this stage; a preflight checks them against the schema."""
        return ["text"]

    def refuses(self, field: pa.Field) -> str | None:
        """Why a column in `reads()` has the wrong type (for example "holds no text"), or None if it fits."""
        return "holds no text" if self.reads_text and not pa.types.is_string(field.type) else None

    def bind(self, run: RunContext) -> None:  # noqa: B027
        """Take from the run what the stage needs of it: called once, when the recipe is compiled."""

    def identity(self) -> dict[str, Any]:
        """Literals beyond the spec that decide the findings: revision, digests of models and files, package versions.

        A subclass extends the dict of its base: `{**super().identity(), ...}`.
        """
        return {"revision": self.revision}

    def check(self) -> None:  # noqa: B027
        """Preflight: raise UserError if a file or package that `open` needs is missing. Loads no large file."""

    @property
    def needs(self) -> Needs | None:
        """Resources of one replica, for a stage that runs in a pool of its own; None: it runs in a CPU worker."""
        return None

    @property
    def reads_source(self) -> bool:
        """Whether `bind` reads rows of the source, all of which must then be there when the recipe is compiled."""
        return False

    @property
    def is_repeatable(self) -> bool:
        """Whether the same rows get the same findings in any batch. GPUs alone do not promise it."""
        return not (self.needs and self.needs.num_gpus)

    @property
    def is_paid(self) -> bool:
        """Whether its engine is paid by the call and may answer otherwise another time. Rows then have `NAME_cost`."""
        return False

    @property
    def paid(self) -> float:
        """Money that this replica has paid for calls, lots in flight included, in the currency of the run."""
        return 0.0

    @property
    def engine_key(self) -> str | None:
        """Names the engine of an open replica, for another part with the same key to take over; None: none may."""
        return None

    @property
    def progress(self) -> tuple[int, int]:
        """(rows, output tokens) that this replica has finished, including lots in flight."""
        return 0, 0

    @property
    def throttle(self) -> Throttle | None:
        """Counts the rows of an open stage that works on many at once; None for any other."""
        return None

    async def facts(self) -> dict[str, Any]:
        """What a manifest records of an open stage in a pool, as literals."""
        return {}

    def close(self) -> None:  # noqa: B027
        """Release engines, processes and memory before the worker ends."""

    def open(self) -> None:  # noqa: B027 - most stages have nothing to open
        """Load what `find` needs. Called once per worker process, before the first `run`."""

    @abstractmethod
    def find(self, rows: pa.RecordBatch) -> Findings:
        """Findings for `rows`: at least one row, all alive. Must be deterministic."""

    async def find_pooled(self, rows: pa.RecordBatch) -> Findings:
        """Same as `find`, for a stage in a pool; several lots may run concurrently."""
        return self.find(rows)

    def run(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """`batch` with this stage's columns before `reject`, and with `reject` filled for the rows it rejects."""
        living = self._living(batch)
        return self._merge(batch, self.find(living) if living.num_rows else self._null_findings(0))

    async def run_pooled(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Same as `run`, for a stage in a pool."""
        living = self._living(batch)
        return self._merge(batch, await self.find_pooled(living) if living.num_rows else self._null_findings(0))

    def refuse(self, batch: pa.RecordBatch, reason: str) -> pa.RecordBatch:
        """`batch` with every living row rejected for `reason` and null findings, for example after an engine crash."""
        num_living = batch.column(REJECT.name).null_count
        columns = self._null_findings(num_living).columns
        return self._merge(batch, Findings(columns, pa.repeat(pa.scalar(reason), num_living)))

    def _null_findings(self, num_rows: int) -> Findings:
        return Findings({f.name: pa.nulls(num_rows, f.type) for f in self.columns()})

    def _living(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        reject = batch.column(REJECT.name)
        return batch if reject.null_count == batch.num_rows else batch.filter(reject.is_null())

    def _merge(self, batch: pa.RecordBatch, findings: Findings) -> pa.RecordBatch:
        """`batch` with the findings of its living rows."""
        reject = batch.column(REJECT.name)
        places = None
        if reject.null_count < batch.num_rows:
            alive = reject.is_null().cast(pa.int32())
            places = pc.if_else(reject.is_null(), pc.subtract(pc.cumulative_sum(alive), 1), None)
        columns = []
        for declared in self.columns():
            column = findings.columns[declared.name]
            columns.append(column.take(places) if places is not None else column)
        if findings.reasons is not None:
            reasons = findings.reasons.take(places) if places is not None else findings.reasons
            named = pc.binary_join_element_wise(pa.scalar(self.name), reasons.cast(pa.string()), ":")
            reject = pc.coalesce(reject, named)
        kept = [n for n in batch.schema.names if n != REJECT.name]
        return pa.RecordBatch.from_arrays(
            [*(batch.column(n) for n in kept), *columns, reject],
            schema=pa.schema([*(batch.schema.field(n) for n in kept), *self.columns(), REJECT]),
        )

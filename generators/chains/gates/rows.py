"""Gates for rows of a table: dedup, and any stage of a recipe."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from gristmill.generators.chains.contract import ChainFamily, EarlierRows
from gristmill.records.errors import UserError
from gristmill.records.pins import current
from gristmill.records.schema import REJECT
from gristmill.records.spec import build, nearest
from gristmill.stages.contract import Stage
from gristmill.stages.dedup.rows import row_hashes
from gristmill.stages.registry import AT_COMMIT, stage_class


@dataclass(frozen=True)
class Dedup:
    """Drops copies by the hashes of the stage `dedup_rows`.

    A row is a copy of any real row of the family, of a synthetic row that the next generation may train on, or of an
    earlier row of the same generation. So real rows win over equal synthetic rows.
    """

    columns: tuple[str, ...] = ()  # Columns that are compared; all columns by default.
    name: str = "dedup"  # Name of the gate in the column kept_share_NAME.

    def of(self, family: ChainFamily) -> "OpenDedup":
        """The gate for a family. Raises UserError for an unknown column."""
        schema = _columns(family)
        for column in self.columns:
            if column not in schema.names:
                raise UserError(f"gate '{self.name}': unknown column '{column}'{nearest(column, schema.names)}")
        return OpenDedup(family, list(self.columns) or list(schema.names), self.name)


class OpenDedup:
    """The dedup gate of a family."""

    def __init__(self, family: ChainFamily, columns: list[str], name: str) -> None:
        self.family, self.columns, self.name = family, columns, name
        self._real: set[bytes] | None = None

    def keep(self, rows: Any, random: np.random.Generator, earlier: EarlierRows) -> np.ndarray:
        if self._real is None:
            self._real = set(self._hashes(self.family.every_real()))
        hashes = set(self._real).union(*(self._hashes(batch) for batch in earlier()))
        keep = []
        for row_hash in self._hashes(rows):
            keep.append(row_hash not in hashes)
            hashes.add(row_hash)
        return np.array(keep, bool)

    def _hashes(self, rows: Any) -> list[bytes]:
        batch = _batch(self.family.table(rows).select(self.columns))
        return row_hashes(batch) if batch.num_rows else []


class StageGate:
    """A stage of a recipe as a gate: rows that the stage rejects are dropped.

    `table` is `{kind = "stage", stage = {kind = "constraints", ...}}` without its kind. Raises UserError for a stage
    that cannot judge single rows, or that reads a column that the family's rows do not have.
    """

    def __init__(self, table: Mapping[str, Any], family: ChainFamily, where: str) -> None:
        self.family = family
        self.stage = make_stage(table, where)
        schema = _columns(family)
        for column in self.stage.reads():
            if column not in schema.names:
                raise UserError(
                    f"{where}: stage '{self.stage.name}' reads column '{column}', which the rows do not have; "
                    f"they have {', '.join(schema.names)}"
                )
            if (why := self.stage.refuses(schema.field(column))) is not None:
                raise UserError(f"{where}: stage '{self.stage.name}' reads column '{column}', which {why}")
        self.stage.check()
        self.name = self.stage.name
        self._is_open = False

    def keep(self, rows: Any, random: np.random.Generator, earlier: EarlierRows) -> np.ndarray:
        if not self._is_open:
            self.stage.open()
            self._is_open = True
        batch = _batch(self.family.table(rows))
        alive = pa.nulls(batch.num_rows, REJECT.type)
        judged = self.stage.run(
            pa.RecordBatch.from_arrays([*batch.columns, alive], schema=pa.schema([*batch.schema, REJECT]))
        )
        keep: np.ndarray = judged.column(REJECT.name).is_null().to_numpy(zero_copy_only=False)
        return keep


def make_stage(table: Mapping[str, Any], where: str) -> Stage:
    """The stage of a gate's table. Raises UserError for a stage that cannot be a gate."""
    inner = table.get("stage")
    if set(table) != {"stage"} or not isinstance(inner, Mapping) or not isinstance(inner.get("kind"), str):
        raise UserError(f"{where}: write {{ kind = 'stage', stage = {{ kind = 'constraints', ... }} }}")
    keys = dict(inner)
    kind, name = keys.pop("kind"), keys.pop("name", None)
    if kind in AT_COMMIT:
        raise UserError(f"{where}: '{kind}' judges rows when a run commits; in a chain use kind = 'dedup'")
    cls = stage_class(kind)
    stage = cls(build(cls.Spec, keys, f"{where} ({kind})"), name)
    if stage.needs is not None:
        raise UserError(f"{where}: '{kind}' needs a pool of engines; a chain allows stages that run on a CPU only")
    return stage


def stage_identity(table: str) -> Any:
    """Identity of the stage of a gate's table (JSON): digests of the files that it reads, once for each study."""
    run = current()
    if run is None:
        return _stage_identity(table)
    if table not in run.memo:
        run.memo[table] = _stage_identity(table)
    return run.memo[table]


def _stage_identity(table: str) -> Any:
    keys = json.loads(table)
    keys.pop("kind")
    return make_stage(keys, "gates").identity()


def _columns(family: ChainFamily) -> pa.Schema:
    schema = family.columns()
    assert schema is not None, f"{family.kind} has no table"
    return schema


def _batch(table: pa.Table) -> pa.RecordBatch:
    """The rows in one batch, also for an empty table."""
    whole = table.combine_chunks()
    columns = [c.combine_chunks() if isinstance(c, pa.ChunkedArray) else c for c in whole.columns]
    return pa.RecordBatch.from_arrays(columns, schema=whole.schema)

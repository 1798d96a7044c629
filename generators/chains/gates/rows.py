"""Gates over rows of a table: copies are dropped, and any stage of a recipe judges the rest."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

from gristmill.generators.chains.contract import ChainFamily, Past
from gristmill.records.errors import UserError
from gristmill.records.schema import REJECT
from gristmill.records.spec import build, nearest
from gristmill.stages.contract import Stage
from gristmill.stages.dedup.rows import row_hashes
from gristmill.stages.registry import AT_COMMIT, stage_class


@dataclass(frozen=True)
class Dedup:
    """Drops copies, by the hashes of the stage `dedup_rows` over `columns` (default: all): rows equal to any real row
    that the family has, so that real rows win over their synthetic twins in every generation; to rows that a model
    made before and that may be trained on beside these; and to rows before them in the same generation.
    """

    columns: tuple[str, ...] = ()
    name: str = "dedup"

    def of(self, family: ChainFamily) -> "OpenDedup":
        """Raises UserError for a column that the rows have not."""
        there = _columns(family)
        for column in self.columns:
            if column not in there.names:
                raise UserError(f"gate '{self.name}': there is no column '{column}'{nearest(column, there.names)}")
        return OpenDedup(family, list(self.columns) or list(there.names), self.name)


class OpenDedup:
    """The gate at work on a family's rows."""

    def __init__(self, family: ChainFamily, columns: list[str], name: str) -> None:
        self.family, self.columns, self.name = family, columns, name
        self._real: set[bytes] | None = None

    def keep(self, rows: Any, random: np.random.Generator, past: Past) -> np.ndarray:
        if self._real is None:
            self._real = set(self._hashes(self.family.every_real()))
        known = set(self._real).union(*(self._hashes(before) for before in past()))
        keep = []
        for found in self._hashes(rows):
            keep.append(found not in known)
            known.add(found)
        return np.array(keep, bool)

    def _hashes(self, rows: Any) -> list[bytes]:
        batch = _batch(self.family.table(rows).select(self.columns))
        return row_hashes(batch) if batch.num_rows else []


class StageGate:
    """A stage as a recipe writes it (kind, its keys, name), in the chain: rows that it rejects are not trained on.

    `table` is `{kind = "stage", stage = {kind = "constraints", ...}}` less its kind. Raises UserError for a stage that
    cannot judge rows one by one, or reads columns that the family's rows have not.
    """

    def __init__(self, table: Mapping[str, Any], family: ChainFamily, where: str) -> None:
        self.family = family
        self.stage = make_stage(table, where)
        there = _columns(family)
        for column in self.stage.reads():
            if column not in there.names:
                raise UserError(
                    f"{where}: stage '{self.stage.name}' reads column '{column}', which is not there; "
                    f"the rows have {', '.join(there.names)}"
                )
            if (why := self.stage.refuses(there.field(column))) is not None:
                raise UserError(f"{where}: stage '{self.stage.name}' reads column '{column}', which {why}")
        self.stage.check()
        self.name = self.stage.name
        self._is_open = False

    def keep(self, rows: Any, random: np.random.Generator, past: Past) -> np.ndarray:
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
    """The stage that a gate's table names. Raises UserError for one that is not for a gate."""
    inner = table.get("stage")
    if set(table) != {"stage"} or not isinstance(inner, Mapping) or not isinstance(inner.get("kind"), str):
        raise UserError(f"{where}: write it as {{ kind = 'stage', stage = {{ kind = 'constraints', ... }} }}")
    rest = dict(inner)
    kind, name = rest.pop("kind"), rest.pop("name", None)
    if kind in AT_COMMIT:
        raise UserError(f"{where}: '{kind}' judges rows when a run commits; in a chain take kind = 'dedup'")
    found = stage_class(kind)
    stage = found(build(found.Spec, rest, f"{where} ({kind})"), name)
    if stage.needs is not None:
        raise UserError(f"{where}: '{kind}' lives in a pool of engines; a chain takes stages that judge on a CPU")
    return stage


@lru_cache(maxsize=64)
def stage_identity(table: str) -> Any:
    """Digests of what the stage of a gate's table (JSON) reads."""
    rest = json.loads(table)
    rest.pop("kind")
    return make_stage(rest, "gates").identity()


def _columns(family: ChainFamily) -> pa.Schema:
    found = family.columns()
    assert found is not None, f"{family.kind} has no table"
    return found


def _batch(table: pa.Table) -> pa.RecordBatch:
    """The rows in one batch, also when there are none."""
    whole = table.combine_chunks()
    columns = [c.combine_chunks() if isinstance(c, pa.ChunkedArray) else c for c in whole.columns]
    return pa.RecordBatch.from_arrays(columns, schema=whole.schema)

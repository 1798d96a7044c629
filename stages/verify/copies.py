"""Rejects rows that are, or nearly are, rows that a generator was trained on.

Distance to the closest record (DCR): the Euclidean distance over numbers scaled to [0, 1] by the training rows and
one-hot categories over sqrt(2), so that a category that differs counts 1 (as in Kotelnikov et al. 2023, section 5). It
is exact: every training row is looked at. A row that passes is not thereby private: rows far from every record can
still give membership away (docs/privacy.md).
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.records.errors import UserError
from gristmill.records.readers.datasets import DataSpec, digest_table, read_table
from gristmill.records.spec import nearest
from gristmill.stages.contract import Findings, Stage

EXACT = 1e-6  # float32 has no more to say
MISSING = -1  # code of a missing value; -2: a category that no training row has


@dataclass(frozen=True)
class CopiesSpec:
    """`rows` are the training rows, `columns` of them count (default: all).

    A row is refused as "near" when its distance is at most `near`, as "exact" when it is 0; with `exact` false both are
    only measured. `near_share` sets the threshold by the training rows themselves: the distance that this share of
    `sample` of them has to its own nearest other row at most.
    """

    rows: DataSpec
    columns: tuple[str, ...] = ()
    exact: bool = True
    near: float = 0.0
    near_share: float | None = None
    sample: int = 2000

    def __post_init__(self) -> None:
        if self.near < 0 or self.sample < 2:
            raise ValueError("near must not be negative, sample at least 2")
        if self.near_share is not None and (not 0 < self.near_share < 1 or self.near):
            raise ValueError("near_share must lie between 0 and 1, and goes without near")


class Copies(Stage):
    """Adds `dcr`, the distance to the nearest training row, and `dcr_row`, its number; the earliest of several."""

    kind: ClassVar[str] = "copies"
    Spec: ClassVar[type] = CopiesSpec
    reads_text: ClassVar[bool] = False
    spec: CopiesSpec

    def __init__(self, spec: CopiesSpec, name: str | None = None) -> None:
        super().__init__(spec, name)
        self._index: Any = None
        self._near = spec.near
        self._names: list[str] | None = list(spec.columns) or None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_index": None}

    def columns(self) -> list[pa.Field]:
        return [pa.field("dcr", pa.float32()), pa.field("dcr_row", pa.int64())]

    def reads(self) -> list[str]:
        if self._names is None:
            self._names = list(self._table().column_names)
        return self._names

    def identity(self) -> dict[str, Any]:
        return {"rows": digest_table(self._table())}

    def _table(self) -> pa.Table:
        table = read_table(self.spec.rows)
        for name in self.spec.columns:
            if name not in table.column_names:
                where = f"{self.spec.rows.path} has no column '{name}'"
                raise UserError(f"stage '{self.name}': {where}{nearest(name, table.column_names)}")
        return table.select(list(self.spec.columns)) if self.spec.columns else table

    def check(self) -> None:
        self.reads()

    def open(self) -> None:
        self._index = Index(self._table(), self.name)
        if self.spec.near_share is not None:
            self._near = self._index.spacing(self.spec.near_share, self.spec.sample)

    def find(self, rows: pa.RecordBatch) -> Findings:
        distances, places = self._index.nearest(rows)
        is_exact, is_near = distances <= EXACT, distances <= self._near
        reasons = np.full(rows.num_rows, None, object)
        if self._near > 0:
            reasons[is_near] = "near"
        if self.spec.exact:
            reasons[is_exact] = "exact"
        columns = {"dcr": pa.array(distances.astype(np.float32)), "dcr_row": pa.array(places)}
        return Findings(columns, pa.array(reasons, pa.string()))


class Index:
    """Training rows as numbers in [0, 1] and codes: 4 bytes a value."""

    def __init__(self, table: pa.Table, who: str) -> None:
        self.who = who
        self.numeric = [n for n in table.column_names if _is_number(table.column(n).type)]
        self.coded = [n for n in table.column_names if n not in self.numeric]
        self.ranges: dict[str, tuple[float, float]] = {}
        self.values: dict[str, pa.Array] = {}
        for name in self.numeric:
            known = table.column(name).cast(pa.float64()).drop_null().to_numpy()
            known = known[np.isfinite(known)]
            low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
            self.ranges[name] = low, (high - low) or 1.0
        for name in self.coded:
            self.values[name] = pc.unique(_texts(table.column(name).combine_chunks())).drop_null()
        self.numbers, self.codes = self._encode(table)
        self.costs = np.ones(self.codes.shape[1], np.float32)

    def _encode(self, rows: pa.Table | pa.RecordBatch) -> tuple[np.ndarray, np.ndarray]:
        """(numbers float32 (rows, M), codes int32 (rows, C + M)): that a number is missing is a code, and counts 1."""
        numbers, codes, absent = [], [], []
        for name in self.numeric:
            values = _whole(rows.column(name))
            if not _is_number(values.type):
                raise UserError(f"stage '{self.who}': column '{name}' holds numbers in the training rows, here not")
            found = values.cast(pa.float64()).to_numpy(zero_copy_only=False)
            missing = ~np.isfinite(found)
            low, span = self.ranges[name]
            numbers.append(((np.where(missing, np.nan, found) - low) / span).astype(np.float32))
            absent.append(missing.astype(np.int32))
        for name in self.coded:
            values = _texts(_whole(rows.column(name)))
            places = pc.fill_null(pc.index_in(values, value_set=self.values[name]), MISSING - 1)
            found = places.to_numpy(zero_copy_only=False).astype(np.int32)
            codes.append(np.where(values.is_null().to_numpy(zero_copy_only=False), MISSING, found).astype(np.int32))
        made = [np.stack(part, 1) for part in (numbers, [*codes, *absent]) if part]
        return made[0] if numbers else np.zeros((rows.num_rows, 0), np.float32), np.ascontiguousarray(made[-1])

    def nearest(self, rows: pa.RecordBatch) -> tuple[np.ndarray, np.ndarray]:
        """(distance float64, number of the training row int64) for each row. One row after another: no big matrix."""
        numbers, codes = self._encode(rows)
        return self._search(numbers, codes, np.full(len(codes), -1, np.int64))

    def spacing(self, share: float, sample: int) -> float:
        """The distance that `share` of the training rows have at most to their nearest other row."""
        places = np.unique(np.linspace(0, len(self.codes) - 1, min(sample, len(self.codes))).astype(np.int64))
        distances, _ = self._search(self.numbers[places], self.codes[places], places)
        return float(np.quantile(distances[np.isfinite(distances)], share)) if len(self.codes) > 1 else 0.0

    def _search(self, numbers: np.ndarray, codes: np.ndarray, own: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        from gristmill.stages.kernels.nearest import nearest_rows

        distances, places = np.empty((len(codes), 1)), np.empty((len(codes), 1), np.int64)
        nearest_rows(numbers, codes, self.numbers, self.codes, self.costs, own, distances, places)
        return np.sqrt(distances[:, 0]), places[:, 0]


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)


def _whole(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values


def _texts(values: pa.Array) -> pa.Array:
    if pa.types.is_boolean(values.type):
        return pc.if_else(values, "true", "false")
    return values.cast(pa.string())

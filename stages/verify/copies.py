"""Rejects rows that are, or almost are, rows of a generator's training data.

Distance to the closest record (DCR): the Euclidean distance over numbers scaled to [0, 1] by the training rows and
one-hot categories over sqrt(2), so that a differing category counts 1 (as in Kotelnikov et al. 2023, section 5). It is
exact: every training row is compared. A row that passes is not thereby private: rows far from every record can still
reveal membership (docs/privacy.md).
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

EXACT = 1e-6  # the precision of float32
MISSING = -1  # code of a missing value; -2: a category that no training row has


@dataclass(frozen=True)
class CopiesSpec:
    """Keys of the stage `copies`."""

    rows: DataSpec  # The training rows.
    columns: tuple[str, ...] = ()  # Columns that are compared; by default all columns of the training rows.
    exact: bool = True  # Whether a row with distance 0 is rejected, as "exact".
    near: float = 0.0  # Distance up to which a row is rejected, as "near"; 0 rejects none.
    # Sets `near` by the training rows: the distance that this share of `sample` of them has at most to its nearest
    # other row.
    near_share: float | None = None
    sample: int = 2000  # Number of training rows that `near_share` is measured on.

    def __post_init__(self) -> None:
        if self.near < 0 or self.sample < 2:
            raise ValueError("near must not be negative, sample at least 2")
        if self.near_share is not None and (not 0 < self.near_share < 1 or self.near):
            raise ValueError("near_share must lie between 0 and 1, and excludes near")


class Copies(Stage):
    """Adds `dcr`, the distance to the nearest training row, and `dcr_row`, its number; the first of equals."""

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
        return {**super().identity(), "rows": digest_table(self._table())}

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

    def __init__(self, table: pa.Table, stage_name: str) -> None:
        self.stage_name = stage_name
        self.numeric = [n for n in table.column_names if _is_number(table.column(n).type)]
        self.text_columns = [n for n in table.column_names if n not in self.numeric]
        self.ranges: dict[str, tuple[float, float]] = {}
        self.values: dict[str, pa.Array] = {}
        for name in self.numeric:
            values = table.column(name).cast(pa.float64()).drop_null().to_numpy()
            values = values[np.isfinite(values)]
            low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
            self.ranges[name] = low, (high - low) or 1.0
        for name in self.text_columns:
            self.values[name] = pc.unique(_texts(table.column(name).combine_chunks())).drop_null()
        self.numbers, self.codes = self._encode(table)
        self.costs = np.ones(self.codes.shape[1], np.float32)

    def _encode(self, rows: pa.Table | pa.RecordBatch) -> tuple[np.ndarray, np.ndarray]:
        """(numbers float32 (rows, M), codes int32 (rows, C + M)). That a number is missing is a code, and counts 1."""
        numbers, codes, absent = [], [], []
        for name in self.numeric:
            values = _combine(rows.column(name))
            if not _is_number(values.type):
                raise UserError(
                    f"stage '{self.stage_name}': column '{name}' holds numbers in the training rows, but not here"
                )
            floats = values.cast(pa.float64()).to_numpy(zero_copy_only=False)
            missing = ~np.isfinite(floats)
            low, span = self.ranges[name]
            numbers.append(((np.where(missing, np.nan, floats) - low) / span).astype(np.float32))
            absent.append(missing.astype(np.int32))
        for name in self.text_columns:
            values = _texts(_combine(rows.column(name)))
            places = pc.fill_null(pc.index_in(values, value_set=self.values[name]), MISSING - 1)
            value_codes = places.to_numpy(zero_copy_only=False).astype(np.int32)
            codes.append(
                np.where(values.is_null().to_numpy(zero_copy_only=False), MISSING, value_codes).astype(np.int32)
            )
        parts = [np.stack(part, 1) for part in (numbers, [*codes, *absent]) if part]
        return parts[0] if numbers else np.zeros((rows.num_rows, 0), np.float32), np.ascontiguousarray(parts[-1])

    def nearest(self, rows: pa.RecordBatch) -> tuple[np.ndarray, np.ndarray]:
        """(distance float64, number of the training row int64) of each row.

        Rows are searched one by one, without a large matrix.
        """
        numbers, codes = self._encode(rows)
        return self._search(numbers, codes, np.full(len(codes), -1, np.int64))

    def spacing(self, share: float, sample: int) -> float:
        """The distance that `share` of the training rows have at most to their nearest other row."""
        places = np.unique(np.linspace(0, len(self.codes) - 1, min(sample, len(self.codes))).astype(np.int64))
        distances, _ = self._search(self.numbers[places], self.codes[places], places)
        return float(np.quantile(distances[np.isfinite(distances)], share)) if len(self.codes) > 1 else 0.0

    def _search(self, numbers: np.ndarray, codes: np.ndarray, skip: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        from gristmill.stages.kernels.nearest import nearest_rows

        distances, places = np.empty((len(codes), 1)), np.empty((len(codes), 1), np.int64)
        nearest_rows(numbers, codes, self.numbers, self.codes, self.costs, skip, distances, places)
        return np.sqrt(distances[:, 0]), places[:, 0]


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)


def _combine(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values


def _texts(values: pa.Array) -> pa.Array:
    if pa.types.is_boolean(values.type):
        return pc.if_else(values, "true", "false")
    return values.cast(pa.string())

"""Conversion of tables to numbers and codes, and back, for the networks.

A table becomes `numbers` (rows, M), one for each numeric column, and `codes` (rows, S), one for each segment: the
category of a category column, the mode of a number, or whether a number is missing. A missing value has its own code,
so nothing is imputed. Networks receive each segment as a one-hot vector (nets.segments).

    style "modes"   number: its mode, and its place in the mode (modes.py); missing is an additional mode
    style "spread"  number: the interval of levels that it owns (spread.py); missing is a separate segment

Categories beyond `max_categories` share codes (vocabulary.py). The state is arrays only, without pickle.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from gristmill.generators.families.contract import stream
from gristmill.generators.tabular.encoding.modes import Modes
from gristmill.generators.tabular.encoding.spread import Spread
from gristmill.generators.tabular.encoding.vocabulary import Vocabulary
from gristmill.records.readers.tables import Column, TableSchema, round_off

Style = Literal["modes", "spread"]
CODER_KEY, ENCODE_KEY = 101, 102  # of `stream`
UNSEEN = "unseen_value"  # reason for a condition that no training row meets


@dataclass(frozen=True)
class Segment:
    """A code column: number of its schema column, and number of training rows for each code."""

    column: int
    num_rows_by_code: np.ndarray  # int64 (size,)
    is_category: bool

    @property
    def size(self) -> int:
        return len(self.num_rows_by_code)


@dataclass
class CodedTable:
    """An encoded table. `low` and `high` are equal in style "modes" and bound levels in style "spread".

    Both are float32 (rows, M); `codes` is int32 (rows, S).
    """

    low: np.ndarray
    high: np.ndarray
    codes: np.ndarray


@dataclass
class CodedConditions:
    """Conditions of a block: -1 and NaN mean free; `reasons` name impossible conditions."""

    codes: np.ndarray  # int32 (rows, S)
    values: np.ndarray  # float64 (rows, M)
    reasons: list[str | None]

    @property
    def is_any(self) -> np.ndarray:
        """Which rows have a condition, bool (rows,)."""
        has_condition: np.ndarray = (self.codes >= 0).any(1) | ~np.isnan(self.values).all(1)
        return has_condition


class TableCoder:
    """The transforms of all columns. Call `fit` or `load` first."""

    def __init__(self, schema: TableSchema, style: Style, max_categories: int) -> None:
        self.schema, self.style, self.max_categories = schema, style, max_categories
        self.numeric = [c for c in schema.columns if c.is_number]
        self.vocabularies: dict[str, Vocabulary] = {}
        self.shapes: dict[str, Modes | Spread] = {}
        self.segments: list[Segment] = []
        self._code_counts: dict[str, np.ndarray] = {}  # codes of numbers

    def fit(self, table: pa.Table, seed: int) -> CodedTable:
        """Learn the transforms from a conforming table and return the encoded table."""
        for place, column in enumerate(self.schema.columns):
            values = table.column(column.name)
            if column.kind == "category":
                counts = Vocabulary.count(column, values.combine_chunks())
                self.vocabularies[column.name] = Vocabulary(column, counts, self.max_categories)
            else:
                values_present = values.drop_null().to_numpy().astype(np.float64)
                random = stream(seed, CODER_KEY, place)
                self.shapes[column.name] = (
                    Modes.of(values_present, random) if self.style == "modes" else Spread.of(values_present)
                )
        coded = self._encode(table, seed)
        self._count(coded.codes)
        return coded

    def _encode(self, table: pa.Table, seed: int) -> CodedTable:
        low, high, codes = [], [], []
        for place, column in enumerate(self.schema.columns):
            values = table.column(column.name).combine_chunks()
            if column.kind == "category":
                codes.append(self.vocabularies[column.name].encode(values))
                continue
            missing = values.is_null().to_numpy(zero_copy_only=False)
            shape = self.shapes[column.name]
            numbers = values.cast(pa.float64()).fill_null(0.0).to_numpy(zero_copy_only=False)
            if isinstance(shape, Modes):
                alpha, mode = shape.encode(numbers, stream(seed, ENCODE_KEY, place).random(len(numbers)))
                low.append(np.where(missing, np.float32(0), alpha))
                high.append(low[-1])
                codes.append(np.where(missing, np.int32(shape.size), mode))
            else:
                below, upto = shape.intervals(numbers)
                low.append(np.where(missing, 0.0, below).astype(np.float32))
                high.append(np.where(missing, 1.0, upto).astype(np.float32))
                if column.nullable:
                    codes.append(missing.astype(np.int32))
        return CodedTable(
            _columns(low, table, np.float32), _columns(high, table, np.float32), _columns(codes, table, np.int32)
        )

    def _count(self, codes: np.ndarray | None) -> None:
        """Build the segments from codes, or from the loaded state."""
        self.segments = []
        for place, column in enumerate(self.schema.columns):
            if column.kind == "category":
                self.segments.append(Segment(place, self.vocabularies[column.name].num_rows_by_code, True))
                continue
            shape = self.shapes[column.name]
            size = shape.size + column.nullable if isinstance(shape, Modes) else 2 * column.nullable
            if not size:
                continue
            if codes is not None:
                self._code_counts[column.name] = np.bincount(codes[:, len(self.segments)], minlength=size).astype(
                    np.int64
                )
            self.segments.append(Segment(place, self._code_counts[column.name], False))

    def decode(self, numbers: np.ndarray, codes: np.ndarray, levels: np.ndarray) -> dict[str, pa.Array]:
        """Columns of the schema.

        `numbers` (rows, M) are alphas or levels, `codes` (rows, S) must have training rows, `levels` (rows, S) in
        [0, 1) draw among categories that share a code.
        """
        columns, segment, number = {}, 0, 0
        for column in self.schema.columns:
            if column.kind == "category":
                vocabulary = self.vocabularies[column.name]
                columns[column.name] = vocabulary.decode(codes[:, segment], levels[:, segment])
                segment += 1
                continue
            shape, missing = self.shapes[column.name], np.zeros(len(numbers), bool)
            if isinstance(shape, Modes):
                missing = codes[:, segment] == shape.size
                values = shape.decode(numbers[:, number], np.minimum(codes[:, segment], shape.size - 1))
                segment += 1
            else:
                values = shape.values(numbers[:, number])
                if column.nullable:
                    missing = codes[:, segment] == 1
                    segment += 1
            number += 1
            columns[column.name] = number_array(column, values, missing)
        return columns

    def encode_conditions(self, requests: Sequence[Mapping[str, Any]]) -> CodedConditions:
        """The conditions as codes and values. A condition on a number leaves its mode free and excludes missing."""
        codes = np.full((len(requests), len(self.segments)), -1, np.int32)
        values = np.full((len(requests), len(self.numeric)), np.nan)
        reasons: list[str | None] = [None] * len(requests)
        number_of = {c.name: i for i, c in enumerate(self.numeric)}
        segment_of = {self.schema.columns[s.column].name: i for i, s in enumerate(self.segments)}
        for row, conditions in enumerate(requests):
            for name, value in conditions.items():
                if name in number_of:
                    values[row, number_of[name]] = value
                    if self.style == "spread" and name in segment_of:
                        codes[row, segment_of[name]] = 0
                    continue
                code = self.vocabularies[name].code(value)
                if code is None:
                    reasons[row] = UNSEEN
                else:
                    codes[row, segment_of[name]] = code
        return CodedConditions(codes, values, reasons)

    def state(self) -> dict[str, np.ndarray]:
        """The arrays that `load` needs."""
        arrays = {f"counts/{name}": v.counts for name, v in self.vocabularies.items()}
        for name, shape in self.shapes.items():
            arrays[f"shape/{name}"] = shape.table if isinstance(shape, Modes) else shape.knots
        return arrays | {f"seen/{name}": counts for name, counts in self._code_counts.items()}

    def load(self, state: Mapping[str, np.ndarray]) -> None:
        """The inverse of `state`."""
        for column in self.schema.columns:
            if column.kind == "category":
                counts = state[f"counts/{column.name}"]
                self.vocabularies[column.name] = Vocabulary(column, counts, self.max_categories)
            else:
                table = state[f"shape/{column.name}"]
                self.shapes[column.name] = Modes(table) if self.style == "modes" else Spread(table)
        self._code_counts = {n.removeprefix("seen/"): v for n, v in state.items() if n.startswith("seen/")}
        self._count(None)


def number_array(column: Column, values: np.ndarray, missing: np.ndarray) -> pa.Array:
    """Sampled numbers as an array of the column's type, null where missing."""
    rounded = round_off(column, np.where(missing, 0.0, values))
    return pa.array(rounded.astype(np.int64) if column.kind == "integer" else rounded, column.field.type, mask=missing)


def put_conditions(
    schema: TableSchema, columns: dict[str, pa.Array], requests: Sequence[Mapping[str, Any]]
) -> dict[str, pa.Array]:
    """Replace sampled values in `columns` by the exact requested values."""
    for name in {n for w in requests for n in w}:
        column, samples = schema.column(name), columns[name].to_pylist()
        values = [w.get(name, m) for w, m in zip(requests, samples)]
        if column.kind == "integer":
            values = [None if v is None else int(v) for v in values]
        columns[name] = pa.array(values, column.field.type)
    return columns


def _columns(parts: list[np.ndarray], table: pa.Table, kind: Any) -> np.ndarray:
    return np.stack(parts, 1) if parts else np.zeros((table.num_rows, 0), kind)

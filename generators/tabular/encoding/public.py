"""Private encoding of tables as small integers: cells from the public schema, bins from noisy counts of the cells.

A cell is a category, an integer, or a slice of a number's declared range; it depends on no row. Counts of rows in the
cells are measured once, with noise, and charged. Cells are then merged into bins with counts well above the noise, as
in McKenna et al. 2021. All later learning uses bins.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from gristmill.generators.families.contract import Sums
from gristmill.generators.private.account import Account
from gristmill.generators.private.accountants import Event
from gristmill.records.errors import UserError
from gristmill.records.readers.tables import Column, TableSchema, round_off

NUM_CELLS = 256  # largest number of cells of a number; integers with fewer values have a cell for each
MAX_CATEGORIES = 1000  # categories with their own bin, by noisy counts; all others share a bin
MAX_SUMS = 20_000  # largest number of sums for an audit
STANDS_OUT = 3.0  # smallest count of a bin, in standard deviations of the noise


class Grid:
    """The public cells of each column. The last cell of a nullable column is for missing values."""

    def __init__(self, schema: TableSchema) -> None:
        self.schema = schema
        self.columns = schema.columns
        self.sizes = [self._num_value_cells(c) + c.nullable for c in self.columns]

    @staticmethod
    def check(schema: TableSchema, kind: str) -> None:
        """Raise UserError for a number without declared bounds and for a kind without cells."""
        for column in schema.columns:
            if column.kind == "image":
                raise UserError(f"model '{kind}' makes numbers and categories; '{column.name}' is {column.kind}")
            if column.is_number and (column.low is None or column.high is None):
                raise UserError(f"model '{kind}': declare low and high of column '{column.name}' in the schema")

    @staticmethod
    def _num_value_cells(column: Column) -> int:
        if not column.is_number:
            return len(column.categories)
        low, high = _bounds(column)
        if column.kind == "integer" and high - low < NUM_CELLS:
            return int(high - low) + 1
        return NUM_CELLS if high > low else 1

    def encode(self, table: pa.Table) -> np.ndarray:
        """The cell of every value: int32 (rows, columns)."""
        cells = np.zeros((table.num_rows, len(self.columns)), np.int32)
        for at, column in enumerate(self.columns):
            values = table.column(column.name)
            missing = values.is_null().to_numpy()
            if column.is_number:
                cells[~missing, at] = self._number_cells(column, values.drop_null().to_numpy().astype(np.float64))
            else:
                order = {c: i for i, c in enumerate(column.categories)}
                cells[~missing, at] = [order[v] for v in values.drop_null().to_pylist()]
            cells[missing, at] = self.sizes[at] - 1
        return cells

    def cell(self, at: int, value: Any) -> int:
        """The cell of a value from the requests of `sample`."""
        column = self.columns[at]
        if column.is_number:
            return int(self._number_cells(column, np.array([float(value)]))[0])
        return column.categories.index(str(value))

    def _number_cells(self, column: Column, values: np.ndarray) -> np.ndarray:
        """Cells of numbers. Each bound has its own cell, because zeros and censored values accumulate there."""
        low, high = _bounds(column)
        size = self._num_value_cells(column)
        if size == 1:
            return np.zeros(len(values), np.int32)
        if column.kind == "integer" and size == high - low + 1:
            return (values - low).astype(np.int32)
        inner = 1 + np.floor((values - low) / (high - low) * (size - 2)).astype(np.int32)
        return np.where(values <= low, 0, np.where(values >= high, size - 1, np.minimum(inner, size - 2)))

    def decode(self, at: int, cells: np.ndarray, levels: np.ndarray, requested_values: Sequence[Any]) -> pa.Array:
        """Values of column `at`: the requested value, else the point of the cell at its level in [0, 1]."""
        column, missing = self.columns[at], np.zeros(len(cells), bool)
        if column.nullable:
            missing = cells == self.sizes[at] - 1
        values: list[Any]
        if column.is_number:
            numbers = round_off(column, self._points(column, np.where(missing, 0, cells), levels))
            values = [v if g is None else g for v, g in zip(numbers.tolist(), requested_values)]
            if column.kind == "integer":
                values = [int(v) for v in values]
        else:
            names = (*column.categories, None)
            values = [names[c] if g is None else g for c, g in zip(cells.tolist(), requested_values)]
        return pa.array(
            [None if m and g is None else v for v, m, g in zip(values, missing, requested_values)], column.field.type
        )

    def _points(self, column: Column, cells: np.ndarray, levels: np.ndarray) -> np.ndarray:
        low, high = _bounds(column)
        size = self._num_value_cells(column)
        if size == 1:
            return np.full(len(cells), low)
        if column.kind == "integer" and size == high - low + 1:
            return low + cells.astype(np.float64)
        inner = low + (high - low) * (cells - 1 + levels) / (size - 2)
        return np.where(cells == 0, low, np.where(cells == size - 1, high, inner))


class Bins:
    """Cells of each column merged by their noisy counts. A model keeps only `counts`, which determine the bins."""

    def __init__(self, grid: Grid, counts: list[np.ndarray], noise: float, max_bins: int) -> None:
        self.grid, self.counts, self.noise = grid, counts, noise
        self.of_cell = [self._merge_cells(at, c, max_bins) for at, c in enumerate(counts)]
        self.sizes = [int(b.max()) + 1 for b in self.of_cell]
        self._weights = [np.maximum(c, 0.0) + min(1e-3, 1 / len(c)) for c in counts]

    def _merge_cells(self, at: int, counts: np.ndarray, max_bins: int) -> np.ndarray:
        """The bin of each cell: int32 (cells,). Bins of numbers are runs of cells."""
        column, size = self.grid.columns[at], len(counts)
        if not column.is_number:
            stands_out = counts >= STANDS_OUT * self.noise
            if size > MAX_CATEGORIES:
                stands_out[np.argsort(-counts, kind="stable")[MAX_CATEGORIES:]] = False
            if column.nullable:
                stands_out[-1] = True
            if (~stands_out).sum() < 2:
                return np.arange(size, dtype=np.int32)
            return np.where(stands_out, np.cumsum(stands_out) - 1, stands_out.sum()).astype(np.int32)
        present = np.maximum(counts[: size - column.nullable], 0.0)
        if len(present) <= max_bins and (self.noise == 0 or (present >= STANDS_OUT * self.noise).all()):
            return np.arange(size, dtype=np.int32)
        is_atom = present >= max(present.sum() / max_bins, STANDS_OUT * self.noise)
        mass_per_bin = present[~is_atom].sum() / max(1, max_bins - is_atom.sum())
        bins, mass, length = np.zeros(size, np.int32), 0.0, 0
        for cell in range(1, len(present)):
            mass, length = mass + present[cell - 1], length + 1
            is_full = mass >= max(mass_per_bin, STANDS_OUT * self.noise * np.sqrt(length))
            is_edge = is_atom[cell] or is_atom[cell - 1] or is_full
            bins[cell] = bins[cell - 1] + is_edge
            if is_edge:
                mass, length = 0.0, 0
        if column.nullable:
            bins[-1] = bins[len(present) - 1] + 1
        return bins

    def encode(self, cells: np.ndarray) -> np.ndarray:
        """The bin of every cell: int32 (rows, columns)."""
        return np.stack([of[cells[:, at]] for at, of in enumerate(self.of_cell)], axis=1)

    def bin(self, at: int, value: Any) -> int:
        """The bin of a value of column `at`."""
        return int(self.of_cell[at][self.grid.cell(at, value)])

    def decode(self, at: int, bins: np.ndarray, levels: np.ndarray, requested_values: Sequence[Any]) -> pa.Array:
        """Values of column `at`: a cell of the bin, by noisy count, and a point of the cell. `levels`: (rows, 2)."""
        weights, of = self._weights[at], self.of_cell[at]
        order = np.argsort(of, kind="stable")  # cells bin by bin
        ends = np.cumsum(weights[order])
        stops = np.searchsorted(of[order], np.arange(self.sizes[at]), side="right")
        high = ends[stops - 1]
        low = np.concatenate([[0.0], high[:-1]])
        ranks = low[bins] + levels[:, 0] * (high - low)[bins]
        places = np.searchsorted(ends, ranks, side="right")
        starts = np.concatenate([[0], stops[:-1]])
        cells = order[np.clip(places, starts[bins], stops[bins] - 1)]
        return self.grid.decode(at, cells, levels[:, 1], requested_values)


def noisy_counts(
    grid: Grid, cells: np.ndarray, noise: float, account: Account | None, random: np.random.Generator
) -> list[np.ndarray]:
    """Counts of the cells of each column, with Gaussian noise of deviation `noise`. Charges the account first."""
    if account:
        account.charge(Event("counts of one column", noise, 1.0, len(grid.sizes)))
    exact = [np.bincount(cells[:, at], minlength=size).astype(np.float64) for at, size in enumerate(grid.sizes)]
    return [c + noise * random.standard_normal(len(c)) if account else c for c in exact]


class CountSums(Sums):
    """The concatenated noisy counts of the cells of all columns."""

    @staticmethod
    def of(bins: Bins) -> "CountSums | None":
        """None for more than MAX_SUMS cells."""
        return CountSums(bins) if sum(bins.grid.sizes) <= MAX_SUMS else None

    def __init__(self, bins: Bins) -> None:
        self.grid = bins.grid
        self.values = np.concatenate(bins.counts)
        self._starts = np.cumsum([0, *self.grid.sizes[:-1]])

    def each(self, table: pa.Table) -> np.ndarray:
        places = self.grid.encode(table) + self._starts
        contributions = np.zeros((table.num_rows, len(self.values)))
        contributions[np.arange(table.num_rows)[:, None], places] = 1.0
        return contributions

    def total(self, table: pa.Table) -> np.ndarray:
        places = self.grid.encode(table) + self._starts
        return np.bincount(places.ravel(), minlength=len(self.values)).astype(np.float64)


def _bounds(column: Column) -> tuple[float, float]:
    assert column.low is not None and column.high is not None
    return column.low, column.high

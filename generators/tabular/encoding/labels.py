"""Sampling of the class of a row: by frequency, or by likelihood given other values."""

from collections.abc import Mapping

import numpy as np

from gristmill.generators.tabular.encoding.transforms import CodedConditions, CodedTable

NUM_BINS = 20  # of levels


class Labels:
    """Counts of each class, and joint counts of the class with each code and with 20 bins of each number.

    Given values of other columns, naive Bayes draws the class: it treats values as independent within a class.
    """

    def __init__(self, tables: Mapping[str, np.ndarray]) -> None:
        self.tables = dict(tables)

    @classmethod
    def of(cls, table: CodedTable, segment: int | None, sizes: list[int]) -> "Labels":
        """From training rows; `segment` holds the class. Without a segment every row has class 0."""
        num = len(table.codes)
        labels = table.codes[:, segment] if segment is not None else np.zeros(num, np.int32)
        count = sizes[segment] if segment is not None else 1

        def count_with_class(codes: np.ndarray, size: int) -> np.ndarray:
            return np.bincount(codes * count + labels, minlength=size * count).reshape(size, count).astype(np.int64)

        tables = {"counts": np.bincount(labels, minlength=count).astype(np.int64)}
        for place, size in enumerate(sizes):
            if place != segment:
                tables[f"codes/{place}"] = count_with_class(table.codes[:, place].astype(np.int64), size)
        for number in range(table.low.shape[1]):
            tables[f"bins/{number}"] = count_with_class(
                _bin((table.low[:, number] + table.high[:, number]) / 2), NUM_BINS
            )
        return cls(tables)

    def draw(
        self, conditions: CodedConditions, middles: np.ndarray, segment: int | None, levels: np.ndarray
    ) -> np.ndarray:
        """The class of each row, int64 (rows,): the given one, else drawn by `levels`; NaN in `middles` means free."""
        counts = self.tables["counts"].astype(np.float64)
        chances = np.tile(counts / counts.sum(), (len(levels), 1))
        for name, table in self.tables.items():
            kind, _, place = name.partition("/")
            if kind == "counts":
                continue
            likely = (table + 1e-3) * (counts > 0) / np.maximum(counts, 1)
            values = conditions.codes[:, int(place)] if kind == "codes" else _bin(middles[:, int(place)])
            rows = np.flatnonzero(values >= 0)
            chances[rows] *= likely[values[rows]]
            chances[rows] /= chances[rows].sum(1, keepdims=True)
        sums = chances.cumsum(1)
        classes: np.ndarray = (sums <= levels[:, None] * sums[:, -1:]).sum(1).astype(np.int64)
        if segment is not None:
            classes = np.where(conditions.codes[:, segment] >= 0, conditions.codes[:, segment], classes)
        return classes


def _bin(levels: np.ndarray) -> np.ndarray:
    """int64 bins; -1 for NaN."""
    binned = np.minimum(np.nan_to_num(levels, nan=0.0) * NUM_BINS, NUM_BINS - 1).astype(np.int64)
    return np.where(np.isnan(levels), -1, binned)

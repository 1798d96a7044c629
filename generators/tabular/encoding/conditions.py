"""Training by sampling (CTGAN; Xu et al. 2019, section 4.3): conditions by log-frequency, and rows that meet them."""

import numpy as np

from gristmill.generators.tabular.encoding.transforms import Segment


class Conditions:
    """Numbers the categories of all category segments from 0; without segments there is one empty condition.

    Rows are presorted by each segment, so a few array operations draw a batch. Memory: 4 bytes for each row and
    category column.
    """

    def __init__(self, segments: list[Segment]) -> None:
        self.places = [i for i, s in enumerate(segments) if s.is_category]  # segments that can be conditions
        counts = [segments[i].num_rows_by_code for i in self.places]
        self.num_columns = len(counts)
        self.sizes = np.array([len(s) for s in counts], np.int64)
        self.first = np.cumsum(self.sizes) - self.sizes
        self.num = max(1, int(self.sizes.sum()))
        self.counts = np.concatenate(counts) if counts else np.zeros(0, np.int64)
        self._by_log = _edges([np.where(s > 0, np.log1p(s), 0.0) for s in counts])
        self._by_count = _edges([s.astype(np.float64) for s in counts])
        self._rows_by_code = np.zeros((0, 0), np.int32)

    def hold(self, codes: np.ndarray) -> None:
        """Presort the rows of int32 codes (rows, S)."""
        self.num_rows = len(codes)
        if self.places:
            orders = [np.argsort(codes[:, p], kind="stable").astype(np.int32) for p in self.places]
            self._rows_by_code = np.stack(orders)
            self._starts = np.concatenate([np.cumsum(c) - c for c in np.split(self.counts, self.first[1:])])

    def draw(self, num: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """(`num` conditions, a row that meets each), int64. Without category columns: any rows."""
        if not self.num_columns:
            return np.zeros(num, np.int64), random.integers(self.num_rows, size=num)
        columns = random.integers(self.num_columns, size=num)
        conditions = self._pick(self._by_log, columns, random.random(num))
        rows = self._starts[conditions] + (random.random(num) * self.counts[conditions]).astype(np.int64)
        return conditions, self._rows_by_code[columns, rows].astype(np.int64)

    def as_real(self, levels: np.ndarray) -> np.ndarray:
        """Conditions distributed as among the rows: a random column, its category by frequency. Levels (n, 2)."""
        if not self.num_columns:
            return np.zeros(len(levels), np.int64)
        columns = np.minimum((levels[:, 0] * self.num_columns).astype(np.int64), self.num_columns - 1)
        return self._pick(self._by_count, columns, levels[:, 1])

    def _pick(self, edges: np.ndarray, columns: np.ndarray, levels: np.ndarray) -> np.ndarray:
        """The condition of each column at each level: edges of column c lie in [c, c + 1]."""
        aims = np.minimum(columns + levels, np.nextafter(columns + 1.0, 0))  # the sum may round up to the next column
        return np.searchsorted(edges, aims, side="right")

    def rarest(self, codes: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
        """The rarest of the codes (not -1) of each row, or its `otherwise` if it has no codes. int64 (n,)."""
        if not self.num_columns:
            return otherwise
        column_codes = codes[:, self.places].astype(np.int64)
        numbers = column_codes + self.first
        counts = np.where(column_codes >= 0, self.counts[np.maximum(numbers, 0)], np.iinfo(np.int64).max)
        best = counts.argmin(1)
        rows = np.arange(len(codes))
        return np.where(column_codes[rows, best] >= 0, numbers[rows, best], otherwise)


def _edges(weights: list[np.ndarray]) -> np.ndarray:
    """Upper edges of shares, column after column: those of column c within [c, c + 1]."""
    sums = [np.cumsum(w) for w in weights]
    return np.concatenate([place + s / s[-1] for place, s in enumerate(sums)]) if sums else np.zeros(0)

"""Gaussian copula for mixed tables: a distribution for every column, and a correlation for every pair.

Each column is a normal score cut into intervals: a category owns the levels that its share spans, a number those of its
tie, a missing value the lowest levels. Correlations of the scores are estimated from the mean score of each interval
and corrected for the discretisation (the first-order polyserial correction; Olsson et al. 1982). Conditions are exact
up to Gibbs sweeps: scores of given columns are drawn within their intervals, the others from the conditional normal
distribution.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from gristmill.generators.families.contract import Family, SampleBlock, State, need_columns, uniforms
from gristmill.generators.private.account import Account
from gristmill.generators.tabular.encoding.spread import EDGE, Spread, levels_of, scores
from gristmill.generators.tabular.encoding.transforms import UNSEEN, number_array, put_conditions
from gristmill.generators.tabular.encoding.vocabulary import Vocabulary, category_numbers
from gristmill.records.errors import UserError
from gristmill.records.readers.tables import Column

DRAW_KEY = 1  # of a row's seed
NUM_SWEEPS = 30
MAX_CORRELATION = 0.99
LEAST_EIGENVALUE = 1e-3


@dataclass(frozen=True)
class CopulaSpec:
    """Settings of `copula`: none."""


class Copula(Family):
    """A correlation matrix and a distribution for each column."""

    kind: ClassVar[str] = "copula"
    revision: ClassVar[int] = 1
    Spec: ClassVar[type] = CopulaSpec
    extra: ClassVar[str] = "tables"
    packages: ClassVar[tuple[str, ...]] = ("scipy",)

    def check(self) -> None:
        need_columns(self.schema, self.kind, "numeric", "integer", "category")

    def begin(self, table: pa.Table, seed: int, account: Account | None) -> None:
        if account:
            raise UserError("model 'copula' keeps exact marginals and cannot be private; take mst")
        self._margins: dict[str, _Margin] = {}
        columns = [table.column(c.name).combine_chunks() for c in self.schema.columns]
        leading = _leading(self.schema.columns, columns)
        lows, highs = [], []
        for column, values in zip(self.schema.columns, columns):
            self._margins[column.name] = margin = _Margin.of(column, values, leading)
            low, high = margin.intervals(values)
            lows.append(low)
            highs.append(high)
        self._correlation = _correlation(np.stack(lows, 1), np.stack(highs, 1))

    def model_state(self) -> State:
        arrays = {f"{name}/{k}": v for name, margin in self._margins.items() for k, v in margin.arrays().items()}
        return State(arrays | {"correlation": self._correlation})

    def restore(self, model_state: State, training_state: State | None = None) -> None:
        arrays = model_state.tensors
        self._correlation = arrays["correlation"]
        self._margins = {}
        for column in self.schema.columns:
            margin_arrays = {
                k.removeprefix(f"{column.name}/"): v for k, v in arrays.items() if k.startswith(f"{column.name}/")
            }
            self._margins[column.name] = _Margin(column, margin_arrays)

    def sample(self, requests: Sequence[Mapping[str, Any]], seeds: np.ndarray) -> SampleBlock:
        num, width = len(seeds), len(self.schema.columns)
        draws = uniforms(seeds, width * (NUM_SWEEPS + 1), DRAW_KEY).reshape(num, NUM_SWEEPS + 1, width)
        low, high = np.zeros((num, width)), np.ones((num, width))
        reasons: list[str | None] = [None] * num
        patterns: dict[tuple[int, ...], list[int]] = {}
        for row, conditions in enumerate(requests):
            for place, column in enumerate(self.schema.columns):
                if column.name in conditions:
                    interval = self._margins[column.name].interval(conditions[column.name])
                    if interval is None:
                        reasons[row] = UNSEEN
                    else:
                        low[row, place], high[row, place] = interval
            places = [p for p, c in enumerate(self.schema.columns) if c.name in conditions]
            patterns.setdefault(tuple(places), []).append(row)
        score_table = np.zeros((num, width))
        for pattern, rows in patterns.items():  # over the whole block, so that sums keep their shape
            score_table[rows] = self._conditional(list(pattern), low, high, draws)[rows]
        levels = levels_of(score_table)
        columns = {c.name: self._margins[c.name].values(levels[:, p]) for p, c in enumerate(self.schema.columns)}
        return SampleBlock(put_conditions(self.schema, columns, requests), reasons)

    def _conditional(self, fixed_places: list[int], low: np.ndarray, high: np.ndarray, draws: np.ndarray) -> np.ndarray:
        """Scores, float64 (rows, columns); those of columns `fixed_places` lie within their levels."""
        free_places = [p for p in range(low.shape[1]) if p not in fixed_places]
        correlation, score_table = self._correlation, np.zeros(low.shape)
        if fixed_places:
            precision = np.linalg.inv(correlation[np.ix_(fixed_places, fixed_places)])
            score_table[:, fixed_places] = scores((low[:, fixed_places] + high[:, fixed_places]) / 2)
            for sweep in range(NUM_SWEEPS if len(fixed_places) > 1 else 1):
                for at, place in enumerate(fixed_places):
                    weighted_sum = (
                        score_table[:, fixed_places] @ precision[at] - score_table[:, place] * precision[at, at]
                    )
                    deviation = precision[at, at] ** -0.5
                    mean = -weighted_sum / precision[at, at]
                    bounds = [levels_of((scores(b[:, place]) - mean) / deviation) for b in (low, high)]
                    spot = bounds[0] + draws[:, sweep, place] * (bounds[1] - bounds[0])
                    new_scores = mean + deviation * scores(spot)
                    score_table[:, place] = np.clip(new_scores, scores(low[:, place]), scores(high[:, place]))
        if free_places:
            across = correlation[np.ix_(free_places, fixed_places)]
            slope = across @ precision if fixed_places else across
            covariance = correlation[np.ix_(free_places, free_places)] - slope @ across.T
            root = np.linalg.cholesky(covariance + 1e-9 * np.eye(len(free_places)))
            score_table[:, free_places] = (
                score_table[:, fixed_places] @ slope.T + scores(draws[:, NUM_SWEEPS, free_places]) @ root.T
            )
        return score_table


class _Margin:
    """Conversion of a column between levels and values. Levels below `missing` are missing values."""

    def __init__(self, column: Column, arrays: Mapping[str, np.ndarray]) -> None:
        self.column = column
        self.missing = float(arrays["missing"][0])
        if column.kind == "category":
            self.order = arrays["order"]  # categories from the lowest level to the highest
            self.shares = arrays["shares"]  # of each category among known values, in the column's order
            self.upper = np.cumsum(self.shares[self.order]) / self.shares.sum()
            self.place = np.argsort(self.order)
            self.texts = pa.array(column.categories, pa.string())
        else:
            self.spread = Spread(arrays["knots"])

    @classmethod
    def of(cls, column: Column, values: pa.Array, leading: np.ndarray) -> "_Margin":
        """Orders the categories by the mean of `leading`, float64 (rows,), over their rows."""
        arrays = {"missing": np.array([values.null_count / len(values)])}
        if column.kind == "category":
            codes, count = category_numbers(column, values), len(column.categories)
            counts = np.bincount(codes, minlength=count + 1)[:count].astype(np.float64)
            sums = np.bincount(codes, leading, minlength=count + 1)[:count]
            arrays["order"] = np.argsort(sums / np.maximum(counts, 1), kind="stable")
            arrays["shares"] = counts / counts.sum()
        else:
            arrays["knots"] = Spread.of(values.drop_null().to_numpy().astype(np.float64)).knots
        return cls(column, arrays)

    def arrays(self) -> dict[str, np.ndarray]:
        arrays = {"missing": np.array([self.missing])}
        if self.column.kind == "category":
            return arrays | {"order": self.order, "shares": self.shares}
        return arrays | {"knots": self.spread.knots}

    def intervals(self, values: pa.Array) -> tuple[np.ndarray, np.ndarray]:
        """(lowest level, highest level) of each value, (rows,) each."""
        missing = values.is_null().to_numpy(zero_copy_only=False)
        if self.column.kind == "category":
            codes = np.minimum(category_numbers(self.column, values), len(self.order) - 1)
            high = self.upper[self.place[codes]]
            low = high - self.shares[codes]
        else:
            low, high = self.spread.intervals(values.cast(pa.float64()).fill_null(0).to_numpy(zero_copy_only=False))
        low, high = (self.missing + (1 - self.missing) * np.clip(part, 0, 1) for part in (low, high))
        return np.where(missing, 0.0, low), np.where(missing, self.missing, high)

    def interval(self, value: Any) -> tuple[float, float] | None:
        """Levels of a requested value; None for a category without training rows."""
        if self.column.kind == "category" and not self.shares[self.column.categories.index(value)]:
            return None
        values = pa.array([value], pa.string() if self.column.kind == "category" else pa.float64())
        low, high = self.intervals(values)
        return float(low[0]), float(high[0])

    def values(self, levels: np.ndarray) -> pa.Array:
        """The values at levels in [0, 1]."""
        missing = levels < self.missing
        value_levels = np.clip((levels - self.missing) / max(1 - self.missing, EDGE), 0, 1)
        if self.column.kind != "category":
            return number_array(self.column, self.spread.values(value_levels), missing)
        last = int(np.flatnonzero(self.shares[self.order])[-1])
        numbers = self.order[np.minimum(np.searchsorted(self.upper, value_levels, side="right"), last)]
        return self.texts.take(pa.array(numbers, mask=missing))


def _leading(columns: Sequence[Column], values: list[pa.Array]) -> np.ndarray:
    """The first principal component, float64 (rows,), of scores of numbers and standardised indicators of categories.

    It orders categories so that correlations can express them.
    """
    parts = []
    for column, array in zip(columns, values):
        if column.kind == "category":
            counts = Vocabulary.count(column, array)
            codes = Vocabulary(column, counts, LARGEST).encode(array)
            categories = np.unique(codes)
            parts.append((codes[:, None] == categories).astype(np.float32))
        else:
            numbers = array.cast(pa.float64()).to_numpy(zero_copy_only=False)
            low, high = Spread.of(numbers[~np.isnan(numbers)]).intervals(np.nan_to_num(numbers))
            normal_scores = np.where(np.isnan(numbers), 0.0, scores((low + high) / 2))
            parts.append(normal_scores[:, None].astype(np.float32))
    rows = np.concatenate(parts, 1)
    deviations = rows.std(0)
    rows = (rows - rows.mean(0)) / np.where(deviations > 0, deviations, 1)
    _, vectors = np.linalg.eigh((rows.T @ rows).astype(np.float64) / len(rows))
    leading: np.ndarray = (rows @ vectors[:, -1].astype(np.float32)).astype(np.float64)
    return leading * (1 if vectors[:, -1].sum() >= 0 else -1)


LARGEST = 64  # codes of a category column in the principal component


def _correlation(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The correlation matrix, float64, of scores known as intervals of levels (rows, columns)."""
    middle = _mean_scores(low, high)
    spread = middle.std(0)
    centred = middle - middle.mean(0)
    covariance = centred.T @ centred / len(centred)
    # The covariance with a cut score is the correlation times that score's variance.
    variances = np.maximum(np.outer(spread**2, spread**2), 1e-12)
    correlation = np.clip(covariance / variances, -MAX_CORRELATION, MAX_CORRELATION)
    correlation[(spread[:, None] < 1e-6) | (spread < 1e-6)] = 0
    np.fill_diagonal(correlation, 1)
    values, vectors = np.linalg.eigh(correlation)
    matrix = (vectors * np.maximum(values, LEAST_EIGENVALUE)) @ vectors.T
    scale = np.sqrt(np.diag(matrix))
    unit_matrix: np.ndarray = matrix / np.outer(scale, scale)
    return unit_matrix


def _mean_scores(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Means of a standard normal between two levels: (density(low) - density(high)) / (high - low)."""
    wide = high - low
    density = [
        np.exp(-0.5 * scores(part) ** 2) / np.sqrt(2 * np.pi) * ((part > EDGE) & (part < 1 - EDGE))
        for part in (low, high)
    ]
    point = scores((low + high) / 2)
    return np.where(wide > 1e-4, (density[0] - density[1]) / np.maximum(wide, 1e-12), point)

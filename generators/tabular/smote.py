"""SMOTE for mixed tables: rows between a training row and one of its nearest neighbours of the same class.

Numbers lie on the line between the two rows (Chawla et al. 2002, section 4.2). Each category is that of one of the two,
more often of the nearer one. Neighbours are those of SMOTE-NC (section 6.1): a different category counts as the median
of the deviations of the numbers. Classes keep their frequencies, so this is no rebalancing but a baseline of utility
and a warning about privacy: the model's folder holds the training rows, and a new row is close to two of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from gristmill.generators.families.contract import Family, SampleBlock, State, need_columns, stream, uniforms
from gristmill.generators.private.account import Account
from gristmill.generators.tabular.encoding.transforms import number_array, put_conditions
from gristmill.generators.tabular.encoding.vocabulary import category_numbers
from gristmill.records.errors import UserError
from gristmill.records.readers.tables import Column

DRAW_KEY = 1  # of a row's seed
CLASS_KEY = 10  # of the fit's seed
NO_ROW = "no_such_row"


@dataclass(frozen=True)
class SmoteSpec:
    """Settings of `smote`."""

    target: str | None = None  # category column whose classes are kept apart; default: all rows form a single class
    neighbours: int = 5  # nearest rows of the same class that a row may be combined with
    max_candidates: int = 50_000  # rows of a class searched for neighbours at most, drawn by the seed

    def __post_init__(self) -> None:
        if self.neighbours < 1 or self.max_candidates < 2:
            raise ValueError("neighbours must be at least 1 and max_candidates at least 2")


class Smote(Family):
    """Stores the rows and their neighbours; sampling is a look-up."""

    kind: ClassVar[str] = "smote"
    revision: ClassVar[int] = 1
    Spec: ClassVar[type] = SmoteSpec
    holds_rows: ClassVar[bool] = True
    spec: SmoteSpec

    def check(self) -> None:
        need_columns(self.schema, self.kind, "numeric", "integer", "category")
        if self.spec.target is not None and self.schema.column(self.spec.target).kind != "category":
            raise UserError(f"model.target: '{self.spec.target}' is no category column")

    @property
    def _numeric(self) -> list[Column]:
        return [c for c in self.schema.columns if c.is_number]

    @property
    def _categories(self) -> list[Column]:
        return [c for c in self.schema.columns if not c.is_number]

    def begin(self, table: pa.Table, seed: int, account: Account | None) -> None:
        if account:
            raise UserError("model 'smote' keeps the rows themselves and cannot be private")
        num = table.num_rows
        numbers = [
            table.column(c.name).combine_chunks().cast(pa.float64()).to_numpy(zero_copy_only=False)
            for c in self._numeric
        ]
        self._numbers = np.stack(numbers, 1) if numbers else np.zeros((num, 0))  # NaN is missing
        codes = [category_numbers(c, table.column(c.name)) for c in self._categories]
        self._codes = np.stack(codes, 1) if codes else np.zeros((num, 0), np.int32)
        classes = np.zeros(num, np.int32)
        if self.spec.target is not None:
            classes = self._codes[:, [c.name for c in self._categories].index(self.spec.target)]
        self._neighbours = self._find(classes, seed)

    def _find(self, classes: np.ndarray, seed: int) -> np.ndarray:
        """The nearest rows of the same class, int32 (rows, k). A class with a single row uses all rows."""
        from gristmill.stages.kernels.nearest import nearest_rows

        missing = np.isnan(self._numbers)
        deviations = np.array([v[~m].std() for v, m in zip(self._numbers.T, missing.T)])
        deviations[deviations == 0] = 1
        middles = np.array([v[~m].mean() for v, m in zip(self._numbers.T, missing.T)])
        scores = ((self._numbers - middles) / deviations).astype(np.float32)
        codes = np.concatenate([self._codes, missing.astype(np.int32)], 1)
        # The median deviation of the scaled numbers is 1.
        costs = np.ones(codes.shape[1], np.float32)
        count = min(self.spec.neighbours, len(codes) - 1)
        neighbours = np.full((len(codes), count), -1, np.int32)
        for number in np.unique(classes):
            rows = np.flatnonzero(classes == number)
            pool = rows if len(rows) > 1 else np.arange(len(classes))
            if len(pool) > self.spec.max_candidates:
                random = stream(seed, CLASS_KEY, int(number))
                pool = np.sort(random.choice(pool, self.spec.max_candidates, replace=False))
            own_places = np.full(len(rows), -1, np.int64)
            at = np.minimum(np.searchsorted(pool, rows), len(pool) - 1)
            own_places[pool[at] == rows] = at[pool[at] == rows]
            distances, places = np.empty((len(rows), count)), np.empty((len(rows), count), np.int64)
            nearest_rows(scores[rows], codes[rows], scores[pool], codes[pool], costs, own_places, distances, places)
            neighbours[rows] = np.where(places >= 0, pool[places], -1)
        return neighbours

    @cached_property
    def _texts(self) -> list[pa.Array]:
        return [pa.array(c.categories, pa.string()) for c in self._categories]

    def model_state(self) -> State:
        missing = np.isnan(self._numbers)
        arrays = {"numbers": np.where(missing, 0, self._numbers), "missing": missing.astype(np.uint8)}
        return State(arrays | {"codes": self._codes, "neighbours": self._neighbours})

    def restore(self, model_state: State, training_state: State | None = None) -> None:
        arrays = model_state.tensors
        self._numbers = np.where(arrays["missing"] == 1, np.nan, arrays["numbers"])
        self._codes, self._neighbours = arrays["codes"], arrays["neighbours"]

    def sample(self, requests: Sequence[Mapping[str, Any]], seeds: np.ndarray) -> SampleBlock:
        num_numbers, num_codes = self._numbers.shape[1], self._codes.shape[1]
        levels = uniforms(seeds, 3 + num_numbers + num_codes, DRAW_KEY)
        bases, others, reasons = np.zeros(len(seeds), np.int64), np.zeros(len(seeds), np.int64), [None] * len(seeds)
        matching: dict[tuple[tuple[str, Any], ...], tuple[np.ndarray | None, str | None]] = {}
        for row, conditions in enumerate(requests):
            key = tuple(sorted(conditions.items()))
            if key not in matching:
                matching[key] = self._matching(conditions)
            rows, reasons[row] = matching[key]  # type: ignore[assignment]
            if reasons[row] is None:
                bases[row], others[row] = self._pair(rows, levels[row, 0], levels[row, 1])
        share = levels[:, 2]
        takes = levels[:, 3:] < share[:, None]  # whether a category, or the absence of a number, is the other row's
        codes = np.where(takes[:, num_numbers:], self._codes[others], self._codes[bases])
        base_numbers, other_numbers = self._numbers[bases], self._numbers[others]
        either = np.where(takes[:, :num_numbers], other_numbers, base_numbers)
        both = base_numbers + share[:, None] * (other_numbers - base_numbers)
        numbers = np.where(np.isnan(both), either, both)
        columns: dict[str, pa.Array] = {}
        for place, column in enumerate(self._numeric):
            missing = np.isnan(numbers[:, place])
            columns[column.name] = number_array(column, numbers[:, place], missing)
        for place, column in enumerate(self._categories):
            values, value_codes = self._texts[place], codes[:, place]
            columns[column.name] = values.take(pa.array(value_codes, mask=value_codes == len(values)))
        schema_columns = {name: columns[name] for name in self.schema.names}
        return SampleBlock(put_conditions(self.schema, schema_columns, requests), list(reasons))

    def _pair(self, rows: np.ndarray | None, first: float, second: float) -> tuple[int, int]:
        """(a base row from `rows`, or from all rows; a neighbour of it, from `rows` if possible)."""
        base = int(first * (len(self._codes) if rows is None else len(rows)))
        base = base if rows is None else int(rows[base])
        neighbours = self._neighbours[base][self._neighbours[base] >= 0]
        if rows is not None:
            matches = neighbours[np.isin(neighbours, rows)]
            neighbours = matches if len(matches) else neighbours
        return base, int(neighbours[int(second * len(neighbours))])

    def _matching(self, conditions: Mapping[str, Any]) -> tuple[np.ndarray | None, str | None]:
        """(the rows with these categories that are nearest to the numbers, None for all; the reason if none)."""
        if not conditions:
            return None, None
        fits = np.ones(len(self._codes), bool)
        for place, column in enumerate(self._categories):
            if column.name in conditions:
                fits &= self._codes[:, place] == column.categories.index(conditions[column.name])
        distances = np.zeros(len(fits))
        numbers = [(place, c) for place, c in enumerate(self._numeric) if c.name in conditions]
        for place, column in numbers:
            values = self._numbers[:, place]
            distances += ((values - conditions[column.name]) / (np.nanstd(values) or 1.0)) ** 2
        rows = np.flatnonzero(fits & ~np.isnan(distances))
        if not len(rows):
            return None, NO_ROW
        if numbers:
            nearest = np.sort(distances[rows])[min(self.spec.neighbours, len(rows)) - 1]
            rows = rows[distances[rows] <= nearest]
        return rows, None

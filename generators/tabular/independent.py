"""Independent columns: the baseline of all tabular models. It preserves only marginals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from gristmill.generators.families.contract import Family, SampleBlock, State, need_columns, uniforms
from gristmill.generators.private.account import Account
from gristmill.records.errors import UserError
from gristmill.records.readers.tables import Column, round_off

NUM_QUANTILES = 1001


@dataclass(frozen=True)
class IndependentSpec:
    """Settings of `independent`: none."""


class Independent(Family):
    """Categories by their shares, numbers by their quantiles, missing values by their share."""

    kind: ClassVar[str] = "independent"
    revision: ClassVar[int] = 1
    Spec: ClassVar[type] = IndependentSpec

    def check(self) -> None:
        need_columns(self.schema, self.kind, "numeric", "integer", "category")

    def begin(self, table: pa.Table, seed: int, account: Account | None) -> None:
        if account:
            raise UserError("model 'independent' keeps exact marginals and cannot be private")
        self._tables: dict[str, np.ndarray] = {}
        for column in self.schema.columns:
            values = table.column(column.name)
            present = values.drop_null()
            self._tables[f"{column.name}/missing"] = np.array([values.null_count / len(values)])
            if column.kind == "category":
                order = {c: i for i, c in enumerate(column.categories)}
                counts = np.bincount([order[v] for v in present.to_pylist()], minlength=len(order))
                self._tables[f"{column.name}/shares"] = counts / counts.sum()
            else:
                levels = np.linspace(0, 1, NUM_QUANTILES)
                self._tables[f"{column.name}/quantiles"] = np.quantile(present.to_numpy().astype(np.float64), levels)

    def model_state(self) -> State:
        return State(dict(self._tables))

    def restore(self, model_state: State, training_state: State | None = None) -> None:
        self._tables = dict(model_state.tensors)

    def sample(self, requests: Sequence[Mapping[str, Any]], seeds: np.ndarray) -> SampleBlock:
        levels = uniforms(seeds, 2 * len(self.schema.columns))
        columns = {}
        for at, column in enumerate(self.schema.columns):
            requested_values = [w.get(column.name) for w in requests]
            columns[column.name] = self._column(column, levels[:, 2 * at], levels[:, 2 * at + 1], requested_values)
        return SampleBlock(columns, [None] * len(seeds))

    def _column(self, column: Column, level: np.ndarray, miss: np.ndarray, requested_values: list[Any]) -> pa.Array:
        missing = miss < self._tables[f"{column.name}/missing"][0]
        if column.kind == "category":
            edges = np.cumsum(self._tables[f"{column.name}/shares"])
            places = np.minimum(np.searchsorted(edges, level * edges[-1], side="right"), len(edges) - 1)
            values: list[Any] = [None if m else column.categories[p] for p, m in zip(places, missing)]
        else:
            quantiles = self._tables[f"{column.name}/quantiles"]
            numbers = round_off(column, np.interp(level, np.linspace(0, 1, NUM_QUANTILES), quantiles))
            values = [None if m else v for v, m in zip(numbers.tolist(), missing)]
        values = [v if g is None else g for v, g in zip(values, requested_values)]
        if column.kind == "integer":
            values = [None if v is None else int(v) for v in values]
        return pa.array(values, column.field.type)

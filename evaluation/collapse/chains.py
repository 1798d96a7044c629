"""Metrics of tables in a study, always against the same holdout."""

import math
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from gristmill.evaluation import diversity, fidelity
from gristmill.evaluation.collapse import measures as collapse
from gristmill.evaluation.collapse.chains_text import TextMetrics
from gristmill.evaluation.features import Encoder, row_numbers
from gristmill.evaluation.utility import task_of, tstr
from gristmill.records.readers.tables import TableSchema

SIZE = 2000  # rows of each side, because recall and similar metrics depend on their number
NUM_AXES = 16  # principal components of images; tails of single pixels, which are mostly black, mean nothing
RARE = 0.01  # share of the real rows below which a category is rare


class TableMetrics:
    """Metrics of a generation's table, prepared once for the real rows of a study.

    The metrics of `collapse.of_rows` on encoded columns (for images, the tail of the first principal components);
    column_shapes and pair_trends (the scores of SDMetrics); copies (share of rows that equal a train row);
    categories_kept and rare_kept (share that occurs of the train rows' categories, and of those in less than 1 % of the
    rows); with a target also tstr: the score on the holdout of gradient boosting trained on the rows (AUC or R2).
    """

    def __init__(self, schema: TableSchema, train: pa.Table, holdout: pa.Table, target: str | None) -> None:
        self.schema, self.train, self.holdout = schema, train, holdout
        self.encoder = Encoder.fit(schema, train)
        vectors = self.encoder.encode(holdout)
        self.real = collapse.Holdout.of(vectors)
        self.axes = None
        if any(c.kind == "image" for c in schema.columns):
            self.axes = np.linalg.svd(vectors - vectors.mean(axis=0), full_matrices=False)[2][:NUM_AXES].T
            self.on_axes = collapse.Holdout.of(vectors @ self.axes)
        self.train_shares = {c.name: _shares(train, c.name) for c in schema.columns if c.kind == "category"}
        self.task = task_of(schema, target, train) if target is not None else None
        self.coder = Encoder.fit(schema, train, target) if target is not None else self.encoder

    def __call__(self, table: pa.Table) -> dict[str, float]:
        """The metrics by name, NaN where a metric is undefined; empty for fewer than two rows."""
        if table.num_rows < 2:
            return {}
        vectors = self.encoder.encode(table)
        metrics = dict(collapse.of_rows(vectors, self.real, size=SIZE))
        metrics.pop("log_det")  # always singular, because encoded categories are dependent
        if self.axes is not None:
            metrics["tail"] = float(collapse.of_chains((vectors @ self.axes)[None], self.on_axes)["tail"][0])
        plain = fidelity.columns(self.schema, self.holdout, table)
        if plain:
            metrics["column_shapes"] = fidelity.mean_score(plain)
        if len(plain) > 1:
            metrics["pair_trends"] = fidelity.mean_score(fidelity.pairs(self.schema, self.holdout, table, 0))
        numbers, train = row_numbers(self.schema, [table, self.train])
        metrics["copies"] = float(np.isin(numbers, train).mean())
        metrics["duplicates"] = diversity.duplicate_share(numbers)
        metrics |= self._category_survival(table)
        if self.task is not None:
            metrics["tstr"] = tstr(self.task, self.coder, table, self.holdout, 0)
        return {name: math.nan if value is None else float(value) for name, value in metrics.items()}

    def _category_survival(self, table: pa.Table) -> dict[str, float | None]:
        here = {(name, value) for name in self.train_shares for value in _shares(table, name)}
        every = {(name, value): share for name, shares in self.train_shares.items() for value, share in shares.items()}
        groups = {"categories_kept": set(every), "rare_kept": {k for k, share in every.items() if share < RARE}}
        return {name: len(here & group) / len(group) for name, group in groups.items() if group}


def _shares(table: pa.Table, name: str) -> dict[str, float]:
    """The share of the rows of each category of a column."""
    counts = table.column(name).drop_null().value_counts().to_pylist()
    return {row["values"]: row["counts"] / table.num_rows for row in counts}


class ChainMetrics(NamedTuple):
    """Classes that measure tables and texts, for families that hand them over (`ChainContext.metrics`)."""

    table: type[TableMetrics] = TableMetrics
    text: type[TextMetrics] = TextMetrics

"""What a study measures of the tables that a generation makes, against the same held-out rows each time."""

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

SIZE = 2000  # rows of each side: recall and its like depend on how many there are
NUM_AXES = 16  # of images: single pixels are mostly black, so their tails say nothing
RARE = 0.01  # share of the real rows below which a category is rare


class TableMetrics:
    """Prepared once for a study's real rows; called with each generation's table.

    Gives the metrics of `collapse.of_rows` on encoded columns (of images the tail is that of the first principal
    components), column_shapes and pair_trends (SDMetrics' scores), copies (share of rows equal to a train row),
    categories_kept and rare_kept (of the train rows' categories of all columns, those that occur; of those that are in
    less than 1 % of the rows), and with a target tstr: what gradient boosting that learnt from the rows scores on the
    held-out ones (AUC, R2).
    """

    def __init__(self, schema: TableSchema, train: pa.Table, holdout: pa.Table, target: str | None) -> None:
        self.schema, self.train, self.holdout = schema, train, holdout
        self.encoder = Encoder.fit(schema, train)
        encoded = self.encoder.encode(holdout)
        self.real = collapse.Holdout.of(encoded)
        self.axes = None
        if any(c.kind == "image" for c in schema.columns):
            self.axes = np.linalg.svd(encoded - encoded.mean(axis=0), full_matrices=False)[2][:NUM_AXES].T
            self.on_axes = collapse.Holdout.of(encoded @ self.axes)
        self.known = {c.name: _shares(train, c.name) for c in schema.columns if c.kind == "category"}
        self.task = task_of(schema, target, train) if target is not None else None
        self.coder = Encoder.fit(schema, train, target) if target is not None else self.encoder

    def __call__(self, made: pa.Table) -> dict[str, float]:
        """NaN for what cannot be said of these rows."""
        if made.num_rows < 2:
            return {}
        encoded = self.encoder.encode(made)
        found = dict(collapse.of_rows(encoded, self.real, size=SIZE))
        found.pop("log_det")  # encoded categories are dependent: it is always singular
        if self.axes is not None:
            found["tail"] = float(collapse.of_chains((encoded @ self.axes)[None], self.on_axes)["tail"][0])
        plain = fidelity.columns(self.schema, self.holdout, made)
        if plain:
            found["column_shapes"] = fidelity.mean_score(plain)
        if len(plain) > 1:
            found["pair_trends"] = fidelity.mean_score(fidelity.pairs(self.schema, self.holdout, made, 0))
        own, real = row_numbers(self.schema, [made, self.train])
        found["copies"] = float(np.isin(own, real).mean())
        found["duplicates"] = diversity.duplicate_share(own)
        found |= self._kept(made)
        if self.task is not None:
            found["tstr"] = tstr(self.task, self.coder, made, self.holdout, 0)
        return {name: math.nan if value is None else float(value) for name, value in found.items()}

    def _kept(self, made: pa.Table) -> dict[str, float | None]:
        here = {(name, value) for name in self.known for value in _shares(made, name)}
        every = {(name, value): share for name, shares in self.known.items() for value, share in shares.items()}
        groups = {"categories_kept": set(every), "rare_kept": {k for k, share in every.items() if share < RARE}}
        return {name: len(here & group) / len(group) for name, group in groups.items() if group}


def _shares(table: pa.Table, name: str) -> dict[str, float]:
    """The share of the rows that each category of a column has."""
    found = table.column(name).drop_null().value_counts().to_pylist()
    return {row["values"]: row["counts"] / table.num_rows for row in found}


class ChainMetrics(NamedTuple):
    """Classes that measure tables and texts, for families that hand them over (`ChainContext.metrics`)."""

    table: type[TableMetrics] = TableMetrics
    text: type[TextMetrics] = TextMetrics

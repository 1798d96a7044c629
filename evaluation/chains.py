"""What a study measures of the tables that a generation makes, against the same held-out rows each time."""

import math
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from evaluation import collapse, diversity, fidelity
from evaluation.chains_text import TextMeter
from evaluation.features import Encoder, row_numbers
from evaluation.utility import task_of, tstr
from records.tables import TableSchema

SIZE = 2000  # rows of each side: recall and its like depend on how many there are


class TableMeter:
    """Prepared once for a study's real rows; called with each generation's table.

    Gives the metrics of `collapse.of_rows` on encoded columns, column_shapes and pair_trends (SDMetrics' scores),
    copies (share of rows equal to a train row), and with a target tstr: what gradient boosting that learnt from the
    rows scores on the held-out ones (AUC, R2).
    """

    def __init__(self, schema: TableSchema, train: pa.Table, holdout: pa.Table, target: str | None) -> None:
        self.schema, self.train, self.holdout = schema, train, holdout
        self.encoder = Encoder.fit(schema, train)
        self.real = collapse.Holdout.of(self.encoder.encode(holdout))
        self.task = task_of(schema, target, train) if target is not None else None
        self.coder = Encoder.fit(schema, train, target) if target is not None else self.encoder

    def __call__(self, made: pa.Table) -> dict[str, float]:
        """NaN for what cannot be said of these rows."""
        if made.num_rows < 2:
            return {}
        found = dict(collapse.of_rows(self.encoder.encode(made), self.real, size=SIZE))
        found.pop("log_det")  # encoded categories are dependent: it is always singular
        plain = fidelity.columns(self.schema, self.holdout, made)
        if plain:
            found["column_shapes"] = fidelity.mean_score(plain)
            found["pair_trends"] = fidelity.mean_score(fidelity.pairs(self.schema, self.holdout, made, 0))
        own, real = row_numbers(self.schema, [made, self.train])
        found["copies"] = float(np.isin(own, real).mean())
        found["duplicates"] = diversity.duplicate_share(own)
        if self.task is not None:
            found["tstr"] = tstr(self.task, self.coder, made, self.holdout, 0)
        return {name: math.nan if value is None else float(value) for name, value in found.items()}


class Meters(NamedTuple):
    """What judges the rows of families that cannot do it themselves, by what the rows are: `ChainFamily.meter`."""

    table: type[TableMeter] = TableMeter
    text: type[TextMeter] = TextMeter

"""Chains of trainable models: tabular and image families by the contract of generators/families/contract.py.

Rows are tables of the schema.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa

from gristmill.generators.chains.contract import Measures, Piece
from gristmill.generators.chains.families.tabled import TableChain, digest_of, mix_pieces
from gristmill.generators.families.contract import Family, draw_rows, family_class
from gristmill.records.errors import UserError
from gristmill.records.plugins import source_identity
from gristmill.records.readers.datasets import DataSpec, read_table
from gristmill.records.readers.tables import TableSchema
from gristmill.records.spec import build

if TYPE_CHECKING:
    from gristmill.evaluation.collapse.chains import TableMetrics

NUM_EXHIBIT_ROWS = 20  # rows of an exhibit


@dataclass(frozen=True)
class TrainableSpec:
    """`[family]` of kind "model"."""

    model: dict[str, Any]  # `[model]` of a fit recipe: its `kind` and the keys of that kind.
    data: DataSpec  # Real rows that the chain learns from.
    holdout: DataSpec  # Real rows that measure each generation; no model learns from them.
    # `[schema]` of a fit recipe. It declares bounds and categories, so that all generations share them.
    schema: dict[str, Any]
    target: str | None = None  # Target column of the utility measure `tstr` (train on synthetic, test on real).


class Trainable(TableChain):
    """Each generation fits a new model and draws as many rows as the next generation needs."""

    kind: ClassVar[str] = "model"
    Spec: ClassVar[type] = TrainableSpec
    spec: TrainableSpec

    @cached_property
    def schema(self) -> TableSchema:
        return build(TableSchema, self.spec.schema, "family.schema")

    def make(self) -> Family:
        """A new model. Raises UserError for a model that does not suit a chain."""
        keys = dict(self.spec.model)
        kind = keys.pop("kind", None)
        if not isinstance(kind, str):
            raise UserError("family.model: key 'kind' is missing")
        cls = family_class(kind)
        if not cls.needs_rows or not cls.makes_rows:
            raise UserError(f"family.model: kind '{kind}' does not learn from rows and make rows")
        model = cls(build(cls.Spec, keys, "family.model"), self.schema)
        model.check()
        return model

    def least_rows(self) -> int:
        return max(2, self.make().min_rows)

    def check(self, n: int) -> None:
        super().check(n)
        self.open()
        if n > self._train.num_rows:
            raise UserError(f"n is {n:,}, and {self.spec.data} has only {self._train.num_rows:,} rows")

    def identity(self) -> list[str]:
        family = self.make()
        decides = [str(family.revision), *source_identity(family).values()]
        return [*decides, digest_of(self.spec.data), digest_of(self.spec.holdout)]

    def open(self) -> None:
        if hasattr(self, "_train"):
            return
        self._train, self._holdout = (
            self.schema.conform(read_table(data), str(data)) for data in (self.spec.data, self.spec.holdout)
        )

    def real(self, chains: int, num: int, random: np.random.Generator) -> pa.Table:
        """Random rows of the train part without repetition."""
        return self._train.take(pa.array(random.permutation(self._train.num_rows)[:num]))

    def columns(self) -> pa.Schema:
        self.open()
        return self._train.schema

    def every_real(self) -> pa.Table:
        return self._train

    def numbers(self, rows: pa.Table) -> np.ndarray | None:
        """Rows as the meter encodes them."""
        return (
            None if self.context.metrics is None else np.asarray(self._table_metrics.encoder.encode(rows), np.float64)
        )

    def fit(self, pieces: Sequence[Piece], random: np.random.Generator) -> Family:
        rows = mix_pieces(pieces, random)
        model = self.make()
        model.begin(rows, int(random.integers(2**62)), None)
        if model.num_steps:
            model.train(0, model.num_steps)
        return model

    def sample(self, model: Family, num: int, random: np.random.Generator) -> pa.Table:
        """Rows of the model, without those that it cannot make."""
        rows = draw_rows(model, random.integers(0, 2**62, num))
        return self.schema.conform(rows, "generated rows", False)

    def measure(self, model: Family, rows: pa.Table, random: np.random.Generator) -> Measures:
        """The table metrics of the rows, against the train and the holdout part."""
        if self.context.metrics is None:
            return {}
        return {name: np.array([value], np.float64) for name, value in self._table_metrics(rows).items()}

    @cached_property
    def _table_metrics(self) -> "TableMetrics":
        assert self.context.metrics is not None
        return self.context.metrics.table(self.schema, self._train, self._holdout, self.spec.target)

    def exhibit(self, rows: pa.Table) -> Mapping[str, Any]:
        """The first images, as encoded bytes in base64."""
        import base64

        images = [c.name for c in self.schema.columns if c.kind == "image"]
        if not images:
            return {}
        shown = rows.column(images[0]).slice(0, NUM_EXHIBIT_ROWS).to_pylist()
        return {"images": [base64.b64encode(value["bytes"]).decode() for value in shown]}

"""`kind = "model"`: rows from a fitted model of any family.

An ask may name values: `{"income": ">50K"}` requests a row with this value. The ask `{}` sets no conditions.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from gristmill.engines.needs import Needs
from gristmill.generators.contract import Generator, fields_of, fill_columns
from gristmill.generators.families.contract import Family
from gristmill.generators.families.folder import ModelCard, empty_family, load_model, read_card
from gristmill.records.errors import UserError
from gristmill.records.plugins import PluginClasses, source_identity
from gristmill.records.readers.tables import Column
from gristmill.records.schema import ASK, REJECT


@dataclass(frozen=True)
class ModelGeneratorSpec:
    """Settings of `model`. Pools, threads and devices do not change rows on the same kind of processor."""

    model: str  # folder of a fitted model: the --out of `gristmill fit`
    name: str | None = None  # value of the `model` column; default: the last part of `model`
    # source columns that are conditions; default: all, and each must be a column of the model
    conditions: tuple[str, ...] | None = None
    device: str = "cpu"  # device: "cpu" or "cuda"
    pooled: bool = True  # run in actors of its own; false: in the tasks that carry lots through the stages
    num_cpus: float = 1.0  # CPUs of a replica
    num_gpus: float | None = None  # GPUs of a replica; default: 1 with device = "cuda"
    memory_gb: float = 0.0  # memory of a replica in GB


class ModelGenerator(Generator):
    """Samples a model block by block. Each row keeps its place in its block, so a lot in parts equals the whole lot."""

    kind: ClassVar[str] = "model"
    revision: ClassVar[int] = 1
    Spec: ClassVar[type] = ModelGeneratorSpec

    def __init__(self, spec: ModelGeneratorSpec) -> None:
        self.spec = spec
        self.card: ModelCard = read_card(spec.model)
        self.family: Family = empty_family(self.card)
        self.plugins = PluginClasses()  # workers find a plug-in family by its kind
        self._num_rows = 0
        if not self.family.makes_rows:
            raise UserError(f"{spec.model} holds a model of kind '{self.card.kind}', which makes no rows")
        for name in spec.conditions or ():
            self.family.schema.column(name)

    @property
    def payload(self) -> list[pa.Field]:
        return self.family.schema.payload

    @property
    def model(self) -> str | None:
        return self.spec.name or self.spec.model.rstrip("/").rsplit("/", 1)[-1]

    @property
    def needs(self) -> Needs:
        num_gpus = self.spec.num_gpus if self.spec.num_gpus is not None else float(self.spec.device != "cpu")
        return Needs(self.spec.num_cpus, num_gpus, self.spec.memory_gb, pooled=self.spec.pooled)

    def fields_read(self) -> list[str]:
        return list(self.spec.conditions or ())

    def check(self) -> None:
        self.family.check_packages()

    def identity(self) -> dict[str, Any]:
        return {
            **super().identity(),
            "model": self.card.digest,
            "family": self.card.kind,
            **source_identity(self.family),
            "conditions": list(self.spec.conditions or []),
        }

    def open(self) -> None:
        self.family = load_model(self.spec.model, self.card, self.spec.device)

    @property
    def progress(self) -> tuple[int, int]:
        return self._num_rows, 0

    async def make(self, asks: pa.RecordBatch) -> pa.RecordBatch:
        dead = asks.column(REJECT.name).is_valid().to_pylist()
        texts, numbers = asks.column(ASK.name).to_pylist(), asks.column("row").to_numpy()
        seeds, block = asks.column("seed").to_numpy(), self.family.block
        requests: list[Mapping[str, Any]] = [{}] * len(texts)
        reasons: list[str | None] = [None] * len(texts)
        for row, text in enumerate(texts):
            if not dead[row]:
                requests[row], reasons[row] = self._conditions(text)
        parts: dict[int, list[int]] = {}
        for row in range(len(texts)):
            if not dead[row] and reasons[row] is None:
                parts.setdefault(int(numbers[row]) // block, []).append(row)
        columns: list[pa.Array] = [pa.nulls(0, f.type) for f in self.payload]
        order: list[int] = []
        for rows in parts.values():
            places = numbers[rows] % block
            block_requests: list[Mapping[str, Any]] = [{}] * block
            block_seeds = np.zeros(block, np.int64)
            block_seeds[places] = seeds[rows]
            for row, place in zip(rows, places):
                block_requests[place] = requests[row]
            samples = self.family.sample(block_requests, block_seeds)
            indices = pa.array(places)
            columns = [
                pa.concat_arrays([c, samples.columns[f.name].take(indices)]) for c, f in zip(columns, self.payload)
            ]
            for row, place in zip(rows, places):
                reasons[row] = samples.reasons[place]
            order += rows
            self._num_rows += len(rows)
        at = {row: place for place, row in enumerate(order)}
        take = pa.array([at.get(row) if reasons[row] is None else None for row in range(len(texts))], pa.int64())
        columns_by_name = {f.name: c.take(take) for c, f in zip(columns, self.payload)}
        return fill_columns(asks, self.payload, columns_by_name, reasons)

    def _conditions(self, text: str | None) -> tuple[Mapping[str, Any], str | None]:
        """(column values that an ask names, None), or ({}, the reason why they are impossible)."""
        fields = fields_of(text, self.spec.conditions)
        if fields is None:
            return {}, "malformed_ask"
        values = {}
        for name, value in fields.items():
            if value is None:
                continue
            if name not in self.family.schema.names:
                return {}, "unknown_column"
            column = self.family.schema.column(name)
            try:
                values[name] = _to_column_type(column, value)
            except (ValueError, TypeError, OverflowError):
                return {}, "impossible_value"
        return values, None


def _to_column_type(column: Column, value: Any) -> Any:
    """The value converted to the type of the column. Raises ValueError or TypeError for an impossible value."""
    if column.kind == "category":
        text = "true" if value is True else "false" if value is False else str(value)
        if text not in column.categories:
            raise ValueError(text)
        return text
    if column.kind in ("image", "series", "text"):
        raise TypeError(f"a column of kind {column.kind} is no condition")
    number = float(value)
    if not np.isfinite(number) or (column.kind == "integer" and number != int(number)):
        raise ValueError(value)
    if (column.low is not None and number < column.low) or (column.high is not None and number > column.high):
        raise ValueError(value)
    return number

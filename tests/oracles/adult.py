"""Adult as the peers take it (pandas) and as we do (arrow), and an epoch of each model of ours."""

from collections.abc import Callable
from typing import Any

import pyarrow as pa

from gristmill.jobs.fit.plan import load_plan
from gristmill.records.readers.datasets import DataSpec, read_table
from gristmill.records.readers.tables import TableSchema


def parts() -> tuple[TableSchema, pa.Table, pa.Table]:
    """Schema, training part and test part."""
    plan = load_plan("recipes/fit/adult-independent.toml")
    return plan.family.schema, plan.table, plan.family.schema.conform(read_table(DataSpec("package:adult/test")))


def discrete(schema: TableSchema) -> list[str]:
    return [c.name for c in schema.columns if not c.is_number]


def trainer(kind: str) -> Callable[[int], None]:
    """A function that trains our model's epoch of that number. Its transforms are fitted."""
    plan = load_plan(f"recipes/fit/adult-{kind}.toml")
    family: Any = plan.family
    family.begin(plan.table, plan.recipe.seed, None)
    steps = family.num_steps // family.spec.epochs

    def epoch(number: int) -> None:
        family.train(number * steps, (number + 1) * steps)

    return epoch

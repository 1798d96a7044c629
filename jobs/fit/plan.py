"""A fit recipe and its plan: the TOML file, the rows that it names, and the family built for both."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from gristmill.cluster.fit import TrainSpec
from gristmill.cluster.spec import ClusterSpec
from gristmill.generators.families.contract import Family, family_class
from gristmill.generators.families.fit import Fit, check_fit
from gristmill.generators.private.account import PrivacySpec
from gristmill.jobs.recipes.toml_file import load_table, parted
from gristmill.records.errors import UserError
from gristmill.records.readers.datasets import DataSpec, check_images, digest_table, read_table
from gristmill.records.readers.tables import TableSchema, infer
from gristmill.records.spec import build
from gristmill.records.stores.contract import Store


@dataclass(frozen=True)
class FitRecipe:
    """The file as written; `[model]` is checked by the family that its kind names."""

    name: str
    model: dict[str, Any]
    data: DataSpec | None = None  # of every family that learns from rows
    description: str = ""
    seed: int = 0
    schema: dict[str, Any] | None = None  # {columns = [...]} or {file = "..."}; default: read from the rows
    privacy: PrivacySpec | None = None
    train: TrainSpec = field(default_factory=TrainSpec)
    cluster: ClusterSpec = field(default_factory=ClusterSpec)


@dataclass
class Plan:
    """A fit recipe made whole: rows read, schema known, family built."""

    recipe: FitRecipe
    family: Family
    table: pa.Table
    trained_on: dict[str, Any]
    doubts: list[str]

    def fit(self, store: Store) -> Fit:
        recipe = self.recipe
        self.family.device = "cuda" if recipe.train.num_gpus else "cpu"
        return Fit(
            self.family,
            self.table,
            self.trained_on,
            store,
            recipe.seed,
            recipe.privacy,
            recipe.train.num_cpus,
            recipe.train.checkpoint_s,
        )


@dataclass(frozen=True)
class OtherRows:
    """Rows to fit to in place of those that a recipe names."""

    path: str
    table: pa.Table
    schema: TableSchema  # where the recipe declares none


def read_recipe(path: str, settings: Sequence[str] = ()) -> tuple[FitRecipe, type[Family], Any]:
    """The recipe, its family and the family's spec; reads no rows. Raises UserError."""
    recipe = build(FitRecipe, load_table(path, settings), path)
    kind, spec = parted(recipe.model, "model")
    family_type = family_class(kind)
    return recipe, family_type, build(family_type.Spec, spec, "model")


def load_plan(path: str, settings: Sequence[str] = (), other: OtherRows | None = None) -> Plan:
    """Read the recipe and its rows (or take `other` ones). Raises UserError for whatever does not fit together."""
    recipe, family_type, made = read_recipe(path, settings)
    kind = family_type.kind
    if family_type.needs_rows:
        if recipe.data is None:
            raise UserError(f"{path}: key 'data' is missing: model '{kind}' learns from rows")
        if other is None:
            path_of_rows, table = str(recipe.data), read_table(recipe.data)
            schema, doubts = read_schema(recipe.schema, table)
        else:
            path_of_rows, table, doubts = other.path, other.table, []
            schema = read_schema(recipe.schema, table)[0] if recipe.schema is not None else other.schema
        table = schema.conform(table, path_of_rows)
        check_images(schema, table, path_of_rows)
    else:
        if recipe.data is not None or recipe.schema is not None:
            raise UserError(f"{path}: model '{kind}' learns from no rows; leave [data] and [schema] out")
        path_of_rows, schema, doubts = "", family_type.own_schema(made), []
        table = pa.schema(schema.payload).empty_table()
    family = family_type(made, schema)
    check_fit(family, table, recipe.privacy)
    trained_on = {"path": path_of_rows, "num_rows": table.num_rows, "digest": digest_table(table)}
    return Plan(recipe, family, table, trained_on, doubts)


def read_schema(table: dict[str, Any] | None, rows: pa.Table) -> tuple[TableSchema, list[str]]:
    """The declared schema, or the one that the rows suggest and what is doubtful about it."""
    if table is None:
        return infer(rows)
    if "file" in table:
        if len(table) > 1:
            raise UserError("schema: give either file or columns")
        file = str(table["file"])
        return build(TableSchema, load_table(file), file), []
    return build(TableSchema, table, "schema"), []

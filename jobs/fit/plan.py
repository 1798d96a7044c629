"""A fit recipe and its plan: the TOML file, the rows that it names, and the model family built for both."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from gristmill.cluster.fits.fit import TrainSpec
from gristmill.cluster.spec import ClusterSpec
from gristmill.generators.families.contract import Family, family_class
from gristmill.generators.families.fit import Fit
from gristmill.generators.families.fit_check import check_fit
from gristmill.generators.private.account import PrivacySpec
from gristmill.jobs.recipes.toml_file import TomlSource, label_of, load_table, parted
from gristmill.records.errors import UserError
from gristmill.records.pins import Pins, active
from gristmill.records.readers.datasets import DataSpec, check_images, digest_table, read_table
from gristmill.records.readers.tables import TableSchema, infer
from gristmill.records.spec import build
from gristmill.records.stores.contract import Store


@dataclass(frozen=True)
class FitRecipe:
    """The file as written. The family that `model.kind` names checks the other keys of `[model]`."""

    name: str  # Name of the recipe, shown in tables and messages.
    model: dict[str, Any]  # `[model]`: the kind of the model family and the family's own keys.
    data: DataSpec | None = None  # `[data]`: the rows to learn from; required by every family that learns from rows.
    description: str = ""  # One sentence for `gristmill recipes`.
    seed: int = 0  # Seed of initialisation, batches and noise.
    schema: dict[str, Any] | None = None  # `[schema]`: `columns` or `file`; by default it is inferred from the rows.
    privacy: PrivacySpec | None = None  # `[privacy]`: the budget of a differentially private family.
    train: TrainSpec = field(default_factory=TrainSpec)  # `[train]`: resources, checkpoints and retries of the fit.
    cluster: ClusterSpec = field(default_factory=ClusterSpec)  # `[cluster]`: the Ray cluster to run on.


@dataclass
class Plan:
    """Everything that a fit needs: the recipe, its rows, and the family built for their schema."""

    recipe: FitRecipe
    family: Family
    table: pa.Table
    trained_on: dict[str, Any]  # path, number and digest of the rows, for the model card
    doubts: list[str]  # columns whose kind the inferred schema had to guess
    pins: Pins = field(default_factory=Pins)  # the rows and the base model, as they were when the plan was made

    def fit(self, store: Store) -> Fit:
        """The fit that writes the model to `store`."""
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
            pins=self.pins,
        )


@dataclass(frozen=True)
class OtherRows:
    """Rows that take the place of those that the recipe names."""

    path: str
    table: pa.Table
    schema: TableSchema  # used if the recipe declares none


def read_recipe(path: TomlSource, settings: Sequence[str] = ()) -> tuple[FitRecipe, type[Family], Any]:
    """The recipe, its family and the family's spec. Reads no rows. Raises UserError for a faulty file."""
    recipe = build(FitRecipe, load_table(path, settings), label_of(path))
    kind, spec = parted(recipe.model, "model")
    family_type = family_class(kind)
    return recipe, family_type, build(family_type.Spec, spec, "model")


def load_plan(path: TomlSource, settings: Sequence[str] = (), other: OtherRows | None = None) -> Plan:
    """Read the recipe and its rows, or use `other` rows. Raises UserError if recipe, rows and family do not fit."""
    pins = Pins()
    with active(pins):
        plan = _plan(path, settings, other)
        plan.family.inputs()
    plan.pins = pins
    return plan


def _plan(path: TomlSource, settings: Sequence[str], other: OtherRows | None) -> Plan:
    recipe, family_type, spec = read_recipe(path, settings)
    kind = family_type.kind
    if family_type.needs_rows:
        if recipe.data is None:
            raise UserError(f"{label_of(path)}: key 'data' is missing: model '{kind}' learns from rows")
        if other is None:
            rows_path, table = str(recipe.data), read_table(recipe.data)
            schema, doubts = read_schema(recipe.schema, table)
        else:
            rows_path, table, doubts = other.path, other.table, []
            schema = read_schema(recipe.schema, table)[0] if recipe.schema is not None else other.schema
        table = schema.conform(table, rows_path)
        check_images(schema, table, rows_path)
    else:
        if recipe.data is not None or recipe.schema is not None:
            raise UserError(f"{path}: model '{kind}' learns from no rows; leave [data] and [schema] out")
        rows_path, schema, doubts = "", family_type.own_schema(spec), []
        table = pa.schema(schema.payload).empty_table()
    family = family_type(spec, schema)
    check_fit(family, table, recipe.privacy)
    trained_on = {"path": rows_path, "num_rows": table.num_rows, "digest": digest_table(table)}
    return Plan(recipe, family, table, trained_on, doubts)


def read_schema(table: dict[str, Any] | None, rows: pa.Table) -> tuple[TableSchema, list[str]]:
    """The declared schema, or the one inferred from the rows, with notes on columns that are in doubt."""
    if table is None:
        return infer(rows)
    if "file" in table:
        if len(table) > 1:
            raise UserError("schema: give either file or columns")
        file = str(table["file"])
        return build(TableSchema, load_table(file), file), []
    return build(TableSchema, table, "schema"), []

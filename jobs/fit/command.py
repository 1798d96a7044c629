"""`gristmill fit RECIPE --out URI`: rows in, a model out; the same command again goes on from the last checkpoint."""

import logging
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gristmill.cluster.fit import TrainSpec
from gristmill.cluster.spec import ClusterSpec
from gristmill.generators.families.contract import Family, family_class
from gristmill.generators.families.fit import Fit, FitProgress, check_fit, clear, is_finished
from gristmill.generators.families.folder import ModelCard, read_card
from gristmill.generators.private.account import PrivacySpec
from gristmill.jobs.recipes.toml_file import load_table, parted
from gristmill.jobs.terminal.bar import Bar
from gristmill.records.errors import UserError
from gristmill.records.ids import fingerprint
from gristmill.records.lease import Lease
from gristmill.records.manifest import differences
from gristmill.records.readers.datasets import DataSpec, check_images, digest_table, read_table
from gristmill.records.readers.tables import TableSchema, infer
from gristmill.records.spec import build
from gristmill.records.stores.contract import Store, open_store

logger = logging.getLogger(__name__)

PLAIN_EVERY_S = 10.0


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


def fit(recipe_path: str, out: str, settings: Sequence[str] = (), dry_run: bool = False) -> int:
    """Fit a model into `out`; returns the exit code. Raises UserError before anything starts, where it can."""
    console = Console(stderr=True, highlight=False)

    plan = load_plan(recipe_path, settings)
    for doubt in plan.doubts:
        logger.info(f"schema: {doubt}")
    store = open_store(out)
    job = plan.fit(store)
    if is_finished(store):
        return _there(job, store)
    if dry_run:
        Console(highlight=False).print(_plan_table(plan, store.uri))
        return 0
    store.check(write=True)
    lease = Lease(store)
    lease.acquire()
    try:
        card = run_fit(job, plan.recipe, console)
    finally:
        lease.release()
    if card is None:
        words = ["gristmill", "fit", recipe_path, "--out", out, *(w for s in settings for w in ("--set", s))]
        logger.info(f"stopped; go on with: {shlex.join(words)}")
        return 130
    Console(highlight=False).print(card_table(card, store.uri))
    return 0


def _there(job: Fit, store: Store) -> int:
    """A finished model: nothing to do if it is this one."""
    card = read_card(store.uri)
    if card.fingerprint != fingerprint(job.identity()):
        shown = "; ".join(list(differences(card.identity, job.identity()))[:5])
        raise UserError(f"{store.uri} holds another model, nothing is changed there. Differences (old -> new): {shown}")
    clear(store)  # where a crash came between the model and this
    logger.info(f"{store.uri}: this model is there already")
    Console(highlight=False).print(card_table(card, store.uri))
    return 0


def run_fit(job: Fit, recipe: FitRecipe, console: Console) -> ModelCard | None:
    """Fit on the cluster and show how far it is; None when it was stopped."""
    from gristmill.cluster.connect import connected  # ray is imported only when a fit starts
    from gristmill.cluster.fit import train
    from gristmill.jobs.produce.drive import interruptible

    stopped: list[bool] = []
    with (
        connected(recipe.cluster),
        interruptible(lambda: stopped.append(True), job.store.give_up),
        Shown(console) as shown,
    ):
        return train(job, recipe.train, shown.tell, lambda: bool(stopped))


class Shown(Bar):
    """Steps, losses, epsilon and the time left."""

    def __init__(self, console: Console) -> None:
        super().__init__(console, "fit", PLAIN_EVERY_S)

    def __enter__(self) -> "Shown":
        super().__enter__()
        return self

    def tell(self, told: FitProgress) -> None:
        losses = "  ".join(f"{name} {value:.4g}" for name, value in told.losses.items())
        epsilon = f"  epsilon {told.epsilon:.3f}" if told.epsilon is not None else ""
        self.show(told.step, told.num_steps, f"step {told.step:,} of {told.num_steps:,}  {losses}{epsilon}")


def _plan_table(plan: Plan, uri: str) -> Table:
    schema, recipe = plan.family.schema, plan.recipe
    table = Table(title=f"{recipe.name}: what would be fitted", show_header=False, title_justify="left")
    table.add_row("model", f"{plan.family.kind} into {uri}")
    table.add_row("rows", f"{plan.table.num_rows:,} of {recipe.data.path}" if recipe.data else "none")
    kinds = {c.kind for c in schema.columns}
    table.add_row("columns", ", ".join(f"{len(schema.of_kind(k))} {k}" for k in sorted(kinds)))
    if recipe.privacy:
        table.add_row("privacy", f"epsilon {recipe.privacy.epsilon:g}, delta {recipe.privacy.delta:g}")
    return table


def card_table(card: ModelCard, uri: str) -> Table:
    """What a finished model is, for people."""
    table = Table(title=f"model: {uri}", show_header=False, title_justify="left")
    table.add_row("kind", card.kind)
    rows = f"{card.trained_on['num_rows']:,} rows of {card.trained_on['path']}"
    table.add_row("fitted to", rows if card.trained_on["path"] else "no rows")
    if card.losses:
        last = card.losses[-1]
        table.add_row("steps", f"{last['step']:,.0f}")
        table.add_row("losses", ", ".join(f"{k} {v:.4g}" for k, v in last.items() if k != "step"))
    family = family_class(card.kind)
    for name, line in family.summary(card.facts).items():
        table.add_row(name, line)
    table.add_row("privacy", privacy_line(card.privacy))
    table.add_row("use it", escape(family.used_by.format(uri=uri)), style="dim")
    return table


def privacy_line(statement: dict[str, Any]) -> str:
    """One line that states a guarantee whole, or that there is none."""
    if statement["guarantee"] is None:
        return str(statement["text"])
    rdp = f", {statement['epsilon_rdp']:g} by RDP" if statement["epsilon_rdp"] is not None else ""
    return (
        f"epsilon {statement['epsilon']:g} by {statement['epsilon_accountant']}{rdp} at delta {statement['delta']:g}; "
        f"unit: {statement['unit']}, adjacency: {statement['adjacency']}, N = {statement['num_units']:,}"
    )

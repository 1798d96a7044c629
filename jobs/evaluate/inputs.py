"""The inputs of `gristmill evaluate`: three tables of one schema, the model card, and checks of the holdout."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from gristmill.generators.families.fit import WITHHELD
from gristmill.generators.families.folder import ModelCard, read_card
from gristmill.jobs.evaluate.texts import schema_beside, texts_of, without
from gristmill.jobs.fit.audit_file import AUDIT, read_audit
from gristmill.jobs.fit.plan import read_schema
from gristmill.records.errors import UserError, without_keys
from gristmill.records.output import manifest
from gristmill.records.readers.datasets import (
    PACKAGE,
    DataSpec,
    check_images,
    data_spec,
    digest_table,
    read_table,
)
from gristmill.records.readers.formats import format_of
from gristmill.records.readers.tables import Column, TableSchema
from gristmill.records.stores.opening import open_store

if TYPE_CHECKING:
    from gristmill.evaluation.corpus import Corpora
    from gristmill.evaluation.whole import Sides

MAX_SHARED = 0.10  # share of holdout rows that may also be train rows, beyond the share expected by chance


@dataclass(frozen=True)
class EvaluateArgs:
    """The flags of `gristmill evaluate`."""

    synthetic: str  # the --out of a run, or a table
    real_train: str  # the rows that the generator learned from
    real_holdout: str  # real rows that the generator never saw
    out: str  # folder of metrics.json and report.html
    schema: str | None = None  # TOML file; default: the model's schema, else inferred from the train rows
    target: str | None = None  # target column of the utility (train-on-synthetic, test-on-real) task
    model: str | None = None  # --out of the fit; default: the model that the run names
    seed: int = 0  # of all draws and learners
    max_rows: int = 50_000  # rows of each table that are used, drawn by the seed
    text_column: str | None = None  # default: `text`, if all three tables have it
    perplexity_model: str | None = None  # causal language model that scores the texts
    student: str | None = None  # fit recipe of kind causal_lm
    teacher: str | None = None  # the model that wrote the synthetic texts


@dataclass(frozen=True)
class Inputs:
    """Checked inputs: a table, texts, or both."""

    sides: "Sides | None"
    texts: "Corpora | None"
    rows: tuple[int, int, int]  # of train, holdout and synthetic
    card: ModelCard | None
    audit: dict[str, Any] | None
    doubts: list[str]  # notes that the reader needs before the numbers
    digests: dict[str, str]


def read_inputs(args: EvaluateArgs) -> Inputs:
    """Read and check everything. Raises UserError for faulty inputs and for a holdout that the model has seen."""
    from gristmill.evaluation.whole import MIN_ROWS

    if args.max_rows < MIN_ROWS:
        raise UserError(f"--max-rows must be at least {MIN_ROWS}")
    if args.seed < 0:
        raise UserError("--seed must not be negative")
    card, doubts = find_card(args.synthetic, args.model)
    uris = args.real_train, args.real_holdout, args.synthetic
    specs = [data_spec(uri) for uri in uris]
    with without_keys():
        tables = [read_table(spec) for spec in specs]
    declared = read_schema({"file": args.schema}, tables[0])[0] if args.schema else card.schema if card else None
    texts, notes = texts_of(args.text_column, uris, tables, declared)
    doubts += notes
    for name in ("student", "teacher"):
        if getattr(args, name) is not None and texts is None:
            raise UserError(f"--{name} is for texts, and there are none (see --text-column)")
    if args.teacher is not None and args.student is None:
        raise UserError("--teacher is compared with a student: name its recipe by --student")
    if args.perplexity_model is not None and texts is None:
        raise UserError("--perplexity-model is for texts, and there are none (see --text-column)")
    schema, notes = _schema(declared, tables, texts)
    doubts += notes
    if args.target is not None:
        if schema is None:
            raise UserError(f"--target {args.target}: there is no column but the texts, so there is nothing to predict")
        schema.column(args.target)
    sides = _conformed(schema, specs, args, tables) if schema is not None else None
    whole = list(sides.all) if sides else [pa.table({}) for _ in tables]
    if texts is not None:
        whole = [_with_texts(w, t, texts.column) for w, t in zip(whole, tables)]
    for table, uri in zip(whole, uris):
        if table.num_rows < MIN_ROWS:
            raise UserError(f"{uri} has {table.num_rows} rows; at least {MIN_ROWS} are needed")
    keys = Column(texts.column, "category", categories=("",)) if texts is not None else None
    columns = (*(schema.columns if schema else ()), *([keys] if keys else []))
    check_holdout(TableSchema(columns), whole[0], whole[1])
    if sides is not None and card is not None:
        doubts += _check_card(sides, specs, card)
    names = ("real_train", "real_holdout", "synthetic")
    digests = {name: digest_table(table) for name, table in zip(names, whole)}
    audit, alarms = _audit(args, card)
    num = whole[0].num_rows, whole[1].num_rows, whole[2].num_rows
    return Inputs(sides, texts, num, card, audit, [*alarms, *doubts], digests)


def _conformed(schema: TableSchema, specs: list[DataSpec], args: EvaluateArgs, tables: list[pa.Table]) -> "Sides":
    from gristmill.evaluation.whole import Sides

    is_strict = not schema.inferred
    train, holdout = (schema.conform(t, s.path, is_strict) for t, s in zip(tables[:2], specs))
    sides = Sides(schema, train, holdout, schema.conform(tables[2], args.synthetic, False))
    for table, uri in zip(sides.all, (args.real_train, args.real_holdout, args.synthetic)):
        check_images(schema, table, uri)
    return sides


def _with_texts(table: pa.Table, source: pa.Table, name: str) -> pa.Table:
    column = source.column(name).cast(pa.string())
    return table.append_column(name, column) if table.num_columns else pa.table({name: column})


def model_uri(synthetic: str) -> str | None:
    """The model that a run of `kind = "model"` sampled from; None for any other run or table."""
    run = _run_manifest(synthetic)
    generator = (run.recipe.get("generator") or {}) if run else {}
    return str(generator["model"]) if generator.get("kind") == "model" else None


def _run_manifest(synthetic: str) -> manifest.Manifest | None:
    if synthetic.startswith(PACKAGE) or format_of(data_spec(synthetic).path) is not None:
        return None
    return manifest.load(open_store(synthetic))


def find_card(synthetic: str, model: str | None) -> tuple[ModelCard | None, list[str]]:
    """The card of the model that `model` or the run's manifest names, and notes.

    Raises UserError if it is absent, or if the run was sampled from another model.
    """
    run, doubts = _run_manifest(synthetic), []
    if run and run.state != "complete":
        doubts.append(f"the run is {run.state}, not complete: the numbers are of its rows so far")
    run_model = model_uri(synthetic)
    uri = model or run_model
    if uri is None:
        return None, [*doubts, "without a model's card it is unknown whether the generator has seen the holdout"]
    try:
        card = read_card(uri)
    except UserError as error:
        if model is None:
            raise UserError(f"the run names the model {uri}, but {error}; give its place by --model") from None
        raise
    sampled = run.identity["generator"].get("model") if run and run_model else None  # digest of the model
    if sampled is not None and sampled != card.digest:
        raise UserError(
            f"{uri} is not the model that {synthetic} was sampled from: it has been fitted again since, or moved"
        )
    return card, doubts


def _schema(
    declared: TableSchema | None, tables: list[pa.Table], texts: "Corpora | None"
) -> tuple[TableSchema | None, list[str]]:
    """The schema of the columns beside the texts, and notes; None if there are no such columns."""
    if declared is not None:
        return (without(declared, texts.column) if texts is not None else declared), []
    schema: TableSchema | None
    doubts: list[str] = []
    if texts is None:
        schema = read_schema(None, tables[0])[0]
    else:
        schema, doubts = schema_beside(texts.column, tables)
    if schema is not None:
        doubts.append("the schema was inferred from the real train rows; declare one by --schema to check bounds too")
    return schema, doubts


def _audit(args: EvaluateArgs, card: ModelCard | None) -> tuple[dict[str, Any] | None, list[str]]:
    """audit.json of the model, and notes. An audit of another model is left out; a refuted claim is the first note."""
    uri = args.model or model_uri(args.synthetic)
    if card is None or uri is None:
        return None, []
    store = open_store(uri)
    data = store.read_if_there(AUDIT)
    if data is None:
        return None, []
    report = read_audit(store.path(AUDIT), data)
    if report.get("model") != card.digest:
        return None, [f"{store.path(AUDIT)} is not of the model beside it, and is left out"]
    return report, [f"the model's privacy claim is {report['verdict']}"] if report.get("is_refuted") else []


def check_holdout(schema: TableSchema, train: pa.Table, holdout: pa.Table) -> None:
    """Raise UserError if the holdout shares too many rows with the train rows. `schema` names the columns compared."""
    from gristmill.evaluation.features import row_numbers
    from gristmill.evaluation.privacy.distances import twin_share

    if digest_table(train) == digest_table(holdout):
        raise UserError("--real-holdout holds the same rows as --real-train; give rows that the generator has not seen")
    first, second = row_numbers(schema, [train, holdout])
    shared, by_chance = float(np.isin(second, first).mean()), twin_share(first)
    if shared > by_chance + MAX_SHARED:
        raise UserError(
            f"{shared:.1%} of the rows of --real-holdout are also in --real-train, where {by_chance:.1%} are expected: "
            f"it is not a holdout. Split the rows again, e.g. with PATH#train and PATH#holdout"
        )


def _check_card(sides: "Sides", specs: list[DataSpec], card: ModelCard) -> list[str]:
    """Notes on the rows that the model was fitted to. Raises UserError if they may contain the holdout.

    Compares their digest with those of holdout, whole table, and train and holdout together.
    """
    digest, rows = card.trained_on["digest"], f"{card.trained_on['num_rows']:,} rows of {card.trained_on['path']}"
    if digest == WITHHELD:
        return _check_path(specs, card.trained_on["path"], rows)
    if sides.schema.names != card.schema.names:
        tables = [card.schema.conform(read_table(s), s.path, False) for s in specs[:2]]
    else:
        tables = [sides.train, sides.holdout]

    def was_fitted_to(table: pa.Table) -> bool:
        return bool(digest_table(card.schema.conform(table, is_strict=False)) == digest)

    if was_fitted_to(tables[0]):
        return []
    is_split = specs[1].part != "all"
    if (
        was_fitted_to(tables[1])
        or was_fitted_to(pa.concat_tables(tables))
        or was_fitted_to(pa.concat_tables(tables[::-1]))
        or (is_split and was_fitted_to(read_table(replace(specs[1], part="all"))))
    ):
        raise UserError(
            f"the model was fitted to the rows of --real-holdout ({rows}); give rows that it has not seen, or fit it "
            f"to the train part"
        )
    return [
        f"the model was fitted to other rows than --real-train ({rows}): the attacks test the wrong members, and the "
        f"model may have seen the holdout"
    ]


def _check_path(specs: list[DataSpec], path: str, rows: str) -> list[str]:
    """The same for a private model: its card has the path and the number of its rows, but no digest."""
    if path == str(specs[1]):
        raise UserError(
            f"the model was fitted to the rows of --real-holdout ({rows}); give rows that it has not seen, or fit it "
            f"to the train part"
        )
    if path == str(specs[0]):
        return []
    return [
        f"the model was fitted to {rows}, and --real-train is {specs[0]}. A private model publishes no digest of its "
        f"rows. So it is unknown whether these are the same rows, and whether it has seen the holdout"
    ]

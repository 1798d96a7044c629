"""What `gristmill evaluate` judges: three tables of one schema, the generator's card, a holdout that it never saw."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from gristmill.generators.families.fit import WITHHELD
from gristmill.generators.families.folder import ModelCard, read_card
from gristmill.jobs.evaluate.texts import schema_beside, texts_of, without
from gristmill.jobs.fit.audit_file import AUDIT, read_audit
from gristmill.jobs.fit.plan import read_schema
from gristmill.records import manifest
from gristmill.records.errors import UserError
from gristmill.records.readers.datasets import (
    ENDINGS,
    PACKAGE,
    DataSpec,
    check_images,
    data_spec,
    digest_table,
    read_table,
)
from gristmill.records.readers.tables import Column, TableSchema
from gristmill.records.stores.opening import open_store

if TYPE_CHECKING:
    from gristmill.evaluation.corpus import Corpora
    from gristmill.evaluation.whole import Sides

MAX_KNOWN = 0.10  # share of holdout rows that may stand among the train rows beyond what chance puts there


@dataclass(frozen=True)
class EvaluateArgs:
    """The flags of the verb."""

    synthetic: str
    real_train: str
    real_holdout: str
    out: str
    schema: str | None = None
    target: str | None = None
    model: str | None = None
    seed: int = 0
    max_rows: int = 50_000
    text_column: str | None = None  # default: `text` where all three tables have it
    perplexity_model: str | None = None
    student: str | None = None  # a fit recipe of kind causal_lm
    teacher: str | None = None  # who wrote the synthetic texts


@dataclass(frozen=True)
class Inputs:
    """Ready to be judged: a table, texts, or both."""

    sides: "Sides | None"
    texts: "Corpora | None"
    rows: tuple[int, int, int]  # of train, holdout and synthetic
    card: ModelCard | None
    audit: dict[str, Any] | None
    doubts: list[str]  # what the reader should know before the numbers
    digests: dict[str, str]


def read_inputs(args: EvaluateArgs) -> Inputs:
    """Raises UserError for what is not there or does not fit, and for a holdout that the generator has seen."""
    from gristmill.evaluation.whole import MIN_ROWS

    if args.max_rows < MIN_ROWS:
        raise UserError(f"--max-rows must be at least {MIN_ROWS}")
    if args.seed < 0:
        raise UserError("--seed must not be negative")
    card, doubts = find_card(args.synthetic, args.model)
    uris = args.real_train, args.real_holdout, args.synthetic
    specs = [data_spec(uri) for uri in uris]
    tables = [read_table(spec) for spec in specs]
    declared = read_schema({"file": args.schema}, tables[0])[0] if args.schema else card.schema if card else None
    texts, more = texts_of(args.text_column, uris, tables, declared)
    doubts += more
    for name in ("student", "teacher"):
        if getattr(args, name) is not None and texts is None:
            raise UserError(f"--{name} is for texts; there are none to judge (see --text-column)")
    if args.teacher is not None and args.student is None:
        raise UserError("--teacher is whom a student is compared with: name a recipe by --student")
    if args.perplexity_model is not None and texts is None:
        raise UserError("--perplexity-model is for texts; there are none to judge (see --text-column)")
    schema, more = _schema(declared, tables, texts)
    doubts += more
    if args.target is not None:
        if schema is None:
            raise UserError(f"--target {args.target}: there is no column but the texts, so nothing can be foretold")
        schema.column(args.target)
    sides = _conformed(schema, specs, args, tables) if schema is not None else None
    whole = list(sides.all) if sides else [pa.table({}) for _ in tables]
    if texts is not None:
        whole = [_with_texts(w, t, texts.column) for w, t in zip(whole, tables)]
    for table, uri in zip(whole, uris):
        if table.num_rows < MIN_ROWS:
            raise UserError(f"{uri} has {table.num_rows} rows; nothing can be said of fewer than {MIN_ROWS}")
    keys = Column(texts.column, "category", categories=("",)) if texts is not None else None
    columns = (*(schema.columns if schema else ()), *([keys] if keys else []))
    refuse_seen(TableSchema(columns), whole[0], whole[1])
    if sides is not None and card is not None:
        doubts += _look_into_card(sides, specs, card)
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


def _with_texts(table: pa.Table, read: pa.Table, name: str) -> pa.Table:
    column = read.column(name).cast(pa.string())
    return table.append_column(name, column) if table.num_columns else pa.table({name: column})


def model_uri(synthetic: str) -> str | None:
    """The model that a run of `kind = "model"` sampled; None for any other run or table."""
    book = _book(synthetic)
    generator = book.recipe["generator"] if book else {}
    return str(generator["model"]) if generator.get("kind") == "model" else None


def _book(synthetic: str) -> manifest.Manifest | None:
    if synthetic.startswith(PACKAGE) or data_spec(synthetic).path.endswith(ENDINGS):
        return None
    return manifest.load(open_store(synthetic))


def find_card(synthetic: str, model: str | None) -> tuple[ModelCard | None, list[str]]:
    """The generator's card, by `model` or by the run's manifest, and doubts. Raises UserError when it is not there, or
    is that of another model than the run sampled."""
    book, doubts = _book(synthetic), []
    if book and book.state != "complete":
        doubts.append(f"the run is {book.state}, not complete: what is judged are its rows so far")
    named = model_uri(synthetic)
    uri = model or named
    if uri is None:
        return None, [*doubts, "without a model's card nobody can tell whether the generator has seen the holdout"]
    try:
        card = read_card(uri)
    except UserError as error:
        if model is None:
            raise UserError(f"the run names the model {uri}, but {error}; say where it is by --model") from None
        raise
    told = book.identity["generator"].get("model") if book and named else None
    if told is not None and told != card.digest:
        raise UserError(f"{uri} is not the model that {synthetic} was sampled from: it was fitted anew since, or moved")
    return card, doubts


def _schema(
    declared: TableSchema | None, tables: list[pa.Table], texts: "Corpora | None"
) -> tuple[TableSchema | None, list[str]]:
    """Of the columns beside the texts, and doubts; None where there are none."""
    if declared is not None:
        return (without(declared, texts.column) if texts is not None else declared), []
    schema: TableSchema | None
    doubts: list[str] = []
    if texts is None:
        schema = read_schema(None, tables[0])[0]
    else:
        schema, doubts = schema_beside(texts.column, tables)
    if schema is not None:
        doubts.append("the schema was read from the real train rows; declare one by --schema to judge bounds too")
    return schema, doubts


def _audit(args: EvaluateArgs, card: ModelCard | None) -> tuple[dict[str, Any] | None, list[str]]:
    """audit.json of the model, and doubts: an audit of another model is left out, a refuted claim is told first."""
    uri = args.model or model_uri(args.synthetic)
    if card is None or uri is None:
        return None, []
    store = open_store(uri)
    data = store.read_if_there(AUDIT)
    if data is None:
        return None, []
    found = read_audit(store.path(AUDIT), data)
    if found.get("model") != card.digest:
        return None, [f"{store.path(AUDIT)} is of another model than the one beside it, and is left out"]
    return found, [f"the model's claim of privacy is {found['verdict']}"] if found.get("is_refuted") else []


def refuse_seen(schema: TableSchema, train: pa.Table, holdout: pa.Table) -> None:
    """Raise UserError when the holdout is no holdout of the train rows. `schema` has all columns that are judged."""
    from gristmill.evaluation.features import row_numbers
    from gristmill.evaluation.privacy.distances import twin_share

    if digest_table(train) == digest_table(holdout):
        raise UserError("--real-holdout holds the very rows of --real-train; give rows that the generator has not seen")
    first, second = row_numbers(schema, [train, holdout])
    known, by_chance = float((_among(second, first)).mean()), twin_share(first)
    if known > by_chance + MAX_KNOWN:
        raise UserError(
            f"{known:.1%} of the rows of --real-holdout stand among those of --real-train too, where {by_chance:.1%} "
            f"were to be expected: it is no holdout. Split the rows anew, e.g. with PATH#train and PATH#holdout"
        )


def _among(rows: Any, others: Any) -> Any:
    import numpy as np

    return np.isin(rows, others)


def _look_into_card(sides: "Sides", specs: list[DataSpec], card: ModelCard) -> list[str]:
    """Compare the digest of the rows that the model was fitted to with all that the holdout may hide in."""
    seen, rows = card.trained_on["digest"], f"{card.trained_on['num_rows']:,} rows of {card.trained_on['path']}"
    if seen == WITHHELD:
        return _look_at_path(specs, card.trained_on["path"], rows)
    if sides.schema.names != card.schema.names:
        same = [card.schema.conform(read_table(s), s.path, False) for s in specs[:2]]
    else:
        same = [sides.train, sides.holdout]

    def is_seen(table: pa.Table) -> bool:
        return bool(digest_table(card.schema.conform(table, is_strict=False)) == seen)

    if is_seen(same[0]):
        return []
    is_split = specs[1].part != "all"
    if (
        is_seen(same[1])
        or is_seen(pa.concat_tables(same))
        or is_seen(pa.concat_tables(same[::-1]))
        or (is_split and is_seen(read_table(replace(specs[1], part="all"))))
    ):
        raise UserError(
            f"the model was fitted to the rows of --real-holdout ({rows}); give rows that it has not seen, or fit it "
            f"to the train part"
        )
    return [
        f"the model was fitted to other rows than --real-train ({rows}): the attacks look for the wrong people, and it "
        f"may have seen the holdout"
    ]


def _look_at_path(specs: list[DataSpec], path: str, rows: str) -> list[str]:
    """The same for a private model, which tells where its rows were and how many, but publishes no digest of them."""
    if path == str(specs[1]):
        raise UserError(
            f"the model was fitted to the rows of --real-holdout ({rows}); give rows that it has not seen, or fit it "
            f"to the train part"
        )
    if path == str(specs[0]):
        return []
    return [
        f"the model was fitted to {rows}, and --real-train is {specs[0]}. A private model publishes no digest of its "
        f"rows, so whether these are the same, and whether it has seen the holdout, is not known"
    ]

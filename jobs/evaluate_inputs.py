"""What `gristmill evaluate` judges: three tables of one schema, the generator's card, a holdout that it never saw."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from generators.model_folder import ModelCard, read_card
from jobs.audit_report import AUDIT, read_audit
from jobs.fit import read_schema
from records import manifest
from records.datasets import ENDINGS, PACKAGE, DataSpec, data_spec, digest_table, read_table
from records.errors import UserError
from records.store import open_store
from records.tables import TableSchema

if TYPE_CHECKING:
    from evaluation.whole import Sides

MAX_KNOWN = 0.10  # share of holdout rows that may stand among the train rows beyond what chance puts there


@dataclass(frozen=True)
class Asked:
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


@dataclass(frozen=True)
class Inputs:
    """Ready to be judged."""

    sides: "Sides"
    card: ModelCard | None
    audit: dict[str, Any] | None
    doubts: list[str]  # what the reader should know before the numbers
    digests: dict[str, str]


def read_inputs(asked: Asked) -> Inputs:
    """Raises UserError for what is not there or does not fit, and for a holdout that the generator has seen."""
    from evaluation.whole import MIN_ROWS, Sides

    if asked.max_rows < MIN_ROWS:
        raise UserError(f"--max-rows must be at least {MIN_ROWS}")
    if asked.seed < 0:
        raise UserError("--seed must not be negative")
    card, doubts = find_card(asked.synthetic, asked.model)
    specs = [data_spec(uri) for uri in (asked.real_train, asked.real_holdout, asked.synthetic)]
    train, holdout, synthetic = (read_table(spec) for spec in specs)
    schema, more = _schema(asked, card, train)
    doubts += more
    if asked.target is not None:
        schema.column(asked.target)
    is_strict = not schema.inferred
    train, holdout = (schema.conform(t, s.path, is_strict) for t, s in ((train, specs[0]), (holdout, specs[1])))
    synthetic = schema.conform(synthetic, asked.synthetic, False)
    for table, uri in ((train, asked.real_train), (holdout, asked.real_holdout), (synthetic, asked.synthetic)):
        if table.num_rows < MIN_ROWS:
            raise UserError(f"{uri} has {table.num_rows} rows; nothing can be said of fewer than {MIN_ROWS}")
    sides = Sides(schema, train, holdout, synthetic)
    doubts += refuse_seen(sides, specs, card)
    names = ("real_train", "real_holdout", "synthetic")
    digests = {name: digest_table(table) for name, table in zip(names, sides.all)}
    audit, alarms = _audit(asked, card)
    return Inputs(sides, card, audit, [*alarms, *doubts], digests)


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


def _schema(asked: Asked, card: ModelCard | None, train: pa.Table) -> tuple[TableSchema, list[str]]:
    if asked.schema is not None:
        return read_schema({"file": asked.schema}, train)
    if card is not None:
        return card.schema, []
    schema, _ = read_schema(None, train)
    return schema, ["the schema was read from the real train rows; declare one by --schema to judge bounds too"]


def _audit(asked: Asked, card: ModelCard | None) -> tuple[dict[str, Any] | None, list[str]]:
    """audit.json of the model, and doubts: an audit of another model is left out, a refuted claim is told first."""
    uri = asked.model or model_uri(asked.synthetic)
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


def refuse_seen(sides: "Sides", specs: list[DataSpec], card: ModelCard | None) -> list[str]:
    """Doubts. Raises UserError when the generator has seen the holdout, or when it is no holdout of the train rows."""
    from evaluation.features import row_numbers
    from evaluation.privacy import twin_share

    if digest_table(sides.train) == digest_table(sides.holdout):
        raise UserError("--real-holdout holds the very rows of --real-train; give rows that the generator has not seen")
    doubts = _look_into_card(sides, specs, card) if card is not None else []
    train, holdout = row_numbers(sides.schema, [sides.train, sides.holdout])
    known, by_chance = float((_among(holdout, train)).mean()), twin_share(train)
    if known > by_chance + MAX_KNOWN:
        raise UserError(
            f"{known:.1%} of the rows of --real-holdout stand among those of --real-train too, where {by_chance:.1%} "
            f"were to be expected: it is no holdout. Split the rows anew, e.g. with PATH#train and PATH#holdout"
        )
    return doubts


def _among(rows: Any, others: Any) -> Any:
    import numpy as np

    return np.isin(rows, others)


def _look_into_card(sides: "Sides", specs: list[DataSpec], card: ModelCard) -> list[str]:
    """Compare the digest of the rows that the model was fitted to with all that the holdout may hide in."""
    seen = card.trained_on["digest"]
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
            f"the model was fitted to the rows of --real-holdout ({card.trained_on['num_rows']:,} rows of "
            f"{card.trained_on['path']}); give rows that it has not seen, or fit it to the train part"
        )
    return [
        f"the model was fitted to other rows than --real-train ({card.trained_on['num_rows']:,} rows of "
        f"{card.trained_on['path']}): the attacks look for the wrong people, and it may have seen the holdout"
    ]

"""Checks the laws of a generator (see gristmill.generators.contract) on asks of yours.

1. same rows: the answer holds the same rows in the same order, with their identity and provenance untouched;
2. payload as declared: every column of `payload` has the declared type, and no other column is added;
3. alone as in any batch: a row's answer does not depend on the rows beside it;
4. deterministic: the same ask with the same seed gets the same answer, from a pickled copy too;
5. rejects: a dead row is left as it is, and a row that cannot be made has `reject` "generator:REASON";
6. an empty lot is answered by an empty lot.
"""

import asyncio
import json
import pickle
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import pyarrow as pa

from gristmill.generators.contract import Generator
from gristmill.records.ids import lot_seeds, row_id
from gristmill.records.schema import ASK, REJECT, ask_schema

NUM_ROWS = 12
DEAD = "source:dead"
FILLED = ("finish", "tokens_in", "tokens_out", REJECT.name)  # columns that `make` fills beside its payload
PRINT = "0" * 32


def check_generator(
    generator_or_factory: Generator | Callable[[], Generator], rows: Sequence[Mapping[str, Any]] | None = None
) -> None:
    """Raise AssertionError, with the law in one line, if a generator breaks one of its laws.

    `generator_or_factory` is a generator that is not open yet, or a function that makes one. The check opens the
    generator and a pickled copy of it, and closes both. `rows` are source rows; without them a few short texts fill
    the columns in `fields_read()`, or `text`.
    """
    generator = generator_or_factory if isinstance(generator_or_factory, Generator) else generator_or_factory()
    names = generator.fields_read() or ["text"]
    asks = lot_of(rows or [{name: f"{name} number {n}" for name in names} for n in range(NUM_ROWS)])
    copy = pickle.loads(pickle.dumps(generator))
    try:
        generator.open()
        copy.open()
        whole = _made(generator, asks)
        _check_rows(generator, asks, whole)
        _check_columns(generator, asks, whole)
        _check_rejects(generator, asks, whole)
        _check_alone(generator, asks, whole)
        for again, what in ((generator, "the same lot"), (copy, "a pickled copy")):
            if not _made(again, asks).equals(whole):
                _broken(generator, 4, f"{what} gives another answer to the same asks")
        try:
            empty = _made(generator, asks.slice(0, 0))
        except Exception as error:
            raise AssertionError(f"{generator.kind} breaks law 6: it fails on an empty lot: {error!r}") from error
        if empty.num_rows or not empty.schema.equals(whole.schema):
            _broken(generator, 6, "an empty lot has rows or other columns")
    finally:
        generator.close()
        copy.close()


def lot_of(rows: Sequence[Mapping[str, Any]], lot: int = 0) -> pa.RecordBatch:
    """A lot of asks, one for each source row, with ids and seeds as a run gives them."""
    seeds = lot_seeds(PRINT, 0, lot, len(rows))
    asks = [
        {
            **{"id": row_id(PRINT, 0, lot, n), "lot": lot, "row": n, "seed": int(seeds[n]), "origin": "synthetic"},
            **{"generation": 0, "generator": "checked", "recipe": "check", ASK.name: json.dumps(dict(row))},
        }
        for n, row in enumerate(rows)
    ]
    return pa.RecordBatch.from_pylist(asks, schema=ask_schema())


def _made(generator: Generator, asks: pa.RecordBatch) -> pa.RecordBatch:
    return asyncio.run(generator.make(asks))


def _check_rows(generator: Generator, asks: pa.RecordBatch, answer: pa.RecordBatch) -> None:
    if answer.num_rows != asks.num_rows:
        _broken(generator, 1, f"{asks.num_rows} asks get {answer.num_rows} rows")
    for name in asks.schema.names:
        if name not in FILLED and (name not in answer.schema.names or answer.column(name) != asks.column(name)):
            _broken(generator, 1, f"column '{name}' of the asks is changed")


def _check_columns(generator: Generator, asks: pa.RecordBatch, answer: pa.RecordBatch) -> None:
    answer.validate(full=True)
    for field in generator.payload:
        if field.name not in answer.schema.names or answer.schema.field(field.name).type != field.type:
            _broken(generator, 2, f"payload column '{field.name}' is missing or not {field.type}")
    extra = set(answer.schema.names) - set(asks.schema.names) - {field.name for field in generator.payload}
    if extra:
        _broken(generator, 2, f"column '{min(extra)}' is not declared in payload")


def _check_rejects(generator: Generator, asks: pa.RecordBatch, answer: pa.RecordBatch) -> None:
    for reject in answer.column(REJECT.name).to_pylist():
        if reject is not None and not reject.startswith("generator:"):
            _broken(generator, 5, f"reject '{reject}' does not begin with 'generator:'")
    place = asks.schema.get_field_index(REJECT.name)
    dead = asks.set_column(place, REJECT, pa.array([DEAD] * asks.num_rows, REJECT.type))
    for row in _made(generator, dead).to_pylist():
        if row[REJECT.name] != DEAD or any(row[field.name] is not None for field in generator.payload):
            _broken(generator, 5, "a dead row is filled or loses its reject")


def _check_alone(generator: Generator, asks: pa.RecordBatch, whole: pa.RecordBatch) -> None:
    places = [*([n] for n in range(asks.num_rows)), list(range(asks.num_rows))[::-1], list(range(0, asks.num_rows, 2))]
    for chosen in places:
        taken = pa.array(chosen, pa.int64())
        if not _made(generator, asks.take(taken)).equals(whole.take(taken)):
            _broken(generator, 3, f"rows {chosen} get another answer than in the whole lot")


def _broken(generator: Generator, law: int, fault: str) -> NoReturn:
    raise AssertionError(f"{generator.kind} breaks law {law}: {fault}")

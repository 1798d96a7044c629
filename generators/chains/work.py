"""Runs one unit of a study: the chain loop over its generations, with results in the store.

A unit commits `units/KEY.parquet`, one row per chain and generation. A heavy family stores its rows before the commit,
in `rows/KEY-DIGEST`, which the metadata of the unit names: two attempts at a unit never share a file of rows. Real rows
are never stored: they are drawn again from their random numbers.
"""

import hashlib
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from gristmill.generators.chains.cells import Unit
from gristmill.generators.chains.contract import ChainContext, ChainFamily, Measures, TextEngines
from gristmill.generators.chains.gates.gate import make_gates
from gristmill.generators.chains.loop import DATA, Pool, facts_of, generations
from gristmill.generators.chains.model_store import ModelStore
from gristmill.generators.families.contract import stream
from gristmill.records.errors import Conflict, InputChanged, UserError
from gristmill.records.mixing.regimes import REAL, SYNTHETIC, Source
from gristmill.records.output.formats import parse_json
from gristmill.records.output.shard_reading import read_footer
from gristmill.records.pins import Pins, active
from gristmill.records.readers.parquet import check_types, read_parquet
from gristmill.records.sealed import write_sealed
from gristmill.records.shapes import check_shape
from gristmill.records.stores.contract import Store

if TYPE_CHECKING:
    from gristmill.evaluation.collapse.chains import ChainMetrics

UNITS, ROWS = "units", "rows"
# Metadata of the file of a unit, so that no row holds a time.
SECONDS, EXHIBITS, ROWS_FILE = b"seconds", b"shown", b"rows"
MIN_COMPRESSED = 1000  # rows
FIRST_COLUMNS = ("chain", "generation")
COUNTS = ("num_rows", "num_new", "num_made", "num_kept")
NOTHING = {SECONDS: b"0", EXHIBITS: b"{}"}
FLOATS = ("num_real", "num_synthetic", "synthetic_share", "effective_rows")

UNIT_TYPES = {
    **dict.fromkeys(FIRST_COLUMNS, pa.int32()),
    **dict.fromkeys(COUNTS, pa.int64()),
    **dict.fromkeys(FLOATS, pa.float64()),
}


def unit_name(key: str) -> str:
    """File of a unit's results."""
    return f"{UNITS}/{key}.parquet"


def rows_name(key: str, data: bytes) -> str:
    """File of a unit's rows with these bytes."""
    return f"{ROWS}/{key}-{hashlib.blake2b(data, digest_size=8).hexdigest()}"


def stored_rows(key: str, metadata: Mapping[bytes, bytes]) -> str:
    """File of the rows of a committed unit with this metadata. Units of 0.2 name none."""
    return json.loads(metadata.get(ROWS_FILE, b"null")) or f"{ROWS}/{key}"


def read_unit(store: Store, key: str) -> pa.Table | None:
    """The results of a unit; None where there are none. Raises UserError when they are not what `do` writes."""
    data = store.read_if_there(unit_name(key))
    if data is None:
        return None
    where = store.path(unit_name(key))
    table = read_parquet(data, where=where)
    check_types(table, UNIT_TYPES, where)
    for name in table.column_names:
        if name not in UNIT_TYPES and name != "shortfall" and not pa.types.is_float64(table.column(name).type):
            raise UserError(f"{where}: column '{name}' is {table.column(name).type}, not a measure")
    if not table.num_rows:
        raise UserError(f"{where}: it holds no rows")
    for name, kind in ((SECONDS, float), (EXHIBITS, dict[str, Any])):
        check_shape(
            parse_json((table.schema.metadata or {}).get(name, NOTHING[name]), where), kind, where, name.decode()
        )
    return table


def unit_facts(table: pa.Table, name: bytes) -> Any:
    """SECONDS or EXHIBITS of the results of a unit."""
    return json.loads((table.schema.metadata or {}).get(name, NOTHING[name]))


def do(unit: Unit, store: Store, metrics: "ChainMetrics | None" = None, engines: TextEngines | None = None) -> float:
    """Do the unit unless it is done; returns its seconds.

    `metrics` measure rows, and `engines` write the rows of language models. Raises UserError when the regime cannot be
    met.
    """
    if store.exists(unit_name(unit.key)):
        return 0.0
    with (unit.cell.pins or Pins()).active():
        return _do(unit, store, metrics, engines)


def _do(unit: Unit, store: Store, metrics: "ChainMetrics | None", engines: TextEngines | None) -> float:
    start_time = time.perf_counter()
    cell = unit.cell
    family = cell.family(ChainContext(metrics, engines, ModelStore(store, unit.keys, unit.first)))
    with active(cell.pins):
        family.open()
    gates = make_gates(cell.gates, family)
    pool = Pool() if unit.first == 1 else _pool_before(unit, store, family)
    records, exhibits, rows_file = [], {}, None
    for outcome in generations(
        family, cell.regime_at, cell.n, range(unit.first, unit.last + 1), cell.seed, unit.block, pool, gates
    ):
        records.append(GenerationRecord(outcome.generation, facts_of(outcome), outcome.measures))
        if unit.block == 0 and (exhibit := family.exhibit(outcome.rows)):
            exhibits[outcome.generation] = exhibit
        if not family.is_light:
            data = family.to_bytes(outcome.rows)
            rows_file = rows_name(unit.key, data)
            _put_once(store, rows_file, data)
    seconds = time.perf_counter() - start_time
    _put_once(store, unit_name(unit.key), _encode(_table(records, cell.width), seconds, exhibits, rows_file))
    if rows_file is not None:
        _drop_leftovers(unit.key, store)
    family.close()
    return seconds


def _put_once(store: Store, name: str, data: bytes) -> None:
    try:
        store.put(name, data, if_absent=True)
    except Conflict:
        pass  # another attempt at this unit was earlier


def _drop_leftovers(key: str, store: Store) -> None:
    """Delete rows of other attempts at a committed unit. Before its commit any of them may still be named by it."""
    named = stored_rows(key, read_footer(store, unit_name(key)).metadata or {})
    for entry in list(store.list(f"{ROWS}/{key}")):
        if entry.name != named:
            store.delete(entry.name)


class GenerationRecord(NamedTuple):
    """The columns of a generation."""

    generation: int
    facts: Mapping[str, Any]
    measures: Measures


def _table(records: Sequence[GenerationRecord], chains: int) -> pa.Table:
    """One row per generation and chain."""
    columns: dict[str, Any] = {
        "chain": np.tile(np.arange(chains, dtype=np.int32), len(records)),
        "generation": np.repeat(np.array([r.generation for r in records], np.int32), chains),
    }
    for name in records[0].facts:
        values = [r.facts[name] for r in records]
        if name == "shortfall":
            columns[name] = pa.array([value for value in values for _ in range(chains)], pa.string())
        else:
            is_float = name in FLOATS
            columns[name] = np.repeat(np.array(values, np.float64 if is_float else np.int64), chains)
    unknown = np.full(chains, np.nan)
    for name in dict.fromkeys(name for r in records for name in r.measures):
        columns[name] = np.concatenate([np.asarray(r.measures.get(name, unknown), np.float64) for r in records])
    return pa.table(columns)


def _encode(table: pa.Table, seconds: float, exhibits: dict[int, Any], rows_file: str | None) -> bytes:
    metadata = {SECONDS: round(seconds, 3), EXHIBITS: exhibits, ROWS_FILE: rows_file}
    entries = {key: json.dumps(value).encode() for key, value in metadata.items()}
    codec = "zstd" if table.num_rows >= MIN_COMPRESSED else "none"  # for a few rows it takes most of a commit's time
    return write_sealed(table, None, entries, compression=codec, use_dictionary=False, write_statistics=False)


def _pool_before(unit: Unit, store: Store, family: ChainFamily) -> Pool:
    """The pool after the previous generation: counts from its units, rows from the store when a fit needs them."""
    cell, at = unit.cell, unit.cell.regime_at
    pool = Pool()
    for generation in range(1, unit.first):
        counts = read_unit(store, unit.keys[generation - 1])
        if counts is None:
            raise UserError(f"{store.path(unit_name(unit.keys[generation - 1]))} is missing; run the study again")
        num_new = counts.column("num_new")[0].as_py()
        if num_new:
            pool.counts[Source(REAL, generation)] = num_new
        # Another regime, which takes another share of the rows, may have done the unit.
        wanted = at(generation + 1).num_made(generation, cell.n)
        num_made = counts.column("num_made")[0].as_py()
        num_kept = counts.column("num_kept")[0].as_py() if cell.gates else min(wanted, num_made)
        pool.counts[Source(SYNTHETIC, generation)] = num_kept

    def load(source: Source) -> Any:
        num = pool.counts[source]
        if source.origin == REAL:
            return family.hold(family.real(cell.width, num, stream(cell.seed, unit.block, source.generation, DATA)))
        key = unit.keys[source.generation - 1]
        name = stored_rows(key, read_footer(store, unit_name(key)).metadata or {})
        try:
            rows = family.from_bytes(store.read(name))
            return family.hold(family.head(rows, num))
        except FileNotFoundError:
            raise UserError(f"{store.path(name)} is missing; use another --out") from None

    pool.load = load
    return pool


def do_all(
    units: Sequence[Unit], store: Store, metrics: "ChainMetrics | None" = None, engines: TextEngines | None = None
) -> list[tuple[str, float, str | None]]:
    """(key, seconds, error) of each unit. The error is None, or says why the unit cannot be done.

    Raises InputChanged when the data or a model is not the one that the study began with.
    """
    results: list[tuple[str, float, str | None]] = []
    for unit in units:
        try:
            results.append((unit.key, do(unit, store, metrics, engines), None))
        except InputChanged:
            raise  # it ends the study: no chain can go on
        except UserError as error:
            results.append((unit.key, 0.0, str(error)))
        except (ValueError, ArithmeticError) as error:  # for example a singular matrix: only this chain fails
            results.append((unit.key, 0.0, f"{type(error).__name__}: {error}"))
    return results


def done_units(keys: Iterable[str], store: Store) -> set[str]:
    """The keys whose units are in the store."""
    stored = {e.name.removeprefix(f"{UNITS}/").removesuffix(".parquet") for e in store.list(UNITS)}
    return stored & set(keys)

"""Does one unit of a study: runs the chain loop over its generations and puts what came of it in the store, once.

A unit leaves `units/KEY.parquet`, one row a chain and generation, which is its commit; a heavy family leaves the rows
that it made in `rows/KEY` before that. Real rows are never stored: they are drawn again from their stream.
"""

import io
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gristmill.generators.chains.cells import Unit
from gristmill.generators.chains.contract import ChainContext, ChainFamily, Measures, TextEngines
from gristmill.generators.chains.gates.gate import make_gates
from gristmill.generators.chains.loop import DATA, Pool, facts_of, generations
from gristmill.generators.chains.model_store import ModelStore
from gristmill.generators.families.contract import stream
from gristmill.records.errors import UserError
from gristmill.records.mixing.regimes import REAL, SYNTHETIC, Source
from gristmill.records.readers.parquet import read_parquet
from gristmill.records.stores.contract import Conflict, Store

if TYPE_CHECKING:
    from gristmill.evaluation.collapse.chains import ChainMetrics

UNITS, ROWS = "units", "rows"
SECONDS, SHOWN = b"seconds", b"shown"  # in the file's own metadata, so that rows have no clock in them
MIN_COMPRESSED = 1000  # rows
FIRST_COLUMNS = ("chain", "generation")
FLOATS = ("num_real", "num_synthetic", "synthetic_share", "effective_rows")


def unit_name(key: str) -> str:
    return f"{UNITS}/{key}.parquet"


def rows_name(key: str) -> str:
    return f"{ROWS}/{key}"


def do(unit: Unit, store: Store, metrics: "ChainMetrics | None" = None, engines: TextEngines | None = None) -> float:
    """Do the unit unless it is done; seconds that it took. `meter` judges rows, `engines` write those of language
    models.

    Raises UserError when the regime cannot be kept to.
    """
    if store.exists(unit_name(unit.key)):
        return 0.0
    started = time.perf_counter()
    cell = unit.cell
    family = cell.family(ChainContext(metrics, engines, ModelStore(store, unit.keys, unit.first)))
    family.open()
    gates = make_gates(cell.gates, family)
    pool = Pool() if unit.first == 1 else _pool_before(unit, store, family)
    outcomes, shown = [], {}
    for outcome in generations(
        family, cell.regime_at, cell.n, range(unit.first, unit.last + 1), cell.seed, unit.block, pool, gates
    ):
        outcomes.append(Told(outcome.generation, facts_of(outcome), outcome.measures))
        if unit.block == 0 and (exhibit := family.exhibit(outcome.made)):
            shown[outcome.generation] = exhibit
        if not family.is_light:
            _put(store, rows_name(unit.key), family.packed(outcome.made))
    seconds = time.perf_counter() - started
    _put(store, unit_name(unit.key), _encoded(_table(outcomes, cell.width), seconds, shown))
    family.close()
    return seconds


def _put(store: Store, name: str, data: bytes) -> None:
    try:
        store.put(name, data, if_absent=True)
    except Conflict:
        pass  # another cell, or a retry that was thought lost, has the same key and so the same bytes


class Told(NamedTuple):
    """What is to be told of a generation."""

    generation: int
    facts: Mapping[str, Any]
    measures: Measures


def _table(told: Sequence[Told], chains: int) -> pa.Table:
    """One row a generation and chain; made column by column, as arrays of one generation cost more than its rows."""
    columns: dict[str, Any] = {
        "chain": np.tile(np.arange(chains, dtype=np.int32), len(told)),
        "generation": np.repeat(np.array([t.generation for t in told], np.int32), chains),
    }
    for name in told[0].facts:
        values = [t.facts[name] for t in told]
        if name == "shortfall":
            columns[name] = pa.array([value for value in values for _ in range(chains)], pa.string())
        else:
            is_float = name in FLOATS
            columns[name] = np.repeat(np.array(values, np.float64 if is_float else np.int64), chains)
    unknown = np.full(chains, np.nan)
    for name in dict.fromkeys(name for t in told for name in t.measures):
        columns[name] = np.concatenate([np.asarray(t.measures.get(name, unknown), np.float64) for t in told])
    return pa.table(columns)


def _encoded(table: pa.Table, seconds: float, shown: dict[int, Any]) -> bytes:
    sink = io.BytesIO()
    told = {SECONDS: round(seconds, 3), SHOWN: shown}
    table = table.replace_schema_metadata({key: json.dumps(value).encode() for key, value in told.items()})
    how = "zstd" if table.num_rows >= MIN_COMPRESSED else "none"  # on a few rows it takes most of a commit's time
    pq.write_table(table, sink, compression=how, use_dictionary=False, write_statistics=False)
    return sink.getvalue()


def _pool_before(unit: Unit, store: Store, family: ChainFamily) -> Pool:
    """The pool as it stood when the generation before was done: counts from its units, rows when they are needed."""
    cell, at = unit.cell, unit.cell.regime_at
    pool = Pool()
    for generation in range(1, unit.first):
        told = read_parquet(
            io.BytesIO(store.read(unit_name(unit.keys[generation - 1]))), ("num_new", "num_made", "num_kept")
        )
        num_new = told.column("num_new")[0].as_py()
        if num_new:
            pool.counts[Source(REAL, generation)] = num_new
        # The unit may have been done for a regime that keeps another share of what was made.
        wanted = at(generation + 1).num_made(generation, cell.n)
        num_made = told.column("num_made")[0].as_py()
        num_kept = told.column("num_kept")[0].as_py() if cell.gates else min(wanted, num_made)
        pool.counts[Source(SYNTHETIC, generation)] = num_kept

    def load(source: Source) -> Any:
        num = pool.counts[source]
        if source.origin == REAL:
            return family.hold(family.real(cell.width, num, stream(cell.seed, unit.block, source.generation, DATA)))
        made = family.unpacked(store.read(rows_name(unit.keys[source.generation - 1])))
        return family.hold(family.cut(made, num))

    pool.load = load
    return pool


def do_all(
    units: Sequence[Unit], store: Store, metrics: "ChainMetrics | None" = None, engines: TextEngines | None = None
) -> list[tuple[str, float, str | None]]:
    """(key, seconds, None) of each unit; with why it cannot be done where its regime cannot be kept to."""
    told: list[tuple[str, float, str | None]] = []
    for unit in units:
        try:
            told.append((unit.key, do(unit, store, metrics, engines), None))
        except UserError as error:
            told.append((unit.key, 0.0, str(error)))
        except (ValueError, ArithmeticError) as error:  # a singular matrix and the like: this chain's, not the study's
            told.append((unit.key, 0.0, f"{type(error).__name__}: {error}"))
    return told


def done_units(keys: Iterable[str], store: Store) -> set[str]:
    """Those of `keys` that are in the store."""
    there = {name.removeprefix(f"{UNITS}/").removesuffix(".parquet") for name in (e.name for e in store.list(UNITS))}
    return there & set(keys)

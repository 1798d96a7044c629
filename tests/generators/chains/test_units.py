"""Units of chains in a store: what they take there."""

import io
import pickle
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from gristmill.generators.chains.cells import Cell
from gristmill.generators.chains.registry import chain_class
from gristmill.generators.chains.work import ROWS, UNITS, do, do_all, unit_name
from gristmill.records.errors import InputChanged
from gristmill.records.mixing.regimes import Regime, preset
from gristmill.records.pins import Pins
from gristmill.records.readers.datasets import DataSpec, read_table
from gristmill.records.readers.parquet import read_parquet
from gristmill.records.stores.opening import open_store
from tests.generators.chains.test_chains import BREAST_CANCER

N = 150


def bytes_of(folder: Path, regime: Regime, last: int) -> tuple[int, int]:
    """(bytes of rows, objects) that a chain of `last` generations leaves."""
    spec = {**BREAST_CANCER, "model": {"kind": "independent"}}
    cell = Cell("x", "model", spec, "x", regime, N, last, 1, 0)
    store = open_store(str(folder))
    for unit in cell.units():
        do(unit, store)
    entries = [e for part in (ROWS, UNITS) for e in store.list(part)]
    return sum(e.size for e in entries if e.name.startswith(ROWS)), len(entries)


@pytest.mark.parametrize("fresh", [False, True])
def test_storage_of_an_accumulating_chain_grows_linearly(tmp_path: Path, fresh: bool) -> None:
    """Twice the generations, twice the bytes; with the square it would be four times. Real rows take nothing."""
    regime = Regime(pool="accumulate", real="fresh", real_fraction=0.5) if fresh else preset("accumulate")
    half, num_half = bytes_of(tmp_path / "half", regime, 5)
    whole, num_whole = bytes_of(tmp_path / "whole", regime, 10)
    assert 1.95 < whole / half < 2.05 and num_whole == 2 * num_half == 20
    _, columns = N, 31
    made = N // 2 if fresh else N
    assert whole < 10 * made * columns * 8 * 1.3 + 10 * 20_000  # no more than the rows that were made, as float64


def test_a_gated_unit_has_one_chain_and_changes_no_class(tmp_path: Path) -> None:
    """Gates make blocks of one chain, in this unit alone: other cells of the process keep their blocks."""
    gates = ({"kind": "interval", "low": -9.0, "high": 9.0},)
    gated = Cell("x", "gaussian", {}, "x", preset("replace"), 20, 2, 3, 0, gates=gates)
    before = dict(vars(chain_class("gaussian")))
    store = open_store(str(tmp_path))
    units = list(gated.units())
    for unit in units:
        do(unit, store)
        rows = read_parquet(io.BytesIO(store.read(unit_name(unit.key))))
        assert rows.column("chain").to_pylist() == [0, 0] and rows.column("generation").to_pylist() == [1, 2]
    assert len(units) == 3 and dict(vars(chain_class("gaussian"))) == before


def test_data_that_changes_under_a_study_ends_it(tmp_path: Path) -> None:
    """The first generation is done, and the second would learn from other rows under the same key."""
    data, store = tmp_path / "rows.parquet", open_store(str(tmp_path / "out"))
    table = read_table(DataSpec("package:breast-cancer"))
    pq.write_table(table, data)
    split = {"path": str(data), "split_seed": 1}
    rows = {"data": {**split, "part": "train"}, "holdout": {**split, "part": "holdout"}}
    spec = {**BREAST_CANCER, **rows, "model": {"kind": "independent"}}
    cell = Cell("x", "model", spec, "x", Regime(pool="accumulate", real="fresh", real_fraction=0.5), N, 2, 1, 0)
    cell = replace(cell, pins=Pins())
    first, second = cell.units()
    cell_of_worker = pickle.loads(pickle.dumps(first))
    assert do_all([cell_of_worker], store)[0][2] is None
    pq.write_table(table.slice(1), data)
    with pytest.raises(InputChanged, match=r"data .*rows\.parquet changed since this run began"):
        do_all([pickle.loads(pickle.dumps(second))], store)

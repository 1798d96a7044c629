"""The lanes of engines: from what a driver notes to the figure."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gristmill.cluster.lots.job import Progress
from gristmill.cluster.pools.feed import Occupancy
from gristmill.jobs.produce import monitor as module
from gristmill.jobs.produce.monitor import Monitor
from gristmill.jobs.recipes.compile import compile_recipe
from gristmill.jobs.recipes.recipe import load
from gristmill.jobs.report.history import MAX_LANES, History
from gristmill.jobs.report.lanes import lanes
from gristmill.jobs.terminal.console import SafeConsole
from gristmill.records.output.events import read_events
from gristmill.records.output.lease import Lease
from gristmill.records.output.manifest import Manifest
from gristmill.records.output.shards import Summary
from gristmill.records.stores.opening import open_store
from tests.recipes import canned

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


def event(at_s: float, name: str = "progress", **values: Any) -> dict[str, Any]:
    return {"t": (BEGAN + timedelta(seconds=at_s)).isoformat(), "run": "r", "start": 1, "event": name, **values}


def shares(history: History, name: str) -> np.ndarray:
    _, sums = history.lanes[name].coarse(1000, history.end_s)
    return sums["busy"][sums["seconds"] > 0] / sums["seconds"][sums["seconds"] > 0]


def test_a_share_holds_since_the_event_before() -> None:
    history = History([event(0, "start"), event(10, lanes={"generator 0": 0.5}), event(30, lanes={"generator 0": 1.0})])
    lane = history.lanes["generator 0"]
    assert lane.sums["seconds"].sum() == pytest.approx(30)
    assert lane.sums["busy"].sum() == pytest.approx(0.5 * 10 + 1.0 * 20)
    assert set(shares(history, "generator 0").round(6)) <= {0.5, 1.0}


def test_the_figure_names_every_engine() -> None:
    names = {f"generator {n}": 0.9 for n in range(3)} | {"judge 0": 0.1}
    svg = lanes(History([event(0, "start"), event(10, lanes=names)]))
    assert all(re.search(rf">{name}<", svg) for name in names)
    assert lanes(History([event(0, "start"), event(10)])) == ""


@pytest.mark.parametrize("strange", [{"generator 0": "x"}, {"generator 0": None}, [1], {"generator 0": float("nan")}])
def test_strange_lanes_are_counted_and_left_out(strange: Any) -> None:
    history = History([event(0, "start"), event(10, lanes=strange)])
    assert history.num_unclear == 1


def test_very_many_engines_keep_the_page_bounded() -> None:
    many = {f"generator {n}": 0.9 for n in range(10 * MAX_LANES)}
    assert len(History([event(0, "start"), event(10, lanes=many)]).lanes) == MAX_LANES


def test_the_driver_notes_the_share_since_the_last_event(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SAVE_EVERY_S", 0.0)
    compiled = compile_recipe(load(canned(tmp_path)))
    store = open_store(str(tmp_path / "out"))
    manifest = Manifest(compiled.fingerprint, compiled.resolved(), compiled.identity)
    counts = [
        Occupancy(4.0, 10.0, 0.0, 5.0),
        Occupancy(14.0, 20.0, 0.0, 10.0),
        Occupancy(3.0, 4.0, 0.0, 2.0),  # another engine in its place
        Occupancy(),
    ]
    with Monitor(compiled, store, manifest, Summary(), Lease(store), SafeConsole(stderr=True)) as monitor:
        monitor.begin()
        for lane in counts:
            monitor.update(Progress(Summary(), {}, 1, 1, {}, {}, lanes={"generator 0": lane}))
        monitor.end("complete", None)
    noted = [e["lanes"] for e in read_events(store) if e["event"] == "progress"]
    assert noted == [{"generator 0": 0.4}, {"generator 0": 1.0}, {"generator 0": 0.75}, {}]

"""Whole runs of several generators: pools, losses, resumes and the width of the cluster change no byte."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from gristmill.cluster.lots.in_flight import MAKING, InFlightLot, Step
from gristmill.records.stores.opening import open_store
from tests.canned_drills import KIND
from tests.conftest import gristmill
from tests.outputs import kept_hashes
from tests.recipes import canned

NUM_LOTS, LOT_SIZE = 6, 16
ITEMS = [f"subject number {n}" for n in range(NUM_LOTS * LOT_SIZE)]
PACED = {"pooled": True, "num_cpus": 0.1}
COLD = {"kind": KIND, "name": "cold", "num_words": 40, "share": 2}
HOT = {"kind": KIND, "name": "hot", "num_words": 60, "bad": 0.3}
AS_IS = {"kind": "passthrough", "name": "as-is"}


def run(folder: Path, name: str, generators: list[dict[str, Any]], *settings: str, **cluster: Any) -> str:
    """The output of a run."""
    changes = {"generator": None, "generators": generators, "cluster": {"num_cpus": 2, **cluster}}
    recipe = canned(folder / name, NUM_LOTS * LOT_SIZE, LOT_SIZE, source={"items": ITEMS, "cycle": None}, **changes)
    out = str(folder / name / "out")
    done = gristmill("produce", recipe, "--out", out, *settings)
    assert done.returncode == 0, done.stderr
    return out


def rows(out: str) -> dict[str, dict[str, Any]]:
    paths = sorted([*Path(out).glob("kept/*.parquet"), *Path(out).glob("rejected/*.parquet")])
    columns = ["source_id", "generator", "text", "reject"]
    return {row["source_id"]: row for path in paths for row in pq.read_table(path, columns=columns).to_pylist()}


def totals(out: str) -> dict[str, Any]:
    totals: dict[str, Any] = json.loads(open_store(out).read("manifest.json"))["totals"]
    return totals


@pytest.fixture(scope="module")
def unpooled(tmp_path_factory: pytest.TempPathFactory) -> str:
    return run(tmp_path_factory.mktemp("unpooled"), "run", [COLD, HOT, AS_IS])


@pytest.mark.nightly
def test_pools_and_their_width_change_no_byte(unpooled: str, tmp_path: Path) -> None:
    slow = {"seconds_per_ask": 0.001, **PACED}
    generators = [COLD | slow, HOT | slow | {"seconds_per_ask": 0.004}, AS_IS]
    out = run(tmp_path, "pooled", generators, window=4, pools={"hot": {"replicas": 2, "lots_per_replica": 1}})
    assert kept_hashes(out) == kept_hashes(unpooled)


def test_a_resumed_run_in_pools_has_the_same_bytes_and_counts(unpooled: str, tmp_path: Path) -> None:
    out = run(tmp_path, "resumed", [COLD, HOT, AS_IS], "--set", f"limits.asks={2 * LOT_SIZE}")
    before = totals(out)["generators"]
    assert run(tmp_path, "resumed", [COLD | PACED, HOT | PACED, AS_IS], pools={"hot": {"replicas": 2}}) == out
    assert kept_hashes(out) == kept_hashes(unpooled)
    counts = totals(out)["generators"]
    assert counts == totals(unpooled)["generators"] != before
    assert counts.keys() == {"cold", "hot", "as-is"}
    assert sum(count["asks"] for count in counts.values()) == NUM_LOTS * LOT_SIZE
    assert sum(count["kept"] for count in counts.values()) == totals(unpooled)["kept"]
    assert "finish:length" in counts["hot"] and "finish:length" not in counts["cold"]
    assert gristmill("audit", out).returncode == 0


def test_a_crash_in_one_pool_costs_the_ask_at_fault_alone(unpooled: str, tmp_path: Path) -> None:
    before = rows(unpooled)
    culprit = next(source_id for source_id, row in before.items() if row["generator"] == "hot" and not row["reject"])
    crash = {"crash_on": f"{ITEMS[int(culprit.rpartition(':')[2])]}."}
    out = run(tmp_path, "crash", [COLD | PACED, HOT | PACED | crash, AS_IS])
    after = rows(out)
    different = [source_id for source_id in before if before[source_id] != after[source_id]]
    assert different == [culprit]
    assert after[culprit] == {**before[culprit], "text": None, "reject": "generator:engine_crash"}
    assert set(json.loads(open_store(out).read("manifest.json"))["cost"]["pools"]) == {"cold", "hot"}
    assert gristmill("status", out).returncode == 0
    page = Path(out, "report.html").read_text()
    assert "Yield by generator" in page and "generator:engine_crash" in page


def test_a_lot_passes_every_generator_once_from_any_on() -> None:
    steps = [*(Step(MAKING, pool) for pool in ("a", "b", "c")), Step("processing"), Step("judge", "j")]  # type: ignore[arg-type]
    for first in range(3):
        lot, passed = InFlightLot(0, 8, first, first), []
        while lot.step < len(steps):
            passed.append(lot.step)
            lot.advance(steps)
        assert sorted(passed[:3]) == [0, 1, 2] and passed[0] == first and passed[3:] == [3, 4]
        lot.begin_again()
        assert lot.step == first

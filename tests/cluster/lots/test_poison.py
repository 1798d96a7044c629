"""Asks that kill or hang their engine are found and rejected; their lot-mates survive."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.cluster.lots.quarantine import POISON_TRIES, Quarantine
from tests.canned_drills import KIND
from tests.conftest import gristmill
from tests.outputs import shard_paths
from tests.recipes import canned

ITEMS = [f"subject number {n}" for n in range(96)]
CLUSTER = {"num_cpus": 3, "max_retries": 3, "stall_timeout_s": 4.0}


def run(folder: Path, generator: dict[str, Any], *settings: str) -> Any:
    recipe = canned(
        folder,
        num_asks=96,
        source={"items": ITEMS, "cycle": None},
        generator={"kind": KIND, "pooled": True, "seconds_per_ask": 0.001, "duplicates": None, **generator},
        cluster=CLUSTER,
    )
    return gristmill("produce", recipe, "--out", str(folder / "out"), *settings)


def rows(folder: Path) -> dict[str, tuple[str, str | None]]:
    """Every row's text and reject by source."""
    paths = [*shard_paths(folder / "out"), *(str(p) for p in sorted((folder / "out" / "rejected").glob("*.parquet")))]
    found = {}
    for path in paths:
        for row in pq.read_table(path, columns=["source_id", "text", "reject"]).to_pylist():
            found[row["source_id"]] = row["text"], row["reject"]
    return found


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, str | None]]:
    folder = tmp_path_factory.mktemp("quiet")
    done = run(folder, {})
    assert done.returncode == 0, done.stderr
    return rows(folder)


@pytest.mark.parametrize(
    ("drill", "reason"),
    [("crash_on", "engine_crash"), pytest.param("hang_on", "engine_hang", marks=pytest.mark.nightly)],
)
def test_the_ask_at_fault_is_rejected_and_its_mates_survive(
    drill: str, reason: str, tmp_path: Path, quiet: dict[str, tuple[str, str | None]]
) -> None:
    done = run(tmp_path, {drill: "subject number 41."})
    assert done.returncode == 0, done.stderr
    assert "row 9: rejected" in done.stderr  # 41 = lot 1, row 9
    found = rows(tmp_path)
    assert set(found) == set(quiet)
    different = {key for key in quiet if found[key] != quiet[key]}
    (culprit,) = different
    assert found[culprit] == (None, f"generator:{reason}")
    assert gristmill("audit", str(tmp_path / "out")).returncode == 0


def test_an_engine_that_every_ask_kills_stops_the_run(tmp_path: Path) -> None:
    done = run(tmp_path, {"crash_on": "subject"}, "--set", "cluster.max_poison=1", "--set", "lot_size=4")
    assert done.returncode == 2
    assert "engine" in done.stderr.splitlines()[-1]


@given(num_rows=st.integers(1, 600), poison=st.sets(st.integers(0, 599), max_size=3), is_one_of_many=st.booleans())
def test_quarantine_makes_every_other_row_once_and_in_order(
    num_rows: int, poison: set[int], is_one_of_many: bool
) -> None:
    poison = {p for p in poison if p < num_rows}
    suspect, num_deaths = Quarantine(num_rows, is_one_of_many), 0
    while not suspect.is_done:
        start, stop = suspect.span
        if any(start <= p < stop for p in poison):
            suspect.blame("engine_crash")
            num_deaths += 1
        else:
            suspect.finished((start, stop))
    made = [row for start, (_, stop) in suspect.parts for row in range(start, stop)]
    assert made == [row for row in range(num_rows) if row not in poison]
    assert set(suspect.refused) == poison
    assert num_deaths <= len(poison) * (2 + POISON_TRIES) + is_one_of_many
    assert poison or not is_one_of_many or len(suspect.parts) == 1  # a lot without fault is made in one go

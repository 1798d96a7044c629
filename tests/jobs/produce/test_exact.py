"""`limits.exact` in whole runs: the number to the row, the same bytes after a stop, a closed output, and its proof."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gristmill.cluster.spec import Limits
from gristmill.jobs.audit.closing import Closing, ClosingAudit
from gristmill.jobs.cli import main
from gristmill.jobs.produce.closing import check_closed, closed_at
from gristmill.records.errors import UserError
from gristmill.records.output.manifest import Manifest
from gristmill.records.output.summary import Summary
from gristmill.records.schema import SURPLUS
from gristmill.records.stores.opening import open_store
from tests.outputs import commit_lots, kept_hashes, shard_paths
from tests.recipes import AT_ONCE, canned, write
from tests.session import gristmill

NUM_ROWS = 100


def recipe(folder: Path, **changes: Any) -> str:
    limits = {"kept_rows": NUM_ROWS, "exact": True, "asks": None}
    return canned(folder, generator={"num_words": 60, "seconds_per_ask": 0.01}, **{"limits": limits, **changes})


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exact")
    done = gristmill("produce", recipe(folder), "--out", str(folder / "out"), *AT_ONCE)
    assert done.returncode == 0, done.stderr
    assert "rejected limit:surplus" in done.stdout
    return folder / "out"


def test_the_number_is_kept_to_the_row_and_stands_in_manifest_and_footer(closed: Path) -> None:
    tables = [pq.read_table(path, columns=["id"]) for path in shard_paths(closed)]
    manifest = json.loads((closed / "manifest.json").read_text())
    totals = manifest["totals"]
    assert sum(table.num_rows for table in tables) == totals["kept"] == manifest["closed_at"] == NUM_ROWS
    assert totals["rejected"][SURPLUS] > 0 and totals["asks"] == NUM_ROWS + sum(totals["rejected"].values())
    store = open_store(str(closed))
    assert [closed_at(store, n + 1) for n in range(len(tables))] == [None] * (len(tables) - 1) + [NUM_ROWS]
    rejected = pa.concat_tables(pq.read_table(path) for path in (closed / "rejected").glob("*.parquet")).to_pylist()
    kept_ids = {row_id for table in tables for row_id in table.column("id").to_pylist()}
    assert all(row["duplicate_of"] in kept_ids for row in rejected if row["duplicate_of"])
    assert all(row["duplicate_of"] is None for row in rejected if row["reject"] == SURPLUS)
    audit = gristmill("audit", str(closed))
    assert audit.returncode == 0, audit.stdout
    assert "closed at exactly 100 kept rows" in gristmill("status", str(closed)).stdout
    assert "closed at exactly 100 rows" in (closed / "report.html").read_text()


@pytest.mark.parametrize(
    "changes", [{"kept_rows": 101}, {"kept_rows": 99}, {"exact": False}, {"exact": False, "kept_rows": 200}]
)
def test_a_closed_output_takes_no_other_number(closed: Path, changes: dict[str, Any], tmp_path: Path) -> None:
    path = recipe(tmp_path, limits={"kept_rows": NUM_ROWS, "exact": True, "asks": None, **changes})
    for flags in ((), ("--dry-run",)):
        done = gristmill("produce", path, "--out", str(closed), *AT_ONCE, *flags)
        assert done.returncode == 2 and "is closed at exactly 100 rows" in done.stderr
        assert "limits.kept_rows = 100, or choose another --out" in done.stderr


def test_a_stop_other_numbers_and_another_window_change_no_byte(closed: Path, tmp_path: Path) -> None:
    out, narrow = str(tmp_path / "out"), recipe(tmp_path, cluster={"window": 2})
    steps = (["limits.kept_rows=5000", "limits.asks=32"], ["limits.exact=false", "limits.asks=96"])
    for settings in (*steps, []):
        done = gristmill("produce", narrow, "--out", out, *AT_ONCE, *(w for s in settings for w in ("--set", s)))
        assert done.returncode in ((0,) if not settings else (3,)), done.stderr
    assert "going on after 3 committed lots" in done.stderr
    assert kept_hashes(out) == kept_hashes(str(closed))
    (tmp_path / "out" / "manifest.json").unlink()  # as after a kill before it was written, at worst
    subprocess.run(["cp", closed / "manifest.json", tmp_path / "out"], check=True)
    manifest = json.loads((closed / "manifest.json").read_text())
    del manifest["closed_at"]
    (tmp_path / "out" / "manifest.json").write_text(json.dumps({**manifest, "state": "running"}))
    again = gristmill("produce", narrow, "--out", out, *AT_ONCE, "--set", "limits.kept_rows=5000")
    assert again.returncode == 2 and "is closed at exactly 100 rows" in again.stderr
    again = gristmill("produce", narrow, "--out", out, *AT_ONCE)
    assert again.returncode == 0 and "all of this run is there already" in again.stderr
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["closed_at"] == NUM_ROWS


def test_fewer_rows_than_stated_is_short(tmp_path: Path) -> None:
    short = {"limits": {"kept_rows": NUM_ROWS, "exact": True, "asks": 64}}
    done = gristmill("produce", recipe(tmp_path, **short), "--out", str(tmp_path / "out"), *AT_ONCE)
    assert done.returncode == 3
    assert "limits.asks = 64 ended the run before limits.kept_rows = 100 (at " in done.stdout
    assert gristmill("audit", str(tmp_path / "out")).returncode == 0
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["state"] == "exhausted" and "closed_at" not in manifest


def test_committed_lots_cannot_be_cut() -> None:
    with pytest.raises(UserError, match="holds 120 kept rows, and its committed lots cannot be cut to .* = 100"):
        check_closed(Limits(kept_rows=100, exact=True), None, Summary(kept=120), "out")
    check_closed(Limits(kept_rows=100), None, Summary(kept=120), "out")
    check_closed(Limits(kept_rows=120, exact=True), None, Summary(kept=120), "out")


K, D, S, B = None, "dedup:duplicate", SURPLUS, "balance:quota"


@pytest.mark.parametrize(
    ("lots", "stated", "words"),
    [
        ([[K, D, K, S]], [3], "closes the output at 3 rows, the shards hold 2"),
        ([[K, S, K]], [2], "row 1 is limit:surplus, and row 2 is kept"),
        ([[K, K, D]], [2], "row 2 was compared with kept rows"),
        ([[K, K, S, B]], [2], "row 3 was compared with kept rows"),
        ([[K, K, S], [K]], [2, None], "part-00000001.parquet follows kept/part-00000000.parquet"),
        ([[K, S]], [None], "row 1 is limit:surplus, but its footer closes no output"),
        ([[K], [S, S]], [None, 1], "closes the output at 1 rows"),
        ([[K, D, B, "rules:bad"], [K, "rules:bad", S]], [None, 2], ""),
    ],
)
def test_the_audit_sees_every_way_in_which_an_exact_output_can_be_wrong(
    lots: list[list[str | None]], stated: list[int | None], words: str
) -> None:
    kept = sum(row is K for lot in lots for row in lot)
    run = Manifest("f" * 32, {"limits": {"exact": True, "kept_rows": kept}}, {}, "complete", closed_at=stated[-1])
    audit = ClosingAudit(run)
    for number, (rows, closes_at) in enumerate(zip(lots, stated)):
        table = pa.table({"row": range(len(rows)), "reject": pa.array(rows, pa.string())})
        audit.lot(number, Closing.of(table, closes_at, frozenset({D, "balance"})), rows.count(K))
    errors = audit.close(is_over=True)
    assert bool(errors) == bool(words) and words in "; ".join(errors)


def test_the_audit_compares_manifest_and_footers(closed: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    subprocess.run(["cp", "-r", closed, out], check=True)
    manifest = json.loads((out / "manifest.json").read_text())
    manifest["closed_at"], manifest["recipe"]["limits"]["kept_rows"] = 101, 101
    (out / "manifest.json").write_text(json.dumps(manifest))
    audit = gristmill("audit", str(out))
    assert audit.returncode == 1 and "closed_at = 101, the footer of the last lot says 100" in audit.stdout
    assert "limits.exact with kept_rows = 101, the shards hold 100" in audit.stdout


def open_recipe(folder: Path, **limits: Any) -> str:
    """A recipe whose lots of 8 rows are all kept."""
    table: dict[str, Any] = {
        "name": "open",
        "lot_size": 8,
        "source": {"items": ["a river", "a bridge"], "cycle": True},
        "generator": {"kind": "canned"},
        "method": {"kind": "prompt"},
        "limits": {name: limit for name, limit in limits.items() if limit is not None},
    }
    return write(folder / "recipe.toml", table)


def manifest_of(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "out" / "manifest.json").read_text()))


@pytest.mark.parametrize("limits", [{"asks": 16}, {"kept_rows": 16}, {"kept_rows": 30, "exact": True, "asks": 16}])
def test_an_output_that_holds_the_number_already_is_closed_by_its_manifest(
    limits: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "out")
    commit_lots(open_recipe(tmp_path, **limits), out, 2)
    before = kept_hashes(out)
    assert main(["produce", open_recipe(tmp_path, kept_rows=16, exact=True), "--out", out]) == 0
    assert manifest_of(tmp_path)["state"] == "complete" and manifest_of(tmp_path)["closed_at"] == 16
    assert main(["audit", out]) == 0 and kept_hashes(out) == before
    assert main(["produce", open_recipe(tmp_path, kept_rows=16, exact=True), "--out", out]) == 0  # again
    assert manifest_of(tmp_path)["closed_at"] == 16
    capsys.readouterr()
    for other in ({"kept_rows": 24, "exact": True}, {"kept_rows": 24}, {"asks": 24}, {"kept_rows": 8, "exact": True}):
        for flags in ([], ["--dry-run"]):
            assert main(["produce", open_recipe(tmp_path, **other), "--out", out, *flags]) == 2
            assert "is closed at exactly 16 rows" in capsys.readouterr().err
    path = tmp_path / "out" / "manifest.json"
    path.write_text(json.dumps({**manifest_of(tmp_path), "closed_at": 15}))
    assert main(["audit", out]) == 1
    assert "manifest.json says closed_at = 15, the shards hold 16" in capsys.readouterr().out


def test_an_output_that_holds_more_or_fewer_rows_is_not_closed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "out")
    commit_lots(open_recipe(tmp_path, asks=16), out, 2)  # its manifest counts no lot
    assert main(["produce", open_recipe(tmp_path, kept_rows=12, exact=True), "--out", out]) == 2
    assert (
        "holds 16 kept rows, and its committed lots cannot be cut to limits.kept_rows = 12" in capsys.readouterr().err
    )
    assert main(["produce", open_recipe(tmp_path, kept_rows=30, exact=True, asks=16), "--out", out]) == 3
    assert manifest_of(tmp_path)["state"] == "exhausted" and "closed_at" not in manifest_of(tmp_path)
    assert main(["audit", out]) == 0


@pytest.mark.parametrize("asks", [None, 16])
def test_the_footer_of_a_lot_that_ends_at_the_number_closes(asks: int | None, tmp_path: Path) -> None:
    """Also where another limit ends the run at the same row; a driver that is killed then has noted nothing."""
    out, path = str(tmp_path / "out"), open_recipe(tmp_path, kept_rows=16, exact=True, asks=asks)
    commit_lots(path, out, 2)
    assert [closed_at(open_store(out), number) for number in (1, 2)] == [None, 16]
    assert main(["produce", path, "--out", out]) == 0 and manifest_of(tmp_path)["closed_at"] == 16
    assert main(["audit", out]) == 0

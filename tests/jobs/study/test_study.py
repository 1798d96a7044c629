"""`gristmill study` as a user meets it: laws held, resumed after kills with the same bytes, refused in time."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gristmill.jobs.study.spec import load_study
from gristmill.records.errors import UserError
from tests.browser import browser, look
from tests.conftest import gristmill

STUDIES = sorted(Path("studies").glob("*.toml"))
SMALL = """
name = "small"
n = 20
generations = 6
chains = 600
[family]
kind = "gaussian"
[regimes.replace]
[regimes.accumulate]
[grid]
"family.bias" = [1.0, 0.9]
[laws]
statistics = ["variance"]
"""


def write(folder: Path, text: str = SMALL) -> str:
    path = folder / "study.toml"
    path.write_text(text)
    return str(path)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    folder = tmp_path_factory.mktemp("study")
    path, out = write(folder), folder / "out"
    ran = gristmill("study", path, "--out", str(out))
    assert ran.returncode == 0, ran.stderr
    assert "estimates tested against exact laws, largest |z|" in ran.stdout
    return path, out


@pytest.mark.parametrize("path", STUDIES, ids=lambda p: p.stem)
def test_every_shipped_study_is_sound(path: Path) -> None:
    spec, cells = load_study(str(path))
    assert cells and spec.description and path.read_text().startswith("#")


def test_results_are_tidy(done: tuple[str, Path]) -> None:
    table = pq.read_table(done[1] / "results.parquet")
    assert table.num_rows == 4 * 600 * 6
    assert {"cell", "regime", "at_family_bias", "chain", "generation", "synthetic_share", "variance"} <= set(
        table.column_names
    )
    first = table.filter(table["generation"].to_numpy() == 1).column("synthetic_share")
    assert set(first.to_pylist()) == {0.0}
    summary = pq.read_table(done[1] / "summary.parquet").to_pylist()
    tested = [row for row in summary if row["z"] is not None]
    assert len(tested) > 50 and max(abs(row["z"]) for row in tested) <= 4


def test_a_finished_study_costs_a_look(done: tuple[str, Path]) -> None:
    before = {p: p.stat().st_mtime_ns for p in done[1].rglob("*") if p.is_file()}
    again = gristmill("study", done[0], "--out", str(done[1]))
    assert again.returncode == 0 and "this study is finished" in again.stderr
    assert {p: p.stat().st_mtime_ns for p in done[1].rglob("*") if p.is_file()} == before


def test_another_study_in_the_same_place_is_refused(done: tuple[str, Path]) -> None:
    other = gristmill("study", done[0], "--out", str(done[1]), "--set", "n=30")
    assert other.returncode == 2 and "holds another study" in other.stderr and "n" in other.stderr


@pytest.mark.skipif(browser() is None, reason="needs Chromium (Debian: apt-get install chromium)")
def test_the_page(done: tuple[str, Path]) -> None:
    seen = {width: look(done[1] / "report.html", width) for width in (1200, 400)}
    assert seen[1200]["heading"].startswith("small") and seen[400]["width"] <= 400
    assert seen[1200]["svgs"] >= 8 and not seen[1200]["scripts"] and not seen[1200]["fetched"]
    assert "replace, bias = 0.9" in seen[1200]["texts"]


def test_killed_at_any_moment_it_ends_with_the_same_bytes(done: tuple[str, Path], tmp_path: Path) -> None:
    out, kills = tmp_path / "out", 0
    for wanted in (1, 6):
        program = [sys.executable, "-m", "gristmill", "study", done[0], "--out", str(out), "--set", "work.num_cpus=1"]
        running = subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while running.poll() is None and len(list((out / "units").glob("*.parquet"))) < wanted:
            time.sleep(0.01)
        if running.poll() is None:
            running.send_signal(signal.SIGKILL)
            kills += 1
        running.wait()
    last = gristmill("study", done[0], "--out", str(out))
    assert last.returncode == 0, last.stderr
    assert kills
    for name in ("results.parquet", "summary.parquet"):
        assert (out / name).read_bytes() == (done[1] / name).read_bytes()


def test_what_was_done_is_not_done_again(done: tuple[str, Path], tmp_path: Path) -> None:
    """A study with a cell more, in the same units: only the new ones are made."""
    out = tmp_path / "out"
    smaller = gristmill("study", done[0], "--out", str(out), "--set", "grid={'family.bias'=[1.0]}")
    assert smaller.returncode == 0, smaller.stderr
    before = {p.name: p.stat().st_mtime_ns for p in (out / "units").iterdir()}
    (out / "study.json").unlink()
    grown = gristmill("study", done[0], "--out", str(out))
    assert grown.returncode == 0, grown.stderr
    after = {p.name: p.stat().st_mtime_ns for p in (out / "units").iterdir()}
    assert len(after) == 2 * len(before) and {k: after[k] for k in before} == before


HEAVY = """
name = "heavy"
n = 200
generations = 3
chains = 2
[family]
kind = "model"
target = "diagnosis"
model = { kind = "copula" }
data = { path = "package:breast-cancer", part = "train" }
holdout = { path = "package:breast-cancer", part = "holdout" }
schema = { file = "package:schemas/breast-cancer" }
[regimes.replace]
[regimes.accumulate]
"""


@pytest.mark.nightly
def test_models_of_a_generation_are_units_that_regimes_share(tmp_path: Path) -> None:
    out = tmp_path / "out"
    ran = gristmill("study", write(tmp_path, HEAVY), "--out", str(out))
    assert ran.returncode == 0, ran.stderr
    units = sorted((out / "units").iterdir())
    assert len(units) == 2 * (1 + 2 * 2) == len(list((out / "rows").iterdir()))
    table = pq.read_table(out / "results.parquet")
    assert table.num_rows == 2 * 2 * 3 and {"recall", "tstr", "copies", "synthetic_share"} <= set(table.column_names)
    results = (out / "results.parquet").read_bytes()
    for unit in units[::2]:
        unit.unlink()
    (out / "study.json").unlink()
    # On one CPU, since a later unit may read the rows of an earlier one that a hand has removed.
    one_cpu = ["--set", "cluster.num_cpus=1"]
    again = gristmill("study", write(tmp_path, HEAVY), "--out", str(out), *one_cpu, own_process=True)
    assert again.returncode == 0, again.stderr
    assert (out / "results.parquet").read_bytes() == results


CAPPED = """
name = "capped"
n = 20
generations = 6
chains = 300
[family]
kind = "gaussian"
[regimes.accumulate]
synthetic_max = 0.5
shortfall = "shrink"
[regimes.fresh-data]
synthetic_max = 0.5
"""


def altered(path: Path, column: str, value: Any) -> None:
    """The file with another value in the first row of a column."""
    table = pq.read_table(path)
    values = table.column(column).to_pylist()
    values[0] = value
    at = table.column_names.index(column)
    pq.write_table(table.set_column(at, table.field(at), pa.array(values, table.field(at).type)), path)


def test_the_audit_proves_the_cap_and_the_results(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert gristmill("study", write(tmp_path, CAPPED), "--out", str(out)).returncode == 0
    shares = pq.read_table(out / "results.parquet").column("synthetic_share").to_numpy()
    assert shares.max() == 0.5
    right = gristmill("audit", str(out))
    assert right.returncode == 0 and "ok (24 mixtures" in right.stdout, right.stdout
    shutil.copytree(out, tmp_path / "copy")
    unit = sorted((out / "units").iterdir())[0]
    altered(unit, "synthetic_share", 0.6)
    altered(unit, "num_made", 3)
    wrong = gristmill("audit", str(out))
    assert (
        wrong.returncode == 1
        and "exceeds the cap 0.5" in wrong.stdout
        and "results.parquet: column num_made" in wrong.stdout
    )
    copy = tmp_path / "copy"
    altered(copy / "results.parquet", "variance", 0.0)
    sorted((copy / "units").iterdir())[1].unlink()
    missing = gristmill("audit", str(copy))
    assert missing.returncode == 1 and "is missing" in missing.stdout and "results.parquet" in missing.stdout


def test_a_law_that_does_not_hold_fails_the_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The estimator is told to be unbiased while the chains use the other: z must show it."""
    from gristmill.generators.chains.cells import Cell
    from gristmill.generators.chains.work import do_all
    from gristmill.jobs.study import laws as study_laws
    from gristmill.jobs.study.command import worst_z
    from gristmill.jobs.study.results import write_results
    from gristmill.records.stores.opening import open_store

    _, cells = load_study(write(tmp_path))
    store = open_store(str(tmp_path / "out"))
    do_all([unit for cell in cells for unit in cell.units()], store)
    right = worst_z(write_results(cells, store))
    plain = study_laws.setting

    def wrong(cell: Cell) -> Any:
        from dataclasses import replace

        return replace(plain(cell), estimator="unbiased")

    monkeypatch.setattr(study_laws, "setting", wrong)
    off = worst_z(write_results(cells, store))
    assert right is not None and abs(right["z"]) <= 4 and off is not None and abs(off["z"]) > 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["n=1"], "needs at least 2 rows"),
        (["regimes.half.real_fraction=1.5", "regimes.half.real='fresh'"], "must lie in [0, 1]"),
        (["regimes.replace.synthetic_max=0.5"], "the regime has no real rows"),
        (["family.kind='gausian'"], "did you mean 'gaussian'"),
        (["grid={'family.bias'=[2.0]}"], "bias must lie in [0, 1]"),
        (["grid.m=[1]"], "unknown grid address 'm'"),
        (["regimes.shrinking.growth=0.3"], "needs 2"),
        (["family.kind='multinomial'", "grid={}"], "no exact law of 'variance' is known"),
        (["gates=[{kind='ball', centre=1.0, radius=1.0}]"], "judges rows of linear_regression"),
        (["laws.precision=1.5"], "precision must be in [0, 1)"),
        (["forks=[{at=9, regime='accumulate'}]"], "2 <= at <= generations"),
    ],
)
def test_what_must_fail_fails_before_anything_runs(settings: list[str], message: str, tmp_path: Path) -> None:
    from gristmill.jobs.study.laws import check_laws

    with pytest.raises(UserError) as caught:
        check_laws(*load_study(write(tmp_path), settings))
    assert message in str(caught.value)


def test_the_plan_says_what_the_laws_expect(tmp_path: Path) -> None:
    shown = gristmill("study", write(tmp_path), "--out", str(tmp_path / "out"), "--dry-run")
    assert shown.returncode == 0 and not (tmp_path / "out").exists()
    assert "4 cells" in shown.stdout and "needed: chains for 5%" in shown.stdout
    assert "mean_error" in shown.stdout and "cost: unknown until the first units are done" in shown.stdout


def test_the_plan_says_what_is_left_to_pay(done: tuple[str, Path], tmp_path: Path) -> None:
    """By what the units that are done have taken: half of them gone, half of their seconds are to come."""
    from gristmill.jobs.study.plan import cost_line
    from gristmill.records.stores.opening import open_store

    out = tmp_path / "out"
    shutil.copytree(done[1], out)
    spec, cells = load_study(done[0], ["cluster.price_per_device_hour=3600.0"])
    assert "nothing is left" in cost_line(spec, cells, open_store(str(out)))
    units = sorted((out / "units").iterdir())
    for unit in units[1::2]:
        unit.unlink()
    told = cost_line(spec, cells, open_store(str(out)))
    took = [float(json.loads(pq.read_metadata(unit).metadata[b"seconds"])) for unit in units[::2]]
    price = float(told.split(", ")[-1].removesuffix(" USD"))
    assert f"{len(took)} of {len(units)} units are done; the {len(units) - len(took)} left" in told
    assert min(took) * (len(units) - len(took)) * 0.99 < price < max(took) * (len(units) - len(took)) * 1.01


def test_study_json_holds_what_was_asked(done: tuple[str, Path]) -> None:
    book = json.loads((done[1] / "study.json").read_text())
    assert book["study"]["chains"] == 600 and book["ended"]["state"] == "complete" and book["versions"]["python"]


def test_more_chains_by_what_their_spread_asks_for(tmp_path: Path) -> None:
    from gristmill.generators.chains.work import do_all
    from gristmill.jobs.study.plan import extend_chains
    from gristmill.jobs.study.results import write_results
    from gristmill.records.stores.opening import open_store

    spec, cells = load_study(write(tmp_path), ["grid={}", "laws.precision=0.01", "laws.max_chains=5000"])
    store = open_store(str(tmp_path / "out"))
    do_all([unit for cell in cells for unit in cell.units()], store)
    more = extend_chains(spec, cells, write_results(cells, store))
    keys = [{u.key for u in cell.units()} for cell in (*cells, *more)]
    assert more[0].chains == 5000 and 600 < more[1].chains < 5000  # replace: as many as are allowed
    assert keys[0] < keys[2] and keys[1] < keys[3]  # what was done is part of it
    do_all([unit for cell in more for unit in cell.units()], store)
    summary = write_results(more, store)
    rows = {(r["cell"], r["measure"], r["generation"]): r for r in summary.to_pylist()}
    row = rows["accumulate", "variance", 6]
    assert row["standard_error"] / row["mean"] == pytest.approx(0.01, rel=0.15)
    assert extend_chains(spec, cells, summary)[0].chains == 5000
    assert extend_chains(load_study(write(tmp_path), ["laws.precision=0.9"])[0], cells, summary) == cells


@pytest.mark.nightly
def test_chains_are_added_until_the_mean_is_precise(tmp_path: Path) -> None:
    """To .5 % of the variance: v after 6 generations of 20 rows deviates by .74 of its mean, so 20,000 chains or so."""
    settings = ["generations=6", "chains=300", "grid={}", "laws.precision=0.005", "laws.max_chains=12000"]
    flags = [word for s in settings for word in ("--set", s)]
    out = tmp_path / "out"
    ran = gristmill("study", write(tmp_path), "--out", str(out), *flags)
    assert ran.returncode == 0, ran.stderr
    assert "cells need more chains" in ran.stderr
    rows = [r for r in pq.read_table(out / "summary.parquet").to_pylist() if r["measure"] == "variance"]
    last = {r["cell"]: r for r in rows if r["generation"] == 6}
    assert last["replace"]["num_chains"] == 12_000  # as many as are allowed
    error = last["accumulate"]["standard_error"] / last["accumulate"]["mean"]
    assert 300 < last["accumulate"]["num_chains"] < 12_000 and error == pytest.approx(0.005, rel=0.15)
    audit = gristmill("audit", str(out))
    assert audit.returncode == 0, audit.stdout
    again = gristmill("study", write(tmp_path), "--out", str(out), *flags)
    assert again.returncode == 0 and "this study is finished" in again.stderr

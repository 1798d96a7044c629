"""`gristmill audit-privacy`: it refutes a model that copies, spares an honest one, and refuses what it cannot audit."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gristmill.evaluation.privacy.canaries import Canaries, make_canaries, scores_by_sums
from gristmill.generators.families.contract import draw_rows
from gristmill.generators.families.fit import Fit
from gristmill.generators.families.folder import load_model, read_card
from gristmill.generators.tabular.encoding.public import noisy_counts
from gristmill.jobs.evaluate.inputs import EvaluateArgs, read_inputs
from gristmill.jobs.fit import audit_privacy as verb
from gristmill.jobs.fit.audit_privacy import AuditPrivacyArgs, audit_privacy
from gristmill.jobs.fit.plan import load_plan
from gristmill.records.errors import UserError
from gristmill.records.readers.tables import Column, TableSchema
from gristmill.records.stores.opening import open_store
from tests.browser import browser, look
from tests.conftest import ROOT, gristmill
from tests.outputs import PATIENCE_S
from tests.recipes import write

COLUMNS = [
    {"name": "age", "kind": "integer", "low": 0, "high": 120},
    {"name": "dose", "kind": "numeric", "low": 0.0, "high": 100.0},
    {"name": "ward", "kind": "category", "categories": list("abcdefgh")},
]


def people(num: int = 900, seed: int = 0) -> pa.Table:
    draws = np.random.default_rng(seed)
    age = draws.integers(20, 80, num)
    dose = np.clip(age / 2 + draws.normal(0, 5, num), 0, 100)
    return pa.table({"age": age, "dose": dose, "ward": draws.choice(list("abc"), num)})


def recipe_of(folder: Path, kind: str, **changes: Any) -> str:
    rows = folder / "people.parquet"
    if not rows.exists():
        pq.write_table(people(), rows)
    recipe = {
        "name": f"audit-{kind}",
        "data": {"path": str(rows)},
        "schema": {"columns": COLUMNS},
        "model": {"kind": kind},
        "cluster": {"num_cpus": 1},
        **changes,
    }
    return write(folder / f"{kind}.toml", {k: v for k, v in recipe.items() if v is not None})


PRIVACY = {"epsilon": 1.0, "delta": 1e-5}


def fit_here(recipe: str, out: Path) -> str:
    """What `gristmill fit` leaves, without its process."""
    load_plan(recipe).fit(open_store(str(out))).run()
    return str(out)


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second fit without a cluster; the whole verb with one is tested below."""

    def run(job: Fit, recipe: Any, console: Any) -> Any:
        return job.run()

    monkeypatch.setattr(verb, "run_fit", run)


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """smote, whose rows lie between two rows that it has learnt: audited by the command line."""
    folder = tmp_path_factory.mktemp("copied")
    recipe = recipe_of(folder, "smote")
    fit_here(recipe, folder / "model")
    done = gristmill("audit-privacy", recipe, "--out", str(folder / "model"), "--seed", "5")
    assert done.returncode == 0, done.stderr
    assert "the model claims nothing" in done.stdout
    return folder, recipe


def test_a_family_that_copies_is_found_out_by_the_whole_verb(copied: tuple[Path, str]) -> None:
    folder, recipe = copied
    found = json.loads((folder / "model" / "audit.json").read_text())
    assert found["epsilon_lower_bound"] > 1 and found["claimed_epsilon"] is None
    assert found["num_canaries"] == 100 and found["coin_seed"] == 5 and found["num_rows"] == 900
    assert found["model"] == read_card(str(folder / "model")).digest
    assert sorted(p.name for p in (folder / "model").iterdir()) == ["audit.json", "model.json", "weights.safetensors"]
    before = (folder / "model" / "audit.json").read_bytes()
    assert audit_privacy(AuditPrivacyArgs(recipe, str(folder / "model"))) == 0  # again: it is there
    assert (folder / "model" / "audit.json").read_bytes() == before


@pytest.mark.parametrize("adjacency", ["add-remove", "replace"])
def test_an_honest_private_model_is_not_refuted(adjacency: str, tmp_path: Path, in_process: None) -> None:
    recipe = recipe_of(tmp_path, "mst", privacy={**PRIVACY, "adjacency": adjacency})
    out = fit_here(recipe, tmp_path / "model")
    Path(tmp_path / "people.parquet").unlink()  # its own rows are audited: the private ones are not even read
    assert audit_privacy(AuditPrivacyArgs(recipe, out, seed=1)) == 0
    found = json.loads((tmp_path / "model" / "audit.json").read_text())
    assert found["epsilon_lower_bound"] <= found["claimed_epsilon"] <= 1.0 and not found["is_refuted"]
    assert found["rows"] == verb.MODEL_ROWS and found["adjacency"] == adjacency
    assert set(found["bounds"]) == {"sampled rows", "noisy counts in the model"}


@pytest.mark.parametrize("adjacency", ["add-remove", "replace"])
def test_a_fit_that_forgets_its_noise_is_refuted(
    adjacency: str, tmp_path: Path, in_process: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """The account is charged as ever, but the noise of the counts is not drawn."""

    def forgetful(grid: Any, cells: np.ndarray, noise: float, account: Any, random: Any) -> list[np.ndarray]:
        noisy_counts(grid, cells, noise, account, random)
        return noisy_counts(grid, cells, 0.0, None, random)

    monkeypatch.setattr("gristmill.generators.tabular.mst.noisy_counts", forgetful)
    recipe = recipe_of(tmp_path, "mst", privacy={**PRIVACY, "adjacency": adjacency})
    out = fit_here(recipe, tmp_path / "model")
    assert audit_privacy(AuditPrivacyArgs(recipe, out, seed=1)) == 1
    said = capsys.readouterr()
    assert "REFUTED" in said.out and "must not be called private" in said.err
    found = json.loads((tmp_path / "model" / "audit.json").read_text())
    assert found["is_refuted"] and found["epsilon_lower_bound"] > found["claimed_epsilon"]
    assert audit_privacy(AuditPrivacyArgs(recipe, out)) == 1  # and it is told again


def test_coins_of_the_operating_system_differ_and_are_written_down(tmp_path: Path, in_process: None) -> None:
    recipe = recipe_of(tmp_path, "smote")
    seeds = set()
    for name in ("a", "b"):
        out = fit_here(recipe, tmp_path / name)
        assert audit_privacy(AuditPrivacyArgs(recipe, out, canaries=20, samples=100)) == 0
        found = json.loads((tmp_path / name / "audit.json").read_text())
        seeds.add(found["coin_seed"])
        assert found["coins"] == "of the operating system" and found["num_canaries"] == 20
    assert len(seeds) == 2


def test_public_rows_and_the_note_on_private_ones(
    tmp_path: Path, in_process: None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    recipe = recipe_of(tmp_path, "mst", privacy=PRIVACY)
    out = fit_here(recipe, tmp_path / "model")
    pq.write_table(people(700, seed=9), tmp_path / "public.parquet")
    assert audit_privacy(AuditPrivacyArgs(recipe, out, data=str(tmp_path / "public.parquet"))) == 0
    assert "no budget covers it" not in caplog.text
    found = json.loads((tmp_path / "model" / "audit.json").read_text())
    assert found["rows"] == str(tmp_path / "public.parquet") and found["num_rows"] == 700
    (tmp_path / "model" / "audit.json").unlink()
    assert audit_privacy(AuditPrivacyArgs(recipe, out, data=str(tmp_path / "people.parquet"))) == 0
    assert "no budget covers it" in caplog.text


def test_the_page_shows_the_audit(copied: tuple[Path, str], tmp_path: Path) -> None:
    folder, _ = copied
    schema = tmp_path / "schema.toml"
    schema.write_text(_schema())
    pq.write_table(people(300, seed=4), tmp_path / "holdout.parquet")
    made = draw_rows(load_model(str(folder / "model"), read_card(str(folder / "model"))), np.arange(300))
    pq.write_table(made, tmp_path / "made.parquet")
    done = gristmill(
        *("evaluate", str(tmp_path / "made.parquet"), "--real-train", str(folder / "people.parquet")),
        *("--real-holdout", str(tmp_path / "holdout.parquet"), "--model", str(folder / "model")),
        *("--schema", str(schema), "--out", str(tmp_path / "out"), "--max-rows", "100"),
    )
    assert done.returncode == 0, done.stderr
    html = (tmp_path / "out" / "report.html").read_text()
    assert "audit: verdict" in html and "the model claims nothing" in html and "audit: num correct" in html
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["model"]["audit"]["epsilon_lower_bound"] > 1
    if browser() is not None:
        assert look(tmp_path / "out" / "report.html", 400)["width"] <= 400
    found = read_inputs(
        EvaluateArgs(
            str(tmp_path / "made.parquet"),
            str(folder / "people.parquet"),
            str(tmp_path / "holdout.parquet"),
            "",
            model=str(folder / "model"),
        )
    )
    assert found.audit


def _schema() -> str:
    parts = []
    for column in COLUMNS:
        parts.append("[[columns]]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in column.items()))
    return "\n".join(parts)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": 1}, "fitted by another recipe; nothing was changed. Differences (output -> command): seed: 0 -> 1"),
        ({"model": {"kind": "independent"}}, "holds a model of kind 'smote', the recipe is of kind 'independent'"),
        ({"model": {"kind": "smote", "neighbours": 2}}, "fitted by another recipe"),
        ({"data": {"path": "package:breast-cancer"}}, "the recipe names package:breast-cancer"),
        ({"model": {"kind": "adr"}, "data": None, "schema": None}, "no privacy to audit"),
        ({"model": {"kind": "smoke"}}, "did you mean 'smote'"),
    ],
)
def test_what_cannot_be_audited_is_refused(
    changes: dict[str, Any], words: str, tmp_path: Path, in_process: None
) -> None:
    out = fit_here(recipe_of(tmp_path, "smote"), tmp_path / "model")
    recipe = recipe_of(tmp_path, "other", **{"model": {"kind": "smote"}, **changes})
    with pytest.raises(UserError) as caught:
        audit_privacy(AuditPrivacyArgs(recipe, out))
    assert words in str(caught.value) and "\n" not in str(caught.value)
    assert sorted(p.name for p in (tmp_path / "model").iterdir()) == ["model.json", "weights.safetensors"]


def test_changed_rows_too_few_canaries_images_and_a_missing_model_are_refused(tmp_path: Path, in_process: None) -> None:
    recipe = recipe_of(tmp_path, "smote")
    with pytest.raises(UserError, match="holds no finished model"):
        audit_privacy(AuditPrivacyArgs(recipe, str(tmp_path / "model")))
    out = fit_here(recipe, tmp_path / "model")
    with pytest.raises(UserError, match="--canaries must be at least 2"):
        audit_privacy(AuditPrivacyArgs(recipe, out, canaries=1))
    pq.write_table(people(seed=3), tmp_path / "people.parquet")
    with pytest.raises(UserError, match="fitted by another recipe"):
        audit_privacy(AuditPrivacyArgs(recipe, out))
    image = {"name": "image", "kind": "image", "height": 8, "width": 8, "channels": 1}
    columns = [image, {"name": "label", "kind": "category", "categories": [str(d) for d in range(10)]}]
    digits = {"data": {"path": "package:digits"}, "schema": {"columns": columns}}
    vae = recipe_of(tmp_path, "vae", **digits, model={"kind": "vae", "steps": 1})
    fit_here(vae, tmp_path / "vae-model")
    with pytest.raises(UserError, match="column 'image' of model 'vae' is of kind image"):
        audit_privacy(AuditPrivacyArgs(vae, str(tmp_path / "vae-model")))


def test_a_schema_without_room_for_canaries_is_refused() -> None:
    schema = TableSchema((Column("c", "category", categories=("a", "b")),))
    with pytest.raises(ValueError, match="too few rows beside the real rows"):
        make_canaries(schema, schema.conform(pa.table({"c": ["a"] * 30})), 2, 0, False)


def test_canaries_are_new_different_rows_of_the_schema_and_come_in_by_their_coins() -> None:
    schema = TableSchema(
        (Column("n", "integer", 0, 50), Column("x", "numeric"), Column("c", "category", categories=("a", "b", "q")))
    )
    draws = np.random.default_rng(0)
    rows = schema.conform(
        pa.table({"n": draws.integers(0, 9, 80), "x": draws.normal(size=80), "c": draws.choice(["a", "b"], 80)})
    )
    made = make_canaries(schema, rows, 30, 1, True)
    assert made.outs is not None
    both = pa.concat_tables([made.ins, made.outs, rows])
    assert len({tuple(r.values()) for r in both.to_pylist()}) == len({tuple(r.values()) for r in rows.to_pylist()}) + 60
    assert schema.conform(made.ins).num_rows == 30
    assert "q" in made.ins.column("c").to_pylist()
    coins = np.arange(30) < 12
    mixed = [tuple(r.values()) for r in made.mix_into(coins, rows, 0).to_pylist()]
    for at, (is_in, row, other) in enumerate(zip(coins, made.ins.to_pylist(), made.outs.to_pylist())):
        assert (tuple(row.values()) in mixed) == is_in, at
        assert (tuple(other.values()) in mixed) != is_in, at
    alone = Canaries(made.ins, None).mix_into(coins, rows, 0)
    assert alone.num_rows == 92


def test_sums_without_noise_give_every_coin_away() -> None:
    draws = np.random.default_rng(0)
    added, known = (draws.random((20, 60)) < 0.1).astype(float), draws.integers(0, 99, 60).astype(float)
    coins = draws.random(20) < 0.5
    scores = scores_by_sums(known + coins @ added, known, added)
    assert scores[coins].min() > scores[~coins].max()
    noisy = known + coins @ added + draws.normal(0, 100, 60)
    assert abs(np.corrcoef(scores_by_sums(noisy, known, added), coins)[0, 1]) < 0.6


@pytest.mark.nightly
def test_killed_and_run_again_it_is_the_audit_of_the_first_coins(tmp_path: Path) -> None:
    model = {"kind": "tvae", "epochs": 60, "batch_size": 50, "latent": 8, "hidden": [16]}
    recipe = recipe_of(tmp_path, "tvae", model=model, train={"checkpoint_s": 0.2})
    done = gristmill("fit", recipe, "--out", str(tmp_path / "model"))
    assert done.returncode == 0, done.stderr
    command = [sys.executable, "-m", "gristmill", "audit-privacy", recipe, "--out", str(tmp_path / "model")]
    run = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    work = tmp_path / "model" / "audit-fit"
    end = time.monotonic() + 120
    while not list(work.glob("checkpoints/*")) and run.poll() is None:
        assert time.monotonic() < end
        time.sleep(0.05)
    assert run.poll() is None
    os.kill(run.pid, signal.SIGKILL)
    run.communicate(timeout=PATIENCE_S)
    assert not (tmp_path / "model" / "audit.json").exists()
    begun = json.loads((work / "coins.json").read_text())
    again = gristmill(*command[3:])
    assert again.returncode == 0, again.stderr
    assert "resuming the audit that was stopped" in again.stderr
    assert json.loads((tmp_path / "model" / "audit.json").read_text())["coin_seed"] == begun["coin_seed"]
    assert not work.exists()

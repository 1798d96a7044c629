"""`gristmill evaluate` as a user meets it: what it says of copies and of fresh rows, what it refuses, and its page."""

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gristmill.generators.families.fit import WITHHELD, Fit
from gristmill.generators.families.folder import read_card
from gristmill.generators.tabular.independent import Independent, IndependentSpec
from gristmill.jobs.evaluate.command import evaluate
from gristmill.jobs.evaluate.inputs import EvaluateArgs, read_inputs
from gristmill.records.errors import UserError
from gristmill.records.readers.datasets import DataSpec, digest_table, read_table
from gristmill.records.readers.tables import infer
from gristmill.records.stores.opening import open_store
from tests.browser import browser, look, picture
from tests.conftest import gristmill
from tests.jobs.report.test_report import Reader

TRAIN, HOLDOUT = "package:breast-cancer#train", "package:breast-cancer#holdout"
SIDES = ("--real-train", TRAIN, "--real-holdout", HOLDOUT)
CATEGORIES = 'categories = ["benign", "malignant"]\n'
EVIL = "<script>alert(1)</script>"


def real(part: Any = "train") -> pa.Table:
    return read_table(DataSpec("package:breast-cancer", part=part))


def resampled(seed: int = 0) -> pa.Table:
    """Each column on its own: what the floor of all generators makes."""
    rows = real()
    draws = np.random.default_rng(seed)
    return pa.table({n: rows.column(n).take(pa.array(draws.permutation(rows.num_rows))) for n in rows.column_names})


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real model of the train rows, with an audit beside it."""
    folder = tmp_path_factory.mktemp("model")
    fit_model(folder, real())
    audit = {"format": 1, "verdict": EVIL, "is_refuted": False, "epsilon_lower_bound": 0.25}
    (folder / "audit.json").write_text(json.dumps({**audit, "model": read_card(str(folder)).digest}))
    return folder


def fit_model(folder: Path, rows: pa.Table) -> None:
    schema, _ = infer(rows)
    trained_on = {
        "path": "package:breast-cancer",
        "num_rows": rows.num_rows,
        "digest": digest_table(schema.conform(rows)),
    }
    Fit(Independent(IndependentSpec(), schema), schema.conform(rows), trained_on, open_store(str(folder)), 0).run()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Path:
    folder = tmp_path_factory.mktemp("made")
    synthetic = folder / f"rows {EVIL.replace('/', '')}.parquet"
    pq.write_table(resampled(), synthetic)
    done = gristmill(
        *("evaluate", str(synthetic), *SIDES, "--target", "diagnosis", "--model", str(model)),
        *("--out", str(folder / "out")),
    )
    assert done.returncode == 0, done.stderr
    assert "TSTR / TRTR" in done.stdout and "report.html" in done.stdout
    assert re.search(r"^\[\d+ s\]  privacy: attacks$", done.stderr, re.MULTILINE)
    return folder / "out"


def test_the_numbers_tell_what_the_rows_are(made: Path) -> None:
    found = json.loads((made / "metrics.json").read_text())
    assert next(iter(found)) == "headline" and next(iter(found["headline"])) == "tstr_over_trtr"
    assert found["headline"]["tstr_over_trtr"] < 0.8  # columns on their own predict nothing
    assert found["headline"]["column_shapes"] == 1 > found["headline"]["column_pair_trends"]
    assert found["headline"]["c2st_auc"] > 0.9 > 0.65 > found["fidelity"]["c2st_auc"]["real"]
    assert found["inputs"]["real_train"]["rows"] == 417 and found["inputs"]["real_holdout"]["rows"] == 152
    assert [a["name"] for a in found["privacy"]["attacks"]] == ["distance", "DOMIAS (kde)", "DOMIAS (gaussian)"]
    assert found["privacy"]["copies"]["rows"] == 0 and "no guarantee" in found["privacy"]["distances"]["note"]
    assert found["model"]["kind"] == "independent" and found["model"]["privacy"]["guarantee"] is None
    assert found["model"]["audit"]["epsilon_lower_bound"] == 0.25
    assert found["notes"] == []


def test_the_page_harms_nobody_and_shows_the_card(made: Path) -> None:
    html = (made / "report.html").read_text()
    reader = Reader()
    reader.feed(html)
    assert reader.open == [] and not {"script", "iframe", "object", "form"} & set(reader.tags)
    assert not [k for k, _ in reader.attributes if k.startswith("on")]
    fetched = [v for k, v in reader.attributes if k in ("src", "href") and v and not v.startswith(("#", "data:"))]
    assert fetched == [] and len(reader.ids) == len(set(reader.ids))
    text = " ".join(reader.text)
    assert "audit: epsilon lower bound" in text and "none: the model was fitted to the rows as they are" in text
    assert text.index("Privacy: attacks") < text.index("Privacy: copies and distances")
    assert "They are no guarantee of privacy" in text


@pytest.mark.skipif(browser() is None, reason="needs Chromium (Debian: apt-get install chromium)")
def test_a_browser_shows_it_at_every_width(made: Path, tmp_path: Path) -> None:
    html = Path(shutil.copy(made / "report.html", tmp_path / "report.html"))
    for width in (360, 400, 1200):
        seen = look(html, width)
        assert seen["width"] <= width, f"{seen['width']} px wide on a page of {width}"
        assert seen["svgs"] == seen["hidden"] == 5
        assert seen["scripts"] == 0 and seen["fetched"] == []
        assert seen["headings"][0] == "Utility: train on synthetic, test on real"
    picture(html, tmp_path / "page.png", 1200, 900)
    assert (tmp_path / "page.png").stat().st_size > 20_000


def test_copies_are_found_out_and_numbers_come_again(tmp_path: Path) -> None:
    pq.write_table(real(), tmp_path / "copies.parquet")
    schema = tmp_path / "schema.toml"
    numbers = "".join(f'[[columns]]\nname = "mean_{n}"\nkind = "numeric"\n' for n in ("radius", "texture", "area"))
    schema.write_text(f'{numbers}[[columns]]\nname = "diagnosis"\nkind = "category"\n{CATEGORIES}')
    said = []
    for name in ("a", "b"):
        done = gristmill(
            *("evaluate", str(tmp_path / "copies.parquet"), *SIDES, "--max-rows", "150", "--json"),
            *("--schema", str(schema)),
            *("--out", str(tmp_path / name)),
        )
        assert done.returncode == 0, done.stderr
        assert "without a model's card" in done.stderr
        said.append(done.stdout)
    assert said[0] == said[1] == (tmp_path / "a" / "metrics.json").read_text()
    found = json.loads(said[0])
    assert found["utility"] is None and found["headline"]["tstr_over_trtr"] is None
    assert found["inputs"]["synthetic"]["rows_used"] == 150 < found["inputs"]["synthetic"]["rows"]
    assert (
        found["privacy"]["distances"]["closer_to_train"]["share"]
        > found["privacy"]["distances"]["closer_to_train"]["expected"]
    )
    assert found["privacy"]["copies"]["share"] == 1 and found["headline"]["attack_auc"] > 0.6
    assert "No --target was given" in (tmp_path / "a" / "report.html").read_text()


def flags_of(folder: Path, **changes: Any) -> EvaluateArgs:
    pq.write_table(resampled(), folder / "rows.parquet")
    fields = {"synthetic": str(folder / "rows.parquet"), "real_train": TRAIN, "real_holdout": HOLDOUT}
    return EvaluateArgs(**{**fields, "out": str(folder / "out"), **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"real_holdout": TRAIN}, "holds the same rows as --real-train"),
        ({"real_holdout": "package:breast-cancer#holdout,split_seed=1"}, "are also in --real-train"),
        ({"target": "diagnosi"}, "did you mean 'diagnosis'"),
        ({"model": "/no/such/model"}, "holds no finished model"),
        ({"real_train": "package:breast-cancr"}, "did you mean 'breast-cancer'"),
        ({"schema": "/no/schema.toml"}, "no such"),
        ({"synthetic": "package:digits"}, "has no column 'mean_radius'"),
        ({"max_rows": 3}, "--max-rows must be at least"),
        ({"seed": -1}, "--seed must not be negative"),
        ({"real_holdout": "package:breast-cancer#holdout,holdout=0.01"}, "at least 20 are needed"),
    ],
)
def test_bad_input_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        read_inputs(flags_of(tmp_path, **changes))


def test_a_holdout_that_the_generator_has_seen_is_refused(tmp_path: Path, model: Path) -> None:
    assert read_inputs(flags_of(tmp_path, model=str(model))).doubts == []
    for name, rows in (
        ("holdout", real("holdout")),
        ("all", real("all")),
        ("both", pa.concat_tables([real(), real("holdout")])),
    ):
        fit_model(tmp_path / name, rows)
        with pytest.raises(UserError, match="the model was fitted to the rows of --real-holdout"):
            read_inputs(flags_of(tmp_path, model=str(tmp_path / name)))
    fit_model(tmp_path / "half", real().slice(0, 200))
    inputs = read_inputs(flags_of(tmp_path, model=str(tmp_path / "half")))
    assert "fitted to other rows than --real-train" in inputs.doubts[0]


def test_a_private_model_is_held_to_the_path_that_it_names(tmp_path: Path) -> None:
    """Its card has no digest of the rows (generators/families/fit.py)."""
    fit_model(tmp_path / "private", real())
    card = tmp_path / "private" / "model.json"
    plain = json.loads(card.read_text())

    def doubts(path: str) -> list[str]:
        card.write_text(json.dumps({**plain, "trained_on": {**plain["trained_on"], "digest": WITHHELD, "path": path}}))
        return read_inputs(flags_of(tmp_path, model=str(tmp_path / "private"))).doubts

    assert doubts(str(DataSpec("package:breast-cancer", part="train"))) == []
    assert "publishes no digest" in doubts("elsewhere.csv")[0]
    with pytest.raises(UserError, match="the model was fitted to the rows of --real-holdout"):
        doubts(str(DataSpec("package:breast-cancer", part="holdout")))


def test_rows_that_stand_many_times_by_nature_are_no_leak(tmp_path: Path) -> None:
    draws = np.random.default_rng(0)
    for name in ("train", "holdout", "made"):
        pq.write_table(pa.table({"c": draws.choice(["a", "b", "c"], 100)}), tmp_path / f"{name}.parquet")
    paths = {n: str(tmp_path / f"{f}.parquet") for n, f in (("real_train", "train"), ("real_holdout", "holdout"))}
    inputs = read_inputs(EvaluateArgs(str(tmp_path / "made.parquet"), out="", **paths))
    assert inputs.sides.schema.names == ["c"]


def test_the_folder_of_a_run_or_model_is_left_alone(tmp_path: Path, model: Path) -> None:
    done = gristmill("evaluate", "package:breast-cancer", *SIDES, "--out", str(model))
    assert done.returncode == 2 and "choose a folder of its own for --out" in done.stderr


def test_a_run_names_its_model_itself(tmp_path: Path, model: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        'name = "rows"\nlot_size = 64\nlimits = { asks = 128 }\n'
        '[source]\nitems = [{ diagnosis = "benign" }]\ncycle = true\n'
        f'[generator]\nkind = "model"\nmodel = "{model}"\npooled = false\n[cluster]\nnum_cpus = 1\n'
    )
    done = gristmill("produce", str(recipe), "--out", str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    inputs = read_inputs(flags_of(tmp_path, synthetic=str(tmp_path / "run")))
    assert inputs.card and inputs.card.kind == "independent" and inputs.doubts == []
    assert inputs.sides.synthetic.num_rows == 128 and inputs.audit
    other = tmp_path / "other"
    fit_model(other, real().slice(0, 200))
    with pytest.raises(UserError, match="is not the model that"):
        read_inputs(flags_of(tmp_path, synthetic=str(tmp_path / "run"), model=str(other)))


def test_an_audit_of_another_model_is_left_out_and_a_refuted_claim_is_told_first(tmp_path: Path, model: Path) -> None:
    copy = Path(shutil.copytree(model, tmp_path / "copy"))
    audit = json.loads((model / "audit.json").read_text())
    (copy / "audit.json").write_text(json.dumps({**audit, "model": "another"}))
    inputs = read_inputs(flags_of(tmp_path, model=str(copy)))
    assert inputs.audit is None and "is not of the model beside it" in inputs.doubts[0]
    (copy / "audit.json").write_text(json.dumps({**audit, "verdict": "REFUTED: so and so", "is_refuted": True}))
    inputs = read_inputs(flags_of(tmp_path, model=str(copy)))
    assert inputs.audit and inputs.doubts == ["the model's privacy claim is REFUTED: so and so"]
    (copy / "audit.json").write_text('{"half": ')
    with pytest.raises(UserError, match="audit.json cannot be read"):
        read_inputs(flags_of(tmp_path, model=str(copy)))


@pytest.mark.parametrize(
    ("module", "flags", "command"),
    [
        ("sklearn", {}, "pip install 'gristmill[tables]'"),
        ("scipy", {}, "pip install 'gristmill[tables]'"),
        ("transformers", {"student": "recipes/fit/docstrings-llama.toml"}, "pip install 'gristmill[lm]'"),
        ("torch", {"perplexity_model": "package:smollm2"}, "pip install 'gristmill[lm]'"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(
    module: str, flags: dict[str, str], command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = flags_of(tmp_path, **flags)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=re.escape(f"package '{module}' is missing; install it with {command}")):
        evaluate(args)
    assert not (tmp_path / "out").exists()

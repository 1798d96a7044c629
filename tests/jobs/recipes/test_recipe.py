"""Recipes are refused early, in one line that says what was meant; their fingerprint covers what changes rows."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gristmill.jobs.fit.plan import load_plan
from gristmill.jobs.recipes.compile import compile_recipe
from gristmill.jobs.recipes.recipe import load
from gristmill.jobs.recipes.toml_file import load_table
from gristmill.records.errors import UserError
from gristmill.records.output.manifest import Manifest
from gristmill.records.output.manifest import load as read_manifest
from gristmill.records.stores.opening import open_store
from tests.conftest import ROOT
from tests.recipes import canned

RECIPES = sorted((ROOT / "recipes").glob("*.toml"))
FITS = sorted((ROOT / "recipes" / "fit").glob("*.toml"))
JUDGED = {
    "quality.toml"
}  # it learns from the output of a run with a judge: tests/jobs/produce/test_quality.py makes one
IMAGES = {"digits-rows.toml"}  # they need a model of images: tests/jobs/produce/test_images.py makes one


@pytest.mark.parametrize("path", [p for p in RECIPES if p.name not in IMAGES], ids=lambda p: p.name)
def test_every_recipe_in_the_repository_is_whole(path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(ROOT)
    settings = []
    if (load(str(path)).generator or {}).get("kind") == "model":
        # The model that it names is one to be made first; any model of the same schema tells whether the rest fits.
        plan = load_plan(str(ROOT / "recipes" / "fit" / "adult-independent.toml"))
        plan.fit(open_store(str(tmp_path))).run()
        settings = [f"generator.model={tmp_path}"]
    mill = compile_recipe(load(str(path), settings))
    assert mill.schema.names[-1] == "reject"
    assert mill.recipe.description


@pytest.mark.parametrize("path", [p for p in FITS if p.name not in JUDGED], ids=lambda p: p.name)
def test_every_fit_recipe_in_the_repository_is_whole(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    plan = load_plan(str(path))
    assert not plan.doubts, "recipes here declare their schema"
    assert plan.table.num_rows or not plan.family.needs_rows


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("lotsize=3", r"unknown key 'lotsize' \(did you mean 'lot_size'\?\)"),
        ("generator.kind=techer", r"unknown kind 'techer' \(did you mean 'teacher'\?\)"),
        ("generator.num_word=3", r"unknown key 'num_word' \(did you mean 'num_words'\?\)"),
        ("method.kind=promt", r"unknown kind 'promt' \(did you mean 'prompt'\?\)"),
        ("stages.0.kind=finsh", r"stage: unknown kind 'finsh' \(did you mean 'finish'\?\)"),
        ("stages.4.treshold=0.5", r"stages\[4\] \(dedup\): unknown key 'treshold'"),
        ("stages.4.threshold=1.5", "threshold"),
        ("limits.kept_rows=0", "kept_rows must be at least 1"),
        ("source.path=nowhere.jsonl", "set one of 'items', 'path' and 'kind'"),
        ("cluster.window=0", "window must be at least 1"),
        ("method.template='Write {'", "template"),
        ("method.template='Write about {topic}.'", r"reads the source column 'topic', which is not there"),
        ("stages.1.column='body'", "stage 'rules' reads column 'body'"),
        ("stages.7.kind=finish", "there is no 'stages.7.kind' to set"),
        ("nonsense", "write it as key=value"),
    ],
)
def test_refuses_in_one_line(setting: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message) as caught:
        compile_recipe(load(canned(tmp_path), [setting]))
    assert "\n" not in str(caught.value)


PAIRED: dict[str, Any] = {
    "name": "paired",
    "generator": {"kind": "canned"},
    "method": {"kind": "cross_document"},
    "limits": {"asks": 4},
}


@pytest.mark.parametrize("pairs", [{"link": "topic"}, {"text": "body", "min_shared": 1}])
def test_pairs_of_parquet_are_those_of_lines(pairs: dict[str, Any], tmp_path: Path) -> None:
    bodies = ["tides of Fundy", "a loaf of rye", "Fundy in spring", "rye and wheat"]
    rows = [
        {"text": f"row {n}", "body": body, "topic": n % 2, "other": {"text": "own"}} for n, body in enumerate(bodies)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    partners = []
    for name in ("rows.jsonl", "rows.parquet"):
        compiled = compile_recipe(load({**PAIRED, "source": {"path": str(tmp_path / name)}, "pairs": pairs}))
        asks = compiled.ask_source(open_store(str(tmp_path / "out"))).ask_rows(0, 4, 4)
        partners.append([json.loads(text)["other"]["text"] for _, text in asks])
    assert partners == [["row 2", "row 3", "row 0", "row 1"]] * 2


@pytest.mark.parametrize("reading", [{"source": {"carry": ["other"]}}, {"method": {"document": "other"}}])
def test_the_row_of_a_partner_is_no_column(reading: dict[str, Any]) -> None:
    recipe = {**PAIRED, "source": {"items": [{"text": "a", "other": "b"}]}, "pairs": {"link": "text"}}
    recipe |= {key: {**recipe[key], **table} for key, table in reading.items()}
    with pytest.raises(UserError, match="shows the partner of a row as 'other'.*source.columns"):
        compile_recipe(load(recipe))


def test_an_alarm_for_alike_texts_needs_texts() -> None:
    recipe = {
        "name": "rows",
        "source": {"items": [{"number": 1}]},
        "generator": {"kind": "passthrough", "columns": ["number"]},
        "limits": {"template_share": 0.5},
    }
    with pytest.raises(UserError, match="limits.template_share compares the texts in column 'text'"):
        compile_recipe(load(recipe))


def test_missing_and_broken_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such recipe file"):
        load(str(tmp_path / "none.toml"))
    (tmp_path / "bad.toml").write_text("name = ")
    with pytest.raises(UserError, match="not valid TOML"):
        load(str(tmp_path / "bad.toml"))


def mark(folder: Path, *settings: str) -> str:
    return compile_recipe(load(canned(folder), settings)).fingerprint


def test_fingerprint_covers_rows_and_nothing_else(tmp_path: Path) -> None:
    plain = mark(tmp_path)
    same = [
        "cluster.replicas=9",
        "limits.asks=7",
        "cluster.index_actors=2",
        "name='other'",
        "generator.seconds_per_ask=1",
    ]
    for setting in same:
        assert mark(tmp_path, setting) == plain, setting
    other = [
        "seed=1",
        "lot_size=8",
        "method.template='Tell of {text}.'",
        "generator.num_words=90",
        "stages.4.threshold=0.7",
        "source.items=['rivers']",
        "output.compression_level=5",
    ]
    marks = [mark(tmp_path, setting) for setting in other]
    assert len({plain, *marks}) == len(other) + 1


def test_fingerprint_covers_the_limits_of_algebra_where_it_is_used_and_not_its_workers(tmp_path: Path) -> None:
    def judged(**table: Any) -> str:
        recipe = load(canned(tmp_path))
        stage = {"kind": "answer", "column": "text", "reference": "text", **table}
        return compile_recipe(replace(recipe, stages=(*recipe.stages, stage))).fingerprint

    assert judged(algebra={"workers": 3}) == judged() != judged(algebra={"deadline_s": 9})
    assert judged(math=False, algebra={"deadline_s": 9, "workers": 3}) == judged(math=False) != judged()


def test_settings_reach_lists_and_make_tables(tmp_path: Path) -> None:
    recipe = load(canned(tmp_path), ["stages.4.threshold=0.5", "output.compression_level=9", "name=plain words"])
    assert recipe.stages[4]["threshold"] == 0.5
    assert recipe.output.compression_level == 9
    assert recipe.name == "plain words"


def test_the_recipe_in_the_readme_is_whole(tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text()
    block = text[text.index("```toml\n") + 8 :]
    (tmp_path / "readme.toml").write_text(block[: block.index("```")])
    (tmp_path / "topics.jsonl").write_text('{"topic": "tides", "slug": "t", "field": "physics"}\n')
    mill = compile_recipe(load(str(tmp_path / "readme.toml"), [f"source.path={tmp_path}/topics.jsonl"]))
    assert mill.plan.num_asks == 4 and mill.plan.carry == ("field",)


def test_a_shipped_recipe_is_named_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_table("package:demo") == load_table("package:recipes/demo.toml")
    assert load_table("package:fit/adult-mst")["model"]["kind"] == "mst"
    with pytest.raises(
        UserError, match=r"package:demoo: no such recipe file \(did you mean 'demo'\?\); `gristmill recipes`"
    ):
        load_table("package:demoo")
    with pytest.raises(UserError, match="no such recipe file"):
        load_table("package:../pyproject")


def test_a_judge_is_recorded_by_the_name_of_its_stage(tmp_path: Path) -> None:
    """Its spec has a `name` too: that of its model."""
    recipe = {
        "name": "judged",
        "source": {"items": ["a"]},
        "generator": {"kind": "canned"},
        "stages": [{"kind": "judge", "model": "package:smollm2"}],
    }
    resolved = compile_recipe(load(recipe)).resolved()
    assert [stage["name"] for stage in resolved["stages"]] == ["judge"]
    store = open_store(str(tmp_path))
    resolved["stages"][0]["name"] = None  # as 0.3.0 recorded it at first
    Manifest("ab" * 16, resolved, {}).save(store)
    stored = read_manifest(store)
    assert stored is not None and stored.recipe["stages"][0]["name"] == "judge"

"""Recipes with [[generators]]: faults are refused in one line, and what changes rows changes the fingerprint."""

from typing import Any

import pytest

import gristmill
from gristmill.cluster.lots.work import LotPipeline, finish, process
from gristmill.generators.canned.generator import Canned
from gristmill.jobs.produce.forecast import forecast, plan_table
from gristmill.jobs.recipes.compile import CompiledRecipe, compile_recipe
from gristmill.jobs.recipes.recipe import load
from gristmill.jobs.terminal.console import open_console
from gristmill.jobs.tune.bench import Bench
from gristmill.records.errors import UserError
from gristmill.records.lots import asks
from gristmill.records.output.manifest import differences
from tests.conftest import ROOT

TWO: dict[str, Any] = {
    "name": "two",
    "lot_size": 8,
    "source": {"items": [{"text": "a river", "lang": "en"}, {"text": "ein Fluss", "lang": "de"}], "samples": 4},
    "generators": [{"kind": "canned", "name": "cold"}, {"kind": "canned", "name": "hot", "bad": 0.5}],
    "stages": [{"kind": "finish"}],
}


def compiled(*settings: str, **changes: Any) -> CompiledRecipe:
    return compile_recipe(load({**TWO, **changes}, settings))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"generator": {"kind": "canned"}}, r"either \[generator\] or \[\[generators\]\], not both"),
        ({"generators": []}, r"key 'generator' is missing: add a table \[generator\], or several"),
        (
            {"generators": [], "generator": {"kind": "canned"}, "division": {"by": "samples"}},
            r"\[division\] divides asks among \[\[generators\]\], and there are none",
        ),
        ("generators.0.share=0", r"generators\[0\]: share must be more than 0, not 0"),
        ("generators.hot.share=-1.5", r"generators\[1\]: share must be more than 0, not -1.5"),
        ("generators.0.share=inf", r"generators\[0\].share: inf is neither text, number"),
        ("generators.1.name=cold", r"generators\[1\]: a generator before it is called 'cold', too"),
        ("generators.1.name=finish", r"generators\[1\]: a stage is called 'finish', too"),
        ("generators.1.name='a:b'", r"generators\[1\]: name must be a word without a colon"),
        ("generators.1.name=none", r"name must be a word without a colon other than 'none'"),
        ("generators.1.kind=techer", r"unknown kind 'techer' \(did you mean 'teacher'\?\)"),
        ("generators.1.num_word=3", r"generators\[1\]: unknown key 'num_word' \(did you mean 'num_words'\?\)"),
        ("generators.1.when=de", r"generators\[1\]: when names values of a column: set division.column"),
        ("generators.1.when=[]", r"generators\[1\]: when must name at least one value"),
        ("division.column=lang", r"division.column = 'lang' has no effect: set when"),
        ("division.by=turns", r"division.by: 'turns' is not one of 'shares', 'samples'"),
        (
            {"division": {"column": "langs"}, "generators": [{"kind": "canned", "when": "de"}]},
            r"division.column names the source column 'langs', which is not there \(did you mean 'lang'\?\)",
        ),
        (
            {"division": {"by": "samples"}, "generators": [{"kind": "canned", "share": 2}]},
            r'share has no effect with division.by = "samples"',
        ),
        (
            {"division": {"by": "samples"}, "source": {"items": ["a"]}},
            r"source.samples = 1 must be at least 2, their number",
        ),
        ({"cluster": {"pools": {"cold": {}}}}, r"cluster.pools.cold: generator 'cold' has no engine"),
        ({"cluster": {"pools": {"cool": {}}}}, r"cluster.pools.cool: no stage has this name \(did you mean 'cold'\?\)"),
        (
            {"generators": [{"kind": "passthrough"}], "method": {"kind": "prompt"}},
            r"\[method\] is for text generators; generator 'passthrough' takes none",
        ),
        (
            {"generators": [{"kind": "canned"}, {"kind": "passthrough", "columns": ["txt"]}]},
            r"generator 'passthrough' reads the source column 'txt', which is not there",
        ),
    ],
)
def test_refuses_in_one_line(changes: dict[str, Any] | str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        compiled(changes) if isinstance(changes, str) else compiled(**changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("setting", "difference"),
    [
        ("generators.0.share=2", "generator cold: share 1.0 -> 2.0"),
        ("generators.hot.bad=0.25", "generator hot: bad 0.5 -> 0.25"),
        ('generators.1.name="warm"', "generator hot: removed"),
        ('generators=[{kind="canned", name="hot", bad=0.5}, {kind="canned", name="cold"}]', "order of generators"),
        ('division.by="samples"', 'division.by "shares" -> "samples"'),
    ],
)
def test_what_changes_rows_changes_the_fingerprint(setting: str, difference: str) -> None:
    before, after = compiled(), compiled(setting)
    assert before.fingerprint != after.fingerprint
    assert any(line.replace(":", "", 1).startswith(difference.replace(":", "", 1))
               for line in differences(before.identity, after.identity))  # fmt: skip


def test_where_generators_run_changes_nothing() -> None:
    wide = compiled("generators.0.pooled=true", "generators.1.seconds_per_ask=1", "cluster.replicas=3")
    assert wide.fingerprint == compiled().fingerprint and wide.schema == compiled().schema


def test_a_generator_of_one_table_is_another_run_than_one_of_a_list() -> None:
    one = compile_recipe(load({**{k: v for k, v in TWO.items() if k != "generators"}, "generator": {"kind": "canned"}}))
    assert "generators" not in one.resolved() and "division" not in one.resolved()
    assert one.plan.division is None and one.fingerprint != compiled().fingerprint


def test_the_name_of_a_teacher_is_that_of_its_model() -> None:
    teacher = {"kind": "teacher", "model": "package:smollm2"}
    recipe = compiled(generators=[teacher, {**teacher, "name": "hot", "sampling": {"temperature": 1.2}}])
    assert recipe.plan.division is not None
    names = [(author.generator, author.model) for author in recipe.plan.division.authors]
    assert names == [("smollm2", "smollm2"), ("hot", "hot")]
    assert [table["name"] for table in recipe.resolved()["generators"]] == ["smollm2", "hot"]
    assert recipe.is_repeatable and sum(recipe.engine_widths.values()) == 2


def test_a_run_is_repeatable_if_every_generator_is(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = compiled()
    monkeypatch.setattr(Canned, "is_repeatable", property(lambda self: self.spec.bad == 0))
    assert not recipe.is_repeatable
    assert compiled("generators.hot.bad=0").is_repeatable


def test_a_dry_run_shows_which_asks_each_takes(capsys: pytest.CaptureFixture[str]) -> None:
    recipe = compiled('generators.0.when=["en", 3]', "generators.1.share=2", "division.column=lang")
    open_console().print(plan_table(recipe, "out"))
    words = " ".join(capsys.readouterr().out.split())
    assert "cold: canned, lang = en or 3, share 1" in words and "hot: canned, any other lang, share 2" in words
    assert forecast(recipe, None).asks == 8
    open_console().print(plan_table(compiled("generators.1.share=3"), "out"))
    words = " ".join(capsys.readouterr().out.split())
    assert "cold: canned, 25% of the asks hot: canned, 75% of the asks" in words


def test_the_best_of_two_teachers_without_a_model() -> None:
    settings = [f"generators.{name}.kind=canned" for name in ("careful", "lively")]
    settings += ["generators.lively.bad=0.5", "stages.judge.kind=canned_judge"]
    recipe = compile_recipe(load(str(ROOT / "recipes" / "teachers.toml"), settings))
    pipeline = LotPipeline(recipe.plan, recipe.stages, recipe.schema, recipe.recipe.output, recipe.generator.unpooled)
    batch, result = process(pipeline.open(), asks(recipe.plan, recipe.source, 0))
    topics: dict[str, list[dict[str, Any]]] = {}
    for row in batch.to_pylist():
        topics.setdefault(row["source_id"], []).append(row)
    assert {len(rows) for rows in topics.values()} == {4}
    for rows in topics.values():
        assert [row["generator"] for row in rows] == ["careful", "lively"] * 2
        compared = [row for row in rows if row["best_of_rank"]]
        kept = [row for row in rows if row["reject"] is None]
        assert [row["best_of_rank"] for row in kept] == [1] and kept[0]["best_of_size"] == len(compared)
        assert kept[0]["judge_score"] == max(row["judge_score"] for row in compared)
    assert result.alive.sum() == len(topics)
    encoded = finish(pipeline, batch, 0, None)
    counts = encoded.summary.generators
    assert counts["careful"]["asks"] == counts["lively"]["asks"] == 16
    assert counts["careful"]["kept"] + counts["lively"]["kept"] == len(topics)
    assert counts["lively"]["finish:length"] > 0 < counts["careful"]["best_of:worse"]
    shown = gristmill.preview("package:teachers", 8, settings)
    verdicts = [(row["id"], row["reject"]) for row in batch.to_pylist()[:8]]
    assert [(row["id"], row["reject"]) for row in shown] == verdicts


def test_tune_measures_one_engine() -> None:
    with pytest.raises(UserError, match=r"tune measures one engine: put the keys of one of \[\[generators\]\]"):
        Bench(compiled(), None, lambda: False)

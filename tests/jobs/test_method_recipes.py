"""The shipped recipes of the methods, as they are but for the canned generator: every stage sees rows it can read."""

import asyncio
import json
from dataclasses import replace

import pytest

from jobs.recipe import build_mill, load
from records.lots import asks
from records.spec import literals
from stages.contract import Stage
from tests.conftest import ROOT

RECIPES = (
    "annotate backtranslate dialogue distill exercise magpie nemotron paraphrase translate".split()
)  # the recipes of one call or one exchange after another; those of several rounds have their own tests
NUM_ROWS = 16
CANNED = {"kind": "canned", "num_words": 60, "bad": 0.1}
OPENED: dict[str, Stage] = {}  # several recipes have the same stage; opening one takes seconds


def opened(stage: Stage) -> Stage:
    key = json.dumps([stage.kind, stage.name, literals(stage.spec)])
    if key not in OPENED:
        stage.check()
        stage.open()
        OPENED[key] = stage
    return OPENED[key]


@pytest.mark.parametrize("name", RECIPES)
def test_a_shipped_recipe_runs_through_its_stages(name: str) -> None:
    recipe = load(str(ROOT / "recipes" / f"{name}.toml"))
    shipped = build_mill(recipe)
    assert recipe.generator["model"] == "package:smollm2" and recipe.description
    assert shipped.plan.num_asks is not None and shipped.plan.num_asks <= 256, "a minute or two of two slow cores"
    mill = build_mill(replace(recipe, generator=CANNED))
    assert mill.schema.equals(shipped.schema)
    mill.generator.check()
    mill.generator.open()
    batch = asyncio.run(mill.generator.make(asks(mill.plan, mill.source, 0).slice(0, NUM_ROWS)))
    for stage in mill.stages:
        batch = opened(stage).run(batch)
    rows = batch.to_pylist()
    kept = [row for row in rows if row["reject"] is None]
    assert len(rows) == NUM_ROWS and kept, {row["reject"] for row in rows}
    assert all(row["text"] and row["tokens_out"] > 0 for row in kept)
    assert set(batch.schema.names) - {"ask"} == set(mill.schema.names)


@pytest.mark.parametrize("name", RECIPES)
def test_a_shipped_recipe_says_what_it_makes_after_which_paper_at_what_cost(name: str) -> None:
    lines = (ROOT / "recipes" / f"{name}.toml").read_text().splitlines()
    assert [line.split(":")[0] for line in lines[:3]] == ["# Makes", "# Paper", "# Cost"]
    assert "calls" in lines[2] or "call" in lines[2]

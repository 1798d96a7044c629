"""`--dry-run` forecasts what calls cost: from rows of the output, else a bound that no run exceeds."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from gristmill.jobs.produce.call_costs import call_cost
from gristmill.jobs.produce.forecast import forecast, forecast_table
from gristmill.jobs.recipes.compile import CompiledRecipe, compile_recipe
from gristmill.jobs.recipes.recipe import load
from gristmill.jobs.terminal.console import open_console
from gristmill.records.errors import UserError
from gristmill.records.output.manifest import Manifest
from gristmill.records.output.summary import Summary
from tests.conftest import ROOT
from tests.recipes import write

PLACE = {"base_url": "http://127.0.0.1:9/v1", "model": "m"}
PRICES = {"price_in": 1.0, "price_out": 10.0}  # of a million tokens
TEXT = "x" * 400  # 100 tokens


def compiled(folder: Path, **changes: Any) -> CompiledRecipe:
    recipe: dict[str, Any] = {
        "name": "paid",
        "source": {"items": [{"text": TEXT}], "cycle": True},
        "generator": {"kind": "endpoint", **PLACE, **PRICES, "sampling": {"max_tokens": 50}},
        "method": {"kind": "prompt", "template": "{text}"},
        "limits": {"asks": 1000},
        **changes,
    }
    return compile_recipe(load(write(folder / "recipe.toml", recipe)))


def per_ask(made: CompiledRecipe) -> float:
    cost = call_cost(made, Summary())
    assert cost is not None and cost.is_bound
    return cost.per_ask * 1e6


def test_a_prompt_is_its_characters_and_its_longest_answer(tmp_path: Path) -> None:
    assert per_ask(compiled(tmp_path)) == 100 * 1.0 + 50 * 10.0


def test_the_calls_of_a_method_see_the_answers_before_them(tmp_path: Path) -> None:
    judged = {"kind": "preference", "responses": 2, "prompt": "{text}"}
    made = compiled(tmp_path, method=judged)
    assert made.method is not None
    most = made.method.most_tokens(50)
    num_calls = -(-most // 50)
    bound = per_ask(made)
    assert bound >= 10.0 * most + 100 * num_calls and bound < 10.0 * most + num_calls * (100 + 50 * num_calls)


@pytest.mark.parametrize(
    ("mode", "num_calls"), [({}, 1), ({"mode": "pairwise", "first": "prompt", "second": "text"}, 2)]
)
def test_a_judge_reads_the_longest_answer(mode: dict[str, Any], num_calls: int, tmp_path: Path) -> None:
    canned = {"kind": "canned"}
    stage = {"kind": "judge", **mode, "endpoint": {**PLACE, **PRICES}}
    bound = per_ask(compiled(tmp_path, generator=canned, stages=[stage]))
    texts = num_calls * num_calls * 1024 * 1.0  # each call holds as many texts as there are calls
    assert texts + num_calls * 32 * 10.0 < bound < texts + num_calls * (32 * 10.0 + 200)


def test_rows_of_the_output_say_it_better(tmp_path: Path) -> None:
    made = compiled(tmp_path)
    manifest = Manifest("f" * 32, {}, {}, totals=Summary(num_lots=1, asks=256, kept=128, tokens_out=2560, paid=0.64))
    found = forecast(made, manifest)
    assert found.calls == pytest.approx(744 * 0.0025) == found.cost and not found.calls_are_at_most
    assert "calls: 256 rows of this output" in found.basis


def test_a_limit_on_the_cost_bounds_the_asks(tmp_path: Path) -> None:
    found = forecast(compiled(tmp_path, limits={"cost": 0.06}), None)
    assert found.asks == pytest.approx(100) and found.cost == pytest.approx(0.06)
    console = open_console()
    with console.capture() as screen:
        console.print(forecast_table(found))
    assert "calls left at most 0.0600 USD" in " ".join(screen.get().split())


@pytest.mark.parametrize("generator", [{"kind": "canned"}, {"kind": "endpoint", **PLACE}])
def test_without_a_price_there_is_no_cost_and_no_limit_on_it(generator: dict[str, Any], tmp_path: Path) -> None:
    made = compiled(tmp_path, generator=generator)
    assert call_cost(made, Summary()) is None and forecast(made, None).calls is None
    with pytest.raises(
        UserError, match="limits.cost needs cluster.price_per_device_hour, or an endpoint with price_in"
    ):
        compiled(tmp_path, generator=generator, limits={"cost": 1.0})
    pool = {"pools": {"judge": {"price_per_device_hour": 2.0}}}
    judge = {"kind": "judge", "model": "package:smollm2"}
    compiled(tmp_path, generator=generator, stages=[judge], cluster=pool, limits={"cost": 1.0})  # one part has a price


TEXT_RECIPES = [
    path
    for path in sorted(Path(ROOT, "recipes").glob("*.toml"))
    if tomllib.loads(path.read_text()).get("generator", {}).get("kind") == "teacher"
]


@pytest.mark.parametrize("path", TEXT_RECIPES, ids=lambda path: path.stem)
def test_every_method_has_a_bound(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first calls of an ask are counted without an answer, whatever the method does then."""
    monkeypatch.chdir(path.parent)  # files beside the recipe
    recipe = tomllib.loads(path.read_text())
    keys = {name: value for name, value in recipe["generator"].items() if name in ("sampling", "json_schema")}
    made = compile_recipe(load({**recipe, "generator": {"kind": "endpoint", **PLACE, **PRICES, **keys}}))
    assert per_ask(made) > 10.0 * recipe["generator"].get("sampling", {}).get("max_tokens", 1)

"""Several generators in one run: each makes its own rows, the same in any batch and in any order of generators."""

import asyncio
from itertools import permutations
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from gristmill.generators.contract import Generator
from gristmill.generators.several import Several
from gristmill.jobs.produce.call_costs import call_cost
from gristmill.jobs.recipes.compile import CompiledRecipe, compile_recipe
from gristmill.jobs.recipes.recipe import load
from gristmill.records.errors import UserError
from gristmill.records.lots import asks
from gristmill.records.output.answers import AnswerFolder
from gristmill.records.output.shards import OutputSpec, encode
from gristmill.records.output.summary import Summary
from gristmill.records.schema import REJECT
from gristmill.records.stores.opening import open_store
from gristmill.testing.generators import check_generator
from tests.paid import PRICE, calls

ITEMS = [{"text": f"topic {n}", "lang": ("en", "de", "fr")[n % 3], "answers": ["a", "b"]} for n in range(24)]
COLD = {"kind": "canned", "name": "cold", "num_words": 20}
HOT = {"kind": "canned", "name": "hot", "num_words": 30, "bad": 0.3}
ASIS = {"kind": "passthrough", "columns": ["text"], "lists": ["answers"], "name": "as-is"}


def compiled(*generators: dict[str, Any], **changes: Any) -> CompiledRecipe:
    recipe = {"name": "several", "lot_size": 24, "source": {"items": ITEMS}, "generators": list(generators), **changes}
    return compile_recipe(load(recipe))


def lot_of(recipe: CompiledRecipe) -> pa.RecordBatch:
    return asks(recipe.plan, recipe.source, 0)


def made(generator: Generator, batch: pa.RecordBatch) -> pa.RecordBatch:
    return asyncio.run(generator.make(batch))


@pytest.fixture
def mixed() -> CompiledRecipe:
    recipe = compiled(COLD, HOT, ASIS)
    recipe.generator.open()
    return recipe


def test_each_generator_makes_its_own_rows_and_no_other(mixed: CompiledRecipe) -> None:
    batch = lot_of(mixed)
    rows = made(mixed.generator, batch).to_pylist()
    assert {row["generator"] for row in rows} == {"cold", "hot", "as-is"}
    for row, item in zip(rows, ITEMS):
        if row["generator"] == "as-is":
            assert (row["text"], row["answers"], row["prompt"]) == (item["text"], ["a", "b"], None)
            assert (row["origin"], row["method"], row["model"]) == ("real", None, None)
        else:
            assert row["prompt"] == item["text"] != row["text"] and row["answers"] is None
            assert (row["origin"], row["method"], row["model"]) == ("synthetic", "prompt", "canned")
    # A generator alone would have made the same rows of these asks.
    assert isinstance(mixed.generator, Several)
    cold = next(share for share in mixed.generator.shares if share.name == "cold")
    alone = {row["id"]: row["text"] for row in made(cold.generator, batch).to_pylist()}
    assert all(row["text"] == alone[row["id"]] for row in rows if row["generator"] == "cold")


def test_any_order_of_generators_and_any_batch_gives_the_same_rows(mixed: CompiledRecipe) -> None:
    assert isinstance(mixed.generator, Several)
    batch = lot_of(mixed)
    whole = made(mixed.generator, batch)
    for order in permutations(mixed.generator.shares):
        rows = batch
        for share in order:
            rows = made(share, rows)
        assert rows.select(whole.schema.names).equals(whole)
    for row in range(batch.num_rows):
        assert made(mixed.generator, batch.slice(row, 1)).equals(whole.slice(row, 1))


def test_several_generators_and_each_of_them_keep_the_laws() -> None:
    generator = compiled({**HOT, "name": "checked"}, COLD, ASIS).generator
    assert isinstance(generator, Several)
    check_generator(generator, ITEMS[:12])
    check_generator(generator.shares[0], ITEMS[:12])


def test_a_crash_of_one_engine_rejects_only_its_rows(mixed: CompiledRecipe) -> None:
    assert isinstance(mixed.generator, Several)
    cold, *others = mixed.generator.shares
    rows = cold.refuse(lot_of(mixed), "engine_crash")
    for share in others:
        rows = made(share, rows)
    reasons = {(row["generator"], row[REJECT.name]) for row in rows.to_pylist()}
    assert reasons == {("cold", "generator:engine_crash"), ("hot", None), ("as-is", None)}


def test_pools_and_cpu_workers_divide_the_generators() -> None:
    recipe = compiled({**COLD, "pooled": True}, HOT, ASIS, cluster={"replicas": 2, "pools": {"cold": {"replicas": 3}}})
    assert list(recipe.generator.pooled) == ["cold"] == list(recipe.pools)
    assert recipe.pools["cold"][1].replicas == 3
    unpooled = recipe.generator.unpooled
    assert unpooled is not None and [part.kind for part in unpooled.parts] == ["canned", "passthrough"]
    unpooled.open()
    rows = made(unpooled, lot_of(recipe)).to_pylist()
    assert all((row["text"] is None) == (row["generator"] == "cold") for row in rows)
    both = compiled({**COLD, "pooled": True}, {**HOT, "pooled": True}, cluster={"replicas": 2})
    assert {name: pool.replicas for name, (_, pool) in both.pools.items()} == {"cold": 2, "hot": 2}
    assert both.generator.unpooled is None


def test_columns_of_two_types_are_refused() -> None:
    lists = {"kind": "passthrough", "columns": ["answers"], "lists": ["text"], "name": "lists"}
    with pytest.raises(UserError, match=r"'cold' makes the column 'text' as string, and 'lists' as list<item: string>"):
        compiled(COLD, lists)


def test_a_teacher_that_thinks_works_beside_one_that_does_not() -> None:
    answers = [{"when": "", "say": ["Because of the wind.\nAnswer: 7"]}]
    plain = {"kind": "canned", "answers": answers, "name": "plain"}
    thinks = {**plain, "name": "thinks", "reasoning": True}
    for order in ([plain, thinks], [thinks, plain]):
        recipe = compiled(*order, method={"kind": "math", "given_problem": "{text}"})
        recipe.generator.open()
        batch = made(recipe.generator, lot_of(recipe))
        batch.validate(full=True)
        assert batch.schema.field("turns").type == recipe.schema.field("turns").type
        for row in batch.to_pylist():
            is_thinking = row["generator"] == "thinks"
            assert bool(row["reasoning"]) is is_thinking and bool(row["turns"][0]["reasoning"]) is is_thinking
            assert row["answer"] == "7" and row["reject"] is None


def paid(name: str, folder: Path, **changes: Any) -> dict[str, Any]:
    (folder / name).mkdir(exist_ok=True)
    return {"kind": "tests.paid:Paid", "name": name, "folder": str(folder / name), **changes}


def test_each_paid_generator_keeps_its_answers_and_its_cost_is_counted(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "out"))

    def run() -> tuple[CompiledRecipe, pa.RecordBatch]:
        recipe = compiled(paid("a", tmp_path), paid("b", tmp_path), COLD)
        assert recipe.paid_parts == recipe.generator.parts[:2]
        for part in recipe.paid_parts:
            part.answers = AnswerFolder(store, recipe.fingerprint)
        recipe.generator.open()
        rows = made(recipe.generator, lot_of(recipe))
        recipe.generator.close()
        return recipe, rows

    recipe, rows = run()
    names = rows.column("generator").to_pylist()
    assert [cost is None for cost in rows.column("cost").to_pylist()] == [name == "cold" for name in names]
    encoded = encode(rows.select(recipe.schema.names), recipe.schema, 0, OutputSpec(), has_several=True)
    counts = encoded.summary.generators
    assert {name: count["paid"] for name, count in counts.items()} == {
        name: PRICE * names.count(name) * (name != "cold") for name in ("a", "b", "cold")
    }
    before = calls(tmp_path / "a"), calls(tmp_path / "b")
    assert run()[1].equals(rows) and (calls(tmp_path / "a"), calls(tmp_path / "b")) == before


def test_the_forecast_of_calls_weighs_the_generators(tmp_path: Path) -> None:
    alone = compiled(paid("a", tmp_path))
    half = call_cost(compiled(paid("a", tmp_path), COLD), Summary())
    both = call_cost(compiled(paid("a", tmp_path, share=3), paid("b", tmp_path, price_out=2.0)), Summary())
    column = {"division": {"column": "lang"}}
    dearest = call_cost(
        compiled(paid("a", tmp_path, when="de"), paid("b", tmp_path, price_out=2.0), **column), Summary()
    )
    whole = call_cost(alone, Summary())
    assert whole and half and both and dearest
    assert half.per_ask == pytest.approx(whole.per_ask / 2)
    assert both.per_ask == pytest.approx(whole.per_ask * (3 + 2) / 4)
    assert dearest.per_ask == pytest.approx(2 * whole.per_ask)

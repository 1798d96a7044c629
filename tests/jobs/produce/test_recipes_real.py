"""Every shipped recipe of a text method with the demo teacher: a few rows each on one engine, and whole runs (slow)."""

import asyncio
import tomllib
from pathlib import Path

import pyarrow as pa
import pytest

from gristmill.engines.vllm import Engine
from gristmill.generators.contract import fields_of
from gristmill.generators.teacher import Teacher
from gristmill.generators.text.contract import Ask
from gristmill.generators.text.generator import TextGenerator
from gristmill.jobs.recipes.compile import CompiledRecipe, compile_recipe
from gristmill.jobs.recipes.recipe import load
from gristmill.records.lots import asks
from gristmill.records.schema import ASK, REJECT
from gristmill.records.stores.opening import open_store
from tests.conftest import ROOT, gristmill
from tests.engine import SharedEngine

RECIPES = sorted(p.stem for p in (ROOT / "recipes").glob("*.toml") if 'kind = "teacher"' in p.read_text())
NUM_ROWS, MAX_TOKENS = 2, 64
# Their methods run by a shorter recipe of the same method as well.
LONG = (
    *("code-given", "decontaminated", "judged", "math-answers", "personas", "rephrase", "tasks-code", "teachers"),
    "textbook",
)
SHORT = [name for name in RECIPES if name not in LONG]
Rows = dict[str, tuple[pa.RecordBatch, ...]]

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]


def compiled_recipe(name: str) -> CompiledRecipe:
    """The recipe with asks for a few rows; a later round's examples are the source's, as in its first."""
    path = ROOT / "recipes" / f"{name}.toml"
    max_tokens = min(MAX_TOKENS, tomllib.loads(path.read_text())["generator"]["sampling"]["max_tokens"])
    return compile_recipe(load(str(path), [f"lot_size={NUM_ROWS}", f"generator.sampling.max_tokens={max_tokens}"]))


def test_there_is_a_recipe_for_every_method() -> None:
    from gristmill.generators.text.registry import KINDS

    told = {compiled_recipe(name).plan.method for name in SHORT}
    assert told >= set(KINDS) - {"prompt"} and set(LONG) < set(RECIPES)


@pytest.fixture(scope="module")
def rows(shared_engine: SharedEngine, tmp_path_factory: pytest.TempPathFactory) -> Rows:
    """For each recipe: its asks, their rows, and the second row made by itself. All recipes share the engine at once,
    which takes a quarter of the time of one after another."""

    async def make(name: str) -> tuple[pa.RecordBatch, ...]:
        compiled = compiled_recipe(name)
        generator = compiled.generator
        assert isinstance(generator, Teacher)
        generator._engine = shared_engine.engine
        generator.program.open()
        store = open_store(str(tmp_path_factory.mktemp(name)))
        batch = asks(compiled.plan, compiled.ask_source(store), 0)
        made = await generator.make(batch)
        return batch, made, await generator.make(batch.slice(1, 1))

    async def make_all() -> list[tuple[pa.RecordBatch, ...]]:
        return await asyncio.gather(*map(make, SHORT))

    return dict(zip(SHORT, shared_engine.loop.run(make_all())))


@pytest.mark.parametrize("name", SHORT)
def test_a_few_rows(name: str, rows: Rows, shared_engine: SharedEngine) -> None:
    batch, made, alone = rows[name]
    compiled = compiled_recipe(name)
    assert alone.equals(made.slice(1, 1)), "a row is the same alone and in company, whatever its calls"
    assert isinstance(compiled.generator, Teacher)
    check(made, compiled.generator, shared_engine.engine)
    for stage in compiled.stages:
        if stage.needs is None:
            stage.check()
            stage.open()
            made = stage.run(made)
    assert made.num_rows == NUM_ROWS and made.column("id").equals(batch.column("id"))


def check(made: pa.RecordBatch, generator: TextGenerator, engine: Engine) -> None:
    """What holds for a row of any method: a text or a reason, and the cost of all its calls."""
    for row in made.to_pylist():
        assert (row["text"] is not None) == (row[REJECT.name] is None), row
        assert row["text"] is None or row["text"].strip()
        assert fields_of(row[ASK.name]) is not None
        if generator.program.keeps_turns:
            assert row["turns"] or row[REJECT.name]
            assert sum(turn["tokens_out"] for turn in row["turns"]) == row["tokens_out"] > 0
            asked = [
                turn for turn in row["turns"] if not generator.program.writes_user or turn["turn"] != "instruction"
            ]
            if row["text"] is not None:
                ask = Ask(row["id"], row["seed"], fields_of(row[ASK.name]) or {})
                texts = generator.program.kept_texts(ask, row)
                count = sum(engine.count_tokens(text.strip()) for text in texts)
                # A model may write a text in other tokens than the tokenizer would, and ends answers with one more.
                assert abs(row["tokens_kept"] - count) <= 0.1 * count + 2 * len(texts)
                assert 0 < row["tokens_kept"] <= row["tokens_out"]
            assert all(turn["prompt"] for turn in asked) and all(turn["tokens_in"] for turn in row["turns"])


@pytest.mark.nightly
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("name", RECIPES)
def test_the_whole_recipe(name: str, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    done = gristmill("produce", f"recipes/{name}.toml", "--out", out, timeout=2400)
    assert done.returncode == 0, done.stderr[-2000:]
    audit = gristmill("audit", out)
    assert audit.returncode == 0, audit.stdout
    assert (tmp_path / "out" / "report.html").is_file()

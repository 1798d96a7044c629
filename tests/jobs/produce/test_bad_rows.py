"""Rows that are wrong: `fit`, `produce` with a model and `evaluate` end in one clear line, or in a handling that
docs/generators.md names; never in a silent wrong table."""

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from gristmill.generators.families.contract import draw_rows, family_class
from gristmill.generators.families.generator import ModelGenerator, ModelGeneratorSpec
from gristmill.jobs.evaluate.inputs import EvaluateArgs, read_inputs
from gristmill.jobs.fit.plan import load_plan
from gristmill.records.errors import UserError
from gristmill.records.readers.datasets import images_table
from gristmill.records.readers.tables import Column, TableSchema
from gristmill.records.spec import build
from gristmill.records.stores.opening import open_store
from tests.conftest import gristmill
from tests.generators.canned.test_canned import asks
from tests.recipes import write

COLUMNS: list[dict[str, Any]] = [
    {"name": "age", "kind": "integer", "low": 0, "high": 120},
    {"name": "dose", "kind": "numeric", "low": 0.0, "high": 100.0},
    {"name": "ward", "kind": "category", "categories": ["a", "b", "c"]},
]
IMAGE_COLUMNS: list[dict[str, Any]] = [
    {"name": "image", "kind": "image", "height": 8, "width": 8, "channels": 1},
    {"name": "label", "kind": "category", "categories": ["0", "1"]},
]
INF, NAN = float("inf"), float("nan")


def good(num: int = 60, seed: int = 0) -> dict[str, list[Any]]:
    draws = np.random.default_rng(seed)
    return {
        "age": draws.integers(20, 80, num).tolist(),
        "dose": draws.uniform(0, 100, num).round(2).tolist(),
        "ward": draws.choice(["a", "b", "c"], num).tolist(),
    }


def with_first(column: str, value: Any) -> dict[str, list[Any]]:
    rows = good()
    return {**rows, column: [value, *rows[column][1:]]}


def all_missing(column: str) -> dict[str, list[Any]]:
    return {**good(), column: pa.nulls(60, pa.string() if column == "ward" else pa.float64())}


BAD = [
    ("absent column", {k: v for k, v in good().items() if k != "dose"}, "has no column 'dose'"),
    ("unseen category", with_first("ward", "z"), "'ward' has 1 categories that are not in the schema: 'z'"),
    ("all missing, numbers", all_missing("dose"), "'dose' has only missing values; remove the column"),
    ("all missing, categories", all_missing("ward"), "'ward' has only missing values; remove the column"),
    ("all NaN", {**good(), "dose": [NAN] * 60}, "'dose' has only missing values"),
    ("NaN", with_first("dose", NAN), "'dose' has 1 missing values; set nullable = true or fill them"),
    ("infinity", with_first("dose", INF), "'dose' has infinite values"),
    ("minus infinity", with_first("dose", -INF), "'dose' has infinite values"),
    ("infinity among integers", {**good(), "age": [INF, *map(float, good()["age"][1:])]}, "'age' "),
    ("half an integer", {**good(), "age": [0.5, *map(float, good()["age"][1:])]}, "'age' is no integer column"),
    ("words for numbers", {**good(), "age": ["old"] * 60}, "'age' is no integer column"),
    ("no rows", {k: pa.array(v[:0], pa.array(v).type) for k, v in good().items()}, "there are no rows"),
]
EACH_BAD = pytest.mark.parametrize(("rows", "words"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])


def put(path: Path, rows: Any) -> str:
    pq.write_table(rows if isinstance(rows, pa.Table) else pa.table(rows), path)
    return str(path)


def recipe_of(folder: Path, kind: str = "independent", columns: Any = COLUMNS, **spec: Any) -> str:
    recipe: dict[str, Any] = {"name": "bad", "data": {"path": str(folder / "rows.parquet")}}
    recipe |= {"model": {"kind": kind, **spec}, "cluster": {"num_cpus": 1}}
    return write(folder / "fit.toml", recipe | ({"schema": {"columns": columns}} if columns else {}))


def one_line(error: BaseException) -> str:
    assert isinstance(error, UserError) and "\n" not in str(error)
    return str(error)


# fit


@EACH_BAD
def test_fit_refuses(rows: Any, words: str, tmp_path: Path) -> None:
    put(tmp_path / "rows.parquet", rows)
    with pytest.raises(UserError) as caught:
        load_plan(recipe_of(tmp_path))
    assert words in one_line(caught.value)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (all_missing("ward"), "'ward' has only missing values"),
        ({**good(), "dose": [NAN] * 60}, "'dose' has no finite number"),
        (with_first("dose", INF), "'dose' has infinite values"),
        ({**good(), "ward": [f"p{i}" for i in range(60)]}, None),
    ],
)
def test_fit_refuses_without_a_schema_too(rows: Any, words: str | None, tmp_path: Path) -> None:
    put(tmp_path / "rows.parquet", rows)
    if words is None:
        assert load_plan(recipe_of(tmp_path, columns=None)).doubts
        return
    with pytest.raises(UserError) as caught:
        load_plan(recipe_of(tmp_path, columns=None))
    assert words in one_line(caught.value)


@pytest.mark.parametrize(
    ("kind", "privacy"),
    [(k, False) for k in ("independent", "copula", "smote", "ctgan", "tvae", "tabddpm")]
    + [(k, True) for k in ("mst", "dp_ctgan", "dp_tvae", "pate_gan")],
)
def test_one_row_is_no_table_to_learn_from(kind: str, privacy: bool, tmp_path: Path) -> None:
    put(tmp_path / "rows.parquet", good(1))
    with pytest.raises(UserError, match=r"needs at least \d+ rows, not 1"):
        load_plan(recipe_of(tmp_path, kind))


def test_a_million_categories_are_taken_for_an_identifier_or_kept_when_declared(tmp_path: Path) -> None:
    names = [f"c{i}" for i in range(1_000_000)]
    put(tmp_path / "rows.parquet", {"ward": names})
    with pytest.raises(UserError, match="has 1,000,000 distinct values in 1,000,000 rows: an identifier"):
        load_plan(recipe_of(tmp_path, columns=None))
    schema = TableSchema((Column("ward", "category", categories=tuple(names)),))
    assert schema.conform(pa.table({"ward": names})).num_rows == 1_000_000
    with pytest.raises(UserError, match="1 categories that are not in the schema"):
        schema.conform(pa.table({"ward": [*names, "strange"]}))


@pytest.mark.parametrize("kind", ["mst", "dp_tvae"])
def test_many_categories_share_a_bin_without_a_budget_too(kind: str) -> None:
    """Noise leaves few categories that stand out; without any, each of them did, and networks grew as wide."""
    names = tuple(f"c{i}" for i in range(20_000))
    schema = TableSchema(
        (Column("ward", "category", categories=names), Column("sick", "category", categories=("no", "yes")))
    )
    often = ["c7"] * 300 + [names[i] for i in range(0, 20_000, 10)]
    table = schema.conform(pa.table({"ward": often, "sick": ["yes"] * 300 + ["no"] * 2000}))
    made: Any = family_class(kind)
    spec = {} if kind == "mst" else {"steps": 2, "batch": 64, "widths": [16], "num_noise": 4}
    family = made(build(made.Spec, spec, "model"), schema)
    family.begin(table, 0, None)
    if family.num_steps:
        family.train(0, family.num_steps)
    assert max((family._bins if kind == "mst" else family.bins).sizes) == 1001
    rows = schema.conform(draw_rows(family, np.arange(512)))
    assert len(set(rows["ward"].to_pylist())) > 100
    if kind == "mst":
        share = rows["ward"].to_pylist().count("c7") / rows.num_rows
        assert 0.05 < share < 0.25  # 300 of 2,300
        assert "c7" not in rows.filter(pc.equal(rows["sick"], "no"))["ward"].to_pylist()


@pytest.mark.parametrize("kind", ["vae", "gan", "ddpm", "classifier"])
def test_images_of_a_wrong_size_are_refused_before_the_fit(kind: str, tmp_path: Path) -> None:
    draws = np.random.default_rng(0)
    labels = np.array([0, 1] * 8)
    table = images_table(draws.integers(0, 256, (16, 8, 8), np.uint8), labels)
    other = images_table(draws.integers(0, 256, (1, 9, 8), np.uint8), labels[:1])
    put(tmp_path / "rows.parquet", pa.concat_tables([table.slice(1), other]))
    with pytest.raises(UserError, match="'image': row 15 has an image of 9 x 8 pixels; the schema says 8 x 8"):
        load_plan(recipe_of(tmp_path, kind, IMAGE_COLUMNS))
    kinds = table.schema.field("image").type
    for value, words in (({"bytes": b"no", "path": None}, "no readable image"), (None, "row 0 has no image")):
        bad = pa.concat_arrays([pa.array([value], kinds), table["image"].combine_chunks().slice(1)])
        columns = [{**IMAGE_COLUMNS[0], "nullable": True}, IMAGE_COLUMNS[1]]
        put(tmp_path / "rows.parquet", table.set_column(0, "image", bad))
        with pytest.raises(UserError, match=words):
            load_plan(recipe_of(tmp_path, kind, columns))


def test_the_whole_verb_says_it_in_one_line(tmp_path: Path) -> None:
    put(tmp_path / "rows.parquet", with_first("dose", INF))
    done = gristmill("fit", recipe_of(tmp_path), "--out", str(tmp_path / "model"))
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert "has infinite values" in done.stderr and not (tmp_path / "model").exists()


# produce with a model


@pytest.fixture
def model(tmp_path: Path) -> str:
    put(tmp_path / "rows.parquet", good())
    load_plan(recipe_of(tmp_path)).fit(open_store(str(tmp_path / "model"))).run()
    return str(tmp_path / "model")


@pytest.mark.parametrize(
    ("ask", "reason"),
    [
        ({"dos": 3}, "unknown_column"),
        ({"ward": "z"}, "impossible_value"),
        ({"dose": NAN}, "impossible_value"),
        ({"dose": INF}, "impossible_value"),
        ({"age": 0.5}, "impossible_value"),
        ({"age": 121}, "impossible_value"),
        ({"age": 10**400}, "impossible_value"),
        ({"age": "old"}, "impossible_value"),
        ({"ward": None}, None),  # names nothing
        ([1], "malformed_ask"),
        ({"age": 30}, None),
    ],
)
def test_produce_rejects_the_row_and_says_why(ask: Any, reason: str | None, model: str) -> None:
    generator = ModelGenerator(ModelGeneratorSpec(model))
    generator.open()
    batch = asks(2, lambda number: {} if number else ask)
    made = asyncio.run(generator.make(batch)).to_pylist()
    assert (made[0]["reject"] or "").split(":")[-1] == (reason or "")
    assert made[1]["reject"] is None and made[1]["age"] is not None, "its neighbour is made all the same"
    assert (made[0]["age"] is None) == (reason is not None)


def test_produce_refuses_a_given_column_that_the_model_does_not_know(model: str) -> None:
    with pytest.raises(UserError, match="the schema has no column 'wart' .did you mean 'ward'"):
        ModelGenerator(ModelGeneratorSpec(model, conditions=("wart",)))


# evaluate


def asked(folder: Path, changes: dict[str, Any], **flags: Any) -> EvaluateArgs:
    paths = {}
    for seed, side in enumerate(("synthetic", "real_train", "real_holdout")):
        paths[side] = put(folder / f"{side}.parquet", changes.get(side, good(seed=seed + 1)))
    schema = folder / "schema.toml"
    lines = ["[[columns]]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in c.items()) for c in COLUMNS]
    schema.write_text("\n".join(lines))
    return EvaluateArgs(**{**paths, "out": str(folder / "out"), "schema": str(schema), **flags})


@EACH_BAD
@pytest.mark.parametrize("side", ["real_train", "real_holdout"])
def test_evaluate_refuses_real_rows(rows: Any, words: str, side: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        read_inputs(asked(tmp_path, {side: rows}))
    assert words in one_line(caught.value)


JUDGED = ("unseen category", "NaN")  # of synthetic rows these are counted, not refused


@pytest.mark.parametrize(
    ("rows", "words"), [b[1:] for b in BAD if b[0] not in JUDGED], ids=[b[0] for b in BAD if b[0] not in JUDGED]
)
def test_evaluate_refuses_synthetic_rows(rows: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        read_inputs(asked(tmp_path, {"synthetic": rows}))
    assert words in one_line(caught.value)


def test_evaluate_refuses_one_row(tmp_path: Path) -> None:
    for side in ("synthetic", "real_train", "real_holdout"):
        with pytest.raises(UserError, match=rf"{side}.parquet has 1 rows; at least 20 are needed"):
            read_inputs(asked(tmp_path, {side: good(1, seed=9)}))


def test_evaluate_counts_what_lies_outside_the_schema(tmp_path: Path) -> None:
    from gristmill.evaluation.diversity import coverage

    rows = good(seed=7)
    rows["ward"][:6], rows["dose"][:3], rows["age"][:12] = ["z"] * 6, [NAN] * 3, [500] * 12
    sides = read_inputs(asked(tmp_path, {"synthetic": rows})).sides
    assert sides is not None
    outside = {c["column"]: c["outside"] for c in coverage(sides.schema, sides.train, sides.synthetic)}
    assert outside == {"age": 12 / 60, "dose": 3 / 60, "ward": 6 / 60}


def test_evaluate_bears_a_million_categories(tmp_path: Path) -> None:
    """As many as there are rows: what is seen once is known to nobody, and no table of all pairs is made."""
    from gristmill.evaluation import fidelity
    from gristmill.evaluation.features import Encoder
    from gristmill.evaluation.whole import Sides

    names = [f"c{i}" for i in range(1_000_000)]
    schema = TableSchema((Column("code", "category", categories=tuple(names)), Column("x", "numeric", 0, 1)))
    draws = np.random.default_rng(0)
    tables = [schema.conform(pa.table({"code": draws.choice(names, 3000), "x": draws.random(3000)})) for _ in range(3)]
    sides = Sides(schema, *tables)
    assert fidelity.columns(schema, sides.train, sides.synthetic)[0]["score"] < 0.1
    assert all(np.isfinite(p["score"]) for p in fidelity.pairs(schema, sides.train, sides.synthetic, 0))
    assert np.isfinite(fidelity.association(schema, sides.train)[1]).all()
    assert Encoder.fit(schema, sides.train).encode(sides.synthetic).shape[1] <= 300


def test_evaluate_refuses_images_of_a_wrong_size(tmp_path: Path) -> None:
    draws = np.random.default_rng(0)
    labels = np.array([0, 1] * 15)
    pixels = [draws.integers(0, 256, (30, 8, 8), np.uint8) for _ in range(2)]
    tables = [images_table(p, labels) for p in pixels] + [
        images_table(draws.integers(0, 256, (30, 4, 4), np.uint8), labels)
    ]
    paths = [put(tmp_path / f"{i}.parquet", t) for i, t in enumerate(tables)]
    schema = tmp_path / "schema.toml"
    lines = ["[[columns]]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in c.items()) for c in IMAGE_COLUMNS]
    schema.write_text("\n".join(lines))
    with pytest.raises(UserError, match="'image': row 0 has an image of 4 x 4 pixels; the schema says 8 x 8"):
        read_inputs(EvaluateArgs(paths[2], paths[0], paths[1], str(tmp_path / "out"), str(schema)))

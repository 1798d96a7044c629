"""Tables to numbers and codes and back; columns that are not nice."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.generators.families.contract import family_class
from gristmill.generators.tabular.encoding.spread import Spread, levels_of, scores
from gristmill.generators.tabular.encoding.transforms import TableCoder
from gristmill.generators.tabular.encoding.vocabulary import Vocabulary
from gristmill.records.errors import UserError
from gristmill.records.readers.tables import Column, TableSchema, infer
from tests.generators.families.test_families import patients
from tests.profiles import scaled

FINITE = st.floats(-1e9, 1e9, allow_subnormal=False)


@given(st.lists(st.one_of(FINITE, st.sampled_from([0.0, 1.0])), min_size=1, max_size=50), st.floats(0, 1))
def test_a_level_of_a_value_gives_it_back(values: list[float], part: float) -> None:
    """A value is a plateau as wide as its share: every level within gives just that value."""
    spread = Spread.of(np.array(values))
    low, high = spread.intervals(np.array(values))
    share = np.array([values.count(v) / len(values) for v in values])
    assert np.allclose(high - low, share)
    inner = low + (0.001 + 0.998 * part) * (high - low)
    assert np.array_equal(spread.values(inner), np.array(values))


def test_a_spread_of_many_values_is_bounded_and_close() -> None:
    random = np.random.default_rng(0)
    values = np.concatenate([np.zeros(30_000), random.exponential(1, 30_000)])
    spread = Spread.of(values)
    assert spread.knots.shape[1] <= 1001
    low, high = spread.intervals(np.array([0.0, 1.0]))
    assert low[0] == 0 and abs(high[0] - 0.5) < 2e-3  # the tie owns half of all levels
    assert high[1] == low[1] and abs(low[1] - (0.5 + 0.5 * (1 - np.exp(-1)))) < 5e-3
    drawn = spread.values(random.random(60_000))
    assert abs((drawn == 0).mean() - 0.5) < 0.01 and abs(np.median(drawn[drawn > 0]) - np.log(2)) < 0.03
    assert np.abs(levels_of(scores(np.array([0.01, 0.5, 0.99]))) - [0.01, 0.5, 0.99]).max() < 1e-12


@settings(max_examples=scaled(20))
@given(st.lists(st.one_of(st.none(), FINITE), min_size=2, max_size=40).filter(lambda v: any(x is not None for x in v)))
@pytest.mark.parametrize("style", ["modes", "spread"])
def test_what_is_encoded_comes_back(style: str, values: list[float | None]) -> None:
    schema = TableSchema((Column("x", "numeric", nullable=True), Column("c", "category", categories=("a", "b"))))
    table = schema.conform(
        pa.table(
            {"x": pa.array(values, pa.float64()), "c": ["a", "b"] * (len(values) // 2) + ["a"] * (len(values) % 2)}
        )
    )
    coder = TableCoder(schema, style, 256)  # type: ignore[arg-type]
    coded = coder.fit(table, 1)
    again = TableCoder(schema, style, 256)  # type: ignore[arg-type]
    again.load(coder.state())
    numbers = (coded.low.astype(np.float64) + coded.high) / 2
    made = again.decode(numbers, coded.codes, np.zeros(coded.codes.shape))
    assert made["c"].equals(table.column("c").combine_chunks())
    assert made["x"].is_null().equals(table.column("x").combine_chunks().is_null())
    assert [list(s.num_rows_by_code) for s in again.segments] == [list(s.num_rows_by_code) for s in coder.segments]
    if style == "spread":
        known = np.array([v for v in values if v is not None])
        assert np.allclose(made["x"].drop_null().to_numpy(), known, rtol=1e-5, atol=1e-5 * max(1, np.abs(known).max()))


def test_modes_find_what_is_there() -> None:
    random = np.random.default_rng(0)
    values = np.concatenate([random.normal(-50, 1, 3000), random.normal(100, 5, 6000)])
    schema = TableSchema((Column("x", "numeric"),))
    table = pa.table({"x": values})
    coder = TableCoder(schema, "modes", 256)
    coded = coder.fit(table, 1)
    back = coder.decode(coded.low, coded.codes, np.zeros(coded.codes.shape))["x"].to_numpy()
    assert np.abs(back - values).max() < 1
    assert np.abs(coded.low).max() <= 0.99
    low_modes = set(coded.codes[:3000, 0]) & set(coded.codes[3000:, 0])
    assert not low_modes, "no mode spans both heaps"


def test_a_million_categories_take_few_codes() -> None:
    num = 1_000_000
    column = Column("code", "category", categories=tuple(f"c{i}" for i in range(num)))
    counts = np.zeros(num + 1, np.int64)
    counts[7], counts[99_999], counts[500_000:500_100] = 900, 500, 3
    vocabulary = Vocabulary(column, counts, 64)
    assert vocabulary.size == 64 and vocabulary.num_rows_by_code.sum() == counts.sum()
    assert vocabulary.code("c8") is None and vocabulary.code("c7") == 0
    asked = pa.array(["c7", "c99999", "c500001", "c500099"])
    codes = vocabulary.encode(asked)
    back = vocabulary.decode(np.repeat(codes, 100), np.tile(np.linspace(0, 0.999, 100), 4)).to_pylist()
    assert set(back[:100]) == {"c7"} and set(back[100:200]) == {"c99999"}
    assert all(500_000 <= int(v[1:]) < 500_100 for v in back[200:]), "a shared code gives only what rows had"
    seen = np.flatnonzero(vocabulary.num_rows_by_code)
    assert pa.compute.all(
        pa.compute.is_in(vocabulary.decode(seen, np.full(len(seen), 0.5)), pa.array(column.categories))
    )


@pytest.mark.parametrize("kind", ["copula", "ctgan", "smote", "tabddpm", "tvae"])
def test_a_million_categories_do_not_blow_up(kind: str) -> None:
    num = 1_000_000
    schema = TableSchema(
        (Column("code", "category", categories=tuple(str(i) for i in range(num))), Column("x", "integer", 0, 9))
    )
    random = np.random.default_rng(0)
    ids = random.zipf(1.3, 400) % num
    table = schema.conform(pa.table({"code": [str(i) for i in ids], "x": random.integers(0, 10, 400)}))
    small = {"tabddpm": {"steps": 2, "times": 4}, "ctgan": {"epochs": 2}, "tvae": {"epochs": 2}}
    made = family_class(kind)
    family = made(made.Spec(**small.get(kind, {})), schema)
    family.begin(table, 1, None)
    if family.num_steps:
        family.train(0, 2)
    size = sum(t.nbytes for t in family.model_state().tensors.values())
    assert size < 40e6, "a number or two a category, no matrix"
    drawn = family.sample([{"code": str(ids[0])}, *[{}] * (family.block - 1)], np.arange(family.block))
    assert drawn.columns["code"][0].as_py() == str(ids[0]) or drawn.reasons[0]
    assert {v.as_py() for v in drawn.columns["code"]} <= {str(i) for i in ids}
    unseen = str(min(set(range(1000)) - set(ids)))
    assert (
        family.sample([{"code": unseen}] * family.block, np.arange(family.block)).reasons
        == ["no_such_row" if kind == "smote" else "unseen_value"] * family.block
    )


def test_bad_tables_are_refused_in_one_line() -> None:
    schema, table = patients()
    with pytest.raises(UserError, match="has no column 'age'"):
        schema.conform(table.drop_columns(["age"]))
    strange = table.set_column(3, "sick", pa.array(["maybe"] * table.num_rows))
    with pytest.raises(UserError, match="1 categories that are not in the schema: 'maybe'"):
        schema.conform(strange)
    with pytest.raises(UserError, match="only missing values"):
        schema.conform(table.set_column(1, "height", pa.nulls(table.num_rows, pa.float64())))
    infinite = np.full(table.num_rows, 100.0)
    infinite[3] = np.inf
    with pytest.raises(UserError, match="has infinite values"):
        schema.conform(table.set_column(1, "height", pa.array(infinite)))
    infinite[3] = np.nan  # counts as missing
    assert schema.conform(table.set_column(1, "height", pa.array(infinite))).column("height").null_count == 1


@pytest.mark.parametrize("kind", ["copula", "ctgan", "independent", "smote", "tabddpm", "tvae"])
def test_two_rows_and_constant_columns_are_enough(kind: str) -> None:
    table = pa.table({"x": [1.5, 1.5], "n": [3, 4], "c": ["a", "a"]})
    schema, _ = infer(table)
    made = family_class(kind)
    small = {"tabddpm": {"steps": 2, "times": 4}, "ctgan": {"epochs": 2}, "tvae": {"epochs": 2}}
    family = made(made.Spec(**small.get(kind, {})), schema)
    family.begin(schema.conform(table), 1, None)
    if family.num_steps:
        losses = family.train(0, 2)
        assert all(np.isfinite(v) for v in losses.values())
    drawn = family.sample([{}] * family.block, np.arange(family.block))
    assert set(drawn.columns["x"].to_pylist()) == {1.5} and set(drawn.columns["c"].to_pylist()) == {"a"}
    assert set(drawn.columns["n"].to_pylist()) <= {3, 4}


@pytest.mark.parametrize("columns", [["x"], ["c"]])
@pytest.mark.parametrize("kind", ["copula", "ctgan", "smote", "tabddpm", "tvae"])
def test_only_numbers_or_only_categories(kind: str, columns: list[str]) -> None:
    random = np.random.default_rng(0)
    table = pa.table({"x": random.normal(0, 1, 60), "c": random.choice(["a", "b"], 60)}).select(columns)
    schema, _ = infer(table)
    made = family_class(kind)
    small = {"tabddpm": {"steps": 2, "times": 4}, "ctgan": {"epochs": 2}, "tvae": {"epochs": 2}}
    family = made(made.Spec(**small.get(kind, {})), schema)
    family.begin(schema.conform(table), 1, None)
    if family.num_steps:
        family.train(0, 2)
    drawn = pa.table(family.sample([{}] * family.block, np.arange(family.block)).columns)
    assert schema.conform(drawn).num_rows == family.block


@pytest.mark.parametrize("kind", ["smote", "tabddpm"])
def test_a_target_must_be_a_category_of_the_schema(kind: str) -> None:
    schema, _ = patients()
    made = family_class(kind)
    with pytest.raises(UserError, match="is no category column"):
        made(made.Spec(target="age"), schema).check()
    with pytest.raises(UserError, match="no column 'sic'.*did you mean 'sick'"):
        made(made.Spec(target="sic"), schema).check()

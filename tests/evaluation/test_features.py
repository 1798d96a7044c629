"""Tables as matrices."""

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from gristmill.evaluation.features import MAX_WIDTH, Encoder, FeatureNet, numbers, pixels, row_numbers
from gristmill.records.readers.datasets import DataSpec, images_table, read_table
from gristmill.records.readers.tables import Column, TableSchema

SCHEMA = TableSchema(
    (
        Column("age", "integer", 0, 100),
        Column("size", "numeric", nullable=True),
        Column("town", "category", categories=("Bern", "Rome", "Oslo"), nullable=True),
    )
)


def table(ages: list[int], sizes: list[float | None], towns: list[str | None]) -> pa.Table:
    return pa.table(
        {"age": pa.array(ages, pa.int64()), "size": pa.array(sizes, pa.float64()), "town": pa.array(towns, pa.string())}
    )


def test_a_whole_range_and_a_category_count_one() -> None:
    train = table([20, 60, 40], [1.0, 3.0, 2.0], ["Bern", "Rome", "Bern"])
    made = Encoder.fit(SCHEMA, train).encode(train)
    squares = ((made[:, None] - made[None]) ** 2).sum(-1)
    assert np.isclose(squares[0, 1], 1 + 1 + 1)  # age, size and town
    assert np.isclose(squares[0, 2], 0.25 + 0.25)


def test_what_is_missing_unseen_or_beyond_the_range_is_still_a_number() -> None:
    encoder = Encoder.fit(SCHEMA, table([20, 60], [1.0, 3.0], ["Bern", "Rome"]))
    other = table([80, 20, 20], [None, 2.0, 2.0], ["Atlantis", None, "Oslo"])
    made = encoder.encode(other)
    assert np.isfinite(made).all() and made[0, 0] == 1.5
    assert ((made[1] - made[2]) ** 2).sum() > 0.9  # missing is not Oslo
    ranks = encoder.ranks(other)
    assert np.isnan(ranks[0, 1]) and len(set(ranks[:, 2])) == 3
    assert encoder.are_categories == [False, False, True]


def test_many_categories_do_not_widen_the_matrix() -> None:
    towns = [f"town {i}" for i in range(20_000)]
    schema = TableSchema((Column("town", "category", categories=tuple(towns)),))
    train = pa.table({"town": towns + towns[:100]})
    encoder = Encoder.fit(schema, train)
    made = encoder.encode(train)
    assert made.shape == (20_100, MAX_WIDTH)
    assert np.allclose((made**2).sum(1), 0.5)
    assert encoder.encode(pa.table({"town": towns[:100]})).argmax(1).tolist() == list(made[:100].argmax(1))


@given(
    st.lists(st.tuples(st.integers(0, 2), st.sampled_from([0.0, -0.0, 1.5, None]), st.sampled_from(["a", "b", None])))
)
def test_rows_bear_the_same_number_just_when_they_are_equal(rows: list[tuple]) -> None:
    whole = table(*([list(c) for c in zip(*rows)] if rows else [[], [], []]))
    half = len(rows) // 2
    found = np.concatenate(row_numbers(SCHEMA, [whole.slice(0, half), whole.slice(half)]))
    for i in range(len(rows)):
        for j in range(i):
            assert (found[i] == found[j]) == (rows[i] == rows[j])


def test_images_are_compared_by_their_pixels() -> None:
    dots = np.random.default_rng(0).integers(0, 256, (6, 8, 8), np.uint8)
    dots[5] = dots[0]
    schema = TableSchema((Column("image", "image", height=8, width=8, channels=1),))
    made = images_table(dots, np.zeros(6))
    assert len(set(row_numbers(schema, [made])[0])) == 5
    assert np.allclose(Encoder.fit(schema, made).encode(made) * 255, dots.reshape(6, -1))


def test_the_net_is_the_same_again_and_parts_the_digits() -> None:
    rows = read_table(DataSpec("package:digits", part="holdout"))
    column = Column("image", "image", height=8, width=8, channels=1)
    images, labels = pixels(column, rows), rows.column("label").to_numpy()
    features = FeatureNet(images, labels, 3)(images)
    assert features.shape == (rows.num_rows, 64) and (features == FeatureNet(images, labels, 3)(images)).all()
    middles = np.array([features[labels == str(d)].mean(0) for d in range(10)])
    guesses = ((features[:, None] - middles[None]) ** 2).sum(-1).argmin(1)
    assert (guesses == labels.astype(int)).mean() > 0.95


def test_numbers_are_doubles_with_nan() -> None:
    made = numbers(SCHEMA.column("size"), table([1, 1], [None, -0.0], ["Bern", "Bern"]))
    assert np.isnan(made[0]) and str(made[1]) == "0.0"

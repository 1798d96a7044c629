"""A DataSpec in one word; tables taken as they are."""

import pyarrow as pa
import pytest

from gristmill.records.errors import UserError
from gristmill.records.readers.datasets import DataSpec, data_spec, read_table
from gristmill.records.readers.tables import Column, TableSchema


def test_parts_of_a_split_in_one_word() -> None:
    assert data_spec("package:adult/test") == DataSpec("package:adult/test")
    assert data_spec("package:digits#train") == DataSpec("package:digits", part="train")
    wanted = DataSpec("s3://b/rows.csv", part="holdout", holdout=0.2, split_seed=7)
    assert data_spec("s3://b/rows.csv#holdout,holdout=0.2,split_seed=7") == wanted
    assert data_spec("odd#name.csv") == DataSpec("odd#name.csv")
    train, holdout = (read_table(data_spec(f"package:breast-cancer#{part}")) for part in ("train", "holdout"))
    assert train.num_rows + holdout.num_rows == 569


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x.csv#train,share=0.2", "unknown key 'share'"),
        ("x.csv#train,holdout=many", "'many' is not a value of holdout"),
        ("x.csv#train,holdout=2", "between 0 and 1"),
    ],
)
def test_what_is_not_understood_is_said(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        data_spec(text)


def test_a_table_that_is_judged_is_taken_as_it_is() -> None:
    schema = TableSchema((Column("x", "integer", 0, 9), Column("c", "category", categories=("a",))))
    rows = pa.table({"x": [1.0, 20.0, float("nan")], "c": ["a", "z", None]})
    with pytest.raises(UserError):
        schema.conform(rows)
    taken = schema.conform(rows, is_strict=False)
    assert taken.column("x").to_pylist() == [1, 20, None] and taken.column("c").to_pylist() == ["a", "z", None]
    with pytest.raises(UserError, match="no integer column"):
        schema.conform(pa.table({"x": [1.5], "c": ["a"]}), is_strict=False)

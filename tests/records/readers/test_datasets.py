"""Tables from files, stores, outputs of runs, and the packages that carry real data."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from gristmill.records.errors import UserError
from gristmill.records.readers.datasets import DataSpec, digest_table, images_table, pixels_of, read_table
from gristmill.records.stores.opening import open_store

TABLE = pa.table({"a": [1, 2, 3], "b": ["x", "y", "z"]})


@pytest.mark.parametrize(
    ("name", "num_rows", "columns"),
    [
        ("adult/train", 32561, {"age", "income"}),
        ("adult/test", 16281, {"age", "income"}),
        ("breast-cancer", 569, {"mean_radius", "diagnosis"}),
        ("digits", 1797, {"image", "label"}),
        ("mnist-5k", 5000, {"image", "label"}),
    ],
)
def test_packages_carry_real_data(name: str, num_rows: int, columns: set[str]) -> None:
    table = read_table(DataSpec(f"package:{name}"))
    assert table.num_rows == num_rows and columns <= set(table.column_names)


def test_adult_has_the_shares_of_its_documentation() -> None:
    train, test = (read_table(DataSpec(f"package:adult/{part}")).column("income") for part in ("train", "test"))
    assert set(train.to_pylist()) == set(test.to_pylist()) == {"<=50K", ">50K"}
    assert train.to_pylist().count(">50K") == 7841  # adult.names: 24.08 %
    assert test.to_pylist().count(">50K") == 3846


def test_parts_are_disjoint_and_whole() -> None:
    parts = [read_table(DataSpec("package:breast-cancer", part=part)) for part in ("train", "holdout")]
    whole = read_table(DataSpec("package:breast-cancer")).to_pylist()
    assert sorted(map(str, [r for p in parts for r in p.to_pylist()])) == sorted(map(str, whole))
    assert 0.2 < parts[1].num_rows / len(whole) < 0.4
    again = read_table(DataSpec("package:breast-cancer", part="holdout"))
    assert digest_table(again) == digest_table(parts[1])


def test_files_of_every_kind(tmp_path: Path) -> None:
    pq.write_table(TABLE, tmp_path / "a.parquet")
    pa.csv.write_csv(TABLE, tmp_path / "a.csv")
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(r) + "\n" for r in TABLE.to_pylist()))
    digests = {digest_table(read_table(DataSpec(str(tmp_path / f"a.{e}")))) for e in ("parquet", "csv", "jsonl")}
    assert digests == {digest_table(TABLE)}
    assert read_table(DataSpec(str(tmp_path))).num_rows == 9
    assert read_table(DataSpec(str(tmp_path / "a.csv"), columns=("b",))).column_names == ["b"]


def test_a_bucket(s3: str) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(TABLE, sink)
    open_store(f"{s3}/tables").put("part.parquet", sink.getvalue().to_pybytes())
    assert read_table(DataSpec(f"{s3}/tables")).equals(TABLE)
    assert read_table(DataSpec(f"{s3}/tables/part.parquet")).equals(TABLE)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (DataSpec("package:adult/trian"), "did you mean 'adult/train'"),
        (DataSpec("nowhere/at.csv"), "no such file"),
        (DataSpec("package:digits", columns=("lable",)), "did you mean 'label'"),
    ],
)
def test_what_is_not_there_is_told(spec: DataSpec, words: str) -> None:
    with pytest.raises(UserError, match=words):
        read_table(spec)


def test_an_empty_folder_and_a_torn_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no file to read"):
        read_table(DataSpec(str(tmp_path)))
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(UserError, match="cannot be read"):
        read_table(DataSpec(str(tmp_path)))


def test_images_keep_their_pixels_and_their_size() -> None:
    table = read_table(DataSpec("package:digits"))
    pixels = pixels_of(table.column("image"), 8, 8, 1)
    again = images_table(pixels[:5, 0], pa.array([1] * 5).to_numpy())
    assert (pixels_of(again.column("image"), 8, 8, 1) == pixels[:5]).all()
    with pytest.raises(UserError, match="8 x 8 pixels; the schema says 28 x 28"):
        pixels_of(table.column("image"), 28, 28, 1)
    broken = pa.array([{"bytes": b"no image", "path": None}])
    with pytest.raises(UserError, match="no readable image"):
        pixels_of(broken, 8, 8, 1)

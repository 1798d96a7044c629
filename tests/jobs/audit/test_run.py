"""An audit passes on what a run left behind, and names what a hand has damaged."""

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gristmill.records.readers.parquet import SUMMARY_KEY
from gristmill.records.sealed import data_sha256
from tests.conftest import gristmill
from tests.recipes import canned


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound")
    done = gristmill("produce", canned(folder, num_asks=192, lot_size=32), "--out", str(folder / "out"))
    assert done.returncode == 0, done.stderr
    return folder / "out"


@pytest.fixture
def out(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "out"))


def audit(out: Path) -> tuple[int, list[str]]:
    done = gristmill("audit", str(out), "--json")
    return done.returncode, json.loads(done.stdout)["wrong"]


def rewrite(path: Path, table: pa.Table, is_honest: bool = True) -> None:
    """Write a shard anew with its old summary; a cunning hand also mends the checksum."""
    meta = json.loads(pq.read_metadata(path).metadata[SUMMARY_KEY])
    for _ in range(2):
        table = table.replace_schema_metadata({SUMMARY_KEY: json.dumps(meta).encode()})
        pq.write_table(table, path, store_schema=True)
        if is_honest:
            return
        meta["data_sha256"] = data_sha256(path.read_bytes())


def set_text(table: pa.Table, row: int, text: str) -> pa.Table:
    texts = table.column("text").to_pylist()
    texts[row] = text
    return table.set_column(table.schema.get_field_index("text"), "text", pa.array(texts, pa.string()))


def test_a_sound_output_passes(out: Path) -> None:
    assert audit(out) == (0, [])
    assert "ok (192" not in gristmill("audit", str(out)).stdout  # it says what it looked at
    assert "ok" in gristmill("audit", str(out)).stdout


def test_a_removed_kept_shard(out: Path) -> None:
    (out / "kept" / "part-00000002.parquet").unlink()
    code, wrong = audit(out)
    assert code == 1
    assert any("kept/part-00000002.parquet is missing" in line for line in wrong)


def test_a_removed_rejected_shard(out: Path) -> None:
    victim = sorted((out / "rejected").iterdir())[1]
    victim.unlink()
    code, wrong = audit(out)
    assert code == 1 and any(f"{victim.name}: missing" in line for line in wrong)
    assert any("neither kept nor rejected" in line for line in wrong)


@pytest.mark.parametrize("is_honest", [True, False])
def test_an_altered_row(out: Path, is_honest: bool) -> None:
    path = out / "kept" / "part-00000001.parquet"
    rewrite(path, set_text(pq.read_table(path), 0, "Something else entirely was written here."), is_honest)
    code, wrong = audit(out)
    assert code == 1 and not any("kept/part-00000002.parquet" in line for line in wrong)
    words = "altered after it was written" if is_honest else "minhash is not that of its text"
    assert any(words in line for line in wrong)


@pytest.mark.parametrize(
    ("reason", "name", "words"),
    [
        ("dedup:duplicate", None, "is dedup:duplicate and names no kept row in duplicate_of"),
        ("rules:other", "a" * 32, "is rules:other and names a kept row in duplicate_of"),
        ("dedup:probable_duplicate", "a" * 32, "is dedup:probable_duplicate and names a kept row in duplicate_of"),
        ("dedup:probable_duplicate", None, "is dedup:probable_duplicate, but the recipe's index is exact"),
    ],
)
def test_a_duplicate_that_names_too_little_or_too_much(out: Path, reason: str, name: str | None, words: str) -> None:
    path = sorted((out / "rejected").iterdir())[0]
    table = pq.read_table(path)
    for column, value in (("reject", reason), ("duplicate_of", name)):
        values = [value, *table.column(column).to_pylist()[1:]]
        table = table.set_column(table.schema.get_field_index(column), column, pa.array(values, pa.string()))
    pq.write_table(table, path)
    code, wrong = audit(out)
    row = table.column("row")[0].as_py()
    assert code == 1 and any(f"{path.name}: row {row} {words}" in line for line in wrong), wrong


def test_an_inserted_duplicate(out: Path) -> None:
    path = out / "kept" / "part-00000003.parquet"
    table = pq.read_table(path)
    rewrite(path, pa.concat_tables([table, table.slice(0, 1)]), is_honest=False)
    code, wrong = audit(out)
    assert code == 1
    assert any("lot 3: row" in line and "is there 2 times" in line for line in wrong)
    assert any("near-duplicate of an earlier kept row" in line for line in wrong)
    assert any("footer says asks = 32, its rows say 33" in line for line in wrong)


def test_a_row_that_was_taken_out(out: Path) -> None:
    path = out / "kept" / "part-00000000.parquet"
    rewrite(path, pq.read_table(path).slice(1), is_honest=False)
    code, wrong = audit(out)
    assert code == 1 and any("footer says" in line for line in wrong)


def test_a_torn_shard_and_a_foreign_one(out: Path) -> None:
    torn = out / "kept" / "part-00000004.parquet"
    torn.write_bytes(torn.read_bytes()[:-100])
    pq.write_table(pa.table({"a": [1]}), out / "kept" / "part-00000005.parquet")
    code, wrong = audit(out)
    assert code == 1
    assert any("part-00000004.parquet: not readable as Parquet" in line for line in wrong)
    assert any("part-00000005.parquet" in line and "no run wrote it" in line for line in wrong)


def test_a_manifest_that_does_not_add_up(out: Path) -> None:
    manifest = json.loads((out / "manifest.json").read_text())
    manifest["totals"]["kept"] += 1
    (out / "manifest.json").write_text(json.dumps(manifest))
    code, wrong = audit(out)
    assert code == 1 and any("manifest.json says kept" in line for line in wrong)

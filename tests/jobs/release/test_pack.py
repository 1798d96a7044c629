"""A release holds every kept row once, shuffled, the same bytes each time, with card and metadata."""

import json
from pathlib import Path

import datasets
import pyarrow.parquet as pq
import pytest

from tests.conftest import gristmill
from tests.jobs.release.reading_back import assert_read_back
from tests.recipes import canned


@pytest.mark.timeout(900)
def test_pack(tmp_path: Path, s3: str, caplog: pytest.LogCaptureFixture) -> None:
    out = tmp_path / "out"
    recipe = canned(tmp_path, num_asks=3000, lot_size=250, generator={"num_words": 400, "duplicates": 0.01})
    assert gristmill("produce", recipe, "--out", str(out)).returncode == 0
    remote = f"{s3}/pack-{tmp_path.name}"
    for to in (str(tmp_path / "release"), remote):
        done = gristmill("pack", str(out), "--to", to, "--shard-mb", "1", "--seed", "7")
        assert done.returncode == 0, done.stderr
    shards = sorted((tmp_path / "release").glob("train-*.parquet"))
    assert len(shards) > 1 and shards[0].name == f"train-00000-of-{len(shards):05d}.parquet"
    kept = pq.read_table(out / "kept").column("id").to_pylist()
    packed = [i for path in shards for i in pq.read_table(path).column("id").to_pylist()]
    assert sorted(packed) == sorted(kept) and packed != kept
    assert "minhash" not in pq.read_schema(shards[0]).names

    from gristmill.records.stores.opening import open_store

    for path in shards:
        assert open_store(remote).read(path.name) == path.read_bytes()

    card = (tmp_path / "release" / "README.md").read_text()
    assert card.startswith("---\n") and f"| kept | {len(kept):,} |" in card
    croissant = json.loads((tmp_path / "release" / "croissant.json").read_text())
    assert len([d for d in croissant["distribution"] if d["@type"] == "cr:FileObject"]) == len(shards)
    assert assert_read_back(tmp_path / "release", caplog).num_rows == len(kept)
    rows = datasets.load_dataset(str(tmp_path / "release"), split="train", cache_dir=str(tmp_path / "hf"))
    assert len(rows) == len(kept)

    again = gristmill("pack", str(out), "--to", str(tmp_path / "release"))
    assert again.returncode == 2 and "is not empty" in again.stderr

"""Runs and releases among files: of a run the kept rows are read, by whatever path it is reached."""

import json
from pathlib import Path

import pyarrow as pa
import pytest

from gristmill.jobs.release.card import CONFIGS
from gristmill.records.errors import UserError
from gristmill.records.ids import fingerprint
from gristmill.records.readers.outputs import CARD_LINE
from gristmill.records.readers.places import find_files
from gristmill.records.readers.sources import SourceSpec, open_source
from gristmill.records.stores.opening import open_store
from gristmill.stages.dedup.corpora import Files, open_corpora
from tests.records.readers.test_answers import lines, put
from tests.records.readers.test_files import PAGE, rows


def run_files(text: str = "kept", state: str = "complete") -> dict[str, bytes | str | pa.Table]:
    """A run with a kept and a rejected row, an event and a page."""
    table = pa.table({"id": ["00"], "model": ["m"], "text": [text]})
    manifest = {
        **{"format": 4, "fingerprint": "ab", "recipe": {"name": "r"}, "identity": {}, "totals": {}, "state": state},
    }
    shards = {f"{folder}/part-00000000.parquet": table for folder in ("kept", "rejected")}
    return {**shards, "manifest.json": json.dumps(manifest), "events/0.jsonl": lines({"e": 1}), "report.html": PAGE}


def below(folder: str, files: dict[str, bytes | str | pa.Table]) -> dict[str, bytes | str | pa.Table]:
    return {f"{folder}/{name}": content for name, content in files.items()}


RUN_PLACES = [
    "*", "**/*.parquet", "**/*.jsonl", "**/part-*", "x/run/kept", "x/run/kept/", "x/run/kept/*.parquet", "x/*/kept/*",
    "x/run/*/*.parquet", "x/run/kept/part-00000000.parquet", "x", "x/run", ".",
]  # fmt: skip


@pytest.mark.parametrize("path", RUN_PLACES)
def test_of_a_run_below_any_path_only_the_kept_rows_are_read(path: str, tmp_path: Path) -> None:
    put(tmp_path, {"x/plain.jsonl": lines({"text": "plain"}), **below("x/run", run_files())})
    place = str(tmp_path) if path == "." else str(tmp_path / path) + "/" * path.endswith("/")
    if path == "*":  # matches folders only
        with pytest.raises(UserError, match="no such file or folder"):
            find_files(place)
        return
    read = rows(open_source(SourceSpec(path=place)))
    texts = sorted(row.pop("text") for row in read)
    assert not any(read)  # no other column
    assert texts == {"**/*.jsonl": ["plain"], "x": ["kept", "plain"], ".": ["kept", "plain"]}.get(path, ["kept"])
    put(tmp_path, below("x/run", run_files(state="running")))
    if path == "**/*.jsonl":
        assert len(find_files(place).files) == 1
    else:
        with pytest.raises(UserError, match="still going on"):
            find_files(place)


@pytest.mark.parametrize("path", ["run/rejected", "*/rejected/*", "run/rejected/part-00000000.parquet"])
def test_a_path_that_names_rejected_rows_reads_them(path: str, tmp_path: Path) -> None:
    put(tmp_path, below("run", run_files()))
    assert rows(open_source(SourceSpec(path=str(tmp_path / path)))) == [{"text": "kept"}]


@pytest.mark.parametrize("folder", [".old/run", "_tmp/run", ".git"])
@pytest.mark.parametrize("state", ["complete", "running"])
def test_hidden_runs_are_not_read(folder: str, state: str, tmp_path: Path) -> None:
    put(tmp_path, {"a.jsonl": lines({"text": "a"}), **below(folder, run_files(state=state))})
    place = find_files(str(tmp_path))
    assert [file.name for file in place.files] == ["a.jsonl"]
    assert set(place.counts) <= {"hidden", "with an underscore"}
    assert [file.name for file in find_files(str(tmp_path / "**" / "*")).files] == ["a.jsonl"]
    put(
        tmp_path,
        {f"{folder}/README.md": CARD_LINE, f"{folder}/train-00000-of-00001.parquet": pa.table({"text": ["b"]})},
    )
    assert [file.name for file in find_files(str(tmp_path)).files] == ["a.jsonl"]


@pytest.mark.parametrize("manifest", ['{"files": 2}', "[]", "{", '{"format": 4}', '{"format": 99}'])
def test_manifests_of_others_hide_nothing(manifest: str, tmp_path: Path) -> None:
    put(tmp_path, {"events/a.jsonl": lines({"text": "a"}), "b.jsonl": lines({"text": "b"}), "manifest.json": manifest})
    names = {file.name for file in find_files(str(tmp_path)).files}
    assert names >= {"events/a.jsonl", "b.jsonl"}
    glob = str(tmp_path / "**" / "*.jsonl")
    assert [row["text"] for row in rows(open_source(SourceSpec(path=glob)))] == ["b", "a"]


@pytest.mark.parametrize("path", ["rel", "**/*.parquet", "rel/*.parquet", "rel/train-00000-of-00001.parquet"])
def test_shards_of_a_release_by_any_path_have_no_columns_of_gristmill(path: str, tmp_path: Path) -> None:
    table = pa.table({"id": ["00"], "model": ["m"], "text": ["a"]})
    put(tmp_path, {"rel/train-00000-of-00001.parquet": table, "rel/README.md": CARD_LINE, "rel/extra.parquet": table})
    source = open_source(SourceSpec(path=str(tmp_path / path)))
    assert rows(source) == [{"text": "a"}]
    # Shards that were read with all their columns are another source now; the address of a release is the same.
    assert (source.digest() == fingerprint([part.digest for part in source.parts])) == (path == "rel")


def test_cards_of_others_hide_nothing(tmp_path: Path) -> None:
    table = pa.table({"id": ["7"], "text": ["a"]})
    put(tmp_path, {"README.md": "x", "train-00000-of-00001.parquet": table, "test-00000-of-00001.parquet": table})
    assert rows(open_source(SourceSpec(path=str(tmp_path)))) == [{"id": "7", "text": "a"}] * 2
    corpus = open_corpora([str(tmp_path)], {})[0]
    assert corpus.num_rows == 2
    assert isinstance(corpus, Files)
    corpus.check("text")
    assert rows(corpus.source) == [{"text": "a"}] * 2  # no other column is decoded
    put(tmp_path, {"README.md": "\n".join(CONFIGS)})  # of `pack`
    assert rows(open_source(SourceSpec(path=str(tmp_path)))) == [{"text": "a"}]


def test_runs_in_buckets_give_their_kept_rows_too(tmp_path: Path, s3: str) -> None:
    store = open_store(f"{s3}/runs-{tmp_path.name}")
    put(tmp_path, {"x/plain.jsonl": lines({"text": "plain"}), **below("x/run", run_files())})
    for file in filter(Path.is_file, tmp_path.rglob("*")):
        store.put(file.relative_to(tmp_path).as_posix(), file.read_bytes())
    for path in ("**/*.parquet", "x/run/kept", "x/run/kept/*", "x/run/*/part-*", "x/run/kept/part-00000000.parquet"):
        assert rows(open_source(SourceSpec(path=f"{store.uri}/{path}"))) == [{"text": "kept"}]
    assert [file.name for file in find_files(f"{store.uri}/**/*.jsonl").files] == ["x/plain.jsonl"]
    store.put("x/run/manifest.json", str(run_files(state="running")["manifest.json"]).encode())
    with pytest.raises(UserError, match="still going on"):
        find_files(f"{store.uri}/x/*/kept/*")

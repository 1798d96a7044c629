"""Corpora that a run must not repeat: their index against a slow one, their cache, and the stage."""

import contextlib
import gzip
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gristmill.jobs.produce.existing import prepare
from gristmill.records.errors import UserError
from gristmill.records.schema import REJECT
from gristmill.records.spec import build, literals
from gristmill.records.stores.local import LocalStore
from gristmill.stages.dedup import corpora, existing
from gristmill.stages.dedup.bandindex import NOBODY
from gristmill.stages.dedup.corpora import names_of
from gristmill.stages.dedup.texts import Dedup, DedupSpec
from gristmill.testing import check_stage
from tests import session
from tests.bench.corpus import documents
from tests.cloud_servers import FakeGCS, environment
from tests.hub import hub
from tests.jobs.release.mixture.test_mixture import make_run
from tests.profiles import scaled

TEXTS: list[str] = documents(120).to_pylist()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache for corpora beside the kernels of this node."""
    monkeypatch.setattr(existing, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(corpora, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr("gristmill.engines.models.cache_folder", lambda: tmp_path / "cache")
    return tmp_path / "cache" / "existing"


def jsonl(path: Path, texts: list[Any]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return str(path)


def stage_of(*against: str, **table: Any) -> Dedup:
    stage = Dedup(build(DedupSpec, {"against": list(against), **table}, "stages[0]"))
    stage.check()
    return pickle.loads(pickle.dumps(stage))


def answers(stage: Dedup, texts: list[str | None]) -> list[tuple[Any, ...]]:
    stage.open()
    schema = pa.schema([pa.field("text", pa.string()), REJECT])
    batch = pa.RecordBatch.from_arrays([pa.array(texts, pa.string()), pa.nulls(len(texts), pa.string())], schema=schema)
    rows = stage.run(batch)
    assert rows.column("duplicate_of").null_count == len(texts)
    return [tuple(row.values()) for row in rows.select(["existing_source", "existing_id", "reject"]).to_pylist()]


@settings(max_examples=scaled(40), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_the_index_answers_as_a_slow_one(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    bands, num_batches = data.draw(st.integers(1, 4)), data.draw(st.integers(0, 4))
    # Few keys, so that rows share them; some at the ends of the ranges that are sorted by themselves.
    key = st.sampled_from([0, 1, 2, 2**63 - 1, 2**63, 2**63 + 1, 2**64 - 1, 2**62, 5 << 60, 7 << 61])
    row = st.lists(key, min_size=bands, max_size=bands)
    batches = [data.draw(st.lists(row, max_size=6)) for _ in range(num_batches)]
    folder = tmp_path_factory.mktemp("index")
    columns = []
    for number, rows in enumerate(batches):
        keys = np.array(rows, np.uint64).reshape(-1, bands)
        named = {"id": pa.array([f"{number}/{at}" for at in range(len(rows))], pa.string())}
        columns.append(pa.record_batch(named | {str(band): pa.array(keys[:, band]) for band in range(bands)}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(existing, "RANGE_KEYS", data.draw(st.integers(1, 8)))
        existing.write_index(folder, columns, bands, list(range(num_batches)))
    index = existing.Index(folder)
    whole = [(number, at, keys) for number, rows in enumerate(batches) for at, keys in enumerate(rows)]
    wanted = data.draw(st.lists(row, max_size=8))
    found = index.query(np.array(wanted, np.uint64).reshape(-1, bands)).tolist()
    for keys, place in zip(wanted, found):
        first = next((n for n, (_, _, other) in enumerate(whole) if any(a == b for a, b in zip(keys, other))), NOBODY)
        assert place == first
        if first != NOBODY:
            assert index.row(first) == (whole[first][0], f"{whole[first][0]}/{whole[first][1]}")


def test_rows_like_those_of_corpora_are_rejected_and_named(tmp_path: Path) -> None:
    web = jsonl(tmp_path / "web" / "a.jsonl", [*TEXTS[:5], None, 7, *TEXTS[5:10]])
    run = make_run(tmp_path / "run", TEXTS[10:60], lot=20)
    ids = pa.concat_tables([pa.parquet.read_table(p) for p in sorted((tmp_path / "run" / "kept").glob("*"))])
    row_id = ids.column("id").to_pylist()[ids.column("text").to_pylist().index(TEXTS[33])]
    stage = stage_of(str(tmp_path / "web"), run)
    fresh, changed = TEXTS[100], TEXTS[7].replace(" the ", " a ", 1)
    assert answers(stage, [fresh, TEXTS[3], TEXTS[33], changed, None]) == [
        (None, None, None),
        ("web", "a.jsonl:3", "dedup:existing"),
        ("run", row_id, "dedup:existing"),
        ("web", "a.jsonl:9", "dedup:existing"),
        (None, None, None),
    ]
    moved = stage_of(jsonl(tmp_path / "elsewhere" / "web" / "a.jsonl", []) and _moved(tmp_path), run)
    assert moved.identity() == stage.identity(), "a corpus is what it holds, wherever it lies"
    Path(web).write_text(Path(web).read_text().replace("7", "8", 1))
    assert stage_of(str(tmp_path / "web"), run).identity() != stage.identity()


def _moved(folder: Path) -> str:
    (folder / "elsewhere" / "web" / "a.jsonl").write_bytes((folder / "web" / "a.jsonl").read_bytes())
    return str(folder / "elsewhere" / "web")


def test_keys_are_computed_once_and_an_interrupted_start_goes_on(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpora, "PIECE_ROWS", 16)
    web = jsonl(tmp_path / "web.jsonl", TEXTS)
    stage = stage_of(web)
    assert stage.existing is not None and len(stage.existing.missing) == 8
    list(map(stage.existing.sign, stage.existing.missing[:5]))  # and then the process was killed
    assert len(stage_of(web).existing.missing) == 3  # type: ignore[union-attr]
    assert [a[2] for a in answers(stage_of(web), [TEXTS[0], TEXTS[119]])] == ["dedup:existing"] * 2
    monkeypatch.setattr(corpora.Files, "read", lambda *_: pytest.fail("read again"))
    again = stage_of(web)
    assert again.existing is not None and not again.existing.missing
    assert answers(again, [TEXTS[50]])[0][1] == "web.jsonl:50"
    assert len(stage_of(web, threshold=0.5).existing.missing) == 8, "other bands"  # type: ignore[union-attr]


def test_nodes_share_the_keys_of_an_output_in_a_bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    web, shared = jsonl(tmp_path / "web.jsonl", TEXTS[:20]), LocalStore(str(tmp_path / "out"))
    first, other = stage_of(web), stage_of(web)
    for stage in (first, other):
        assert stage.existing is not None
        stage.existing.shared = shared
    assert first.existing and other.existing
    list(map(first.existing.sign, first.existing.missing))
    assert [e.name[:11] for e in shared.list()] == ["index/keys-"]
    monkeypatch.setattr(existing, "cache_folder", lambda: tmp_path / "another node")
    monkeypatch.setattr("gristmill.engines.models.cache_folder", lambda: tmp_path / "another node")
    monkeypatch.setattr(corpora.Files, "read", lambda *_: pytest.fail("read again"))
    assert not other.existing.missing and answers(other, [TEXTS[9]])[0][1] == "web.jsonl:9"


def test_the_laws_of_a_stage_hold(tmp_path: Path) -> None:
    web = jsonl(tmp_path / "web.jsonl", TEXTS[:20])
    check_stage(lambda: stage_of(web))
    rows = pa.record_batch({"id": [f"{n:032x}" for n in range(4)], "text": [TEXTS[0], None, TEXTS[50], TEXTS[1]]})
    check_stage(stage_of(web), [rows.append_column(REJECT, pa.array([None, None, "a:b", None], pa.string()))])


def test_signatures_of_a_run_are_taken_where_they_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = Dedup(DedupSpec()).signatures(pa.record_batch({"text": TEXTS[:30]}))
    run = make_run(tmp_path / "run", TEXTS[:30], lot=10, minhash=stored.to_pylist())
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    for revision, is_taken in ((Dedup.revision, True), (Dedup.revision + 1, False)):
        table = {"name": "dedup", "kind": "dedup", **literals(DedupSpec(), True), "revision": revision}
        manifest["identity"] = {"stages": [table]}
        (tmp_path / "run" / "manifest.json").write_text(json.dumps(manifest))
        stage = stage_of(run)
        assert stage.existing is not None
        shards = stage.existing.corpora[0]
        assert isinstance(shards, corpora.Shards) and shards.has_signatures == is_taken
    assert not stage_of(run, ngram=3).existing.corpora[0].has_signatures  # type: ignore[union-attr]


@pytest.mark.parametrize("how", ["missing", "empty", "column", "running", "twice"])
def test_what_cannot_be_compared_is_refused_in_a_line(tmp_path: Path, how: str) -> None:
    run = make_run(tmp_path / "run", TEXTS[:5], state="running")
    address, message = {
        "missing": (str(tmp_path / "absent.jsonl"), "no such file"),
        "empty": (jsonl(tmp_path / "none.jsonl", []), "empty"),
        "column": (jsonl(tmp_path / "numbers.jsonl", [1, 2]), "none of its first 2 rows has a text in 'text'"),
        "running": (run, "still going on"),
        "twice": (run, "name each corpus once"),
    }[how]
    with pytest.raises(UserError, match=message):
        stage_of(*([address, f"{address}/"] if how == "twice" else [address]))


def test_without_corpora_nothing_changes() -> None:
    stage = Dedup(DedupSpec())
    assert [f.name for f in stage.columns()] == ["minhash", "duplicate_of"]
    assert "against" not in literals(stage.spec, True) and "against" not in stage.identity()


def test_names_tell_corpora_apart() -> None:
    assert names_of(["s3://bucket/a/", "out/b", "c/*.jsonl"]) == ["a", "b", "*.jsonl"]
    assert names_of(["one/kept", "s3://b/two/kept"]) == ["one/kept", "two/kept"]


def test_ids_are_those_of_the_corpus_whatever_is_in_the_cache(tmp_path: Path) -> None:
    jsonl(tmp_path / "web" / "a.jsonl", TEXTS[:20])
    before = stage_of(str(tmp_path / "web"))
    assert answers(before, [TEXTS[9]])[0][1] == "a.jsonl:9"
    (tmp_path / "web" / "a.jsonl").rename(tmp_path / "web" / "b.jsonl")
    after = stage_of(str(tmp_path / "web"))
    assert answers(after, [TEXTS[9]])[0][1] == "b.jsonl:9", "the same rows under another name"
    assert before.identity() != after.identity(), "an audit does not take ids of the old name for wrong ones"


def test_keys_of_a_remote_output_are_read_and_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpora, "PIECE_ROWS", 16)
    monkeypatch.setattr(LocalStore, "is_remote", True)  # as an output in a bucket
    web, output = jsonl(tmp_path / "web.jsonl", TEXTS[:40]), LocalStore(str(tmp_path / "out"))
    prepare(stage_of(web).existing, output)  # type: ignore[arg-type]
    files = sorted(tmp_path.glob("out/index/*"))
    assert len(files) == 3
    files[0].unlink()  # a key that has gone is computed again, and not put there
    monkeypatch.setattr(existing, "cache_folder", lambda: tmp_path / "another node")
    monkeypatch.setattr("gristmill.engines.models.cache_folder", lambda: tmp_path / "another node")
    audited, pieces, read = stage_of(web), list[corpora.Piece](), corpora.Files.read
    assert audited.existing is not None
    monkeypatch.setattr(corpora.Files, "read", lambda *args: (pieces.append(args[1]), read(*args))[1])
    prepare(audited.existing, output, is_output=False)
    assert answers(audited, [TEXTS[0], TEXTS[39]])[1][1] == "web.jsonl:39"
    assert sorted(tmp_path.glob("out/index/*")) == files[1:]
    assert len(list(tmp_path.glob("another node/existing/keys-*"))) == 3
    assert not audited.existing.missing and len(pieces) == 1, "the others were read from the output"


@pytest.mark.parametrize("scheme, is_release", [("hf", False), ("hf", True), ("gs", False)])
def test_outputs_are_runs_and_releases_in_every_place(
    scheme: str, is_release: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run(tmp_path / "run", TEXTS[:20], lot=10)
    kept = sorted((tmp_path / "run" / "kept").glob("*"))
    names = [f"train-{at:05d}-of-00002.parquet" if is_release else f"kept/{p.name}" for at, p in enumerate(kept)]
    files = {name: path.read_bytes() for name, path in zip(names, kept)}
    files |= {"README.md": b"path: train-*.parquet", "croissant.json": b"{}"} if is_release else {}
    files |= {} if is_release else {"manifest.json": (tmp_path / "run" / "manifest.json").read_bytes()}
    ids = [row for path in kept for row in pa.parquet.read_table(path).column("id").to_pylist()]
    with contextlib.ExitStack() as stack:
        if scheme == "gs":
            google, address = session.cloud_server(FakeGCS), f"gs://mill/{tmp_path.name}"
            environment(google, monkeypatch)
            for name, data in files.items():
                google.add(f"{tmp_path.name}/{name}", data)
        else:
            server, address = stack.enter_context(hub()), "hf://datasets/org/corpus/v1"
            monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
            monkeypatch.setenv("HF_TOKEN", server.token)
            server.add("org/corpus", {f"v1/{name}": data for name, data in files.items()})
        stage = stage_of(address)
        rows_like_it = answers(stage, TEXTS[15:21])
    assert isinstance(stage.existing and stage.existing.corpora[0], corpora.Shards)
    texts = [text for path in kept for text in pa.parquet.read_table(path).column("text").to_pylist()]
    assert [row_id for _, row_id, _ in rows_like_it] == [ids[texts.index(text)] for text in TEXTS[15:20]] + [None]


def test_shards_and_a_card_of_others_are_files(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    pa.parquet.write_table(pa.table({"text": TEXTS[:9]}), tmp_path / "theirs" / "train-00000-of-00001.parquet")
    (tmp_path / "theirs" / "README.md").write_text("A data set.")
    assert answers(stage_of(str(tmp_path / "theirs")), [TEXTS[4]])[0][1] == "train-00000-of-00001.parquet:4"


def test_a_corpus_on_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    with hub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        monkeypatch.setenv("HF_TOKEN", server.token)
        rows = "".join(json.dumps({"text": text}) + "\n" for text in TEXTS[:20]).encode()
        server.add("org/corpus", {"data/rows.jsonl.gz": gzip.compress(rows)})
        rows_like_it = answers(stage_of("hf://datasets/org/corpus"), TEXTS[15:25])
    assert [reject for _, _, reject in rows_like_it] == ["dedup:existing"] * 5 + [None] * 5
    assert rows_like_it[0][1] == "data/rows.jsonl.gz:15"

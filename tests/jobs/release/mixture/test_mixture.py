"""`gristmill pack MIX.toml`: real corpora and runs in one release, its card and metadata, and its audit."""

import gzip
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gristmill.jobs.audit.command import command as audit
from gristmill.jobs.release.command import command as pack
from gristmill.jobs.release.mixture import pack as mixture_pack
from gristmill.jobs.release.mixture.parts import open_part
from gristmill.jobs.release.mixture.payload import common_payload
from gristmill.jobs.release.mixture.spec import load_mixture
from gristmill.records.errors import UserError
from gristmill.records.lots import Plan, asks
from gristmill.records.output.manifest import Manifest
from gristmill.records.output.shards import OutputSpec, encode, put_kept, put_rejected
from gristmill.records.readers.sources import SourceSpec, open_source
from gristmill.records.schema import REJECT, full_schema
from gristmill.records.stores.opening import open_store
from tests import session
from tests.batch_here import batch_work_here
from tests.conftest import ROOT, gristmill
from tests.recipes import write

MIXTURES = sorted((ROOT / "mixtures").glob("*.toml"))
WORDS = "river bridge harvest glass stone lantern meadow anchor copper willow".split()


def text(seed: int) -> str:
    random = np.random.default_rng(seed)
    return " ".join(random.choice(WORDS, random.integers(4, 30))) + f", number {seed}."


def make_run(folder: Path, texts: list[str], state: Any = "complete", lot: int = 40, **columns: list[Any]) -> str:
    """A run's output with these texts kept (every tenth ask rejected), written as a run writes it."""
    store = open_store(str(folder))
    kept = iter(range(len(texts)))
    source = open_source(SourceSpec(items=tuple(texts)))
    plan = Plan(hashlib.md5(folder.name.encode()).hexdigest(), lot, len(texts), len(texts), "canned", "m", "prompt")
    payload = [pa.field("text", pa.string()), *(pa.field(n, pa.array(v).type) for n, v in columns.items())]
    schema = full_schema(payload, [pa.field("num_words", pa.int32())])
    book = Manifest(plan.fingerprint, {"name": folder.name}, {}, state)
    for number in range(plan.num_lots or 0):
        batch = asks(plan, source, number)
        at = [next(kept) for _ in range(batch.num_rows)]
        values = {"text": pa.array([texts[i] for i in at]), "tokens_out": pa.array([7] * len(at), pa.int32())}
        values |= {name: pa.array([column[i] for i in at]) for name, column in columns.items()}
        values[REJECT.name] = pa.array(["rules:short" if texts[i] == "" else None for i in at], pa.string())
        arrays = [values[f.name] if f.name in values else batch.column(f.name) if f.name in batch.schema.names
                  else pa.nulls(len(at), f.type) for f in schema]  # fmt: skip
        encoded = encode(pa.RecordBatch.from_arrays(arrays, schema=schema), schema, number, OutputSpec())
        put_rejected(store, encoded)
        put_kept(store, encoded)
        book.totals.add(encoded.summary)
    book.save(store)
    return str(folder)


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 real rows as JSONL in two files and 60 as Parquet; a run of 200 rows, 6 of which are real rows in disguise."""
    folder = tmp_path_factory.mktemp("corpora")
    (folder / "web").mkdir()
    for number in (0, 1):
        lines = [{"content": text(i), "url": f"u{i}", "n": i} for i in range(30 * number, 30 * number + 30)]
        (folder / "web" / f"{number}.jsonl").write_text("".join(json.dumps(line) + "\n\n" for line in lines))
    (folder / "books").mkdir()
    books = pa.table({"text": pa.array([text(i) for i in range(60, 120)]).dictionary_encode(), "id": range(60)})
    pq.write_table(books, folder / "books" / "b.parquet", row_group_size=25)
    (folder / "books" / "README.md").write_text("not a row\n")
    made = [text(1000 + i) for i in range(194)] + [f" {text(i).upper()}\n" for i in range(57, 63)]
    made[::25] = [""] * len(made[::25])
    make_run(folder / "run", made)
    return folder


def by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do the batch work of a mixture here, piece by piece: another test compares its bytes with those of a Ray."""
    monkeypatch.setattr(mixture_pack, "batch_work", batch_work_here)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    by_hand(monkeypatch)


def mixture(folder: Path, corpora: Path, **keys: Any) -> str:
    parts = [
        {"name": "web", "path": str(corpora / "web"), "columns": {"text": "content"}, "id_column": "url"},
        {"name": "books", "path": str(corpora / "books")},
        {"uri": str(corpora / "run")},
    ]
    recipe = {"name": "mix", "synthetic_max": 0.3, "shortfall": "shrink", "parts": parts, "seed": 3, **keys}
    folder.mkdir(exist_ok=True)
    return write(folder / "mix.toml", recipe)


def release_rows(release: Path) -> pa.Table:
    return pa.concat_tables([pq.read_table(path) for path in sorted(release.glob("train-*.parquet"))])


def told(release: Path) -> dict[str, Any]:
    return json.loads((release / "mixture.json").read_text())


@pytest.fixture(scope="module")
def release(corpora: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("released")
    with pytest.MonkeyPatch.context() as patch:
        by_hand(patch)
        assert pack(mixture(folder, corpora, by="tokens"), str(folder / "release"), 1) == 0
    return folder / "release"


def test_a_release_under_the_cap(release: Path, corpora: Path, capsys: pytest.CaptureFixture) -> None:
    rows, facts = release_rows(release).to_pylist(), told(release)
    real = [row for row in rows if row["origin"] == "real"]
    made = [row for row in rows if row["origin"] == "synthetic"]
    assert len(real) == 120 and {row["text"] for row in real} == {text(i) for i in range(120)}
    words = sum(row["mixture_tokens"] for row in made)
    share = words / (words + sum(row["mixture_tokens"] for row in real))
    assert 0.25 < share <= 0.3 and facts["counts"]["fractions"]["tokens"] == pytest.approx(share, abs=1e-9)
    assert facts["counts"]["fractions"]["rows"] == pytest.approx(len(made) / len(rows), abs=1e-9)
    assert facts["used"]["policy"] == "shrink" and facts["duplicates"] == 6
    assert {part["name"]: part["rows_there"] for part in facts["parts"]} == {"web": 60, "books": 60, "run": 192}
    assert len({row["id"] for row in rows}) == len(rows)
    kept = {row["id"]: row for row in pq.read_table(corpora / "run" / "kept").to_pylist()}
    for row in made:  # what the run says of its rows goes with them
        same = ("lot", "row", "seed", "generation", "generator", "model", "recipe", "method", "tokens_out", "text")
        assert all(row[name] == kept[row["id"]][name] for name in same) and row["mixture_part"] == "run"
    assert {row["source_id"] for row in real if row["mixture_part"] == "web"} == {f"u{i}" for i in range(60)}
    assert {row["source_id"] for row in real if row["mixture_part"] == "books"} == {f"b.parquet:{i}" for i in range(60)}
    assert "num_words" not in rows[0] and "n" not in rows[0]
    assert audit(str(release)) == 0 and f"{len(rows):,} rows" in capsys.readouterr().out


def test_card_and_metadata_state_the_fractions(release: Path) -> None:
    facts = told(release)
    card = (release / "README.md").read_text()
    fractions = facts["counts"]["fractions"]
    assert f"| synthetic fraction | {fractions['rows']:.4%} | {fractions['tokens']:.4%} |" in card
    assert "At most 30.0000% of the tokens may be synthetic" in card and "`shrink`" in card
    assert "| real | 0 | 120 |" in card and "Left out as duplicates" in card
    croissant = json.loads((release / "croissant.json").read_text())
    assert f"{fractions['tokens']:.4%} of the tokens" in croissant["description"]
    rows = datasets.load_dataset(str(release), split="train", cache_dir=str(release.parent / "hf"))
    assert len(rows) == facts["counts"]["totals"]["all"]["rows"]


@pytest.mark.parametrize("num_cpus", [session.NUM_CPUS, pytest.param(1, marks=pytest.mark.nightly)])
def test_the_same_bytes_on_any_cluster(
    num_cpus: int, release: Path, tmp_path: Path, corpora: Path, request: pytest.FixtureRequest
) -> None:
    """On a Ray of so many cores, the corpora lying elsewhere; and what a worker refuses is one line for the user."""
    if num_cpus != session.NUM_CPUS:
        import ray

        session.stop_ray()
        ray.init(address="local", num_cpus=num_cpus, include_dashboard=False, log_to_driver=False)
        request.addfinalizer(ray.shutdown)
    shutil.copytree(corpora, tmp_path / "moved")
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"text": "a"}\n' * 80_000 + '{"text": \n')
    paths = mixture(tmp_path / "m", tmp_path / "moved", by="tokens"), str(tmp_path / "again")
    again = gristmill("pack", paths[0], "--to", paths[1], "--shard-mb", "1")
    assert again.returncode == 0, again.stderr
    paths = mixture(tmp_path / "n", corpora, parts=[{"path": str(bad)}]), str(tmp_path / "none")
    done = gristmill("pack", paths[0], "--to", paths[1], "--shard-mb", "1")
    assert done.returncode == 2 and f"gristmill: {bad}: the line at byte 1,120,000 cannot be read" in done.stderr, (
        done.stderr[-2000:]
    )
    assert "Traceback" not in done.stderr and not list((tmp_path / "none").glob("*"))
    for path in release.glob("*"):
        if path.name.startswith("train-"):
            assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()
    assert (tmp_path / "again" / "README.md").read_text() == (release / "README.md").read_text()
    assert told(tmp_path / "again")["fingerprint"] == told(release)["fingerprint"]


def tampered(release: Path, folder: Path, change: Any, is_told: bool = False) -> Path:
    """A copy of the release with its first shard changed; `is_told`: its metadata is adapted, except the counts."""
    copy = folder / "copy"
    shutil.copytree(release, copy)
    shard = sorted(copy.glob("train-*.parquet"))[0]
    table = pq.read_table(shard)
    changed = change(table)
    pq.write_table(changed.cast(table.schema), shard)
    if is_told:
        sha256 = hashlib.sha256(shard.read_bytes()).hexdigest()
        facts, metadata = told(copy), json.loads((copy / "croissant.json").read_text())
        facts["shards"][0] |= {"sha256": sha256, "num_rows": changed.num_rows}
        metadata["distribution"][0]["sha256"] = sha256
        (copy / "mixture.json").write_text(json.dumps(facts))
        (copy / "croissant.json").write_text(json.dumps(metadata))
    return copy


def one_more(table: pa.Table) -> pa.Table:
    """A long synthetic row more."""
    new = {**next(row for row in table.to_pylist() if row["origin"] == "synthetic")}
    new |= {"id": "ab" * 16, "text": "word " * 200, "mixture_tokens": 200}
    return pa.concat_tables([table, pa.Table.from_pylist([new], schema=table.schema)])


def relabelled(table: pa.Table) -> pa.Table:
    rows = table.to_pylist()
    next(row for row in rows if row["origin"] == "synthetic")["origin"] = "real"
    return pa.Table.from_pylist(rows, schema=table.schema)


def twin(table: pa.Table) -> pa.Table:
    rows = table.to_pylist()
    real = next(row for row in rows if row["origin"] == "real")
    made = next(row for row in rows if row["origin"] == "synthetic")
    made |= {"text": real["text"].upper(), "mixture_tokens": real["mixture_tokens"]}
    return pa.Table.from_pylist(rows, schema=table.schema)


def miscounted(table: pa.Table) -> pa.Table:
    rows = table.to_pylist()
    rows[0]["mixture_tokens"] += 1
    return pa.Table.from_pylist(rows, schema=table.schema)


@pytest.mark.parametrize(
    ("change", "is_told", "finding"),
    [
        (one_more, False, "altered after it was packed"),
        (one_more, True, "synthetic by tokens, above synthetic_max = 30.0000%"),
        (one_more, True, "mixture.json and the rows differ in totals.all.rows"),
        (relabelled, True, "mixture.json and the rows differ in totals.real.rows: 120 -> 121"),
        (twin, True, "equals another row and is not left out"),
        (miscounted, True, "1 rows have other tokens than mixture_tokens states"),
        (lambda t: pa.concat_tables([t, t.slice(0, 1)]), True, "occur more often"),
        (lambda t: t.slice(1), True, "mixture.json and the rows differ in totals.all.rows"),
    ],
    ids=["bytes", "cap", "count", "origin", "twin", "tokens", "twice", "lost"],
)
def test_audit_catches(
    change: Any, is_told: bool, finding: str, release: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert audit(str(tampered(release, tmp_path, change, is_told)), as_json=True) == 1
    assert any(finding in line for line in json.loads(capsys.readouterr().out)["wrong"])


def test_audit_reads_card_and_metadata_too(release: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    def wrong(change: Any) -> list[str]:
        copy = tmp_path / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(release, copy)
        change(copy)
        assert audit(str(copy), as_json=True) == 1
        return json.loads(capsys.readouterr().out)["wrong"]

    def lie(copy: Path) -> None:
        card = copy / "README.md"
        card.write_text(card.read_text().replace("| synthetic fraction | ", "| synthetic fraction | 0"))

    assert any("README.md does not state" in line for line in wrong(lie))
    assert any("README.md is missing" in line for line in wrong(lambda copy: (copy / "README.md").unlink()))
    assert any("croissant.json is missing" in line for line in wrong(lambda copy: (copy / "croissant.json").unlink()))
    first = sorted(release.glob("train-*"))[0].name
    assert any(f"{first} is missing" in line for line in wrong(lambda copy: (copy / first).unlink()))
    extra = wrong(lambda copy: shutil.copy(copy / first, copy / "train-00007-of-00008.parquet"))
    assert any("does not name it" in line for line in extra)


def test_weights_repeats_and_a_release_as_a_part(
    corpora: Path, here: None, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Reweighted by rows, resampled by shares; a release is a part as its parts are; a weighted one is none."""
    whole = mixture(tmp_path / "p", corpora, synthetic_max=1.0)
    assert pack(whole, str(tmp_path / "p" / "release"), 1) == 0
    parts = [{"uri": str(tmp_path / "p" / "release"), "name": "both"}]
    weighted = mixture(tmp_path / "w", corpora, shortfall="reweight", parts=parts, synthetic_max=0.4)
    assert pack(weighted, str(tmp_path / "w" / "release"), 1) == 0
    rows = release_rows(tmp_path / "w" / "release")
    weights = np.array(rows.column("mixture_weight")), np.array(rows.column("origin")) == "synthetic"
    assert weights[0][weights[1]].sum() / weights[0].sum() == pytest.approx(0.4) and weights[1].sum() == 186
    assert told(tmp_path / "w" / "release")["counts"]["fractions"]["rows_by_weight"] == pytest.approx(0.4)

    parts = [{"path": str(corpora / "books"), "share": 0.6}, {"uri": str(corpora / "run"), "share": 0.4}]
    again = mixture(tmp_path / "r", corpora, shortfall="resample", parts=parts, rows=500, synthetic_max=0.4)
    assert pack(again, str(tmp_path / "r" / "release"), 1) == 0
    rows = release_rows(tmp_path / "r" / "release")
    pairs = set(zip(rows.column("id").to_pylist(), rows.column("mixture_copy").to_pylist()))
    assert rows.num_rows == len(pairs) == 500 and len(set(rows.column("id").to_pylist())) == 60 + 189
    facts = told(tmp_path / "r" / "release")
    assert facts["counts"]["fractions"]["rows"] == 0.4 and facts["counts"]["repeated_rows"] == 500 - 249
    capsys.readouterr()
    for name in "wr":
        assert audit(str(tmp_path / name / "release")) == 0, capsys.readouterr().out
    parts = [{"path": str(corpora / "books")}, {"uri": str(tmp_path / "r" / "release")}]
    with pytest.raises(UserError, match="are repeated or weighted"):
        pack(mixture(tmp_path, corpora, parts=parts), str(tmp_path / "no"), 1)


def test_tables_without_text(here: None, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Rows that are equal in all columns are twins, whole numbers and decimal ones alike; types are those that fit."""
    real = pa.table({"age": [30, 40, 50], "town": ["a", "b", None]})
    pq.write_table(real, tmp_path / "real.parquet")
    made = {"age": [40.0, 41.5, 50.0, 60.0], "town": ["b", "b", None, "c"]}
    run = make_run(tmp_path / "run", ["x", "y", "z", "u"], **made)
    parts = [{"path": str(tmp_path / "real.parquet")}, {"uri": run}]
    path = write(tmp_path / "mix.toml", {"name": "t", "synthetic_max": 0.5, "parts": parts})
    assert pack(path, str(tmp_path / "release"), 1) == 0
    rows = release_rows(tmp_path / "release")
    assert sorted(rows.column("age").to_pylist()) == [30.0, 40.0, 41.5, 50.0, 60.0]
    assert "mixture_tokens" not in rows.column_names and told(tmp_path / "release")["duplicates"] == 2
    assert audit(str(tmp_path / "release")) == 0, capsys.readouterr().out


def test_corpora_of_other_kinds(corpora: Path, here: None, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Documents that other models wrote, a side of a split of CSV, a column that only one part has, no duplicates."""
    (tmp_path / "foreign").mkdir()
    for i in range(5):
        (tmp_path / "foreign" / f"{i}.txt").write_text(f"Essay {i % 4}\nof many words")
    (tmp_path / "rows.csv").write_text("text,n\n" + "".join(f"line {i},{i}\n" for i in range(40)) + "Line  3,99\n")
    parts = [
        {"name": "essays", "path": str(tmp_path / "foreign"), "origin": "synthetic", "generation": 2}
        | {"sample_by": "document"},
        {"name": "rows", "path": f"{tmp_path / 'rows.csv'}#train,holdout=0.2"},
        {"name": "all", "path": str(tmp_path / "rows.csv")},
    ]
    path = mixture(tmp_path, corpora, parts=parts, dedup="all", payload=["text", "n"])
    assert pack(path, str(tmp_path / "release"), 1) == 0
    rows = release_rows(tmp_path / "release").to_pylist()
    essays = [row for row in rows if row["mixture_part"] == "essays"]
    assert len(rows) == 44 and {row["n"] for row in essays} == {None} and len(essays) == 4
    assert all(row["generation"] == 2 and row["origin"] == "synthetic" and "\n" in row["text"] for row in essays)
    assert {row["n"] for row in rows if row not in essays} >= set(range(40)) - {3}
    ancestry = [
        (one["origin"], one["generation"], one["rows"]) for one in told(tmp_path / "release")["counts"]["ancestry"]
    ]
    assert ancestry == [("real", 0, 40), ("synthetic", 2, 4)]
    assert audit(str(tmp_path / "release")) == 0, capsys.readouterr().out


def test_a_file_that_changes_meanwhile_is_told(
    corpora: Path, here: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "one"}\n{"text": "two"}\n')
    write_release = mixture_pack.write_release

    def later(*given: Any) -> Any:
        rows.write_text('{"text": "one"}\n{"text": "TWO"}\n')
        return write_release(*given)

    monkeypatch.setattr(mixture_pack, "write_release", later)
    with pytest.raises(UserError, match=r"data .*rows\.jsonl changed since this run began"):
        pack(mixture(tmp_path, corpora, parts=[{"path": str(rows)}]), str(tmp_path / "release"), 1)
    assert not list((tmp_path / "release").glob("*"))


def test_parts_and_releases_on_s3(release: Path, corpora: Path, here: None, tmp_path: Path, s3: str) -> None:
    bucket = f"{s3}/mix-{tmp_path.name}"
    store = open_store(bucket)
    for path in corpora.rglob("*"):
        if path.is_file():
            store.put(str(path.relative_to(corpora)), path.read_bytes())
    web = {"name": "web", "path": f"{bucket}/web", "columns": {"text": "content"}, "id_column": "url"}
    parts = [web, {"name": "books", "path": f"{bucket}/books/b.parquet"}, {"uri": f"{bucket}/run"}]
    assert pack(mixture(tmp_path, corpora, by="tokens", parts=parts), f"{bucket}/release", 1) == 0
    for path in release.glob("train-*"):
        assert open_store(f"{bucket}/release").read(path.name) == path.read_bytes()
    assert audit(f"{bucket}/release") == 0
    missing = [{"path": f"{bucket}/none"}]
    with pytest.raises(UserError, match="no such object or prefix"):
        pack(mixture(tmp_path, corpora, parts=missing), f"{bucket}/other", 1)


def test_dry_run_writes_nothing(corpora: Path, here: None, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = mixture(tmp_path, corpora, rows=100)
    assert pack(path, str(tmp_path / "release"), 1, dry_run=True) == 0
    out = capsys.readouterr().out
    assert "synthetic fraction" in out and "cap 30.0000% by rows" in out and not (tmp_path / "release").exists()
    assert pack(str(corpora / "run"), str(tmp_path / "release"), dry_run=True) == 0
    assert "192 rows would go into 1 shards" in capsys.readouterr().out and not (tmp_path / "release").exists()
    with pytest.raises(UserError, match="above synthetic_max"):
        pack(mixture(tmp_path, corpora, shortfall="fail"), str(tmp_path / "release"), 1)
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"text": "a"}\n{"text": \n')
    with pytest.raises(UserError, match="bad.jsonl"):
        pack(mixture(tmp_path, corpora, parts=[{"path": str(bad)}]), str(tmp_path / "release"), 1)
    assert not list((tmp_path / "release").glob("*"))


BAD: list[tuple[dict[str, Any], str]] = [
    ({"synthetic_max": 1.2}, r"synthetic_max must lie in \[0, 1\]"),
    ({"synthetic_max": -0.1}, r"synthetic_max must lie in \[0, 1\]"),
    ({"shortfal": "shrink"}, r"unknown key 'shortfal' \(did you mean 'shortfall'\?\)"),
    ({"shortfall": "drop"}, r"'drop' is not one of 'fail', 'shrink'"),
    ({"parts": []}, r"has \[\[parts\]\]"),
    ({"parts": [{"path": "docs", "share": 1.5}]}, r"share must lie in \[0, 1\]"),
    ({"parts": [{"path": "docs", "share": 0.5}]}, r"add up to 0\.5, not to 1"),
    ({"parts": [{"path": "docs", "share": 1.0}, {"uri": "u"}]}, r"either every part has a share, or none has"),
    ({"parts": [{"path": "docs"}, {"path": "./docs"}]}, r"two parts are called 'docs'"),
    ({"parts": [{"name": "x"}]}, r"give either uri .* or path"),
    ({"parts": [{"path": "docs", "generation": 2}]}, r"real rows are of generation 0"),
    ({"parts": [{"uri": "docs", "origin": "synthetic"}]}, r"origin is for data files"),
    ({"parts": [{"path": "docs", "columns": {"origin": "text"}}]}, r"'origin' is a reserved column"),
    ({"rows": 0}, r"rows must be at least 1"),
    ({"tokens": 5}, r"tokens needs by = 'tokens'"),
    ({"payload": ["id"]}, r"payload: 'id' is a reserved column"),
    ({"parts": [{"path": "/no/such/place"}]}, r"no such file or folder"),
    ({"parts": [{"uri": "/no/such/place"}]}, r"no such folder"),
    ({"parts": [{"uri": "docs"}]}, r"no manifest\.json there"),
    ({"parts": [{"path": "docs", "columns": {"x": "txt"}}]}, r"names 'txt', which is not there"),
    ({"parts": [{"path": "docs", "id_column": "key"}]}, r"no id_column 'key'"),
    ({"parts": [{"path": "cluster"}]}, r"no file to read"),
    ({"parts": [{"path": "package:adlt/train"}]}, r"did you mean 'adult/train'"),
    ({"text_column": "body"}, r"not every part has a column 'body'"),
    ({"payload": ["n"]}, r"none of its columns is in all parts"),
    ({"payload": ["text", "m"]}, r"no part has a column 'm'"),
    ({"parts": [{"path": "docs"}, {"path": "package:digits"}]}, r"have no payload column in common"),
    ({"by": "tokens", "parts": [{"path": "package:digits"}]}, r"set text_column or by = 'rows'"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), BAD, ids=lambda v: next(iter(v)) if isinstance(v, dict) else "")
def test_bad_mixtures_are_refused_before_anything_is_written(
    change: dict[str, Any], message: str, corpora: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(UserError, match=message):
        pack(mixture(tmp_path, corpora, **change), str(tmp_path / "release"))
    assert not (tmp_path / "release").exists()


def test_synthetic_rows_cannot_pass_for_real(corpora: Path, tmp_path: Path) -> None:
    """Neither a run's folder nor its shards are taken as data files, and a run that goes on not at all."""
    for path in (corpora / "run", corpora / "run" / "kept"):
        with pytest.raises(UserError, match="uri"):
            pack(mixture(tmp_path, corpora, parts=[{"path": str(path)}]), str(tmp_path / "release"))
    running = make_run(tmp_path / "running", ["a", "b"], state="running")
    with pytest.raises(UserError, match="still going on"):
        pack(mixture(tmp_path, corpora, parts=[{"uri": running}]), str(tmp_path / "release"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    with pytest.raises(UserError, match="is not empty"):
        pack(mixture(tmp_path, corpora), str(tmp_path / "full"))
    recipe = gristmill("pack", "recipes/demo.toml", "--to", str(tmp_path / "release"))
    assert recipe.returncode == 2 and "is a recipe, not a mixture" in recipe.stderr
    assert not (tmp_path / "release").exists()


def test_compressed_files_are_read_in_batches(
    corpora: Path, here: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file without ranges is one chunk of several batches, and its drawn rows come in several pieces."""
    rows = [{"text": text(n), "n": None if n < 3000 else n} for n in range(4000)]
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "a.jsonl").write_bytes(data)
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed" / "a.jsonl.gz").write_bytes(gzip.compress(data))
    monkeypatch.setattr("gristmill.records.readers.file_tables.BATCH_BYTES", 100_000)
    monkeypatch.setattr("gristmill.jobs.release.mixture.pack.PART_BYTES", 50_000)
    monkeypatch.setattr("gristmill.jobs.release.mixture.pack.LOCAL_BYTES", 0)
    for place in ("plain", "packed"):
        path = mixture(tmp_path / f"of-{place}", corpora, parts=[{"path": str(tmp_path / place)}], rows=3500)
        assert pack(path, str(tmp_path / f"release-{place}")) == 0
        released = release_rows(tmp_path / f"release-{place}").select(["source_id", "text", "n"]).to_pylist()
        assert len(released) == 3500 and len({row["text"] for row in released}) == 3500
        assert all(row["n"] == (None if (n := int(row["text"].split()[-1][:-1])) < 3000 else n) for row in released)
    assert {row["source_id"] for row in released} <= {f"a.jsonl.gz:{n}" for n in range(4000)}


@pytest.mark.parametrize("path", MIXTURES, ids=lambda p: p.name)
def test_every_mixture_in_the_repository_is_whole(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its runs have still to be made, so those of its parts that are data files are opened."""
    monkeypatch.chdir(ROOT)
    spec = load_mixture(str(path))
    assert spec.description
    files = [open_part(part) for part in spec.parts if part.path]
    payload, text_column = common_payload(files, spec)
    assert files and len(payload) and (spec.by == "rows" or text_column)


def test_addresses_are_told_without_secrets(tmp_path: Path) -> None:
    parts = [{"uri": "s3://key:secret@bucket/run?token=1"}, {"path": "s3://bucket/web#train"}]
    spec = load_mixture(write(tmp_path / "m.toml", {"name": "m", "synthetic_max": 1.0, "parts": parts}))
    assert [part.place for part in spec.parts] == ["s3://bucket/run", "s3://bucket/web#train"]

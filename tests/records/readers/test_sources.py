"""Sources number their rows and can be read from any place."""

import json
import pickle
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.jobs.recipes.compile import compile_recipe
from gristmill.jobs.recipes.recipe import load
from gristmill.records.errors import UserError
from gristmill.records.lots import Plan, asks
from gristmill.records.readers.sources import SourceSpec, open_source
from gristmill.records.stores.opening import open_store
from tests.recipes import canned


def texts(rows: list[tuple[str, str]]) -> list[str]:
    return [json.loads(text)["text"] for _, text in rows]


def plan(num_asks: int, lot_size: int, num_source_rows: int, carry: tuple[str, ...] = ()) -> Plan:
    return Plan("ab" * 16, lot_size, num_asks, num_source_rows, "canned", "m", "prompt", carry)


def test_every_kind_of_file_in_one_folder(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a0"}\n\n{"text": "a1"}\n')
    (tmp_path / "b.txt").write_text("b0\nb1\n\nb2")
    pq.write_table(pa.table({"text": [f"c{i}" for i in range(7)]}), tmp_path / "c.parquet", row_group_size=3)
    source = open_source(SourceSpec(path=str(tmp_path)))
    expected = ["a0", "a1", "b0", "b1", "b2", *(f"c{i}" for i in range(7))]
    assert source.num_rows == 12
    assert texts(source.rows(0, 12)) == expected
    for start in range(12):
        assert texts(source.rows(start, 12)) == expected[start:]
    assert source.rows(2, 3)[0][0] == "b.txt:0"


def test_same_content_elsewhere_has_the_same_digest(tmp_path: Path, s3: str) -> None:
    content = b'{"text": "x"}\n' * 10
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "rows.jsonl").write_bytes(content)
    store = open_store(f"{s3}/source-{tmp_path.name}")
    store.put("in/rows.jsonl", content)
    local = open_source(SourceSpec(path=str(tmp_path / "a")))
    for path in (f"{store.uri}/in", f"{store.uri}/in/rows.jsonl"):
        remote = open_source(SourceSpec(path=path))
        assert remote.digest() == local.digest()
        assert texts(remote.rows(3, 5)) == ["x", "x"]
    (tmp_path / "a" / "rows.jsonl").write_bytes(content + b'{"text": "y"}\n')
    assert open_source(SourceSpec(path=str(tmp_path / "a"))).digest() != local.digest()


@given(st.integers(1, 7), st.integers(2, 5), st.data())
def test_samples_together_are_the_same_asks_in_another_order(num_rows: int, samples: int, data: st.DataObject) -> None:
    items = tuple(f"text {n}" for n in range(num_rows))
    together = open_source(SourceSpec(items=items, samples=samples, together=True))
    rows = together.ask_rows(0, num_rows * samples, num_rows)
    assert rows == [row for row in together.rows(0, num_rows) for _ in range(samples)]
    apart = open_source(SourceSpec(items=items, samples=samples))
    assert sorted(rows) == sorted(apart.ask_rows(0, num_rows * samples, num_rows))
    start = data.draw(st.integers(0, num_rows * samples - 1))
    stop = data.draw(st.integers(start + 1, num_rows * samples))
    assert together.ask_rows(start, stop, num_rows) == rows[start:stop]


def test_samples_together_are_part_of_the_identity(tmp_path: Path) -> None:
    def fingerprint(**source: object) -> str:
        return compile_recipe(load(canned(tmp_path, source={"cycle": None, **source}), ())).plan.fingerprint

    marks = [fingerprint(samples=n, together=together) for n in (2, 3) for together in (False, True)]
    assert marks[0] == marks[2] and len(set(marks)) == 3
    with pytest.raises(UserError, match="together"):
        fingerprint(together=True)


def test_documents_and_ids_and_carry(tmp_path: Path) -> None:
    (tmp_path / "one.md").write_text("# One\n\ntwo lines")
    source = open_source(SourceSpec(path=str(tmp_path), sample_by="document"))
    assert texts(source.rows(0, 1)) == ["# One\n\ntwo lines"]
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "a", "url": "u1", "n": 3}\n{"broken\n{"text": "b"}\n')
    spec = SourceSpec(path=str(rows), id_column="url", carry=("url", "n"))
    batch = asks(plan(3, 8, 3, spec.carry), open_source(spec), 0)
    assert batch.column("source_id").to_pylist() == ["u1", "rows.jsonl:1", "rows.jsonl:2"]
    assert batch.column("url").to_pylist() == ["u1", None, None]
    assert batch.column("n").to_pylist() == ["3", None, None]


def test_empty_missing_and_wrong_sources_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("\n\n")
    with pytest.raises(UserError, match="source is empty"):
        open_source(SourceSpec(path=str(tmp_path / "empty.jsonl")))
    with pytest.raises(UserError, match="no such file or folder"):
        open_source(SourceSpec(path=str(tmp_path / "nothing.jsonl")))
    (tmp_path / "bad.parquet").write_text("no parquet")
    with pytest.raises(UserError, match="cannot be read as Parquet"):
        open_source(SourceSpec(path=str(tmp_path / "bad.parquet")))
    (tmp_path / "only.bin").write_text("x")
    with pytest.raises(UserError, match="no format has this ending"):
        open_source(SourceSpec(path=str(tmp_path / "only.bin")))


@given(st.integers(1, 40), st.integers(1, 17), st.integers(1, 90))
def test_lots_cover_the_asks_in_order(num_rows: int, lot_size: int, num_asks: int) -> None:
    source = open_source(SourceSpec(items=tuple(f"t{i}" for i in range(num_rows))))
    whole = plan(num_asks, lot_size, num_rows)
    lots = [asks(whole, source, lot) for lot in range(whole.num_lots or 0)]
    table = pa.Table.from_batches(lots)
    found = [json.loads(a)["text"] for a in table.column("ask").to_pylist()]
    assert found == [f"t{i % num_rows}" for i in range(num_asks)]
    assert len(set(table.column("id").to_pylist())) == num_asks
    assert len(set(table.column("seed").to_pylist())) == num_asks
    assert asks(whole, source, 0).equals(lots[0])


def test_an_edit_in_the_middle_of_a_large_file_is_another_source(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    lines = [f'{{"text": "row {i:06d}"}}\n' for i in range(20_000)]
    path.write_text("".join(lines))
    before = open_source(SourceSpec(path=str(path))).digest()
    lines[10_000] = lines[10_000].replace("row", "ROW")
    path.write_text("".join(lines))
    assert open_source(SourceSpec(path=str(path))).digest() != before


def test_lone_surrogates_and_deep_nesting_cost_no_lot(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "bad \\ud83d", "url": "u"}\n' + '{"text": ' + "[" * 100_000 + "]" * 100_000 + "}\n")
    spec = SourceSpec(path=str(rows), id_column="text", carry=("text", "url"))
    batch = asks(plan(2, 8, 2, spec.carry), open_source(spec), 0)
    assert batch.column("text").to_pylist() == ["bad ?", None]
    assert batch.column("source_id").to_pylist() == ["bad ?", "rows.jsonl:1"]


def test_a_source_may_be_what_a_package_carries() -> None:
    source = open_source(SourceSpec(path="package:help-topics", id_column="name"))
    again = pickle.loads(pickle.dumps(source))
    assert source.num_rows > 50 and source.rows(3, 5) == again.rows(3, 5)
    (name, text), _ = source.rows(3, 5)
    assert json.loads(text)["name"] == name and len(json.loads(text)["text"]) > 100
    assert source.digest() != open_source(SourceSpec(path="package:breast-cancer")).digest()
    with pytest.raises(UserError, match="help-topics"):
        open_source(SourceSpec(path="package:help-topic"))


def test_lines_longer_than_a_chunk_are_whole_and_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [
        b'{"text": "' + bytes([97 + number]) * size + b'"}' for number, size in enumerate((0, 1, 5, 6, 7, 8, 40, 3))
    ]
    for end in (b"\n", b"\n\n", b""):
        (tmp_path / "rows.jsonl").write_bytes(b"\n \n".join(lines) + end)
        monkeypatch.setattr("gristmill.records.readers.streams.CHUNK_BYTES", 8)
        source = open_source(SourceSpec(path=str(tmp_path)))
        assert [text for _, text in source.rows(0, source.num_rows)] == [line.decode() for line in lines]
        monkeypatch.setattr("gristmill.records.readers.streams.CHUNK_BYTES", 1 << 20)
        assert open_source(SourceSpec(path=str(tmp_path))).digest() == source.digest()

"""Places, formats and cursors: what is read of a folder, pages and archives, and rows from any place in any file."""

import bz2
import csv
import gzip
import json
import logging
import lzma
import pickle
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.records.errors import InputChanged, UserError
from gristmill.records.readers.datasets import DataSpec, read_table
from gristmill.records.readers.outputs import CARD_LINE
from gristmill.records.readers.places import find_files, partitions_of
from gristmill.records.readers.sources import Source, SourceSpec, open_source
from gristmill.records.stores.opening import open_store
from tests.profiles import scaled
from tests.records.readers.test_answers import Row, binary, frames, lines, of_data, of_mixture, put
from tests.session import new_folder

PAGE = """<html><head><title>Mills</title><meta charset="utf-8"></head><body><nav><a href="/">Home</a></nav><article>
<h1>Mills</h1><p>A mill grinds grain between two stones. The upper stone turns, the lower one lies still.</p>
<p>Wind, water or an ox turns it. \u00c4hren werden so zu Mehl.</p></article><footer>Imprint</footer></body></html>"""


def rows(source: Source) -> list[dict[str, Any]]:
    return [json.loads(text) for _, text in source.rows(0, source.num_rows)]


def record(url: str, body: bytes, kind: str = "text/html; charset=utf-8", encoding: str = "") -> bytes:
    """A response in WARC."""
    extra = f"Content-Encoding: {encoding}\r\n" if encoding else ""
    http = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n{extra}\r\n".encode() + body
    head = (
        f"WARC/1.1\r\nWARC-Type: response\r\nWARC-Record-ID: <urn:uuid:0>\r\nWARC-Target-URI: {url}\r\n"
        f"WARC-Date: 2024-01-02T03:04:05Z\r\nContent-Type: application/http; msgtype=response\r\n"
        f"Content-Length: {len(http)}\r\n\r\n"
    )
    return head.encode() + http + b"\r\n\r\n"


def test_pages_become_their_main_text(tmp_path: Path) -> None:
    put(tmp_path, {"a.html": PAGE, "b.htm.gz": gzip.compress(PAGE.encode()), "c.html": "<html></html>"})
    first, second, third = rows(open_source(SourceSpec(path=str(tmp_path))))
    assert first == second and first["text"].count("\u00c4hren") == 1 and "Imprint" not in first["text"]
    assert third == {"text": None}
    assert read_table(DataSpec(str(tmp_path))).column("text").to_pylist() == [first["text"], first["text"], None]
    put(tmp_path, {"d/d.html": PAGE.encode("utf-16-le")})
    assert rows(open_source(SourceSpec(path=str(tmp_path / "d"), encoding="utf-16-le"))) == [first]


def test_archives_become_the_texts_of_their_pages(tmp_path: Path) -> None:
    pages = [
        record("https://a.org/1", PAGE.encode()),
        record("https://a.org/2", gzip.compress(PAGE.encode()), encoding="gzip"),
        record("https://a.org/i.png", b"x", kind="image/png"),
    ]
    put(tmp_path, {"a.warc": b"".join(pages), "b.warc.gz": b"".join(map(gzip.compress, pages))})
    found = rows(open_source(SourceSpec(path=str(tmp_path))))
    assert [(row["url"], row["date"]) for row in found] == [
        ("https://a.org/1", "2024-01-02T03:04:05Z"), ("https://a.org/2", "2024-01-02T03:04:05Z")
    ] * 2  # fmt: skip
    assert len({row["text"] for row in found}) == 1
    for end in (10, 200, len(pages[2]) + 20):
        put(tmp_path, {"a.warc": b"".join(pages)[:-end]})
        with pytest.raises(UserError, match=r"a\.warc: (damaged or cut short|cannot be read as WARC)"):
            open_source(SourceSpec(path=str(tmp_path / "a.warc")))


def test_a_list_of_objects_beside_other_keys_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    items = [{"text": "a"}]
    put(tmp_path, {"a.json": json.dumps({"data": items, "v": 1}), "b.json": json.dumps({"x": items, "y": items})})
    put(tmp_path, {"c.json": json.dumps({"data": items}), "d.json": json.dumps({"data": [1], "v": 1})})
    with caplog.at_level(logging.INFO):
        assert len(rows(open_source(SourceSpec(path=str(tmp_path))))) == 4
    (line,) = [r.message for r in caplog.records if "one row" in r.message]
    assert "a.json" in line and "'data'" in line


def test_what_is_not_read_is_named_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    put(tmp_path, {"a.jsonl": lines({"text": "a"}), ".b.jsonl": "", "_tmp/c.jsonl": "", "x.bin": "", "README.md": "x"})
    with caplog.at_level(logging.INFO):
        source = open_source(SourceSpec(path=str(tmp_path)))
    assert source.skipped == {
        "documentation beside data": 1,
        "hidden": 1,
        "with an underscore": 1,
        "with another ending": 1,
    }
    (line,) = [r.message for r in caplog.records if "are not" in r.message]
    assert "1 files are read, 4 are not" in line and "1 hidden (.b.jsonl)" in line and "x.bin" in line


def test_a_run_and_a_release_give_their_rows(tmp_path: Path) -> None:
    kept = pa.table(
        {"id": ["00"], "origin": ["synthetic"], "model": ["m"], "text": ["kept"], "minhash": binary([b"\xff"])}
    )
    shards = {"kept/part-00000000.parquet": kept, "rejected/part-00000000.parquet": kept}
    put(tmp_path / "run", {**shards, "events/0.jsonl": lines({"e": 1}), "report.html": PAGE})
    put(tmp_path / "release", {"train-00000-of-00001.parquet": kept, "README.md": CARD_LINE, "croissant.json": "{}"})
    for place in ("run", "release"):
        path = str(tmp_path / place)
        assert rows(open_source(SourceSpec(path=path))) == [{"text": "kept"}]
        assert read_table(DataSpec(path)).to_pylist() == [{"text": "kept"}]
        assert read_table(DataSpec(path, columns=("id", "text"))).to_pylist() == [{"id": "00", "text": "kept"}]
    assert find_files(str(tmp_path / "run")).skipped.keys() == {
        "rejected/part-00000000.parquet", "events/0.jsonl", "report.html"
    }  # fmt: skip


def test_buckets_have_the_same_places(tmp_path: Path, s3: str) -> None:
    store = open_store(f"{s3}/places-{tmp_path.name}")
    for name in ("x/a.jsonl.gz", "x/b[1].jsonl", "x/_c.jsonl", "y/lang=de/a.jsonl"):
        data = lines({"text": name}).encode()
        store.put(name, gzip.compress(data) if name.endswith(".gz") else data)

    def texts(path: str) -> list[str]:
        return [row["text"] for row in rows(open_source(SourceSpec(path=f"{store.uri}/{path}")))]

    assert texts("x") == texts("x/*.jsonl*") == ["x/a.jsonl.gz", "x/b[1].jsonl"]
    assert texts("x/b[1].jsonl") == texts("x/b?1?.jsonl") == ["x/b[1].jsonl"]
    assert texts("**/a.jsonl*") == ["x/a.jsonl.gz", "y/lang=de/a.jsonl"]
    assert rows(open_source(SourceSpec(path=f"{store.uri}/y")))[0]["lang"] == "de"
    with pytest.raises(UserError, match="no such object or prefix"):
        texts("z/*.jsonl")


def test_partitions_are_decoded() -> None:
    assert partitions_of("a=1/b=%C3%9F%2F/c.parquet") == (("a", "1"), ("b", "\u00df/"))
    assert partitions_of("x/a=__HIVE_DEFAULT_PARTITION__/=y/c=d") == (("a", None),)


WRITERS = {
    **{"jsonl": lambda b: b, "jsonl.gz": gzip.compress, "jsonl.bz2": bz2.compress, "jsonl.xz": lzma.compress},
    **{"jsonl.zst": frames, "json": lambda b: b"[" + b",".join(b.splitlines()) + b"]"},
    "csv": lambda b: b"text\n" + b"".join(json.loads(line)["text"].encode() + b"\n" for line in b.splitlines()),
}


@given(st.sampled_from(sorted(WRITERS)), st.lists(st.tuples(st.integers(0, 2999), st.integers(1, 1500)), max_size=5))
def test_rows_can_be_read_from_anywhere_in_any_order(ending: str, spans: list[tuple[int, int]]) -> None:
    folder = new_folder("cursors") if not SOURCES else Path(str(next(iter(SOURCES.values())).path)).parent
    path = folder / f"rows.{ending}"
    if not path.exists():
        path.write_bytes(WRITERS[ending](lines(*({"text": f"r{n}"} for n in range(3000))).encode()))
    source = SOURCES.setdefault(ending, open_source(SourceSpec(path=str(path))))
    for start, length in spans:
        stop = min(start + length, 3000)
        found = [json.loads(text)["text"] for _, text in source.rows(start, stop)]
        assert found == [f"r{n}" for n in range(start, stop)]
    assert pickle.loads(pickle.dumps(source)).rows(7, 9) == source.rows(7, 9)


SOURCES: dict[str, Source] = {}


def test_content_decides_the_digest_not_its_packaging(tmp_path: Path) -> None:
    data = lines({"text": "a"}, {"text": "b"}).encode()
    put(tmp_path, {"a.jsonl": data, "b.jsonl.gz": gzip.compress(data), "c.jsonl.zst": frames(data[:9], data[9:])})
    put(tmp_path, {"d.jsonl": b"\xef\xbb\xbf" + data, "e.txt": data})
    digests = [open_source(SourceSpec(path=str(path))).digest() for path in sorted(tmp_path.iterdir())]
    assert len(set(digests[:4])) == 1 and digests[4] not in digests[:4]
    # Of a version before compressed files were read: old runs resume.
    assert digests[0] == "3ad01e66c12b0921a253aa78b84aa85e"


def test_a_compressed_file_that_changes_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    many = lines(*({"text": f"r{n}"} for n in range(5000))).encode()
    path.write_bytes(gzip.compress(many))
    source = open_source(SourceSpec(path=str(path)))
    assert len(source.rows(0, 10)) == 10
    path.write_bytes(gzip.compress(many.replace(b"r4", b"R4")))
    with pytest.raises(InputChanged, match=r"a\.jsonl\.gz changed"):
        source.rows(10, 20)


def test_only_columns_that_are_read_are_decoded(tmp_path: Path) -> None:
    far = pa.array([253402300800_000_000, 0], pa.timestamp("us"))
    near = pa.array([1_700_000_000_123_456_789, 1_700_000_000_000_000_000], pa.timestamp("ns"))
    pq.write_table(pa.table({"text": ["a", "b"], "far": far, "near": near}), tmp_path / "a.parquet")
    source = open_source(SourceSpec(path=str(tmp_path)))
    first, second = rows(source)
    assert (first["far"], second["far"]) == ("10000-01-01 00:00:00", "1970-01-01 00:00:00")
    assert (first["near"], second["near"]) == ("2023-11-14 22:13:20.123456789", "2023-11-14 22:13:20")
    source.select({"text"})
    assert rows(source) == [{"text": "a"}, {"text": "b"}]
    source.select(set())
    assert rows(source) == [{}, {}]
    pq.write_table(pa.table({"a": ["x"], "a.b": ["y"], "c": ["z"]}), tmp_path / "a.parquet")
    source = open_source(SourceSpec(path=str(tmp_path)))
    for wanted in ({"a"}, {"a.b"}, {"a", "c"}):
        source.select(wanted)
        assert set(rows(source)[0]) == wanted


def test_a_bad_row_is_rejected_by_produce_and_named_by_tables(tmp_path: Path) -> None:
    put(tmp_path, {"a.csv": "a,b\n1,2\n3\n4,5\n"})
    assert rows(open_source(SourceSpec(path=str(tmp_path)))) == [{"a": "1", "b": "2"}, ["3"], {"a": "4", "b": "5"}]
    with pytest.raises(UserError, match="line 3 has 1 cells, the first row has 2"):
        read_table(DataSpec(str(tmp_path)))


CELL = st.text(st.sampled_from('ab1.,;\t \n\r"\u00e9'), max_size=6)


@given(st.lists(st.tuples(CELL, CELL), min_size=1, max_size=12))
def test_cells_are_read_as_they_were_written(written: list[tuple[str, str]]) -> None:
    """By both parsers of a table and by that of a source; quotes are only where they must be."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a.csv"
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([("x", "y"), *written])
        table = read_table(DataSpec(str(path), delimiter=","), ["x", "y"])
        source = open_source(SourceSpec(path=str(path), delimiter=","))
        assert table.to_pylist() == rows(source) == [{"x": x, "y": y} for x, y in written]


def test_cells_stay_texts_where_a_schema_says_so(tmp_path: Path) -> None:
    put(tmp_path, {"a.csv": "zip,n\n2100,1\n,NA\n"})
    assert read_table(DataSpec(str(tmp_path))).to_pylist() == [{"zip": 2100, "n": 1}, {"zip": None, "n": None}]
    assert read_table(DataSpec(str(tmp_path)), ["zip"]).column("zip").to_pylist() == ["2100", ""]


SEEDS = {
    **{
        "jsonl": lines({"text": "a\u00e9", "n": 1}, {"text": "b", "x": [1, {"a": 2}]}),
        "json": '[{"text": "a"}, {"n": 1}]',
    },
    **{"csv": 'text,n\n"a ""q""",1\nb;c,2\n', "txt": "a\u00e9\nb", "html": PAGE},
    "warc": record("https://a.org", PAGE.encode()) + record("https://b.org", b"<p>x</p>"),
}
PACKERS = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": frames}
ODD_BYTES = (b'"', b"\n", b"\xff", b"\0", b"{", b"]", b",", b"\xef\xbb\xbf", b"null", b"1e999", b"\\ud800", b"\xff\xfe")


@settings(max_examples=scaled(150))
@given(
    st.sampled_from(sorted(SEEDS)),
    st.sampled_from(sorted(PACKERS)),
    st.floats(0, 1),
    st.integers(0, 9),
    st.sampled_from(ODD_BYTES) | st.binary(max_size=3),
    st.booleans(),
)
def test_a_damaged_file_gives_rows_or_one_line(
    kind: str, packing: str, place: float, length: int, more: bytes, is_inner: bool
) -> None:
    seed = SEEDS[kind]
    data = seed if isinstance(seed, bytes) else seed.encode()
    data = data if is_inner else PACKERS[packing](data)
    at = round(place * len(data))
    data = data[:at] + more + data[at + length :]
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"a.{kind}{packing}"
        path.write_bytes(PACKERS[packing](data) if is_inner else data)
        for read in (of_source_texts, of_mixture, of_data):
            try:
                read(str(path), {})
            except UserError as error:
                assert "\n" not in str(error)


def of_source_texts(path: str, options: Row) -> list[str]:
    source = open_source(SourceSpec(path=path))
    return [text for _, text in source.rows(0, source.num_rows)]

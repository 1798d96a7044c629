"""One reader, one answer: each kind of input is read alike by produce, pack, fit and evaluate. docs/sources.md has the
same table in words."""

import bz2
import gzip
import json
import lzma
import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gristmill.jobs.release.mixture.parts import ROW_FIELDS, open_part
from gristmill.jobs.release.mixture.spec import PartSpec
from gristmill.records.errors import UserError
from gristmill.records.readers.datasets import DataSpec, digest_table, read_table
from gristmill.records.readers.sources import SourceSpec, open_source

Row = dict[str, Any]
CANONICAL = re.compile(r"-?(?:0|[1-9]\d{0,14})(?:\.\d+)?(?:[eE][-+]?\d+)?")


def of_source(path: str, options: Row) -> list[Row]:
    source = open_source(SourceSpec(path=path, **options))
    return [json.loads(text) for _, text in source.rows(0, source.num_rows)]


def of_mixture(path: str, options: Row) -> list[Row]:
    part = open_part(PartSpec(path=path, name="p", **options))
    own = {field.name for field in ROW_FIELDS}
    tables = [table for chunk in part.chunks for table in part.read(chunk, part.schema)]
    return [{n: v for n, v in row.items() if n not in own} for table in tables for row in table.to_pylist()]


def of_data(path: str, options: Row) -> list[Row]:
    table = read_table(DataSpec(path, **options))
    assert len(digest_table(table)) == 32
    rows: list[Row] = table.to_pylist()
    return rows


VERBS: dict[str, Callable[[str, Row], list[Row]]] = {"produce": of_source, "pack": of_mixture, "fit": of_data}


def plain(value: Any) -> str:
    """A value as a prompt shows it, numbers in one spelling."""
    value = str(value) if isinstance(value, Decimal) else value
    if isinstance(value, str) and CANONICAL.fullmatch(value):
        value = float(value) if "." in value or "e" in value.lower() else int(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, dict | list):
        without = {n: v for n, v in value.items() if v is not None} if isinstance(value, dict) else value
        return json.dumps(without, ensure_ascii=False, default=str)
    return str(value)


def plain_rows(rows: Sequence[Row]) -> list[dict[str, str]]:
    """Absent, null and empty count as the same."""
    return [{n: plain(v) for n, v in row.items() if v is not None and v != ""} for row in rows]


class Case(NamedTuple):
    """Files by name (bytes, text, or a table for Parquet), and the rows, or the words of an error."""

    files: dict[str, bytes | str | pa.Table]
    expected: list[Row] | str
    path: str = ""
    options: Row = {}


def lines(*rows: Any) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def frames(*parts: bytes) -> bytes:
    """Zstandard, a frame for each part."""
    whole = b""
    for part in parts:
        sink = pa.BufferOutputStream()
        with pa.CompressedOutputStream(sink, "zstd") as stream:
            stream.write(part)
        whole += sink.getvalue().to_pybytes()
    return whole


def with_empty_struct(table: pa.Table) -> bytes:
    """A Parquet file of a table of one column and a struct without fields, which pyarrow does not write."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, store_schema=False)
    data = sink.getvalue().to_pybytes()
    at = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    one, two = (
        b"\x19" + size + b"\x35\x00\x18\x06schema\x15" + number + b"\x00"
        for size, number in ((b",", b"\x02"), (b"<", b"\x04"))
    )
    footer = data[at:-8].replace(one, two + b"\x35\x02\x18\x01a\x15\x00\x00")
    return data[:at] + footer + len(footer).to_bytes(4, "little") + b"PAR1"


def binary(values: list[Any]) -> pa.Array:
    return pa.array(values, pa.binary())


AB = [{"text": "a"}, {"text": "b"}]
TWO = lines(*AB).encode()
HALVES = lines(AB[0]).encode(), lines(AB[1]).encode()
LATE = [{"text": f"row {n} " + "x" * 1000} for n in range(1100)] + [{"text": "z", "late": 1}]
LONG = [{"text": "x" * 3_000_000}, {"text": "y"}]
TYPES = [{"a": None}, {"a": 1}, {"a": "x"}, {"a": [1, {"b": None}]}, {"a": True}, {"a": 1.5}]
ODD = [{"a": "x", "a.b": "y", "c d": "z"}]
DEEP = json.loads("[" * 300 + "]" * 300)
NESTED = [{"m": {"a": 1}, "l": [1, 2]}, {"m": {"b": "x"}, "l": []}]
YEAR_10000 = pa.array([253402300800_000_000, None], pa.timestamp("us"))

CASES: dict[str, Case] = {
    # Formats
    "jsonl": Case({"a.jsonl": TWO}, AB),
    "ndjson in capitals": Case({"A.NDJSON": TWO}, AB),
    "json array": Case({"a.json": json.dumps(AB, indent=2)}, AB),
    "json lines as json": Case({"a.json": TWO}, AB),
    "json of one object": Case({"a.json": json.dumps(AB[0], indent=1)}, AB[:1]),
    "json of one list": Case({"a.json": json.dumps({"data": AB})}, AB),
    "json of one list and more": Case({"a.json": json.dumps({"data": AB, "v": 1})}, [{"data": AB, "v": 1}]),
    "json array of a single row": Case({"a.json": "[" + json.dumps(AB[0]) + "]"}, AB[:1]),
    "json, damaged": Case({"a.json": '[{"text": "a"}, {"text": '}, "not valid JSON"),
    "csv": Case({"a.csv": "text,n\na,1\nb,2\n"}, [{"text": "a", "n": 1}, {"text": "b", "n": 2}]),
    "tsv": Case({"a.tsv": "text\tn\na,b\t1\n"}, [{"text": "a,b", "n": 1}]),
    "text": Case({"a.txt": "a\n\n  b \n"}, AB),
    "markdown": Case({"a.md": "a\nb"}, AB),
    "document": Case({"a.rst": "a\n\nb\n"}, [{"text": "a\n\nb\n"}], options={"sample_by": "document"}),
    "parquet": Case({"a.parquet": pa.table({"text": ["a", "b"]})}, AB),
    # Compression
    "gz": Case({"a.jsonl.gz": gzip.compress(TWO)}, AB),
    "gz of two members": Case({"a.jsonl.gz": b"".join(map(gzip.compress, HALVES))}, AB),
    "bz2": Case({"a.jsonl.bz2": bz2.compress(TWO)}, AB),
    "xz": Case({"a.txt.xz": lzma.compress(b"a\nb\n")}, AB),
    "zst": Case({"a.csv.zst": frames(b"text\na\nb\n")}, AB),
    "zst of two frames": Case({"a.jsonl.zst": frames(*HALVES)}, AB),
    "gz, cut": Case({"a.jsonl.gz": gzip.compress(TWO)[:-4]}, "damaged or cut short"),
    "bz2, cut": Case({"a.jsonl.bz2": bz2.compress(TWO)[:-4]}, "damaged or cut short"),
    "xz, cut": Case({"a.jsonl.xz": lzma.compress(TWO)[:-4]}, "damaged or cut short"),
    "zst, cut": Case({"a.jsonl.zst": frames(TWO)[:-4]}, "damaged or cut short"),
    "gz in name only": Case({"a.jsonl.gz": TWO}, "damaged or cut short"),
    # Encodings
    "mark of utf-8": Case({"a.jsonl": b"\xef\xbb\xbf" + TWO}, AB),
    "mark of utf-8 in text": Case({"a.txt": b"\xef\xbb\xbfa\nb\n"}, AB),
    "mark of utf-8 in csv": Case({"a.csv": b"\xef\xbb\xbftext\na\nb\n"}, AB),
    "mark of utf-8 in json": Case({"a.json": b"\xef\xbb\xbf" + json.dumps(AB).encode()}, AB),
    "utf-16": Case({"a.jsonl": "\ufeff".encode("utf-16-le") + TWO.decode().encode("utf-16-le")}, AB),
    "utf-32": Case({"a.txt": "\ufeffa\nb\n".encode("utf-32-be")}, AB),
    "utf-16 without a mark": Case({"a.txt": "some words\n".encode("utf-16-le")}, "zero bytes.*encoding = "),
    "latin-1": Case({"a.jsonl": lines({"text": "Stra\xdfe"}).encode("latin-1")}, r"byte 14 is not utf-8.*encoding = "),
    "latin-1 in csv": Case({"a.csv": "text\nStra\xdfe\n".encode("latin-1")}, r"byte 9 is not utf-8.*encoding = "),
    "latin-1, declared": Case(
        {"a.csv": "text\nStra\xdfe\n".encode("latin-1")}, [{"text": "Stra\xdfe"}], options={"encoding": "latin-1"}
    ),
    "not of the declared encoding": Case(
        {"a.jsonl": lines({"text": "\u20ac"}).encode()}, "not ascii", options={"encoding": "ascii"}
    ),
    "utf-8, cut within a character": Case({"a.txt": "a\nb\u20ac".encode()[:-1]}, "is not utf-8"),
    "page not of the declared encoding": Case(
        {"a.html": b"<p>\xe9</p>"}, "byte 3 is not ascii", options={"encoding": "ascii"}
    ),
    "archive with an encoding": Case({"a.warc": b"WARC/1.1"}, "encoding has no effect", "", {"encoding": "latin-1"}),
    # Lines and types
    "a column that comes late": Case({"a.jsonl": lines(*LATE)}, LATE),
    "a line of three megabytes": Case({"a.jsonl": lines(*LONG)}, LONG),
    "null first, text later": Case({"a.jsonl": lines({"a": None}, {"a": "x"})}, [{}, {"a": "x"}]),
    "a column of all types": Case({"a.jsonl": lines(*TYPES)}, TYPES),
    "nested": Case({"a.jsonl": lines(*NESTED)}, NESTED),
    "an empty struct": Case({"a.jsonl": lines({"a": {}, "b": {"c": {}}})}, [{"a": {}, "b": {"c": {}}}]),
    "deep nesting": Case({"a.jsonl": '{"a": ' + "[" * 300 + "]" * 300 + "}\n"}, [{"a": DEEP}]),
    "whole numbers of 30 digits": Case({"a.jsonl": lines({"a": 10**29 + 7})}, [{"a": 10**29 + 7}]),
    "NaN": Case({"a.jsonl": '{"a": NaN, "b": 1}\n'}, [{"a": float("nan"), "b": 1}]),
    "two equal keys": Case({"a.jsonl": '{"a": 1, "a": 2}\n'}, [{"a": 2}]),
    "times stay text": Case({"a.jsonl": lines({"t": "2024-01-02T03:04:05Z"})}, [{"t": "2024-01-02T03:04:05Z"}]),
    "windows ends of lines": Case({"a.jsonl": TWO.replace(b"\n", b"\r\n")}, AB),
    # CSV
    "quoted ends of lines": Case({"a.csv": 'text,n\n"a\nb",1\n'}, [{"text": "a\nb", "n": 1}]),
    "quoted quotes": Case({"a.csv": 'text\n"a ""b"""\n'}, [{"text": 'a "b"'}]),
    "a quote that is never closed": Case({"a.csv": 'text\na\n"b\nc\n'}, "line 3 opens is never closed"),
    "semicolons": Case({"a.csv": "a;n\na, b;1,5\nc;2\n"}, [{"a": "a, b", "n": "1,5"}, {"a": "c", "n": 2}]),
    "bars": Case({"a.csv": "text|n\na|1\n"}, [{"text": "a", "n": 1}]),
    "a declared delimiter": Case({"a.csv": "text:n\na:1\n"}, [{"text": "a", "n": 1}], options={"delimiter": ":"}),
    "leading zeros": Case({"a.csv": "zip,n\n02100,1\n10115,2\n"}, [{"zip": "02100", "n": 1}, {"zip": "10115", "n": 2}]),
    "ids of 20 digits": Case({"a.csv": "k\n12345678901234567890\n1\n"}, [{"k": "12345678901234567890"}, {"k": "1"}]),
    "Namibia": Case({"a.csv": "c,n\nNA,1\nDE,2\n"}, [{"c": "NA", "n": 1}, {"c": "DE", "n": 2}]),
    "an index without a name": Case({"a.csv": ",text\n0,a\n"}, [{"column_1": 0, "text": "a"}]),
    "two columns of a name": Case({"a.csv": "a,a\n1,2\n"}, "two columns are called 'a'"),
    "a first row that cannot be read": Case({"a.csv": '"a"x,b\n1,2\n3,4\n'}, "names the columns, cannot .*line 1"),
    "a first row that cannot be read, of a tsv": Case({"a.tsv": '\n"a"x\tb\n1\t2\n'}, "names the columns.*line 2"),
    # Parquet
    "text as bytes": Case({"a.parquet": pa.table({"a": binary([b"a", b"\xc3\x9f"])})}, [{"a": "a"}, {"a": "\u00df"}]),
    "large and viewed text": Case(
        {"a.parquet": pa.table({"a": pa.array(["x"], pa.large_string()), "b": pa.array(["y"], pa.string_view())})},
        [{"a": "x", "b": "y"}],
    ),
    "dictionary": Case({"a.parquet": pa.table({"a": pa.array(["x", "x"]).dictionary_encode()})}, [{"a": "x"}] * 2),
    "decimal": Case({"a.parquet": pa.table({"a": pa.array([1], pa.decimal128(5, 2))})}, [{"a": "1.00"}]),
    "dots and blanks in names": Case({"a.parquet": pa.table({"a": ["x"], "a.b": ["y"], "c d": ["z"]})}, ODD),
    "odd names in csv": Case({"a.csv": "a,a.b,c d\nx,y,z\n"}, ODD),
    "a struct without fields": Case({"a.parquet": with_empty_struct(pa.table({"text": ["a", "b"]}))}, AB),
    "no rows": Case({"a.jsonl": TWO, "b.parquet": pa.table({"text": pa.array([], pa.string())})}, AB),
    # Folders
    "an empty file": Case({"a.jsonl": TWO, "b.jsonl": "", "c.csv": "", "d.json": ""}, AB),
    "a mixed folder": Case(
        {
            **{"a.jsonl": lines(AB[0]), "b.jsonl.gz": gzip.compress(HALVES[1]), "d.json": json.dumps([{"text": "d"}])},
            **{"._a.jsonl": "junk", ".ipynb_checkpoints/a-checkpoint.jsonl": TWO, "_SUCCESS": "", "_log/1.json": "{}"},
            **{"README.md": "About these rows", "dataset_info.json": "{}", "x.bin": b"\x00"},
        },
        [*AB, {"text": "d"}],
    ),
    "different columns": Case({"a.jsonl": lines({"a": 1}), "b.csv": "b\nx\n"}, [{"a": 1}, {"b": "x"}]),
    "a type by file": Case({"a.jsonl": lines({"a": 1}), "b.jsonl": lines({"a": "x"})}, [{"a": 1}, {"a": "x"}]),
    "hive partitions": Case(
        {
            "lang=de/year=2024/a.parquet": pa.table({"text": ["a"]}),
            "lang=a%2Fb/year=__HIVE_DEFAULT_PARTITION__/b.jsonl": lines({"text": "b", "year": None}),
        },
        [{"text": "b", "lang": "a/b"}, {"text": "a", "lang": "de", "year": "2024"}],
    ),
    "a partition that is a column too": Case({"n=1/a.jsonl": lines({"n": 1})}, [{"n": 1}]),
    "a partition that contradicts": Case({"n=1/a.jsonl": lines({"n": 2})}, "column 'n' is 2 in a row, but '1'"),
    "a partition that contradicts Parquet": Case({"n=1/a.parquet": pa.table({"n": [2]})}, "column 'n' is 2 in a row"),
    "a glob": Case({"a1.jsonl": HALVES[0], "a2.jsonl": HALVES[1], "b.jsonl": TWO}, AB, path="a*.jsonl"),
    "a glob of folders": Case({"x/a.txt": "a", "y/a.txt": "b"}, AB, path="*/a.txt"),
    "brackets that exist": Case({"a[1].jsonl": TWO, "a1.jsonl": "junk"}, AB, path="a[1].jsonl"),
    "a star that exists": Case({"d*/a.jsonl": TWO, "dd/a.jsonl": "junk"}, AB, path="d*"),
    "a hidden file by name": Case({".a.jsonl": TWO}, AB, path=".a.jsonl"),
    "nothing there": Case({"a.jsonl": TWO}, "no such file or folder", path="b.jsonl"),
    "nothing to read": Case({"a.bin": b"x"}, "no file to read"),
    "another ending": Case({"a.bin": b"x"}, "no format has this ending", path="a.bin"),
}  # fmt: skip


def put(folder: Path, files: dict[str, bytes | str | pa.Table]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, pa.Table):
            pq.write_table(content, path)
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("name", CASES)
def test_each_input_has_one_answer(name: str, verb: str, tmp_path: Path) -> None:
    case = CASES[name]
    put(tmp_path / "in", case.files)
    path, options = str(tmp_path / "in" / case.path), case.options
    if verb == "fit" and "sample_by" in options:
        pytest.skip("tables have no documents")
    if isinstance(case.expected, str):
        with pytest.raises(UserError, match=case.expected) as error:
            VERBS[verb](path, options)
        assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)
    else:
        assert plain_rows(VERBS[verb](path, options)) == plain_rows(case.expected)

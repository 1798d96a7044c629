"""Mutations of files: JSON, Parquet, text, and the kind of the file itself. All are drawn by hypothesis."""

import io
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

VALUES: list[Any] = [
    *(None, True, False, "", "x", "complete", "../..", "\x00", "é" * 300, 0, -1, 1, 2**31, 2**63, 10**400, -0.5, 1e308),
    *(float("nan"), float("inf"), [], [1, "a"], {}, {"x": {}}, [[[]]], {"kind": "dedup"}, "2026-01-01T00:00:00+00:00"),
]
RAW = [
    *(b"", b" ", b"{", b"[]", b"7", b"null", b'"text"', b"\xff\xfe\x00", b"\xef\xbb\xbf{}", b"[" * 100_000, b"{" * 9),
    *(b'{"format": 3, "format": 3}', b'{"a":' * 60_000, b"\x00" * 64, b"NaN", b"1" * 5000, b"PAR1", b"PAR1PAR1"),
]
Change = Callable[[Path], None]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value in a tree of literals."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


def json_changes(text: str) -> st.SearchStrategy[Change]:
    """Another value in one place, a key that is missing or new, bytes that are cut, other bytes."""
    literals = json.loads(text)
    paths = list(places(literals))

    def set_value(args: tuple[tuple[Any, ...], Any, str]) -> Change:
        path, value, way = args

        def change(file: Path) -> None:
            whole = json.loads(text)
            if not path:
                whole = value
            else:
                parent = whole
                for key in path[:-1]:
                    parent = parent[key]
                if way == "delete":
                    del parent[path[-1]]
                elif way == "rename" and isinstance(parent, dict):
                    parent[f"{path[-1]}_2"] = parent.pop(path[-1])
                elif way == "double" and isinstance(parent, list):
                    parent.append(parent[path[-1]])
                else:
                    parent[path[-1]] = value
            file.write_text(json.dumps(whole))

        return change

    ways = st.sampled_from(["set", "set", "set", "delete", "rename", "double"])
    return st.one_of(
        st.tuples(st.sampled_from(paths), st.sampled_from(VALUES), ways).map(set_value),
        byte_changes(text.encode()),
    )


def byte_changes(data: bytes) -> st.SearchStrategy[Change]:
    """Bytes that are cut, one that is flipped, or other bytes altogether."""

    def write(content: bytes) -> Change:
        return lambda file: _write(file, content)

    def flip(args: tuple[int, int]) -> Change:
        at, bit = args
        return write(data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :])

    return st.one_of(
        st.sampled_from(RAW).map(write),
        st.integers(0, max(0, len(data) - 1)).map(lambda end: write(data[:end])),
        st.tuples(st.integers(0, max(0, len(data) - 1)), st.integers(0, 7)).map(flip) if data else st.nothing(),
    )


def _write(file: Path, content: bytes) -> None:
    file.write_bytes(content)


def parquet_changes(data: bytes) -> st.SearchStrategy[Change]:
    """Columns that are missing, renamed, of another type or null, rows that are missing, and changes of bytes."""
    table = pq.read_table(io.BytesIO(data))

    def write(changed: pa.Table) -> Change:
        def change(file: Path) -> None:
            pq.write_table(changed, file)

        return change

    def replaced(args: tuple[int, str]) -> Change:
        at, way = args
        name, num = table.column_names[at], table.num_rows
        if way == "drop":
            return write(table.drop_columns([name]))
        if way == "rename":
            return write(table.rename_columns([f"{n}_2" if n == name else n for n in table.column_names]))
        if way == "double":
            return write(table.append_column(name, table.column(at)))
        columns: dict[str, Any] = {
            "null": pa.nulls(num, table.schema.field(at).type),
            "untyped": pa.nulls(num),
            "text": pa.array(["x"] * num),
            "huge": pa.array([2**62] * num, pa.int64()),
            "negative": pa.array([-1] * num, pa.int32()),
            "nan": pa.array([float("nan")] * num),
            "list": pa.array([[1]] * num),
            "struct": pa.array([{"bytes": b"x", "path": None}] * num),
            "binary": pa.array([b"\xff\xfe"] * num),
        }
        return write(table.set_column(at, name, columns[way]))

    ways = ["drop", "rename", "double", "null", "untyped", "text", "huge", "negative", "nan", "list", "struct"]
    rows = st.sampled_from([0, 1]).map(lambda num: write(table.slice(0, num)))
    metadata = st.sampled_from([None, {b"gristmill": b"{}"}, {b"gristmill": b"["}, {b"seconds": b"x", b"shown": b"[]"}])
    return st.one_of(
        st.tuples(st.integers(0, table.num_columns - 1), st.sampled_from([*ways, "binary"])).map(replaced),
        rows,
        st.just(write(pa.concat_tables([table, table]))),
        metadata.map(lambda m: write(table.replace_schema_metadata(m))),
        byte_changes(data),
    )


def kind_changes() -> st.SearchStrategy[Change]:
    """A folder, a link that leads nowhere or to itself, nothing, or a file that nobody may read."""

    def folder(file: Path) -> None:
        file.unlink()
        (file / "inside").mkdir(parents=True)

    def link(target: str) -> Change:
        def change(file: Path) -> None:
            file.unlink()
            file.symlink_to(target.format(name=file.name))

        return change

    links = [link("/nowhere/at/all"), link("{name}"), link("/dev/null"), link("/proc/self/mem"), link("..")]
    return st.sampled_from([folder, Path.unlink, lambda file: os.chmod(file, 0), *links])


def changes_of(file: Path) -> st.SearchStrategy[Change]:
    """All changes that fit the kind of a file."""
    data = file.read_bytes()
    if file.suffix == ".parquet":
        by_content = parquet_changes(data)
    elif file.suffix == ".json":
        by_content = json_changes(data.decode())
    else:
        by_content = byte_changes(data)
    return st.one_of(by_content, by_content, by_content, kind_changes())


def restore(file: Path, data: bytes) -> None:
    """Put the file back as it was, whatever has taken its place."""
    if file.is_symlink() or file.is_file():
        file.unlink()
    elif file.is_dir():
        shutil.rmtree(file)
    file.write_bytes(data)

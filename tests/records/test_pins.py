"""A file that changes after it was read is noticed at the next reading, whatever changed it; the same bytes are not."""

import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gristmill.records import pins
from gristmill.records.errors import UserError
from gristmill.records.pins import Pins, active
from gristmill.records.readers.datasets import DataSpec, read_table
from gristmill.records.readers.sources import Source, SourceSpec, open_source
from gristmill.records.stores.digest import EDGE_BYTES, cached_digest, digest_content
from gristmill.records.stores.opening import open_store, read_bytes
from tests.inputs import CHANGES, NO_CHANGES

NUM_ROWS = 3000  # more than a block of lines, and several row groups


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GRISTMILL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def _parquet(path: Path) -> None:
    texts = [f"row {i} {hashlib.blake2b(str(i).encode()).hexdigest()}" for i in range(NUM_ROWS)]
    pq.write_table(pa.table({"text": texts}), path, row_group_size=500)


MAKERS: dict[str, Callable[[Path], object]] = {
    "rows.jsonl": lambda path: path.write_text("".join(f'{{"text": "row {i}"}}\n' for i in range(NUM_ROWS))),
    "rows.txt": lambda path: path.write_text("".join(f"row {i}\n" for i in range(NUM_ROWS))),
    "page.md": lambda path: path.write_text("# Page\n\nwith words\n" * 100),
    "rows.parquet": _parquet,
}


def one_line(error: pytest.ExceptionInfo[Any], path: object) -> str:
    text = str(error.value)
    assert text.count("\n") == 0 and str(path) in text and "changed since this run began" in text, text
    assert text.endswith("restore it or use a new --out")
    return text


def opened(folder: Path, file: str) -> tuple[Path, Source]:
    path = folder / "in" / file
    path.parent.mkdir()
    MAKERS[file](path)
    sample_by: Any = "document" if file.endswith(".md") else "line"
    return path, open_source(SourceSpec(path=str(path.parent), sample_by=sample_by))


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("file", MAKERS)
def test_a_source_that_changed_is_not_read(tmp_path: Path, file: str, change: str) -> None:
    path, source = opened(tmp_path, file)
    source.rows(0, 1)
    travelled = pickle.loads(pickle.dumps(source))
    CHANGES[change](path)
    for each in (source, travelled):
        with pytest.raises(UserError) as error:
            each.rows(0, each.num_rows)
        assert one_line(error, path).startswith("source ")
        with pytest.raises(UserError) as error:
            each.check()


@pytest.mark.parametrize("change", NO_CHANGES)
@pytest.mark.parametrize("file", MAKERS)
def test_the_same_bytes_are_no_change(tmp_path: Path, file: str, change: str) -> None:
    path, source = opened(tmp_path, file)
    rows, digest, content = source.rows(0, source.num_rows), source.digest(), source.content()
    NO_CHANGES[change](path)
    assert source.rows(0, source.num_rows) == rows
    source.check()
    again = open_source(SourceSpec(path=str(path.parent), sample_by="document" if file == "page.md" else "line"))
    assert again.digest() == digest and again.content() == content and again.version == source.version


@pytest.mark.parametrize("file", MAKERS)
def test_content_covers_the_middle_of_a_file(tmp_path: Path, file: str) -> None:
    path, source = opened(tmp_path, file)
    content, version = source.content(), source.version
    CHANGES["middle byte"](path)
    if file == "rows.parquet":  # its digest, which the fingerprint has, covers both ends
        assert path.stat().st_size > 2 * EDGE_BYTES
        again = open_source(SourceSpec(path=str(path.parent)))
        assert again.digest() == source.digest() and again.content() != content and again.version != version
    else:
        again = open_source(SourceSpec(path=str(path), sample_by="document" if file == "page.md" else "line"))
        assert again.digest() != source.digest()


def test_files_that_come_and_go(tmp_path: Path) -> None:
    path, source = opened(tmp_path, "rows.jsonl")
    (path.parent / "notes.pdf").write_text("no source")
    source.check()
    (path.parent / "more.jsonl").write_text("{}\n")
    with pytest.raises(UserError, match=r"more\.jsonl changed .* \(it was not there before\)") as error:
        source.check()
    one_line(error, "more.jsonl")
    (path.parent / "more.jsonl").unlink()
    path.unlink()
    with pytest.raises(UserError, match=r"it is no longer there"):
        source.check()


def test_a_write_during_a_reading(tmp_path: Path) -> None:
    path, source = opened(tmp_path, "rows.jsonl")
    pin = source.parts[0].pin
    assert pin is not None
    with pytest.raises(UserError, match="changed since"), pin.open() as file:
        file.read(10)
        CHANGES["middle byte"](path)
    with pytest.raises(UserError, match="changed since"), pin.open() as file:
        raise ValueError("as a parser of torn lines does")


READERS: dict[str, Callable[[Path], Any]] = {
    "bytes": lambda path: read_bytes(str(path)),
    "table": lambda path: read_table(DataSpec(str(path))),
    "folder of tables": lambda path: read_table(DataSpec(str(path.parent))),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("reader", READERS)
def test_inputs_are_pinned_at_their_first_reading(tmp_path: Path, reader: str, change: str) -> None:
    path = tmp_path / "in" / "rows.jsonl"
    path.parent.mkdir()
    MAKERS["rows.jsonl"](path)
    run = Pins()
    with active(run):
        before = READERS[reader](path)
        assert READERS[reader](path) == before
    worker = pickle.loads(pickle.dumps(run))
    CHANGES[change](path)
    with pytest.raises(UserError) as error, active(worker):
        READERS[reader](path)
    if change != "a link to nothing" or reader != "folder of tables":  # which a listing cannot read
        one_line(error, path)


@pytest.mark.parametrize("change", NO_CHANGES)
@pytest.mark.parametrize("reader", READERS)
def test_inputs_of_the_same_bytes(tmp_path: Path, reader: str, change: str) -> None:
    path = tmp_path / "in" / "rows.jsonl"
    path.parent.mkdir()
    MAKERS["rows.jsonl"](path)
    run = Pins()
    with active(run):
        before = READERS[reader](path)
    NO_CHANGES[change](path)
    with active(pickle.loads(pickle.dumps(run))):
        assert READERS[reader](path) == before


def test_a_change_between_reading_and_the_end_of_the_block(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    MAKERS["rows.jsonl"](path)
    with pytest.raises(UserError, match="changed since"), active(Pins()):
        read_bytes(str(path))
        CHANGES["appended"](path)
    with active(None):  # without a run nothing is pinned
        read_bytes(str(path))
        CHANGES["appended"](path)
        read_bytes(str(path))
        assert pins.current() is None


def test_large_files_are_read_once_for_their_digest(tmp_path: Path, cache: Path) -> None:
    path, store = tmp_path / "weights.bin", open_store(str(tmp_path))
    path.write_bytes(b"w" * (2 << 20))
    version = store.version(path.name)
    digest = digest_content(store, path.name, version)
    assert cached_digest(store, path.name, version) == digest and len(list((cache / "digests").iterdir())) == 1
    CHANGES["middle byte"](path)
    assert store.version(path.name) != version
    other = digest_content(store, path.name, store.version(path.name))
    assert other != digest and cached_digest(store, path.name, version) == digest
    for file in (cache / "digests").iterdir():
        file.write_text("torn")
    assert digest_content(store, path.name, store.version(path.name)) == other

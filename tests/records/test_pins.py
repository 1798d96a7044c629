"""A file that changes after it was read is noticed at the next reading, whatever changed it; the same bytes are not."""

import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gristmill.generators.chains.families.tabled import digest_of
from gristmill.jobs.release.mixture.files import read_chunk
from gristmill.jobs.release.mixture.parts import open_part
from gristmill.jobs.release.mixture.spec import PartSpec
from gristmill.records import pins
from gristmill.records.errors import Changed, InputChanged, UserError
from gristmill.records.pins import Pins, active
from gristmill.records.readers.datasets import DataSpec, read_table
from gristmill.records.readers.formats import ReadOptions
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


def source_in(folder: Path, file: str) -> tuple[Path, Source]:
    path = folder / "in" / file
    path.parent.mkdir()
    MAKERS[file](path)
    sample_by: Any = "document" if file.endswith(".md") else "line"
    return path, open_source(SourceSpec(path=str(path.parent), sample_by=sample_by))


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("file", MAKERS)
def test_a_source_that_changed_is_not_read(tmp_path: Path, file: str, change: str) -> None:
    path, source = source_in(tmp_path, file)
    source.rows(0, 1)
    unpickled = pickle.loads(pickle.dumps(source))
    CHANGES[change](path)
    for each in (source, unpickled):
        with pytest.raises(UserError) as error:
            each.rows(0, each.num_rows)
        assert one_line(error, path).startswith("source ")
        with pytest.raises(UserError) as error:
            each.check()


@pytest.mark.parametrize("change", NO_CHANGES)
@pytest.mark.parametrize("file", MAKERS)
def test_the_same_bytes_are_no_change(tmp_path: Path, file: str, change: str) -> None:
    path, source = source_in(tmp_path, file)
    rows, digest, content = source.rows(0, source.num_rows), source.digest(), source.content()
    NO_CHANGES[change](path)
    assert source.rows(0, source.num_rows) == rows
    source.check()
    again = open_source(SourceSpec(path=str(path.parent), sample_by="document" if file == "page.md" else "line"))
    assert again.digest() == digest and again.content() == content and again.version == source.version


@pytest.mark.parametrize("file", MAKERS)
def test_content_covers_the_middle_of_a_file(tmp_path: Path, file: str) -> None:
    path, source = source_in(tmp_path, file)
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
    path, source = source_in(tmp_path, "rows.jsonl")
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
    path, source = source_in(tmp_path, "rows.jsonl")
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


S3_CHANGES: dict[str, Callable[[Any, str, bytes], object]] = {
    "replaced at the same size": lambda store, name, data: store.put(name, data[:-9] + b"X" + data[-8:]),
    "appended": lambda store, name, data: store.put(name, data * 2),
    "emptied": lambda store, name, data: store.put(name, b""),
    "removed": lambda store, name, data: store.delete(name),
}


def check_source_on_s3(folder: str, file: str, data: bytes, change: str) -> None:
    store = open_store(folder)
    name = f"in/{file}"
    store.put(name, data)
    spec = SourceSpec(path=store.path("in"), sample_by="document" if file == "page.md" else "line")
    source = open_source(spec)
    assert source.parts[0].pin is not None and source.parts[0].pin.version == store.version(name)
    rows, content = source.rows(0, source.num_rows), source.content()
    store.put(name, data)  # the same bytes have the same tag
    assert source.rows(0, source.num_rows) == rows
    source.check()
    assert open_source(spec).content() == content
    S3_CHANGES[change](store, name, data)
    unpickled = pickle.loads(pickle.dumps(source))
    for read in (lambda: unpickled.rows(0, source.num_rows), source.check):
        with pytest.raises(UserError) as error:
            read()
        one_line(error, store.path(name))


def bytes_of(folder: Path, file: str) -> bytes:
    MAKERS[file](folder / file)
    return (folder / file).read_bytes()


@pytest.mark.parametrize(("file", "change"), [("rows.jsonl", "removed"), ("rows.parquet", "replaced at the same size")])
def test_a_source_on_s3(tmp_path: Path, s3: str, file: str, change: str) -> None:
    check_source_on_s3(f"{s3}/pins-{tmp_path.name}", file, bytes_of(tmp_path, file), change)


@pytest.mark.nightly
@pytest.mark.parametrize("change", S3_CHANGES)
@pytest.mark.parametrize("file", MAKERS)
def test_every_change_of_every_source_on_s3(tmp_path: Path, s3: str, file: str, change: str) -> None:
    check_source_on_s3(f"{s3}/pins-{tmp_path.name}", file, bytes_of(tmp_path, file), change)


def test_versions_on_s3(tmp_path: Path, s3: str) -> None:
    """A listing, a HEAD and each kind of reading name the same version, also of objects that were sent in parts."""
    store = open_store(f"{s3}/versions-{tmp_path.name}")
    for name, data in {"empty": b"", "small": b"s", "large": b"l" * (9 << 20)}.items():
        store.put(name, data)
    with store.filesystem()[0].open_output_stream(f"{store.filesystem()[1]}/parts") as sink:  # type: ignore[attr-defined]
        for _ in range(12):
            sink.write(b"p" * (1 << 20))
    for entry in store.list():
        assert entry.version == store.version(entry.name) and entry.version.startswith(f"{entry.size}-")
        data = store.read(entry.name, entry.version)
        with store.open(entry.name, entry.version) as file:
            assert file.read() == data and len(data) == entry.size
        other = f'{entry.size}-"{"0" * 32}"'
        for read in (store.read, store.open):
            with pytest.raises(Changed):
                read(entry.name, other if entry.size else "1-x")
    with pytest.raises(FileNotFoundError):
        store.version("nothing")


@pytest.mark.parametrize("change", ["middle byte", "removed"])
def test_packs_read_the_file_that_they_began_with(tmp_path: Path, change: str) -> None:
    for file in MAKERS:
        path = tmp_path / "in" / file.replace(".", "-") / file
        path.parent.mkdir(parents=True)
        MAKERS[file](path)
        part = open_part(PartSpec(path=str(path), name="p", origin="real", share=1.0))
        list(read_chunk(part.store, part.chunks[0], part.file_schema, ReadOptions()))
        CHANGES[change](path)
        with pytest.raises(UserError) as error:
            list(read_chunk(part.store, part.chunks[-1], part.file_schema, ReadOptions()))
        one_line(error, path)


def test_data_of_fits_studies_and_evaluations(tmp_path: Path) -> None:
    """`version_of` decides whether rows in memory are still those of the files."""
    path = tmp_path / "rows.jsonl"
    MAKERS["rows.jsonl"](path)
    data = DataSpec(str(path))
    first, run = digest_of(data), Pins()
    with active(run):
        assert digest_of(data) == first
    path.write_text(path.read_text().replace("row 7", "row 8"))
    assert digest_of(data) != first
    with pytest.raises(InputChanged), active(run):
        digest_of(data)

"""Reading jsonl.zst and folders of many files: rows for asks, and tables, beside a bare loop."""

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from gristmill.records.readers.file_tables import FileTables
from gristmill.records.readers.formats import ReadOptions
from gristmill.records.readers.places import find_files
from gristmill.records.readers.sources import SourceSpec, open_source

NUM_ROWS, NUM_WORDS = 30_000, 320  # about 2 KB a row, 60 MB
NUM_FILES = 3000
LOT = 1000
REPEATS = 3


def corpus(path: Path) -> int:
    """Write the rows; returns their bytes without compression."""
    import orjson

    random = np.random.default_rng(0)
    words = [random.integers(97, 123, random.integers(2, 10), np.uint8).tobytes().decode() for _ in range(20_000)]
    size = 0
    with pa.CompressedOutputStream(str(path), "zstd") as file:
        for number in range(NUM_ROWS):
            text = " ".join(words[at] for at in random.integers(0, len(words), NUM_WORDS))
            line = orjson.dumps({"id": number, "url": f"https://example.org/{number}", "text": text}) + b"\n"
            file.write(line)
            size += len(line)
    return size


def bare(path: Path) -> int:
    """The loop that a script would have: pyarrow decompresses, orjson decodes."""
    import orjson

    num_rows, rest = 0, b""
    with pa.CompressedInputStream(pa.OSFile(str(path)), "zstd") as stream:
        while chunk := stream.read(1 << 20):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                orjson.loads(line)
                num_rows += 1
    return num_rows


def measured(work: Callable[[], int]) -> float:
    """CPU seconds of the fastest of three runs; each reads all rows."""
    seconds = []
    for _ in range(REPEATS):
        began = time.process_time()
        assert work() == NUM_ROWS
        seconds.append(time.process_time() - began)
    return min(seconds)


def bench() -> Iterator[dict[str, Any]]:
    pa.set_cpu_count(1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl.zst"
        size = corpus(path)
        source = open_source(SourceSpec(path=str(path)))

        def rows() -> int:
            return sum(len(source.rows(at, at + LOT)) for at in range(0, NUM_ROWS, LOT))

        def tables() -> int:
            file = FileTables(find_files(str(path)).files[0], ReadOptions())
            return sum(table.num_rows for table in file.batches())

        limit = measured(lambda: bare(path))
        for name, work in (("lots of a source", rows), ("tables", tables)):
            seconds = measured(work)
            yield {
                "what": f"read jsonl.zst as {name}, MB/s of text a core",
                "value": f"{size / seconds / 1e6:,.0f}",
                "peer": f"pyarrow and orjson, bare loop: {size / limit / 1e6:,.0f}",
                "ratio": limit / seconds,
                "target": ">= 0.8",
            }
        began = time.process_time()
        open_source(SourceSpec(path=str(path)))
        seconds = time.process_time() - began
        yield {"what": "count and digest jsonl.zst, MB/s of text a core", "value": f"{size / seconds / 1e6:,.0f}"}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(NUM_FILES):
            (Path(folder) / f"part-{number:05d}.jsonl").write_text(f'{{"text": "row {number}"}}\n' * 5)
        open_source(SourceSpec(path=folder))
        began = time.monotonic()
        open_source(SourceSpec(path=folder))
        seconds = time.monotonic() - began
        yield {"what": f"open a folder of {NUM_FILES:,} files, s", "value": f"{seconds:.2f}", "target": "< 1"}

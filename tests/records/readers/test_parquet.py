"""Reading Parquet leaves no thread behind that could kill the process at its end."""

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gristmill.records.readers.parquet import batches_of, open_parquet, read_parquet

NUM_PROCESSES = 8  # one such process in two died of SIGABRT when pyarrow read ahead on its own threads
PROGRAM = """
import io, sys
import pyarrow as pa
from gristmill.records.readers.parquet import read_parquet
file = pa.PythonFile(io.BytesIO(open(sys.argv[1], "rb").read()), "r")
print(read_parquet(file, ["id", "text"]).slice(0, 1).to_pylist())
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rows.parquet"
    ids = list(range(3000))
    pq.write_table(pa.table({"id": ids, "text": ["a b c" * 50] * 3000, "more": ids}), path, write_page_checksum=True)
    return path


def test_a_process_that_has_read_ends_well(file: Path) -> None:
    for _ in range(NUM_PROCESSES):
        done = subprocess.run([sys.executable, "-c", PROGRAM, str(file)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        assert "'id': 0" in done.stdout


def test_columns_and_batches(file: Path) -> None:
    assert read_parquet(file).column_names == ["id", "text", "more"]
    assert read_parquet(file, ["more", "id"]).num_rows == 3000
    with open_parquet(file) as opened:
        assert sum(batch.num_rows for batch in batches_of(opened)) == 3000


def test_a_page_that_was_altered_is_found(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[60] ^= 0xFF
    file.write_bytes(data)
    with pytest.raises((pa.ArrowInvalid, OSError)):
        read_parquet(file)

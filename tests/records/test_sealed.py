"""Every byte of a sealed file is proven: no altered file gives other rows."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.records.readers.parquet import BadParquet, open_parquet, read_metadata, read_parquet
from gristmill.records.sealed import Altered, data_sha256, write_sealed

ROWS = pa.table(
    {
        "id": [f"{i:032x}" for i in range(4000)],
        "text": [f"row {i}: " + f"{i * 2654435761 % 2**64:064b}" * 4 for i in range(4000)],
        "noise": pa.array([i * 7919 % 10007 for i in range(4000)], pa.int64()),
    }
)
FILE = write_sealed(ROWS, 1000, {b"facts": b'{"sum": "%DATA_SHA256%"}'}, compression="zstd", use_dictionary=False)
DAMAGED = (Altered, BadParquet)


def test_others_read_it_and_it_gives_the_same_bytes() -> None:
    assert pq.read_table(io.BytesIO(FILE)).equals(ROWS) and read_parquet(FILE).equals(ROWS)
    again = write_sealed(ROWS, 1000, {b"facts": b'{"sum": "%DATA_SHA256%"}'}, compression="zstd", use_dictionary=False)
    assert again == FILE
    assert data_sha256(FILE).encode() in (read_metadata(FILE).metadata or {})[b"facts"]


@given(st.integers(0, len(FILE) - 1), st.integers(1, 255))
def test_one_altered_byte_is_found(at: int, change: int) -> None:
    data = bytearray(FILE)
    data[at] ^= change
    with pytest.raises(DAMAGED):
        read_parquet(bytes(data))


@given(st.data())
def test_an_altered_footer_is_found_without_reading_rows(draw: st.DataObject) -> None:
    start = len(FILE) - 8 - int.from_bytes(FILE[-8:-4], "little")
    data = bytearray(FILE)
    data[draw.draw(st.integers(start, len(FILE) - 1))] ^= draw.draw(st.integers(1, 255))
    with pytest.raises(DAMAGED):
        read_metadata(bytes(data))


@given(st.integers(0, len(FILE)), st.integers(0, len(FILE)))
def test_a_file_that_was_cut_is_found(start: int, stop: int) -> None:
    if (data := FILE[:start] + FILE[stop:]) != FILE:
        with pytest.raises(DAMAGED):
            read_parquet(data)


def test_a_column_is_proven_by_the_blocks_around_it() -> None:
    """Damage elsewhere does not hinder what does not need it, and damage here is found."""
    numbers = np.arange(200_000)
    rows = pa.table({"a": numbers, "b": numbers * 7919})
    whole = write_sealed(rows, 50_000, compression="none", use_dictionary=False)
    chunk = pq.read_metadata(io.BytesIO(whole)).row_group(3).column(1)
    elsewhere, here = bytearray(whole), bytearray(whole)
    elsewhere[10] ^= 1
    here[chunk.data_page_offset + 3000] ^= 1
    with open_parquet(bytes(elsewhere)) as file:
        assert file.read_row_group(3, ["b"]).equals(rows.slice(150_000).select(["b"]))
        with pytest.raises(Altered):
            file.read_row_group(0)
    with open_parquet(bytes(here)) as file:
        assert file.read_row_group(0).equals(rows.slice(0, 50_000))
        with pytest.raises(Altered):
            file.read_row_group(3, ["b"])


def test_many_blocks() -> None:
    rows = pa.table({"blob": [i.to_bytes(4, "little") * (64 << 10) for i in range(100)]})
    data = write_sealed(rows, compression="none", use_dictionary=False)
    assert len(data) > 256 * (64 << 10) and read_parquet(data).equals(rows)
    altered = bytearray(data)
    altered[len(data) // 2] ^= 1
    with pytest.raises(BadParquet, match="altered"):
        read_parquet(bytes(altered))


def test_tables_in_row_groups_of_their_own() -> None:
    data = write_sealed(ROWS.slice(at, 1500) for at in (0, 1500, 3000))
    assert read_metadata(data).num_row_groups == 3 and read_parquet(data).equals(ROWS)

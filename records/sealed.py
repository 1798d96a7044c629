"""Checksums inside a Parquet file, which cover every byte of it.

The bytes before the footer are divided into blocks, and the footer holds a digest of each (BLAKE2b, 8 bytes). So any
part of a file can be proven by reading the blocks around it. The footer holds a digest of itself (SHA-256) in place of
zeros, over which it was computed. The checksums of Parquet's own pages do not cover headers and footers.
"""

import hashlib
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import pyarrow as pa

from gristmill.records.stores.ranges import RangeFile

SEAL_KEY = b"gristmill.seal"
MARK = b'"footer_sha256": "'
DIGEST_CHARS = 64
BLOCK_CHARS = 16
MIN_BLOCK_BYTES, MAX_BLOCKS = 64 << 10, 256
MAGIC = b"PAR1"
TAIL_BYTES = 8  # the length of the footer, and the magic


class Altered(OSError):
    """A file whose bytes differ from those that were written. The message states which."""


def write_sealed(
    tables: pa.Table | Iterable[pa.Table],
    row_group_rows: int | None = None,
    metadata: Mapping[bytes, bytes] | None = None,
    **options: Any,
) -> bytes:
    """A table as sealed Parquet, or tables of one schema, each in row groups of its own.

    The same rows give the same bytes. `metadata` goes into the footer, with the first b"%DATA_SHA256%" of a value
    replaced by the hex digest of all bytes before the footer. `options` are those of `pyarrow.parquet.ParquetWriter`.
    """
    import pyarrow.parquet as pq

    sink, rest = io.BytesIO(), iter([tables] if isinstance(tables, pa.Table) else tables)
    first = next(rest)
    schema, rest = first.schema, chain([first], rest)
    del first  # a table is not held while the next is made
    with pq.ParquetWriter(sink, schema, write_page_checksum=True, **options) as writer:
        for table in rest:
            writer.write_table(table, row_group_size=row_group_rows)
            del table
        with sink.getbuffer() as data:
            block_bytes = MIN_BLOCK_BYTES
            while len(data) > block_bytes * MAX_BLOCKS:
                block_bytes *= 2
            blocks = "".join(_block(data[at : at + block_bytes]) for at in range(0, len(data), block_bytes))
            sha256 = hashlib.sha256(data).hexdigest().encode()
        seal = {"block_bytes": block_bytes, "blocks": blocks, "footer_sha256": "0" * DIGEST_CHARS}
        entries = {key: value.replace(b"%DATA_SHA256%", sha256, 1) for key, value in (metadata or {}).items()}
        writer.add_key_value_metadata({**entries, SEAL_KEY: json.dumps(seal).encode()})
    whole = sink.getbuffer()
    start = _footer_start(whole)
    footer = bytes(whole[start:])
    at = footer.rindex(MARK) + len(MARK)
    whole[start + at : start + at + DIGEST_CHARS] = hashlib.sha256(footer).hexdigest().encode()
    whole.release()
    return sink.getvalue()  # shares the buffer, where a view of it would be copied


@dataclass(frozen=True)
class _Seal:
    block_bytes: int
    blocks: str
    data_bytes: int


def verified(source: pa.NativeFile) -> pa.NativeFile | None:
    """A view of a sealed file that proves what is read from it; None for a file without a seal.

    Raises Altered at once for an altered footer, and when an altered part is read.
    """
    size = source.size()
    tail = source.read_at(min(TAIL_BYTES, size), max(0, size - TAIL_BYTES))
    num_footer_bytes = TAIL_BYTES + int.from_bytes(tail[:4], "little")
    if len(tail) < TAIL_BYTES or tail[4:] != MAGIC or num_footer_bytes > size:
        return None  # not Parquet, or no longer: its reader says so
    footer = source.read_at(num_footer_bytes, size - num_footer_bytes)
    seal = _seal(footer, size - num_footer_bytes)
    if seal is None:
        return None

    def fetch(start: int, stop: int) -> bytes:
        """The bytes between, proven: whole blocks are read, and compared with their digests."""
        first, last = start // seal.block_bytes, -(-stop // seal.block_bytes)
        begin, end = first * seal.block_bytes, min(last * seal.block_bytes, seal.data_bytes)
        data = source.read_at(end - begin, begin)
        for number in range(first, last):
            at = (number - first) * seal.block_bytes
            digest = seal.blocks[number * BLOCK_CHARS : (number + 1) * BLOCK_CHARS]
            if _block(memoryview(data)[at : at + seal.block_bytes]) != digest:
                raise _altered(begin + at)
        return data[start - begin : stop - begin]

    return pa.PythonFile(RangeFile(fetch, size, footer), "r")


def check_whole(data: bytes) -> None:
    """Raise Altered unless `data` is a sealed file, every byte as it was written."""
    if not is_whole(data):
        raise Altered("altered after it was written (its checksums cannot be read)")


def is_whole(data: bytes) -> bool:
    """Whether the file is sealed, every byte as it was written. Raises Altered if it is sealed and was altered."""
    num_footer_bytes = TAIL_BYTES + int.from_bytes(data[-TAIL_BYTES:-4], "little")
    if len(data) < TAIL_BYTES or data[-4:] != MAGIC or num_footer_bytes > len(data):
        return False
    seal = _seal(data[-num_footer_bytes:], len(data) - num_footer_bytes)
    if seal is None:
        return False
    whole = memoryview(data)
    for number, at in enumerate(range(0, seal.data_bytes, seal.block_bytes)):
        block = whole[at : min(at + seal.block_bytes, seal.data_bytes)]
        if _block(block) != seal.blocks[number * BLOCK_CHARS : (number + 1) * BLOCK_CHARS]:
            raise _altered(at)
    return True


def _altered(at: int) -> Altered:
    return Altered(f"altered after it was written (bytes from {at:,} do not match their checksum)")


def _seal(footer: bytes, data_bytes: int) -> _Seal | None:
    """The seal in a footer, proven. Raises Altered when the footer does not match its digest."""
    at = footer.rfind(MARK)
    if at < 0:
        return None
    start, stop = at + len(MARK), at + len(MARK) + DIGEST_CHARS
    zeroed = footer[:start] + b"0" * DIGEST_CHARS + footer[stop:]
    if hashlib.sha256(zeroed).hexdigest().encode() != footer[start:stop]:
        raise Altered("altered after it was written (its footer does not match its checksum)")
    opening = footer.rindex(b'{"block_bytes": ', 0, at)
    literals = json.loads(footer[opening : footer.index(b"}", at) + 1])
    return _Seal(literals["block_bytes"], literals["blocks"], data_bytes)


def _block(data: memoryview | bytes) -> str:
    return hashlib.blake2b(data, digest_size=BLOCK_CHARS // 2).hexdigest()


def _footer_start(whole: memoryview) -> int:
    return len(whole) - TAIL_BYTES - int.from_bytes(whole[-TAIL_BYTES:-4], "little")


def data_sha256(whole: bytes) -> str:
    """sha256 of the bytes of a Parquet file before its footer."""
    view = memoryview(whole)
    return hashlib.sha256(view[: _footer_start(view)]).hexdigest()

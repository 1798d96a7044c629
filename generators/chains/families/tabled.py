"""Chains of tables: each generation is a unit of work of its own."""

from collections.abc import Sequence
from functools import lru_cache
from typing import ClassVar

import numpy as np
import pyarrow as pa

from gristmill.generators.chains.contract import ChainFamily, Piece, weights_of
from gristmill.records.readers.datasets import DataSpec, digest_table, read_table, version_of
from gristmill.records.readers.parquet import read_parquet
from gristmill.records.sealed import write_sealed


class TableChain(ChainFamily):
    """Base class of families whose rows are Arrow tables."""

    block: ClassVar[int] = 1
    is_light: ClassVar[bool] = False

    def count(self, rows: pa.Table) -> int:
        return int(rows.num_rows)

    def head(self, rows: pa.Table, num: int) -> pa.Table:
        return rows.slice(0, num)

    def select(self, rows: pa.Table, keep: np.ndarray) -> pa.Table:
        return rows.filter(pa.array(keep))

    def concat(self, parts: Sequence[pa.Table]) -> pa.Table:
        return pa.concat_tables(parts)

    def table(self, rows: pa.Table) -> pa.Table:
        return rows

    def to_bytes(self, rows: pa.Table) -> bytes:
        return write_sealed(rows, compression="zstd")

    def from_bytes(self, data: bytes) -> pa.Table:
        return read_parquet(data)


def digest_of(data: DataSpec) -> str:
    """Digest of the rows, whatever their path."""
    return _digest_of(data, version_of(data))


@lru_cache(maxsize=16)  # every cell of a study reads the same data
def _digest_of(data: DataSpec, version: str) -> str:
    return digest_table(read_table(data))


def mix_pieces(pieces: Sequence[Piece], random: np.random.Generator) -> pa.Table:
    """The rows of all pieces, for models that take no weights: unequal weights become a draw with replacement."""
    parts = []
    for piece in pieces:
        whole = pa.concat_tables(piece.batches)
        parts.append(whole if piece.rows is None else whole.take(pa.array(piece.rows[0])))
    rows = pa.concat_tables(parts).combine_chunks()
    weights = weights_of(pieces)
    if weights.min() != weights.max():
        rows = rows.take(pa.array(random.choice(len(weights), len(weights), p=weights / weights.sum())))
    return rows

"""Exact duplicates of kept rows over chosen columns, in the same index as texts (see stages/dedup/contract.py)."""

import hashlib
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.stages.contract import Findings
from gristmill.stages.dedup.contract import DUPLICATE_OF, Duplicates, IndexSpec

NUM_BYTES = 16


@dataclass(frozen=True, kw_only=True)
class DedupRowsSpec(IndexSpec):
    """Keys of the stage `dedup_rows`."""

    # Columns that make two rows duplicates if all are equal; null equals null, and -0.0 equals 0.0.
    columns: tuple[str, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.columns or len(set(self.columns)) != len(self.columns):
            raise ValueError("columns must name the columns to compare, each once")


class DedupRows(Duplicates):
    """Adds `row_hash`, 128 bits, and `duplicate_of`.

    It has one band, whose key is the first half of the hash. Among a billion kept rows, a fresh row counts as a
    duplicate with a chance of 5e-11.
    """

    kind: ClassVar[str] = "dedup_rows"
    Spec: ClassVar[type] = DedupRowsSpec
    reads_text: ClassVar[bool] = False
    signature: ClassVar[str] = "row_hash"
    signature_source: ClassVar[str] = "columns"

    def columns(self) -> list[pa.Field]:
        return [pa.field(self.signature, pa.binary(NUM_BYTES)), DUPLICATE_OF]

    def reads(self) -> list[str]:
        return list(self.spec.columns)

    @property
    def bands(self) -> int:
        return 1

    def find(self, rows: pa.RecordBatch) -> Findings:
        hashes = row_hashes(rows.select(list(self.spec.columns)))
        columns = {
            self.signature: pa.array(hashes, pa.binary(NUM_BYTES)),
            DUPLICATE_OF.name: pa.nulls(len(hashes), pa.string()),
        }
        return Findings(columns)

    def probe(self) -> np.ndarray:
        return self.keys(pa.array([bytes(range(NUM_BYTES))], pa.binary(NUM_BYTES)))

    def keys(self, column: Any) -> np.ndarray:
        parts = [(value or bytes(NUM_BYTES))[:8] for value in column.to_pylist()]
        return np.frombuffer(b"".join(parts), "<u8").astype(np.uint64).reshape(-1, 1)


def row_hashes(rows: pa.RecordBatch) -> list[bytes]:
    """A hash of 16 bytes for each row over its values, column by column; it does not depend on the batch."""
    columns = []
    for column in rows.columns:
        if pa.types.is_floating(column.type):
            column = pc.add(column, pa.scalar(0.0, column.type))  # -0.0 becomes 0.0
        columns.append(column.to_pylist())
    return [hashlib.blake2b(repr(values).encode(), digest_size=NUM_BYTES).digest() for values in zip(*columns)]

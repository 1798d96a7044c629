"""Exact duplicates of rows already kept, over the columns that count, in the same index (see stages.dedup.contract)."""

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
    """Rows that are equal in all of `columns` are duplicates; missing equals missing, and -0.0 equals 0.0."""

    columns: tuple[str, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.columns or len(set(self.columns)) != len(self.columns):
            raise ValueError("columns must name the columns that make a row, each once")


class DedupRows(Duplicates):
    """Adds `row_hash`, 128 bits, and `duplicate_of`. One band, whose key is the first half of the hash: among a billion
    kept rows a fresh one is called a duplicate with a chance of 5e-11."""

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
    """16 bytes a row over its values, column by column; the same whatever the batch that it stands in."""
    columns = []
    for column in rows.columns:
        if pa.types.is_floating(column.type):
            column = pc.add(column, pa.scalar(0.0, column.type))  # -0.0 becomes 0.0
        columns.append(column.to_pylist())
    return [hashlib.blake2b(repr(values).encode(), digest_size=NUM_BYTES).digest() for values in zip(*columns)]

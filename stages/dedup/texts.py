"""Near-duplicates of kept texts by MinHash: signatures here, verdicts at commit (see stages/dedup/contract.py)."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from gristmill.stages.contract import Findings
from gristmill.stages.dedup import minhash
from gristmill.stages.dedup.contract import DUPLICATE_OF, Duplicates, IndexSpec


@dataclass(frozen=True)
class DedupSpec(IndexSpec):
    """Keys of the stage `dedup`."""

    # Jaccard similarity of word n-grams from which two texts are duplicates, about; 0 to 1, both excluded.
    threshold: float = 0.8
    # Number of MinHash permutations, 16 to 4096; more make the threshold sharper and signatures longer.
    num_perm: int = 128
    ngram: int = 5  # Words in an n-gram, 1 to 1000; 5 is usual for documents, shorter texts need fewer.
    column: str = "text"  # Column with the text.

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.threshold < 1:
            raise ValueError(f"threshold must lie between 0 and 1, not {self.threshold}")
        if not 16 <= self.num_perm <= 4096:
            raise ValueError(f"num_perm must lie in 16 to 4096, not {self.num_perm}")
        if not 1 <= self.ngram <= 1000:
            raise ValueError(f"ngram must lie in 1 to 1000, not {self.ngram}")
        if not self.column:
            raise ValueError("column must name the text column")


class Dedup(Duplicates):
    """Adds `minhash`, uint32 [num_perm], and `duplicate_of`: null until the lot commits, then the id of a kept row."""

    kind: ClassVar[str] = "dedup"
    revision: ClassVar[int] = 2  # 2: words and normal form of every script; texts without words equal only their like
    Spec: ClassVar[type] = DedupSpec
    signature: ClassVar[str] = "minhash"
    signature_source: ClassVar[str] = "text"

    def __init__(self, spec: Any, name: str | None = None) -> None:
        super().__init__(spec, name)
        self._minhash = pa.list_(pa.uint32(), spec.num_perm)

    def columns(self) -> list[pa.Field]:
        return [pa.field("minhash", self._minhash), DUPLICATE_OF]

    def reads(self) -> list[str]:
        return [self.spec.column]

    @property
    def bands(self) -> int:
        """Number of bands, chosen by datasketch for the threshold. Raises ValueError if it is a single band."""
        return minhash.optimal_bands(self.spec.threshold, self.spec.num_perm)[0]

    @property
    def rows(self) -> int:
        """Number of permutations in a band."""
        return minhash.optimal_bands(self.spec.threshold, self.spec.num_perm)[1]

    def check(self) -> None:
        from gristmill.records.errors import UserError

        try:
            minhash.optimal_bands(self.spec.threshold, self.spec.num_perm)
        except ValueError:
            keys = f"threshold {self.spec.threshold} with {self.spec.num_perm} permutations"
            raise UserError(f"{self.name}: {keys} leaves one band; lower the threshold or raise num_perm") from None

    def open(self) -> None:
        minhash.signatures(pa.array(["compile or load the kernels before the first lot"]), 16)

    def find(self, rows: pa.RecordBatch) -> Findings:
        signatures = minhash.signatures(rows.column(self.spec.column), self.spec.num_perm, self.spec.ngram)
        column = pa.FixedSizeListArray.from_arrays(pa.array(signatures.reshape(-1)), type=self._minhash)
        return Findings({"minhash": column, "duplicate_of": pa.nulls(len(signatures), pa.string())})

    def probe(self) -> np.ndarray:
        signature = np.arange(self.spec.num_perm, dtype=np.uint32).reshape(1, -1)
        return minhash.band_keys(signature, self.bands, self.rows)

    def keys(self, column: Any) -> np.ndarray:
        if isinstance(column, pa.ChunkedArray):
            parts = [self.keys(chunk) for chunk in column.chunks]
            return np.concatenate(parts) if parts else np.zeros((0, self.bands), np.uint64)
        # flatten, unlike values, respects slices and skips what lies under nulls.
        flat = column.flatten().to_numpy().reshape(-1, self.spec.num_perm)
        valid_keys = minhash.band_keys(flat, self.bands, self.rows)
        if not column.null_count:
            return valid_keys
        keys = np.zeros((len(column), self.bands), np.uint64)
        keys[column.is_valid().to_numpy(zero_copy_only=False)] = valid_keys
        return keys

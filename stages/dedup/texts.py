"""Near-duplicates of texts already kept, by MinHash: signatures here, verdicts at commit (see
stages.dedup.contract)."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from gristmill.stages.contract import Findings
from gristmill.stages.dedup import minhash
from gristmill.stages.dedup.contract import DUPLICATE_OF, Duplicates, IndexSpec


@dataclass(frozen=True)
class DedupSpec(IndexSpec):
    """Rows whose word n-grams have a Jaccard similarity of about `threshold` or more are duplicates."""

    threshold: float = 0.8
    num_perm: int = 128
    ngram: int = 5
    column: str = "text"

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
    """Adds `minhash`, uint32 [num_perm], and `duplicate_of`, null until the lot commits: the id of a kept row."""

    kind: ClassVar[str] = "dedup"
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
        """Number of bands, chosen by datasketch for the threshold; raises ValueError where one band would be all."""
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
            asked = f"threshold {self.spec.threshold} with {self.spec.num_perm} permutations"
            raise UserError(f"{self.name}: {asked} leaves one band; lower the threshold or raise num_perm") from None

    def open(self) -> None:
        minhash.signatures(pa.array(["compile or load the kernels before the first lot"]), 16)

    def find(self, rows: pa.RecordBatch) -> Findings:
        signed = minhash.signatures(rows.column(self.spec.column), self.spec.num_perm, self.spec.ngram)
        column = pa.FixedSizeListArray.from_arrays(pa.array(signed.reshape(-1)), type=self._minhash)
        return Findings({"minhash": column, "duplicate_of": pa.nulls(len(signed), pa.string())})

    def probe(self) -> np.ndarray:
        signature = np.arange(self.spec.num_perm, dtype=np.uint32).reshape(1, -1)
        return minhash.band_keys(signature, self.bands, self.rows)

    def keys(self, column: Any) -> np.ndarray:
        if isinstance(column, pa.ChunkedArray):
            parts = [self.keys(chunk) for chunk in column.chunks]
            return np.concatenate(parts) if parts else np.zeros((0, self.bands), np.uint64)
        # flatten, unlike values, heeds slices and leaves out what lies under nulls.
        flat = column.flatten().to_numpy().reshape(-1, self.spec.num_perm)
        made = minhash.band_keys(flat, self.bands, self.rows)
        if not column.null_count:
            return made
        keys = np.zeros((len(column), self.bands), np.uint64)
        keys[column.is_valid().to_numpy(zero_copy_only=False)] = made
        return keys

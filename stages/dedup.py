"""Near-duplicates of rows already kept: signatures here, verdicts at commit.

The stage only computes; which row duplicates which is known when lots commit in their order (see stages.bandindex),
and so does not depend on which worker was first.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa

from stages import minhash
from stages.contract import Found, Stage

if TYPE_CHECKING:
    from stages.bandindex import BandIndex
    from stages.bloomindex import BloomIndex

# What stands after the colon in `reject`: like the kept row that duplicate_of names; like one that cannot be named.
DUPLICATE, PROBABLE = "duplicate", "probable_duplicate"
MIN_BLOOM_ERROR, MAX_BLOOM_ERROR = 1e-9, 0.1
MAX_BLOOM_ROWS = 10**12


@dataclass(frozen=True)
class Spec:
    """Rows whose word n-grams have a Jaccard similarity of about `threshold` or more are duplicates.

    With `index = "bloom"` the index takes an eighth of the memory and cannot tell which earlier row a row is like; at
    `bloom_rows` kept rows it takes a fresh row for a duplicate with the chance `bloom_error`.
    """

    threshold: float = 0.8
    num_perm: int = 128
    ngram: int = 5
    column: str = "text"
    index: Literal["exact", "bloom"] = "exact"
    bloom_rows: int | None = None
    bloom_error: float | None = None

    def __post_init__(self) -> None:
        self._check_index()
        if not 0 < self.threshold < 1:
            raise ValueError(f"threshold must lie between 0 and 1, not {self.threshold}")
        if not 16 <= self.num_perm <= 4096:
            raise ValueError(f"num_perm must lie in 16 to 4096, not {self.num_perm}")
        if not 1 <= self.ngram <= 1000:
            raise ValueError(f"ngram must lie in 1 to 1000, not {self.ngram}")
        if not self.column:
            raise ValueError("column must name the text column")

    def _check_index(self) -> None:
        if self.index == "exact":
            if self.bloom_rows is not None or self.bloom_error is not None:
                raise ValueError('bloom_rows and bloom_error go with index = "bloom"')
            return
        if self.bloom_rows is None or self.bloom_error is None:
            raise ValueError(
                'index = "bloom" needs bloom_rows, the most rows you expect to keep, and bloom_error, the chance that '
                "a fresh row is then called a duplicate (say 0.001)"
            )
        if not 1 <= self.bloom_rows <= MAX_BLOOM_ROWS:
            raise ValueError(f"bloom_rows must lie in 1 to {MAX_BLOOM_ROWS}")
        if not MIN_BLOOM_ERROR <= self.bloom_error <= MAX_BLOOM_ERROR:
            raise ValueError(f"bloom_error must lie in {MIN_BLOOM_ERROR:g} to {MAX_BLOOM_ERROR:g}")


class Dedup(Stage):
    """Adds `minhash`, uint32 [num_perm], and `duplicate_of`, null until the lot commits: the id of a kept row."""

    kind = "dedup"
    Spec = Spec

    def __init__(self, spec: Any, name: str | None = None) -> None:
        super().__init__(spec, name)
        self._minhash = pa.list_(pa.uint32(), spec.num_perm)

    def columns(self) -> list[pa.Field]:
        return [pa.field("minhash", self._minhash), pa.field("duplicate_of", pa.string())]

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

    @property
    def is_exact(self) -> bool:
        """Whether every duplicate names its kept row, and only MinHash itself errs."""
        return bool(self.spec.index == "exact")

    def new_index(self, num_bands: int) -> "BandIndex | BloomIndex":
        """An empty index of so many of this stage's bands."""
        if self.is_exact:
            from stages.bandindex import BandIndex

            return BandIndex(num_bands)
        from stages.bloomindex import BloomIndex

        return BloomIndex(num_bands, self.spec.bloom_rows, self.spec.bloom_error, self.bands)

    def error_at(self, num_rows: int) -> float:
        """The chance that a fresh row is called a duplicate by the index alone when `num_rows` rows are in it."""
        from stages import bloomindex

        if self.is_exact:
            return 0.0
        bits, num_hashes = bloomindex.shape(self.spec.bloom_error, self.bands)
        return bloomindex.over_bands(
            bloomindex.key_error(bits * self.spec.bloom_rows / num_rows, num_hashes), self.bands
        )

    def check(self) -> None:
        from records.errors import UserError

        try:
            minhash.optimal_bands(self.spec.threshold, self.spec.num_perm)
        except ValueError:
            asked = f"threshold {self.spec.threshold} with {self.spec.num_perm} permutations"
            raise UserError(f"{self.name}: {asked} leaves one band; lower the threshold or raise num_perm") from None

    def open(self) -> None:
        minhash.signatures(pa.array(["compile or load the kernels before the first lot"]), 16)

    def find(self, rows: pa.RecordBatch) -> Found:
        signed = minhash.signatures(rows.column(self.spec.column), self.spec.num_perm, self.spec.ngram)
        column = pa.FixedSizeListArray.from_arrays(pa.array(signed.reshape(-1)), type=self._minhash)
        return Found({"minhash": column, "duplicate_of": pa.nulls(len(signed), pa.string())})

    def keys(self, minhash_column: Any) -> np.ndarray:
        """Band keys of a stored `minhash` column, chunked or not: uint64 (n, bands); rows that are null get zeros."""
        if isinstance(minhash_column, pa.ChunkedArray):
            parts = [self.keys(chunk) for chunk in minhash_column.chunks]
            return np.concatenate(parts) if parts else np.zeros((0, self.bands), np.uint64)
        # flatten, unlike values, heeds slices and leaves out what lies under nulls.
        flat = minhash_column.flatten().to_numpy().reshape(-1, self.spec.num_perm)
        made = minhash.band_keys(flat, self.bands, self.rows)
        if not minhash_column.null_count:
            return made
        keys = np.zeros((len(minhash_column), self.bands), np.uint64)
        keys[minhash_column.is_valid().to_numpy(zero_copy_only=False)] = made
        return keys

"""What stages that look for duplicates of kept rows share: they sign rows, and the verdict comes at commit.

Which row duplicates which is known when lots commit in their order (see stages.dedup.bandindex), and so does not
depend on
which worker was first. A signature becomes some 64-bit keys, one a band: a row is a duplicate when any of them is that
of a row kept before it.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa

from gristmill.stages.contract import Stage

if TYPE_CHECKING:
    from gristmill.stages.dedup.bandindex import BandIndex
    from gristmill.stages.dedup.bloomindex import BloomIndex
    from gristmill.stages.dedup.nearindex import NearIndex

# What stands after the colon in `reject`: like the kept row that duplicate_of names; like one that cannot be named.
DUPLICATE, PROBABLE = "duplicate", "probable_duplicate"
DUPLICATE_OF = pa.field("duplicate_of", pa.string())
MIN_BLOOM_ERROR, MAX_BLOOM_ERROR = 1e-9, 0.1
MAX_BLOOM_ROWS = 10**12


@dataclass(frozen=True, kw_only=True)
class IndexSpec:
    """How the kept rows are remembered.

    With `index = "bloom"` the index takes an eighth of the memory and cannot tell which earlier row a row is like; at
    `bloom_rows` kept rows it takes a fresh row for a duplicate with the chance `bloom_error`.
    """

    index: Literal["exact", "bloom"] = "exact"
    bloom_rows: int | None = None
    bloom_error: float | None = None

    def __post_init__(self) -> None:
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


class Duplicates(Stage):
    """Base of these stages. Subclasses name their signature's column, fill it in `find`, and make keys of it.

    A row that is alive after `find` must have a signature: rows without one would be duplicates of each other.
    """

    signature: ClassVar[str]  # the column
    signature_source: ClassVar[str]  # what it is a signature of, in words
    is_divisible: ClassVar[bool] = True  # whether each band is looked up by itself, so that actors can share them
    spec: Any

    @property
    @abstractmethod
    def bands(self) -> int:
        """Number of keys of a row."""

    @abstractmethod
    def keys(self, column: Any) -> np.ndarray:
        """Band keys of a stored signature column, chunked or not: uint64 (n, bands); rows that are null get zeros."""

    @abstractmethod
    def probe(self) -> np.ndarray:
        """The keys of a fixed signature: other ways to make keys give other ones (see cluster.index.snapshots)."""

    @property
    def is_exact(self) -> bool:
        """Whether every duplicate names its kept row, and only MinHash itself errs."""
        return bool(self.spec.index == "exact")

    def exact_index(self, num_bands: int) -> "BandIndex | NearIndex":
        """An empty index of so many of this stage's bands that can name the owner of each."""
        from gristmill.stages.dedup.bandindex import BandIndex

        return BandIndex(num_bands)

    def resolve(self, keys: np.ndarray, found: np.ndarray, alive: np.ndarray, first_owner: int) -> np.ndarray:
        """Verdicts on the rows of lots that are claimed together (see gristmill.stages.dedup.bandindex.resolve)."""
        from gristmill.stages.dedup.bandindex import resolve

        return resolve(keys, found, alive, first_owner)

    def agree(self, stored: pa.Array, anew: pa.Array) -> bool:
        """Whether a shard's signatures are those that the same rows get here."""
        return bool(anew.equals(stored))

    def new_index(self, num_bands: int) -> "BandIndex | BloomIndex | NearIndex":
        """An empty index of so many of this stage's bands."""
        if self.is_exact:
            return self.exact_index(num_bands)
        from gristmill.stages.dedup.bloomindex import BloomIndex

        return BloomIndex(num_bands, self.spec.bloom_rows, self.spec.bloom_error, self.bands)

    def error_at(self, num_rows: int) -> float:
        """The chance that a fresh row is called a duplicate by the index alone when `num_rows` rows are in it."""
        from gristmill.stages.dedup import bloomindex

        if self.is_exact:
            return 0.0
        bits, num_hashes = bloomindex.shape(self.spec.bloom_error, self.bands)
        return bloomindex.over_bands(
            bloomindex.key_error(bits * self.spec.bloom_rows / num_rows, num_hashes), self.bands
        )

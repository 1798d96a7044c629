"""The contract of dedup stages: they sign rows, and the verdict comes at commit.

Lots commit in order, and only then is it decided which row duplicates which (see stages/dedup/bandindex.py). So the
verdict does not depend on which worker was first. A signature becomes several 64-bit keys, one for each band. A row is
a duplicate if any of its keys equals that of a row kept before it.
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

# Reasons in `reject`: a duplicate of the kept row in `duplicate_of`; a duplicate of a row that the index cannot name.
DUPLICATE, PROBABLE = "duplicate", "probable_duplicate"
DUPLICATE_OF = pa.field("duplicate_of", pa.string())
EXISTING = "existing"  # reason: like a row of another corpus, which these columns name
EXISTING_COLUMNS = (pa.field("existing_source", pa.string()), pa.field("existing_id", pa.string()))
MIN_BLOOM_ERROR, MAX_BLOOM_ERROR = 1e-9, 0.1
MAX_BLOOM_ROWS = 10**12


@dataclass(frozen=True, kw_only=True)
class IndexSpec:
    """Keys of the index of kept rows, common to the dedup stages."""

    # "exact" names the kept row of each duplicate; "bloom" takes about an eighth of the memory and cannot name it.
    index: Literal["exact", "bloom"] = "exact"
    # Number of kept rows that the Bloom filters are sized for; required with index = "bloom".
    bloom_rows: int | None = None
    # Chance, at `bloom_rows` kept rows, that a fresh row counts as a duplicate; required with index = "bloom".
    bloom_error: float | None = None

    def __post_init__(self) -> None:
        if self.index == "exact":
            if self.bloom_rows is not None or self.bloom_error is not None:
                raise ValueError('bloom_rows and bloom_error go with index = "bloom"')
            return
        if self.bloom_rows is None or self.bloom_error is None:
            raise ValueError(
                'index = "bloom" needs bloom_rows, the most rows you expect to keep, and bloom_error, the chance that '
                "a fresh row then counts as a duplicate (for example 0.001)"
            )
        if not 1 <= self.bloom_rows <= MAX_BLOOM_ROWS:
            raise ValueError(f"bloom_rows must lie in 1 to {MAX_BLOOM_ROWS}")
        if not MIN_BLOOM_ERROR <= self.bloom_error <= MAX_BLOOM_ERROR:
            raise ValueError(f"bloom_error must lie in {MIN_BLOOM_ERROR:g} to {MAX_BLOOM_ERROR:g}")


class Duplicates(Stage):
    """Base class of dedup stages. A subclass names its signature column, fills it in `find`, and derives keys from it.

    Every row that is alive after `find` must have a signature: rows without a signature would be duplicates of each
    other.
    """

    signature: ClassVar[str]  # name of the signature column
    signature_source: ClassVar[str]  # what the signature is computed from, in words
    is_divisible: ClassVar[bool] = True  # whether a band is looked up by itself: actors share bands, otherwise rows
    spec: Any  # an IndexSpec, or a spec without `index` if `is_exact` is overridden

    @property
    @abstractmethod
    def bands(self) -> int:
        """Number of keys of a row."""

    @abstractmethod
    def keys(self, column: Any) -> np.ndarray:
        """Band keys of a stored signature column, chunked or not: uint64 (n, bands); null rows get zeros."""

    @abstractmethod
    def probe(self) -> np.ndarray:
        """Keys of a fixed signature. A snapshot stores them to detect a change in how keys are made."""

    def signatures(self, rows: pa.RecordBatch) -> pa.Array:
        """The signature column of rows that are alive."""
        return self.find(rows).columns[self.signature]

    @property
    def is_exact(self) -> bool:
        """Whether every duplicate names its kept row, so that only the signature itself can err."""
        return bool(self.spec.index == "exact")

    def exact_index(self, num_bands: int) -> "BandIndex | NearIndex":
        """An empty index of `num_bands` bands that names the owner of each key."""
        from gristmill.stages.dedup.bandindex import BandIndex

        return BandIndex(num_bands)

    def resolve(self, keys: np.ndarray, owners: np.ndarray, alive: np.ndarray, first_owner: int) -> np.ndarray:
        """Verdicts on the rows of lots that are claimed together (see `gristmill.stages.dedup.bandindex.resolve`)."""
        from gristmill.stages.dedup.bandindex import resolve

        return resolve(keys, owners, alive, first_owner)

    def agree(self, stored_signatures: pa.Array, new_signatures: pa.Array) -> bool:
        """Whether the stored signatures of a shard equal those computed again from the same rows."""
        return bool(new_signatures.equals(stored_signatures))

    def new_index(self, num_bands: int) -> "BandIndex | BloomIndex | NearIndex":
        """An empty index of `num_bands` bands, as the spec asks."""
        if self.is_exact:
            return self.exact_index(num_bands)
        from gristmill.stages.dedup.bloomindex import BloomIndex

        return BloomIndex(num_bands, self.spec.bloom_rows, self.spec.bloom_error, self.bands)

    def error_at(self, num_rows: int) -> float:
        """Chance that the index alone, with `num_rows` rows in it, calls a fresh row a duplicate."""
        from gristmill.stages.dedup import bloomindex

        if self.is_exact:
            return 0.0
        bits, num_hashes = bloomindex.shape(self.spec.bloom_error, self.bands)
        return bloomindex.over_bands(
            bloomindex.key_error(bits * self.spec.bloom_rows / num_rows, num_hashes), self.bands
        )

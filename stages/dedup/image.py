"""Near-duplicates of images already kept, by perceptual hash, in the same index as texts (see stages.dedup.contract).

The hash is 64 bits: the 8 x 8 lowest frequencies of the grey image at 32 x 32 pixels, each above or below their
median (pHash; Zauner 2010, section 3.2.1). Light, contrast, scale and encoding change few of them.

The index answers by equal keys, so distance is found by blocks (Manku et al. 2007, section 3): the bits are dealt out
to `3 * distance` blocks, and each choice of two thirds of them is a band, whose key is all of its bits. Two hashes
that differ in at most `distance` bits leave so many blocks untouched, so they share a band. What counts as a
duplicate is exactly this: equal bits in two thirds of the blocks. So every image within `distance` bits of a kept one
is found, and one further away only if all its other bits lie in the remaining third. Unlike images do so with a
chance of bands / 2^42 (one in 300,000 at a million kept ones, distance 2, 15 bands); images of one simple kind, such
as digits, more often.
"""

import io
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from gristmill.records.schema import IMAGE
from gristmill.stages.contract import Findings
from gristmill.stages.dedup.contract import DUPLICATE_OF, Duplicates, IndexSpec

SIDE, LOW = 32, 8  # pixels a side, and frequencies a side that are kept
MAX_DISTANCE = 3
UNREADABLE = "unreadable"


@dataclass(frozen=True)
class DedupImageSpec(IndexSpec):
    """Images whose hashes differ in at most `distance` of 64 bits are duplicates; 0: equal hashes only."""

    distance: int = 2
    column: str = "image"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.distance <= MAX_DISTANCE:
            raise ValueError(f"distance must lie in 0 to {MAX_DISTANCE} bits, not {self.distance}")
        if not self.column:
            raise ValueError("column must name the image column")


class DedupImage(Duplicates):
    """Adds `image_hash`, uint64, and `duplicate_of`; an image that cannot be read is rejected as `unreadable`."""

    kind: ClassVar[str] = "dedup_image"
    Spec: ClassVar[type] = DedupImageSpec
    reads_text: ClassVar[bool] = False
    signature: ClassVar[str] = "image_hash"
    signature_source: ClassVar[str] = "image"

    def columns(self) -> list[pa.Field]:
        return [pa.field(self.signature, pa.uint64()), DUPLICATE_OF]

    def reads(self) -> list[str]:
        return [self.spec.column]

    def refuses(self, field: pa.Field) -> str | None:
        return None if field.type == IMAGE else "holds no images"

    @property
    def bands(self) -> int:
        return len(masks(self.spec.distance))

    def find(self, rows: pa.RecordBatch) -> Findings:
        hashes = [perceptual_hash((v or {}).get("bytes")) for v in rows.column(self.spec.column).to_pylist()]
        reasons = [UNREADABLE if h is None else None for h in hashes]
        columns = {self.signature: pa.array(hashes, pa.uint64()), DUPLICATE_OF.name: pa.nulls(len(hashes), pa.string())}
        return Findings(columns, pa.array(reasons, pa.string()))

    def probe(self) -> np.ndarray:
        return self.keys(pa.array([0x0123456789ABCDEF], pa.uint64()))

    def keys(self, column: Any) -> np.ndarray:
        known = column.is_valid().to_numpy(zero_copy_only=False) if len(column) else np.zeros(0, bool)
        hashes = column.fill_null(0).to_numpy().astype(np.uint64)
        keys = mixed(hashes[:, None] & masks(self.spec.distance)[None, :], np.arange(self.bands, dtype=np.uint64))
        return np.where(known[:, None], keys, np.uint64(0))


@lru_cache(maxsize=8)
def masks(distance: int) -> np.ndarray:
    """The bits of each band: uint64 (bands,), every choice of two thirds of `3 * distance` blocks."""
    if not distance:
        return np.array([2**64 - 1], np.uint64)
    blocks = [sum(1 << bit for bit in range(first, 64, 3 * distance)) for first in range(3 * distance)]
    return np.array([sum(chosen) for chosen in combinations(blocks, 2 * distance)], np.uint64)


def mixed(values: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Keys of a band's values: a bijection of each (splitmix64's finalizer), with the band's number in it."""
    keys = values ^ ((numbers + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15))
    keys = (keys ^ (keys >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    keys = (keys ^ (keys >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return keys ^ (keys >> np.uint64(31))


@lru_cache(maxsize=1)
def _cosines() -> np.ndarray:
    """The lowest frequencies of the type 2 cosine transform: float64 (LOW, SIDE)."""
    return np.cos(np.pi * np.arange(LOW)[:, None] * (2 * np.arange(SIDE) + 1) / (2 * SIDE))


def perceptual_hash(data: bytes | None) -> int | None:
    """64 bits of an encoded image; None when it cannot be read."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data or b"")) as opened:
            grey = opened.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    found = _cosines() @ np.asarray(grey, np.float64) @ _cosines().T
    found = np.round(found, 6)  # what is nought but for rounding has no sign
    bits = (found > np.median(found)).ravel()
    return int.from_bytes(np.packbits(bits).tobytes(), "big")

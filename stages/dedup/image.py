"""Near-duplicates of kept images by perceptual hash, in the same index as texts (see stages/dedup/contract.py).

The hash has 64 bits: the 8 x 8 lowest frequencies of the grey image at 32 x 32 pixels, each above or below their median
(pHash; Zauner 2010, section 3.2.1). Light, contrast, scale and encoding change few of them.

The index finds equal keys only, so blocks turn distance into equality (Manku et al. 2007, section 3). The bits are
divided into `3 * distance` blocks. Each choice of two thirds of the blocks is a band, whose key is all of its bits. Two
hashes that differ in at most `distance` bits leave at least that many blocks equal, so they share a band.

The exact rule is: two images are duplicates if two thirds of their blocks are equal. So every image within `distance`
bits of a kept image is found. An image further away is found only if all its differing bits lie in the other third.
Unrelated images meet that with a chance of bands / 2^42 (one in 300,000 at a million kept images, distance 2, 15
bands); images of one simple kind, such as digits, more often.
"""

import io
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from gristmill.records.ids import GOLDEN, mix_bits
from gristmill.records.schema import IMAGE
from gristmill.stages.contract import Findings
from gristmill.stages.dedup.contract import DUPLICATE_OF, Duplicates, IndexSpec

SIDE, LOW = 32, 8  # pixels per side, and frequencies per side that enter the hash
MAX_DISTANCE = 3
UNREADABLE = "unreadable"


@dataclass(frozen=True)
class DedupImageSpec(IndexSpec):
    """Keys of the stage `dedup_image`."""

    distance: int = 2  # Most differing bits, of 64, between the hashes of two duplicates; 0: equal hashes only.
    column: str = "image"  # Column with the images.

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.distance <= MAX_DISTANCE:
            raise ValueError(f"distance must lie in 0 to {MAX_DISTANCE} bits, not {self.distance}")
        if not self.column:
            raise ValueError("column must name the image column")


class DedupImage(Duplicates):
    """Adds `image_hash`, uint64, and `duplicate_of`. Rejects an image that it cannot read as `unreadable`."""

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
        is_valid = column.is_valid().to_numpy(zero_copy_only=False) if len(column) else np.zeros(0, bool)
        hashes = column.fill_null(0).to_numpy().astype(np.uint64)
        keys = mix_keys(hashes[:, None] & masks(self.spec.distance)[None, :], np.arange(self.bands, dtype=np.uint64))
        return np.where(is_valid[:, None], keys, np.uint64(0))


@lru_cache(maxsize=8)
def masks(distance: int) -> np.ndarray:
    """The bits of each band: uint64 (bands,), every choice of two thirds of `3 * distance` blocks."""
    if not distance:
        return np.array([2**64 - 1], np.uint64)
    blocks = [sum(1 << bit for bit in range(first, 64, 3 * distance)) for first in range(3 * distance)]
    return np.array([sum(chosen) for chosen in combinations(blocks, 2 * distance)], np.uint64)


def mix_keys(values: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Keys of the bands' values, uint64: a bijection of each value, with the number of the band in it."""
    return mix_bits(values ^ ((numbers + np.uint64(1)) * np.uint64(GOLDEN)))


@lru_cache(maxsize=1)
def _cosines() -> np.ndarray:
    """The lowest frequencies of the type 2 cosine transform: float64 (LOW, SIDE)."""
    return np.cos(np.pi * np.arange(LOW)[:, None] * (2 * np.arange(SIDE) + 1) / (2 * SIDE))


def perceptual_hash(data: bytes | None) -> int | None:
    """The 64-bit hash of an encoded image; None if it cannot be read."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data or b"")) as opened:
            grey = opened.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    frequencies = _cosines() @ np.asarray(grey, np.float64) @ _cosines().T
    frequencies = np.round(frequencies, 6)  # a zero with a rounding error must not have a sign
    bits = (frequencies > np.median(frequencies)).ravel()
    return int.from_bytes(np.packbits(bits).tobytes(), "big")

"""Identity and randomness from literals: (fingerprint, generation, lot, row), never from worker, retry or clock."""

import hashlib
import json
from typing import Any, TypeVar

import numpy as np

GOLDEN = 0x9E3779B97F4A7C15  # 2^64 divided by the golden ratio, odd
MASK_64 = (1 << 64) - 1
Bits = TypeVar("Bits", int, np.ndarray)


def fingerprint(literals: Any) -> str:
    """32 hex characters over the canonical JSON of `literals` (see gristmill.records.spec.literals)."""
    text = json.dumps(literals, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def row_id(fingerprint: str, generation: int, lot: int, row: int) -> str:
    """The id of one row, 32 hex characters; computable without reading the row."""
    return hashlib.blake2b(f"{fingerprint}/{generation}/{lot}/{row}".encode(), digest_size=16).hexdigest()


def lot_ids(fingerprint: str, generation: int, lot: int, num_rows: int) -> list[str]:
    """The ids of rows 0..num_rows-1 of a lot, each as `row_id` gives it."""
    shared = hashlib.blake2b(f"{fingerprint}/{generation}/{lot}/".encode(), digest_size=16)
    ids = []
    for row in range(num_rows):
        whole = shared.copy()  # the common start is hashed once
        whole.update(b"%d" % row)
        ids.append(whole.hexdigest())
    return ids


def lot_seeds(fingerprint: str, generation: int, lot: int, num_rows: int) -> np.ndarray:
    """Row seeds of a lot: int64 in [0, 2^63), shape (num_rows,), spawned from numpy's SeedSequence."""
    sequence = np.random.SeedSequence(int(fingerprint, 16), spawn_key=(generation, lot))
    return (sequence.generate_state(num_rows, np.uint64) >> np.uint64(1)).astype(np.int64)


def mix_bits(bits: Bits) -> Bits:
    """splitmix64's finalizer, a bijection on 64 bits: of an int in [0, 2^64) or of a uint64 array.

    Kernels have the same function for numba in gristmill.stages.kernels.mixing.
    """
    bits = (bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9 & MASK_64
    bits = (bits ^ (bits >> 27)) * 0x94D049BB133111EB & MASK_64
    return bits ^ (bits >> 31)

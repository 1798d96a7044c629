"""Identity and randomness from literals: (fingerprint, generation, lot, row), never from worker, retry or clock."""

import hashlib
import json
from typing import Any

import numpy as np


def fingerprint(literals: Any) -> str:
    """32 hex characters over the canonical JSON of `literals` (see gristmill.records.spec.literals)."""
    text = json.dumps(literals, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def row_id(fingerprint: str, generation: int, lot: int, row: int) -> str:
    """The id of one row, 32 hex characters; computable without reading the row."""
    return hashlib.blake2b(f"{fingerprint}/{generation}/{lot}/{row}".encode(), digest_size=16).hexdigest()


def lot_ids(fingerprint: str, generation: int, lot: int, num_rows: int) -> list[str]:
    """The ids of rows 0..num_rows-1 of a lot, each as `row_id` gives it."""
    start = hashlib.blake2b(f"{fingerprint}/{generation}/{lot}/".encode(), digest_size=16)
    ids = []
    for row in range(num_rows):
        whole = start.copy()  # what all rows share is hashed once
        whole.update(b"%d" % row)
        ids.append(whole.hexdigest())
    return ids


def lot_seeds(fingerprint: str, generation: int, lot: int, num_rows: int) -> np.ndarray:
    """Row seeds of a lot: int64 in [0, 2^63), shape (num_rows,), spawned from numpy's SeedSequence."""
    sequence = np.random.SeedSequence(int(fingerprint, 16), spawn_key=(generation, lot))
    return (sequence.generate_state(num_rows, np.uint64) >> np.uint64(1)).astype(np.int64)

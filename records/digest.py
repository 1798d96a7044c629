"""Content digests of inputs, so that identity follows what a file holds and never where it lies."""

import hashlib

from gristmill.records.stores.contract import Store

EDGE_BYTES = 64 * 1024


def digest_object(store: Store, name: str, size: int) -> str:
    """Hex digest over an object's size and its first and last 64 KiB: cheap for weights and corpora of any size."""
    digest = hashlib.blake2b(str(size).encode(), digest_size=16)
    with store.open(name) as file:
        digest.update(file.read(EDGE_BYTES))
        if size > EDGE_BYTES:
            file.seek(max(EDGE_BYTES, size - EDGE_BYTES))
            digest.update(file.read(EDGE_BYTES))
    return digest.hexdigest()

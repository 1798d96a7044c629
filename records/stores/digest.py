"""Content digests of inputs: identity depends on the content of a file and never on its location.

The digest of a large file is cached on the node under its address and version, so that a second start of a run does
not read hundreds of gigabytes again.
"""

import hashlib
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from gristmill.records.cache import cache_folder
from gristmill.records.errors import Changed
from gristmill.records.stores.contract import Entry, Store

logger = logging.getLogger(__name__)

EDGE_BYTES = 64 * 1024
CHUNK_BYTES = 4 << 20
CACHED_BYTES = 1 << 20  # the digests of smaller files cost less than a look-up in the cache
NUM_HEX = 32  # of a digest of content
NUM_THREADS = 8
QUIET_S, REPORT_S = 5.0, 15.0  # seconds before the first report of progress, and between two


def digest_ends(file: Any, size: int) -> str:
    """Hex digest over the size and the first and last 64 KiB of an open file: cheap for files of any size."""
    digest = hashlib.blake2b(str(size).encode(), digest_size=16)
    digest.update(file.read(EDGE_BYTES))
    if size > EDGE_BYTES:
        file.seek(max(EDGE_BYTES, size - EDGE_BYTES))
        digest.update(file.read(EDGE_BYTES))
    return digest.hexdigest()


def digest_bytes(data: bytes) -> str:
    """32 hex characters over the bytes. SHA-256, which processors compute twice as fast as BLAKE2."""
    return hashlib.sha256(data).hexdigest()[:NUM_HEX]


def digest_content(store: Store, name: str, version: str, count: Callable[[int], None] | None = None) -> str:
    """32 hex characters over all bytes of an object in a version; `count` is called with the bytes of each read.

    Raises Changed when the object is not in this version until the end, and FileNotFoundError.
    """
    from_store = store.sha256(name)
    if from_store is not None and store.version(name) == version:
        return from_store[:NUM_HEX]
    from_cache = cached_digest(store, name, version)
    if from_cache is not None:
        return from_cache
    whole, size = hashlib.sha256(), 0
    with store.open(name, version) as file:
        while chunk := file.read(CHUNK_BYTES):
            whole.update(chunk)
            size += len(chunk)
            if count is not None:
                count(len(chunk))
    if not store.guards_reads and store.version(name) != version:
        raise Changed(f"{store.path(name)} changed during the read; run the command again")
    digest = whole.hexdigest()[:NUM_HEX]
    if size >= CACHED_BYTES:
        _remember(store, name, version, digest)
    return digest


def digest_all(store: Store, entries: Sequence[Entry], what: str) -> dict[str, str]:
    """`digest_content` of objects by name, several at a time, with a line of progress where it takes long."""
    total, done, lock = sum(entry.size for entry in entries), 0, threading.Lock()
    began, reported = time.monotonic(), time.monotonic() + QUIET_S - REPORT_S

    def count(num_bytes: int) -> None:
        nonlocal done, reported
        with lock:
            done += num_bytes
            if (now := time.monotonic()) - reported < REPORT_S:
                return
            reported = now
        rate = done / max(now - began, 1e-3) / 1e9
        logger.info(f"reading {what}: {done / 1e9:.1f} of {total / 1e9:.1f} GB ({rate:.1f} GB/s), once for its digest")

    with ThreadPoolExecutor(NUM_THREADS) as pool:  # hashing releases the lock of the interpreter
        digests = pool.map(lambda entry: digest_content(store, entry.name, entry.version, count), entries)
        return dict(zip([entry.name for entry in entries], digests))


def cached_digest(store: Store, name: str, version: str) -> str | None:
    """The digest of an object in a version, where this node has read it before."""
    try:
        text = _cache_file(store, name, version).read_text()
    except OSError:
        return None
    return text if len(text) == NUM_HEX else None


def _remember(store: Store, name: str, version: str, digest: str) -> None:
    """Keep a digest in the node's cache. A cache that cannot be written costs time only."""
    path = _cache_file(store, name, version)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}")
        temporary.write_text(digest)
        os.replace(temporary, path)
    except OSError:
        return


def _cache_file(store: Store, name: str, version: str) -> Path:
    return cache_folder() / "digests" / digest_bytes(f"{store.path(name)}\0{version}".encode())

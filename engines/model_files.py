"""The files of a model's folder or bucket. Every file is identity: also nested ones, and words about the model.

Not counted are what tools leave beside a model: `.git`, `.cache`, `__pycache__` and lock files.
"""

import hashlib
from collections.abc import Sequence

from gristmill.records import pins
from gristmill.records.stores.contract import Entry, Store
from gristmill.records.stores.digest import digest_all

NOT_COUNTED_FOLDERS = frozenset({".git", ".cache", "__pycache__"})
LOCK = ".lock"
WHAT = "model"  # in messages


def is_counted(name: str) -> bool:
    """Whether a file of a model's folder is part of its identity."""
    *folders, file = name.split("/")
    return not NOT_COUNTED_FOLDERS & set(folders) and not file.endswith(LOCK)


def files_of(store: Store) -> list[Entry]:
    """The files that count, in the order of names. Raises UserError when they changed since the run began."""
    return pins.entries(store, is_counted, WHAT)


def digest_files(store: Store, files: Sequence[Entry]) -> str:
    """32 hex characters over names and contents; of objects on S3 over names, sizes and ETags.

    Local files are read whole, once per node: later calls take their digests from the cache of the node, and within a
    run from its pins.
    """
    run = pins.current()
    if store.guards_reads:
        contents = {entry.name: entry.version for entry in files}
    elif run is None:
        contents = digest_all(store, files, f"{WHAT} {store.uri}")
    else:
        by_name = {entry.name: run.pin(store, entry.name, WHAT) for entry in files}
        unread = [entry for entry in files if by_name[entry.name].digest is None]
        for name, digest in digest_all(store, unread, f"{WHAT} {store.uri}").items():
            by_name[name].digest = digest
        contents = {name: pin.digest or "" for name, pin in by_name.items()}
    whole = hashlib.blake2b(digest_size=16)
    for entry in sorted(files, key=lambda entry: entry.name):
        whole.update(f"{entry.name}\0{entry.size}\0{contents[entry.name]}\n".encode())
    return whole.hexdigest()

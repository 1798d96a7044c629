"""Which runs and releases the files of a source are of.

A run that reads them records this in its manifest, as `inputs.source.upstream`, outside the fingerprint.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from gristmill.records.output.manifest import load as load_manifest
from gristmill.records.output.shard_names import KEPT, kept_lot
from gristmill.records.pins import Pin
from gristmill.records.readers.outputs import RELEASE_SHARD, is_release
from gristmill.records.readers.parquet import parquet_errors, read_metadata
from gristmill.records.schema import IDENTITY
from gristmill.records.stores.contract import Store
from gristmill.records.stores.opening import open_store

ROW_COLUMNS = {field.name for field in IDENTITY} | {"recipe"}  # by which rows of Gristmill are told from others


@dataclass(frozen=True)
class Upstream:
    """A run or a release whose rows a source reads."""

    address: str
    folder: str = ""  # how the names of its files begin in source ids: "", "kept/", "a/kept/"
    fingerprint: str | None = None  # of a run

    def store(self) -> Store | None:
        """Its store, None where it is not there. Raises UserError where that cannot be told."""
        store = open_store(self.address)
        run = load_manifest(store)
        is_there = run.fingerprint == self.fingerprint if run else self.fingerprint is None and holds_release(store)
        return store if is_there else None


def is_shard_name(name: str) -> bool:
    """Whether a file, whatever its folder, has the name of a kept shard or of a shard of a release."""
    name = name.rpartition("/")[2]
    return kept_lot(f"{KEPT}/{name}") is not None or RELEASE_SHARD.fullmatch(name) is not None


def holds_release(store: Store) -> bool:
    """Whether a release is there."""
    return is_release(store) and any(RELEASE_SHARD.fullmatch(entry.name) for entry in store.list("train-"))


def upstreams_of(files: Iterable[Pin]) -> list[Upstream]:
    """The runs and releases of files, in their order.

    Shards with rows of Gristmill count as those of a run also where their manifest is not with them.
    Reads a manifest, or a footer, of each folder with names of shards. Raises UserError.
    """
    upstreams = dict[tuple[str, bool], Upstream | None]()
    for pin in files:
        folder, _, name = pin.store.path(pin.name).rpartition("/")
        is_kept = kept_lot(f"{KEPT}/{name}") is not None
        if (folder, is_kept) in upstreams or not is_shard_name(name):
            continue
        upstreams[folder, is_kept] = None
        address = folder.removesuffix(f"/{KEPT}") if is_kept else folder
        store = open_store(address)
        run = load_manifest(store)
        if run is not None or holds_release(store) or _has_row_columns(pin):
            prefix = pin.name[: -len(name)]
            upstreams[folder, is_kept] = Upstream(address, prefix, run.fingerprint if run else None)
    return [upstream for upstream in upstreams.values() if upstream]


def _has_row_columns(pin: Pin) -> bool:
    with parquet_errors(pin.store.path(pin.name)), pin.open() as opened:
        return set(read_metadata(opened).schema.to_arrow_schema().names) >= ROW_COLUMNS

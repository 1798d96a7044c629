"""The runs and releases that a run was made from, and the files of its source.

A run states its upstreams since 0.3 (gristmill.records.readers.upstreams); of an earlier one they are found by the
files at the path of its recipe. A take-down never goes on without an upstream that it cannot find.
"""

from dataclasses import dataclass, replace
from typing import Any

from gristmill.records.errors import AbsentInput, UserError
from gristmill.records.output import manifest
from gristmill.records.output.manifest import Manifest
from gristmill.records.output.shard_names import KEPT
from gristmill.records.pins import Pin
from gristmill.records.readers.datasets import PACKAGE
from gristmill.records.readers.places import DataFile, find_files
from gristmill.records.readers.upstreams import Upstream, is_shard_name, upstreams_of
from gristmill.records.stores.contract import Store
from gristmill.records.stores.opening import open_store

REASON = "so rows made from those on the list cannot be found"


@dataclass(frozen=True)
class SourceOutputs:
    """The upstreams of a run with their stores, and how the names of their files begin in its source ids."""

    stores: tuple[tuple[Store, tuple[str, ...]], ...] = ()
    are_certain: bool = True  # whether there can be no other


def source_path(run: Manifest) -> str:
    """The place of the files of a run's source; "" where it has none."""
    path = str((run.recipe.get("source") or {}).get("path") or "")
    return "" if path.startswith(PACKAGE) else path


def files_of(path: str) -> list[DataFile] | None:
    """The files at the place of a source, None where there is none. Raises UserError where that cannot be told."""
    try:
        return find_files(path).files
    except AbsentInput:
        return None
    except PermissionError as error:
        raise UserError(f"source.path {path}: {error}") from None


def upstream_of(run: Manifest, store: Store) -> SourceOutputs:
    """The runs and releases whose rows are the source of the run at `store`.

    Raises UserError when one that the manifest names is not there.
    """
    path, record = source_path(run), run.inputs.get("source") or {}
    if record.get("way") == "step":
        return SourceOutputs(((_step_store(path, record, store), ("", f"{KEPT}/")),))
    entries = record.get("upstream")
    if entries is not None:
        return SourceOutputs(tuple((_recorded_store(Upstream(**e), path, store), (e["folder"],)) for e in entries))
    if not path:
        return SourceOutputs()
    files = files_of(path) or []
    stores = []
    for upstream in _at(files):
        if (place := upstream.store()) is None:
            raise _missing(store, upstream.address)
        # Before 0.3 the files of a glob had no folders in source ids.
        stores.append((place, tuple(dict.fromkeys((upstream.folder, "", f"{KEPT}/")))))
    # Files of these names that are no shards were looked at; without any, the files may be those of another folder.
    return SourceOutputs(tuple(stores), bool(stores) or any(is_shard_name(file.name) for file in files))


def check_id_column(run: Manifest, store: Store, upstream: Store) -> None:
    """Raise UserError where the source ids of a run are not the ids or the places of the rows of its upstream."""
    source = run.recipe.get("source") or {}
    column = source.get("id_column")
    if column and (source.get("columns") or {}).get(column, column) != "id":
        raise UserError(
            f"{store.uri}: its source ids are the column '{column}', which does not say which rows of {upstream.uri} "
            'they are, and the list reaches that one; list these source ids, or make the run with id_column = "id"'
        )


def missing_upstream(run: Manifest, store: Store) -> UserError:
    """The error for source ids that name rows of a run or a release which is not there."""
    return _missing(store, source_path(run) or "that it was made from")


def _missing(store: Store, place: str) -> UserError:
    return UserError(
        f"{store.uri}: its source, the run or release {place}, is not there, {REASON}; put it back, or, where the "
        "path is relative, pack in the folder where the run was made"
    )


def _at(files: list[DataFile] | None) -> list[Upstream]:
    return upstreams_of(Pin(f.store, f.name, f.entry.version, what="source") for f in files or ())


def _recorded_store(upstream: Upstream, path: str, store: Store) -> Store:
    """Where the run says, else beside the run, as in a flow that has moved, else where the recipe says."""
    name, folder = upstream.address.rpartition("/")[2], store.uri.rstrip("/").rpartition("/")[0]
    beside = [replace(upstream, address=f"{folder}/{name}")] if upstream.fingerprint and folder else []
    for candidate in (upstream, *beside):
        if (place := candidate.store()) is not None:
            return place
    for other in _at(files_of(path)):
        is_same = (other.folder, other.fingerprint) == (upstream.folder, upstream.fingerprint)
        if is_same and (place := other.store()) is not None:
            return place
    raise _missing(store, upstream.address)


def _step_store(path: str, record: dict[str, Any], store: Store) -> Store:
    step = record.get("step")
    for address in filter(None, (path, f"{store.uri.rstrip('/').rpartition('/')[0]}/{step}")):
        place = open_store(address)
        run = manifest.load(place)
        if run is not None and run.fingerprint == record.get("fingerprint"):
            return place
    raise _missing(store, path or str(step))

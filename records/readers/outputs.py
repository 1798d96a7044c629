"""Runs and releases among the files of a place: which files are theirs, and which of these hold rows.

A folder is a run if it has a shard by the name of one, or a manifest that this version reads. It is a release if it has
shards of a release and a card that `pack` wrote. Any other `manifest.json` or `README.md` is a file like others.
"""

import os
import re
from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from gristmill.records.errors import UserError
from gristmill.records.output.manifest import NAME as MANIFEST
from gristmill.records.output.manifest import Manifest
from gristmill.records.output.manifest import load as load_manifest
from gristmill.records.output.shard_names import REJECTED, kept_lot, rejected_lot
from gristmill.records.stores.contract import Store
from gristmill.records.stores.opening import open_store

RELEASE_SHARD = re.compile(r"train-\d{5,}-of-\d{5,}\.parquet")
CARD = "README.md"
CARD_LINE = b"path: train-*.parquet"  # of every card that `pack` has written
MARKS = (MANIFEST, CARD)  # files that say what a folder is
RUN, RELEASE = "run", "release"
ABOVE = "../"  # the folder above the root of the store: the run, where the root is its kept/
EVENTS = "events"  # folder of a run


class Owner(NamedTuple):
    """What wrote a file: RUN or RELEASE, its folder, and the name of the file in that folder."""

    kind: str
    folder: str
    name: str

    def reason(self, folders: Collection[str]) -> str | None:
        """Why a file is left out: it has no rows; `folders` are those of runs that are read besides kept/."""
        if self.kind == RELEASE:
            return None if RELEASE_SHARD.fullmatch(self.name) else "of a release besides its shards"
        is_wanted = (REJECTED in folders or self.folder == ABOVE) and is_rejected(self.name)
        is_wanted |= EVENTS in folders and self.name.startswith(f"{EVENTS}/")
        return None if is_kept(self.name) or is_wanted else "of a run besides its kept rows"


class Outputs:
    """The runs and releases of a listing.

    names: the files of the store that may be read, without hidden ones. marks: names of manifests and cards in the
    store, which a glob need not match.
    """

    def __init__(self, store: Store, names: Iterable[str], marks: Iterable[str]) -> None:
        root = store.uri if "://" in store.uri else os.path.normpath(store.uri)  # a path may end with ..
        self._store, (self._above, _, self._last) = store, root.rstrip("/").rpartition("/")
        self._manifests: dict[str, Manifest | None] = {}
        names = list(names)
        self._runs = {folder for name in names if (folder := self._run_of(name)) is not None}
        with_shards = {_folder(n) for n in names if RELEASE_SHARD.fullmatch(_base(n))}
        self._releases = set[str]()
        for mark in marks:
            folder = _folder(mark)
            if _base(mark) == CARD:
                if folder in with_shards and is_release(store, folder):
                    self._releases.add(folder)
            elif folder not in self._runs and self._is_run(folder):
                self._runs.add(folder)

    def owner(self, name: str) -> Owner | None:
        """The outermost run, else release, that a file lies in."""
        for kind, folders in ((RUN, self._runs), (RELEASE, self._releases)):
            if folders:
                folder = next((prefix for prefix in _prefixes(name) if prefix in folders), None)
                if folder is not None:
                    return Owner(kind, folder, self._name_in(folder, name))
        return None

    def check_ended(self, folders: Iterable[str], key: str) -> None:
        """Raise UserError for a run whose manifest says that it is going on: its rows are not all there."""
        for folder in folders:
            if (manifest := self._manifest(folder)) is not None and manifest.state == "running":
                uri = self._open(folder).uri
                raise UserError(f"{key} {uri}: the run is still going on (or was killed); run its command to the end")

    @property
    def runs(self) -> list[str]:
        return sorted(self._runs)

    def _run_of(self, name: str) -> str | None:
        """The folder of the run that a file is a shard of, by its name."""
        *above, base = name.rsplit("/", 1)
        if not above:
            return ABOVE if is_shard(f"{self._last}/{base}") else None
        folder, _, last = above[0].rpartition("/")
        return f"{folder}/".lstrip("/") if is_shard(f"{last}/{base}") else None

    def _name_in(self, folder: str, name: str) -> str:
        return f"{self._last}/{name}" if folder == ABOVE else name[len(folder) :]

    def _is_run(self, folder: str) -> bool:
        try:
            return self._manifest(folder) is not None
        except UserError:
            return False  # another program's

    def _manifest(self, folder: str) -> Manifest | None:
        if folder not in self._manifests:
            self._manifests[folder] = load_manifest(self._open(folder))
        return self._manifests[folder]

    def _open(self, folder: str) -> Store:
        if folder == ABOVE:
            return open_store(self._above or "/")
        return open_store(self._store.path(folder)) if folder else self._store


def is_release(store: Store, folder: str = "") -> bool:
    """Whether a folder of a store, which has shards of a release, has the card of one."""
    return CARD_LINE in (store.read_if_there(folder + CARD) or b"")


def is_kept(name: str) -> bool:
    """Whether the name, below the address of a run, is that of a kept shard."""
    return kept_lot(name) is not None


def is_rejected(name: str) -> bool:
    """Whether the name, below the address of a run, is that of a rejected shard."""
    return rejected_lot(name) is not None


def is_shard(name: str) -> bool:
    """Whether the name, below the address of a run, is that of a shard."""
    return is_kept(name) or is_rejected(name)


def mark_names(names: Iterable[str]) -> list[str]:
    """The names that a manifest or a card has in any folder that one of `names` lies in."""
    folders = dict.fromkeys(prefix for name in names for prefix in _prefixes(name) if prefix != ABOVE)
    return [folder + mark for folder in folders for mark in MARKS]


def _prefixes(name: str) -> Iterator[str]:
    """The folders that a name lies in, the outermost first."""
    yield ABOVE
    yield ""
    at = name.find("/")
    while at >= 0:
        yield name[: at + 1]
        at = name.find("/", at + 1)


def _folder(name: str) -> str:
    return name[: name.rfind("/") + 1]


def _base(name: str) -> str:
    return name[name.rfind("/") + 1 :]

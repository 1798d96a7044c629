"""Files of data sets and benchmarks as the run began with them (gristmill.records.pins)."""

from gristmill.records import pins
from gristmill.records.errors import UserError
from gristmill.records.pins import Pin
from gristmill.records.readers.outputs import is_shard
from gristmill.records.readers.places import DataFile, Place, find_files
from gristmill.records.stores.digest import digest_content
from gristmill.records.stores.opening import open_store


def find_pinned(path: str, key: str, with_rejected: bool = False) -> Place:
    """The files of an address, as `find_files`. Raises UserError also for a file that is gone since the run began."""
    try:
        return find_files(path, key, with_rejected=with_rejected)
    except UserError:
        if (active := pins.current()) is not None:
            active.check_below(open_store(path).uri)
        raise


def pinned_files(place: Place, what: str) -> list[tuple[DataFile, Pin]]:
    """The files with their pins, those of the run where one is active. Raises UserError after a change."""
    active = pins.current()
    if active is None:
        return [(file, Pin(file.store, file.name, file.entry.version, what=what)) for file in place.files]
    names = {file.name for file in place.files}
    if place.is_folder:
        # Notices another set of files, too. A run counts with its rejected rows, which another table may read.
        pins.entries(place.files[0].store, lambda name: name in names or is_shard(name), what)
    pinned = []
    for file in place.files:
        pin = active.pin(file.store, file.name, what)
        pin.check()
        if pin.digest is None:  # a copy on another node has another version, so the content decides
            pin.digest = digest_content(file.store, file.name, pin.version)
        pinned.append((file, pin))
    return pinned

"""Lists the shards of a run. A remote store is listed in ranges of lots, many at once.

A listing comes in pages of 1,000 names, each after the one before, so a million lots take a thousand requests in turn.
Shard names are dense and in the order of lots, so the space of names is cut at lot numbers and each range is listed for
itself. The ranges cover every name, whatever objects there are: a gap, a prefix that was moved away and a stranger show
as in a listing from the first name to the last.
"""

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any, TypeVar

from gristmill.records.ordered_map import ordered_map
from gristmill.records.output.shard_names import KEPT, kept_lot, rejected_lot
from gristmill.records.stores.contract import Entry, Store

LOTS_PER_RANGE = 960  # fewer than a page has names: its last names show that the range is complete
MAX_LOTS = 10**8  # names of further lots have more digits, and are in no order
OnListed = Callable[[int], None]
T = TypeVar("T", bound=tuple[Any, ...])  # its first value is the name


def listed(
    store: Store, folder: str, num_lots: int = 0, on_listed: OnListed | None = None
) -> Iterator[tuple[str, int]]:
    """(name, size) of all objects of `kept/` or `rejected/`, in the order of names.

    `num_lots`: how many lots are expected; a wrong number costs time, and changes no answer. `on_listed` gets the
    number of objects now and then.
    """
    num_objects = 0
    for objects in _ranges(store, folder, num_lots, store.sizes):
        yield from objects
        num_objects += len(objects)
        if on_listed:
            on_listed(num_objects)


def listed_entries(store: Store, folder: str, num_lots: int = 0) -> Iterator[Entry]:
    """The same objects with their versions."""
    return chain.from_iterable(_ranges(store, folder, num_lots, store.list))


def _ranges(store: Store, folder: str, num_lots: int, listing: Callable[..., Iterator[T]]) -> Iterator[list[T]]:
    prefix = f"{folder}/"
    if not store.is_remote:
        yield list(listing(prefix))
        return

    def border(lot: int) -> str:
        """Less than the names of this lot and of later ones, and greater than those of earlier lots."""
        return f"{prefix}part-{lot:08d}" if lot else ""

    def between(first: int) -> list[T]:
        return list(listing(prefix, border(first), border(min(first + LOTS_PER_RANGE, stop))))

    lot_of = kept_lot if folder == KEPT else rejected_lot
    start, stop, width = 0, LOTS_PER_RANGE, LOTS_PER_RANGE
    num_lots = min(num_lots, MAX_LOTS - 1)
    if num_lots > stop and next(store.list(prefix, border(num_lots - 1)), None) is not None:
        stop = num_lots
    while True:
        stop = min(stop, MAX_LOTS - 1)
        yield from ordered_map(between, range(start, stop, LOTS_PER_RANGE))
        rest = listing(prefix, border(stop), None)
        first = next(rest, None)
        if first is None:
            return
        lot = lot_of(first[0])
        if lot is None or lot >= MAX_LOTS - 1:
            yield list(chain([first], rest))
            return
        start, stop, width = lot, lot + width, 2 * width

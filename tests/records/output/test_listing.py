"""A listing in ranges of lots holds what a listing from the first name to the last holds, whatever is there."""

import threading
from bisect import bisect_right
from collections.abc import Iterator
from itertools import takewhile
from typing import ClassVar
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.records.errors import UserError
from gristmill.records.ordered_map import AHEAD, ordered_map
from gristmill.records.output import ledger, listing
from gristmill.records.output.manifest import Manifest
from gristmill.records.output.shard_names import KEPT, REJECTED, rejected_name, shard_name
from gristmill.records.output.summary import Summary
from gristmill.records.stores.contract import Entry
from gristmill.records.stores.local import LocalStore

STRANGERS = ("a.parquet", "part-.parquet", "part-00000003", "part-00000012.parquet.bak", "part-zzz", "z/deep.parquet")


class Remote(LocalStore):
    """Names without bytes, listed as a remote store lists them; counts its listings."""

    is_remote: ClassVar[bool] = True

    def __init__(self, names: list[str]) -> None:
        super().__init__("/nowhere")
        self.names, self.num_listings, self._count = sorted(names), 0, threading.Lock()

    def list(self, prefix: str = "", after: str = "", until: str | None = None) -> Iterator[Entry]:
        with self._count:
            self.num_listings += 1
        start = bisect_right(self.names, max(prefix, after))
        rest = (self.names[at] for at in range(start, len(self.names)))
        names = takewhile(lambda n: n.startswith(prefix) and (until is None or n <= until), rest)
        return iter([Entry(name, len(name), "") for name in names])


LOTS = st.one_of(st.integers(0, 60), st.sampled_from([99_999_998, 99_999_999, 100_000_000, 123_456_789]))


@st.composite
def names(draw: st.DrawFn) -> list[str]:
    lots = draw(st.lists(LOTS, max_size=60)) + list(range(draw(st.integers(0, 60))))
    gone = draw(st.sets(st.integers(0, 60), max_size=9))
    kept = {shard_name(KEPT, lot) for lot in lots if lot not in gone}
    rejected = {rejected_name(lot, f"{draw(st.integers(0, 2)):016x}") for lot in lots}
    strange = {f"{folder}/{name}" for folder in (KEPT, REJECTED) for name in draw(st.sets(st.sampled_from(STRANGERS)))}
    return [*kept, *rejected, *strange]


@given(names(), st.integers(0, 80), st.integers(1, 7), st.sampled_from([10**8, 30]))
def test_ranges_hold_every_name_once_and_in_order(names: list[str], num_lots: int, width: int, most: int) -> None:
    store = Remote(names)
    with mock.patch.object(listing, "LOTS_PER_RANGE", width), mock.patch.object(listing, "MAX_LOTS", most):
        for folder in (KEPT, REJECTED):
            listed = [name for name, _ in listing.listed(store, folder, num_lots)]
            assert listed == [name for name in store.names if name.startswith(f"{folder}/")]
            assert [entry.name for entry in listing.listed_entries(store, folder, num_lots)] == listed


def test_a_gap_a_moved_end_and_a_stranger_are_named() -> None:
    lots = [lot for lot in range(5000) if lot not in (17, 2500)]
    store = Remote([*(shard_name(KEPT, lot) for lot in lots[:4000]), "kept/part-00003000.parquet.bak"])
    manifest, strangers = Manifest("f" * 32, {}, {}, totals=Summary(num_lots=5000)), []
    with pytest.raises(UserError, match="of 5,000 committed lots kept/part-00000017.parquet.*part-00002500.* and"):
        ledger.committed(store, manifest, strangers)
    assert strangers == ["kept/part-00003000.parquet.bak"]


@pytest.mark.parametrize("hint", [0, 1000, 29_000, 30_000, 60_000])
def test_the_number_of_requests_grows_with_the_lots_and_not_with_the_hint(hint: int) -> None:
    store = Remote([shard_name(KEPT, lot) for lot in range(30_000)])
    assert sum(1 for _ in listing.listed(store, KEPT, hint)) == 30_000
    assert store.num_listings < 3 * 30_000 / listing.LOTS_PER_RANGE


def test_a_lot_that_is_committed_during_the_listing_is_no_gap() -> None:
    class Growing(Remote):
        def list(self, prefix: str = "", after: str = "", until: str | None = None) -> Iterator[Entry]:
            entries = list(super().list(prefix, after, until))
            self.names = sorted({*self.names, shard_name(KEPT, 2), shard_name(KEPT, 3), shard_name(KEPT, 4)})
            return iter(entries)

    with mock.patch.object(listing, "LOTS_PER_RANGE", 3):
        store = Growing([shard_name(KEPT, 0), shard_name(KEPT, 1)])
        lots = ledger.committed(store, Manifest("f" * 32, {}, {}))
    assert sorted(lots) == [0, 1, 2, 3, 4]


def test_ordered_map_is_in_order_bounded_and_raises_in_place() -> None:
    begun: list[int] = []
    gate = threading.Event()

    def work(item: int) -> int:
        begun.append(item)
        if item == 0:
            gate.wait(60)
        if item == 90:
            raise ValueError("the ninetieth")
        return -item

    results = ordered_map(work, iter(range(10**9)), 4)
    timer = threading.Timer(0.2, gate.set)
    timer.start()
    assert next(results) == 0
    assert max(begun) <= AHEAD * 4
    assert [next(results) for _ in range(89)] == [-n for n in range(1, 90)]
    with pytest.raises(ValueError, match="ninetieth"):
        next(results)
    assert max(begun) <= 90 + AHEAD * 4

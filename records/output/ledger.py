"""The committed lots: a listing of kept shards, and the footers that the manifest does not count yet."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa

from gristmill.records.errors import UserError
from gristmill.records.output.manifest import Manifest
from gristmill.records.output.shards import KEPT, REJECTED, Summary, lot_number, read_meta, shard_name
from gristmill.records.stores.contract import Store

NUM_THREADS = 16


def lots_in(store: Store, folder: str) -> dict[int, int]:
    """Lot number to shard size in bytes, for `kept` or `rejected`. Memory grows with lots, not with rows."""
    sizes = {}
    for entry in store.list(f"{folder}/"):
        lot = lot_number(entry.name)
        if lot is not None:
            sizes[lot] = entry.size
    return sizes


def committed(store: Store) -> dict[int, int]:
    """The committed lots 0..n-1 with the sizes of their kept shards.

    Raises UserError when a shard between them is missing.
    """
    lots = lots_in(store, KEPT)
    for expected in range(len(lots)):
        if expected not in lots:
            raise UserError(
                f"{store.path(shard_name(KEPT, expected))} is missing though later lots are committed; "
                f"put it back or start in a new --out (details: gristmill audit {store.uri})"
            )
    return lots


def summaries(store: Store, lots: Iterable[int]) -> list[Summary]:
    """The summaries of committed lots, read from their footers."""

    def summary_of(lot: int) -> Summary:
        try:
            return read_meta(store, lot)["summary"]
        except (pa.ArrowInvalid, OSError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"{store.path(shard_name(KEPT, lot))}: cannot be read as a shard ({error})") from None

    with ThreadPoolExecutor(NUM_THREADS) as pool:
        return list(pool.map(summary_of, lots))


def totals(store: Store, manifest: Manifest, lots: dict[int, int]) -> Summary:
    """Totals over all committed lots: those of the manifest, if it covers a prefix of `lots`, and of later footers."""
    whole = Summary()
    if manifest.totals.num_lots <= len(lots):
        whole.add(manifest.totals)
    for summary in summaries(store, range(whole.num_lots, len(lots))):
        whole.add(summary)
    whole.kept_bytes = sum(lots.values())
    return whole


def orphans(store: Store, num_lots: int) -> list[str]:
    """Rejected shards of lots that are not committed: a driver died between the two puts of a lot."""
    return [shard_name(REJECTED, lot) for lot in sorted(lots_in(store, REJECTED)) if lot >= num_lots]

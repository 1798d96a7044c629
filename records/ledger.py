"""What is committed: a listing of kept shards, plus the footers that the manifest has not counted yet."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa

from gristmill.records.errors import UserError
from gristmill.records.manifest import Manifest
from gristmill.records.shards import KEPT, REJECTED, Summary, lot_number, read_meta, shard_name
from gristmill.records.stores.contract import Store

NUM_THREADS = 16


def lots_in(store: Store, folder: str) -> dict[int, int]:
    """Lot number to shard size in bytes, for one of the two folders. Grows with lots, not with rows."""
    found = {}
    for entry in store.list(f"{folder}/"):
        lot = lot_number(entry.name)
        if lot is not None:
            found[lot] = entry.size
    return found


def committed(store: Store) -> dict[int, int]:
    """The committed lots with the size of their kept shards; they are a prefix 0..n-1.

    Raises UserError when a shard inside the prefix is gone: nothing may be made on top of a hole.
    """
    lots = lots_in(store, KEPT)
    for expected in range(len(lots)):
        if expected not in lots:
            raise UserError(
                f"{store.path(shard_name(KEPT, expected))} is missing though later lots are committed; "
                f"put it back or start in a new --out (gristmill audit {store.uri} tells more)"
            )
    return lots


def summaries(store: Store, lots: Iterable[int]) -> list[Summary]:
    """The summaries of committed lots, read from their footers."""

    def one(lot: int) -> Summary:
        try:
            return read_meta(store, lot)["summary"]
        except (pa.ArrowInvalid, OSError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"{store.path(shard_name(KEPT, lot))}: not a shard of gristmill ({error})") from None

    with ThreadPoolExecutor(NUM_THREADS) as pool:
        return list(pool.map(one, lots))


def totals(store: Store, manifest: Manifest, lots: dict[int, int]) -> Summary:
    """Totals over all committed lots. The manifest's own totals are the start, if they cover a prefix of `lots`."""
    whole = Summary()
    if manifest.totals.num_lots <= len(lots):
        whole.add(manifest.totals)
    for summary in summaries(store, range(whole.num_lots, len(lots))):
        whole.add(summary)
    whole.kept_bytes = sum(lots.values())
    return whole


def orphans(store: Store, num_lots: int) -> list[str]:
    """Rejected shards whose lot was never committed: a run died between its two puts."""
    return [shard_name(REJECTED, lot) for lot in sorted(lots_in(store, REJECTED)) if lot >= num_lots]

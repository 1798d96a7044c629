"""The committed lots: a listing of kept shards, and the footers that the manifest does not count yet."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from gristmill.records.errors import UserError
from gristmill.records.output.manifest import Manifest
from gristmill.records.output.shard_names import KEPT, REJECTED, kept_lot, rejected_lot, shard_name
from gristmill.records.output.shard_reading import read_meta
from gristmill.records.output.summary import Summary
from gristmill.records.stores.contract import Store

NUM_THREADS = 16
MAX_NAMES = 3  # of missing shards in a message


def kept_lots(store: Store, strangers: list[str] | None = None) -> dict[int, int]:
    """Lot number to size in bytes of its kept shard. Memory grows with lots, not with rows.

    `strangers` gets the names of all other objects of the folder: whoever reads `kept/*.parquet` may take them for
    rows of the run.
    """
    lots = {}
    for entry in store.list(f"{KEPT}/"):
        if (lot := kept_lot(entry.name)) is not None:
            lots[lot] = entry.size
        elif strangers is not None:
            strangers.append(entry.name)
    return lots


def rejected_shards(store: Store, strangers: list[str] | None = None) -> dict[int, list[str]]:
    """Lot number to the names of rejected shards: that of its kept shard, and leftovers of other drivers.

    `strangers`: see `kept_lots`.
    """
    names: dict[int, list[str]] = {}
    for entry in store.list(f"{REJECTED}/"):
        if (lot := rejected_lot(entry.name)) is not None:
            names.setdefault(lot, []).append(entry.name)
        elif strangers is not None:
            strangers.append(entry.name)
    return names


def committed(store: Store, manifest: Manifest, strangers: list[str] | None = None) -> dict[int, int]:
    """The committed lots 0..n-1 with the sizes of their kept shards; `strangers`: see `kept_lots`.

    Raises UserError when a shard is missing: one before another, or one that the manifest counts. Read the manifest
    before this, because a driver may be committing.
    """
    lots = kept_lots(store, strangers)
    num_lots = max(manifest.totals.num_lots, max(lots, default=-1) + 1)
    _refuse_missing(store, [shard_name(KEPT, lot) for lot in range(num_lots) if lot not in lots], num_lots)
    return lots


def _refuse_missing(store: Store, names: list[str], num_lots: int) -> None:
    if names:
        more = f" and {len(names) - MAX_NAMES:,} more" if len(names) > MAX_NAMES else ""
        raise UserError(
            f"{store.uri}: of {num_lots:,} committed lots {', '.join(names[:MAX_NAMES])}{more} "
            f"{'is' if len(names) == 1 else 'are'} missing; nothing was changed; put the files back, or start in a new "
            f"--out (details: gristmill audit {store.uri})"
        )


def metas(store: Store, lots: Iterable[int]) -> list[dict[str, Any]]:
    """The footers of committed lots, see `parse_meta`. Raises UnreadableShard."""
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        return list(pool.map(lambda lot: read_meta(store, lot), lots))


def summaries(store: Store, lots: Iterable[int]) -> list[Summary]:
    """The summaries of committed lots, read from their footers. Raises UnreadableShard."""
    return [meta["summary"] for meta in metas(store, lots)]


def totals(store: Store, manifest: Manifest, lots: dict[int, int]) -> Summary:
    """Totals over all committed lots: those of the manifest, if it covers a prefix of `lots`, and of later footers."""
    whole, counted = Summary(), manifest.totals
    is_complete = counted.rejected_shards or not counted.num_rejected  # a manifest of 0.2 counts no rejected shards
    if counted.num_lots <= len(lots) and is_complete:
        whole.add(counted)
    for summary in summaries(store, range(whole.num_lots, len(lots))):
        whole.add(summary)
    whole.kept_bytes = sum(lots.values())
    return whole


def settle(store: Store, whole: Summary, strangers: list[str] | None = None) -> dict[int, list[str]]:
    """Settle `rejected/` with the committed lots, whose totals are `whole`; returns leftovers of other lots, by lot.

    A shard of a committed lot whose kept shard names another is deleted. A shard of an uncommitted lot stays: a driver
    that is paused may still commit it, and only the commit of its lot decides. Raises UserError when a shard that a
    kept shard names is missing. `strangers`: see `kept_lots`.
    """
    shards = rejected_shards(store, strangers)
    num_committed = sum(len(names) for lot, names in shards.items() if lot < whole.num_lots)
    if num_committed != whole.rejected_shards:
        named = {meta["lot"]: meta["rejected"] for meta in metas(store, range(whole.num_lots))}
        missing = [name for lot, name in named.items() if name and name not in shards.get(lot, ())]
        _refuse_missing(store, missing, whole.num_lots)
        for lot, names in shards.items():
            for name in names:
                if lot < whole.num_lots and name != named[lot]:
                    store.delete(name)
    return {lot: names for lot, names in shards.items() if lot >= whole.num_lots}

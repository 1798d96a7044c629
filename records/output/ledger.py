"""The committed lots: a listing of kept shards, and the footers that the manifest does not count yet."""

from collections.abc import Iterable, Iterator
from typing import Any

from gristmill.records.errors import UserError
from gristmill.records.ordered_map import read_ahead
from gristmill.records.output.listing import OnListed, listed
from gristmill.records.output.manifest import Manifest
from gristmill.records.output.shard_names import KEPT, REJECTED, kept_lot, rejected_lot, shard_name
from gristmill.records.output.shard_reading import read_meta
from gristmill.records.output.summary import Summary
from gristmill.records.stores.contract import Store

MAX_NAMES = 3  # of missing shards in a message


def kept_lots(
    store: Store, strangers: list[str] | None = None, num_lots: int = 0, on_listed: OnListed | None = None
) -> dict[int, int]:
    """Lot number to size in bytes of its kept shard. Memory grows with lots, not with rows.

    `strangers` gets the names of all other objects of the folder: whoever reads `kept/*.parquet` may take them for
    rows of the run. `num_lots` and `on_listed`: see `listed`.
    """
    lots = {}
    for name, size in listed(store, KEPT, num_lots, on_listed):
        if (lot := kept_lot(name)) is not None:
            lots[lot] = size
        elif strangers is not None:
            strangers.append(name)
    return lots


def rejected_shards(
    store: Store, strangers: list[str] | None = None, num_lots: int = 0, first: int = 0
) -> tuple[int, dict[int, list[str]]]:
    """How many rejected shards there are of lots before `first`, and the names of all others by lot.

    They are the shard that the kept shard of the lot names, and leftovers of other drivers. `strangers` and
    `num_lots`: see `kept_lots`.
    """
    num_before = 0
    names: dict[int, list[str]] = {}
    for name, _ in listed(store, REJECTED, num_lots):
        lot = rejected_lot(name)
        if lot is None:
            if strangers is not None:
                strangers.append(name)
        elif lot < first:
            num_before += 1
        else:
            names.setdefault(lot, []).append(name)
    return num_before, names


def is_begun(store: Store) -> bool:
    """Whether there is any shard; stops at the first."""
    return any(kept_lot(entry.name) is not None for entry in store.list(f"{KEPT}/")) or any(
        rejected_lot(entry.name) is not None for entry in store.list(f"{REJECTED}/")
    )


def committed(
    store: Store, manifest: Manifest, strangers: list[str] | None = None, on_listed: OnListed | None = None
) -> dict[int, int]:
    """The committed lots 0..n-1 with the sizes of their kept shards; `strangers`: see `kept_lots`.

    Raises UserError when a shard is missing: one before another, or one that the manifest counts. Read the manifest
    before this, because a driver may be committing.
    """
    lots = kept_lots(store, strangers, manifest.totals.num_lots, on_listed)
    num_lots = max(manifest.totals.num_lots, max(lots, default=-1) + 1)
    missing = [lot for lot in range(num_lots) if lot not in lots]
    if missing:  # or committed after its range was listed, and before a later range was
        until = shard_name(KEPT, missing[-1])
        for entry in store.list(f"{KEPT}/", "" if not missing[0] else shard_name(KEPT, missing[0] - 1), until):
            if (lot := kept_lot(entry.name)) is not None:
                lots[lot] = entry.size
        _refuse_missing(store, [shard_name(KEPT, lot) for lot in missing if lot not in lots], num_lots)
    return lots


def _refuse_missing(store: Store, names: list[str], num_lots: int) -> None:
    if names:
        more = f" and {len(names) - MAX_NAMES:,} more" if len(names) > MAX_NAMES else ""
        raise UserError(
            f"{store.uri}: of {num_lots:,} committed lots {', '.join(names[:MAX_NAMES])}{more} "
            f"{'is' if len(names) == 1 else 'are'} missing; nothing was changed; put the files back, or start in a new "
            f"--out (details: gristmill audit {store.uri})"
        )


def metas(store: Store, lots: Iterable[int]) -> Iterator[dict[str, Any]]:
    """The footers of committed lots in the order of `lots`, see `meta_of`. Raises UnreadableShard."""
    return read_ahead(store, lambda lot: read_meta(store, lot), lots)


def summaries(store: Store, lots: Iterable[int]) -> Iterator[Summary]:
    """The summaries of committed lots, read from their footers. Raises UnreadableShard."""
    return (meta["summary"] for meta in metas(store, lots))


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
    num_committed, leftovers = rejected_shards(store, strangers, whole.num_lots, first=whole.num_lots)
    if num_committed != whole.rejected_shards:
        _, shards = rejected_shards(store, None, whole.num_lots)
        _remove_unnamed(store, whole, {lot: names for lot, names in shards.items() if lot < whole.num_lots})
    return leftovers


def _remove_unnamed(store: Store, whole: Summary, shards: dict[int, list[str]]) -> None:
    """Delete the rejected shards of committed lots that no kept shard names; `shards`: those there are, by lot.

    Raises UserError, before anything is deleted, when a shard that a kept shard names is missing.
    """
    doubtful: Iterable[int] = range(whole.num_lots)
    if len(shards) == whole.rejected_shards:  # each lot with rejected rows has a shard, and some have several
        doubtful = [lot for lot, names in shards.items() if len(names) > 1]
    named = {meta["lot"]: meta["rejected"] for meta in metas(store, doubtful)}
    missing = [name for lot, name in named.items() if name and name not in shards.get(lot, ())]
    _refuse_missing(store, missing, whole.num_lots)
    for lot, rejected in named.items():
        for name in shards.get(lot, ()):
            if name != rejected:
                store.delete(name)

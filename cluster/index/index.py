"""The dedup index, the driver's side: claims in lot order. A view, never a truth: it is rebuilt from the committed
shards, or faster from snapshots of its claims."""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import ray

from gristmill.cluster.errors import LOST, RunFailed, short
from gristmill.cluster.index import snapshots
from gristmill.cluster.index.bandshards import BandShards, IndexLost
from gristmill.cluster.index.rebuild import ClaimSource
from gristmill.cluster.index.snapshots import Claims, SnapshotWriter
from gristmill.cluster.lots.work import LotResult
from gristmill.cluster.spec import SNAPSHOT_LOTS
from gristmill.records.stores.contract import Store
from gristmill.stages.admission.contract import resolve_admitting
from gristmill.stages.dedup.bandindex import NOBODY
from gristmill.stages.dedup.contract import Duplicates

logger = logging.getLogger(__name__)

MAX_EXCESS = 10.0  # times the stated error at which overfull filters end the run


class DedupIndex:
    """Claims in lot order, snapshots of what is committed, and a rebuild of actors that are lost."""

    def __init__(
        self,
        pipeline_ref: Any,
        store: Store,
        num_bands: int,
        num_actors: int,
        max_retries: int,
        snapshot_lots: int = SNAPSHOT_LOTS,
    ) -> None:
        """`pipeline_ref`: a pipeline with a dedup stage of `num_bands`; `snapshot_lots` lots a snapshot, 0 for none."""
        pipeline = ray.get(pipeline_ref)
        assert pipeline.dedup is not None and pipeline.dedup.bands == num_bands
        self.dedup: Duplicates = pipeline.dedup
        self.num_bands, self.max_retries = num_bands, max_retries
        self._lot_size = pipeline.plan.lot_size
        whose = snapshots.identity(pipeline.plan, pipeline.dedup)
        self._writer = SnapshotWriter(store, whose, snapshot_lots)
        self._shards = BandShards(
            pipeline.dedup, num_actors, ClaimSource(store, pipeline.plan, pipeline.dedup, whose, snapshot_lots)
        )
        # Claims that no committed shard holds yet, by lot; actors made anew in mid-run need them.
        self._uncommitted: dict[int, Claims] = {}
        self._num_committed = self._num_settled = 0
        # The claims of the latest lots are sent with the next question.
        self._unsent = _joined([], num_bands)
        self._unsent_from = 0
        self._told_error = 0.0

    @property
    def nbytes(self) -> int:
        """Bytes that the actors' tables or filters take, as of their last answers; asks nobody."""
        return self._shards.nbytes

    @property
    def num_rows(self) -> int:
        """Rows that own their bands, committed or claimed."""
        return self._num_settled + sum(len(owners) for _, owners in self._uncommitted.values())

    def start(
        self,
        num_committed: int,
        should_stop: Callable[[], bool] | None = None,
    ) -> None:
        """Make the actors and fill them with the claims of the committed lots, again when one is lost meanwhile.

        Raises RunFailed when they are lost again and again, or a shard cannot be read.
        """
        self._num_committed = self._unsent_from = num_committed
        self._revive(self._shards.numbers, should_stop)
        self._check_fill()

    def _revive(self, numbers: list[int], should_stop: Callable[[], bool] | None = None) -> None:
        """Make these actors anew, with all that had been sent to them."""
        self.flush()
        sent = [claims for lot, claims in sorted(self._uncommitted.items()) if lot < self._unsent_from]
        cause: BaseException
        for _ in range(self.max_retries + 1):
            try:
                self._num_settled = self._shards.fill(numbers, self._num_committed, sent, should_stop)
                return
            except LOST as error:
                cause = error
            except ray.exceptions.RayTaskError as error:
                cause = error.cause
                if not isinstance(cause, LOST):
                    raise RunFailed(f"dedup: the index cannot be read back: {short(cause)}") from error
        raise RunFailed(f"dedup: the index was lost {self.max_retries + 1} times ({short(cause)})") from cause

    def claim(self, lot: int, result: LotResult, first_owner: int) -> np.ndarray:
        """Owners int64 (num_rows,) of a lot's rows: -1 for a row that is kept (or dead), else that of the row which it
        duplicates: its ask number, or UNKNOWN (-2) where the index cannot name it.

        Lots must come in their order. Raises RunFailed when the index is lost again and again.
        """
        return self._claim([(lot, result, first_owner)])[0]

    def claim_many(self, lots: Sequence[tuple[int, LotResult, int]]) -> list[np.ndarray]:
        """What `claim` would answer for each (lot, result, first owner) in turn; with an exact index in one round trip.

        A filter would answer otherwise for lots that are claimed together, and then their number would change rows.
        """
        if self.dedup.is_exact and lots:
            return self._claim(lots)
        return [self.claim(*one) for one in lots]

    def claim_admitting(
        self, lot: int, result: LotResult, first_owner: int, admit: Callable[[int], bool]
    ) -> np.ndarray:
        """As `claim`, but a row that is no duplicate is kept only if `admit(its ask number)` says so; it is asked in
        the order of the rows. A row that is refused has -1 and claims nothing."""
        return self._claim([(lot, result, first_owner)], admit)[0]

    def _claim(
        self,
        lots: Sequence[tuple[int, LotResult, int]],
        admit: Callable[[int], bool] | None = None,
    ) -> list[np.ndarray]:
        keys = np.concatenate([result.keys for _, result, _ in lots if result.keys is not None])
        alive = np.concatenate([result.alive for _, result, _ in lots])
        first_lot, _, first_owner = lots[0]
        starts = np.cumsum([0] + [len(result.alive) for _, result, _ in lots])
        if [owner for _, _, owner in lots] != (first_owner + starts[:-1]).tolist():
            raise ValueError("lots that are claimed together must follow one another")
        found = np.full(len(alive), NOBODY, np.int64)
        found[alive] = self._ask(first_lot, keys[alive])
        resolve = partial(self.dedup.resolve, keys, found, first_owner=first_owner)
        if admit is None:
            owners = resolve(alive=alive)
        else:
            owners, alive = resolve_admitting(lambda living: resolve(alive=living), alive, first_owner, admit)
        kept = np.flatnonzero(alive & (owners == NOBODY))
        self._unsent, self._unsent_from = (keys[kept], first_owner + kept), first_lot
        for (lot, _, _), start, stop in zip(lots, *np.searchsorted(kept, [starts[:-1], starts[1:]])):
            self._uncommitted[lot] = self._unsent[0][start:stop], self._unsent[1][start:stop]
        self._check_fill()
        return np.split(owners, starts[1:-1])

    def _ask(self, lot: int, asked: np.ndarray) -> np.ndarray:
        for _ in range(self.max_retries + 1):
            try:
                return self._shards.ask(self._unsent, asked, self._num_committed * self._lot_size)
            except IndexLost as error:
                cause = error
                logger.warning(f"lot {lot}: the dedup index was lost and is built again ({error})")
                self._revive(error.numbers)
        raise RunFailed(f"dedup: the index was lost {self.max_retries + 1} times ({cause})") from cause

    def committed(self, lot: int) -> None:
        """A lot is in its shard now; its claims go into the next snapshot."""
        claims = self._uncommitted.pop(lot)
        self._num_settled += len(claims[1])
        self._num_committed = lot + 1
        self._writer.add(lot, claims)

    def rewind(self, lot: int, first_owner: int) -> None:
        """Take back the claims of `lot` and of every lot after it; all of them are uncommitted and claim again."""
        gone = {n: self._uncommitted.pop(n) for n in sorted(self._uncommitted) if n >= lot}
        sent = _joined([claims for n, claims in gone.items() if n < self._unsent_from], self.num_bands)
        keys, owners = self._unsent
        before = owners < first_owner
        self._unsent = keys[before], owners[before]
        self._unsent_from = min(self._unsent_from, lot)
        if len(sent[1]):
            try:
                self._shards.retract(sent)
            except IndexLost:
                pass  # the others have done it; the next claim finds the loss and rebuilds without these claims

    def flush(self) -> None:
        """Return when all that is committed is in snapshots, as far as the store takes them."""
        self._writer.flush()

    def stop(self) -> None:
        """End the actors. What is in no snapshot yet stays so: a run that fails or is interrupted must not wait."""
        self._writer.close()
        self._shards.kill(self._shards.numbers)

    def _check_fill(self) -> None:
        """Warn when Bloom filters hold more rows than they were made for. Raises RunFailed when far too many."""
        if self.dedup.is_exact:
            return
        stated, made_for = self.dedup.spec.bloom_error, self.dedup.spec.bloom_rows
        if self.num_rows <= made_for:
            return
        error = self.dedup.error_at(self.num_rows)
        what = f"{self.num_rows:,} rows are in Bloom filters made for {made_for:,} (bloom_rows)"
        what += f": a fresh row is now called a duplicate with a chance of {error:.2g} (bloom_error is {stated:g})"
        if error > MAX_EXCESS * stated:
            raise RunFailed(
                f"dedup: {what}; the run stops here. What is committed is sound: pack it, and go on in another --out "
                f"with a larger bloom_rows"
            )
        if error > 1.5 * self._told_error:
            self._told_error = error
            logger.warning(f"dedup index: {what}; at {MAX_EXCESS:g} times that the run stops")


def _joined(claims: Sequence[Claims], num_bands: int) -> Claims:
    empty = np.zeros((0, num_bands), np.uint64), np.zeros(0, np.int64)
    return np.concatenate([c[0] for c in [*claims, empty]]), np.concatenate([c[1] for c in [*claims, empty]])

"""The dedup index on the driver's side: answers which earlier row owns a key, and keeps the claims of kept rows.

The index is a view of the committed shards. It can be rebuilt from them, or faster from snapshots of its claims.
"""

import logging
from collections.abc import Callable, Sequence

import numpy as np
import ray

from gristmill.cluster.errors import LOSSES, RunFailed, one_line
from gristmill.cluster.index import snapshots
from gristmill.cluster.index.bandshards import BandShards, IndexLost
from gristmill.cluster.index.rebuild import ClaimSource
from gristmill.cluster.index.snapshots import Claims, SnapshotWriter
from gristmill.records.lots import Plan
from gristmill.records.stores.contract import Store
from gristmill.stages.dedup.contract import Duplicates

logger = logging.getLogger(__name__)

MAX_EXCESS = 10.0  # times the stated error at which overfull filters end the run


class DedupIndex:
    """Looks up keys in the actors, adds claims in lot order, writes snapshots, and rebuilds actors that are lost."""

    def __init__(
        self,
        plan: Plan,
        dedup: Duplicates,
        store: Store,
        num_actors: int,
        max_retries: int,
        snapshot_lots: int,
    ) -> None:
        """`snapshot_lots`: lots per snapshot, 0 for no snapshots."""
        self.dedup, self.max_retries = dedup, max_retries
        self._lot_size = plan.lot_size
        identity = snapshots.identity(plan, dedup)
        self._writer = SnapshotWriter(store, identity, snapshot_lots)
        self._shards = BandShards(dedup, num_actors, ClaimSource(store, plan, dedup, identity, snapshot_lots))
        # Claims by lot that are in no committed shard; actors that are rebuilt during a run need them.
        self._uncommitted: dict[int, Claims] = {}
        self._num_committed = self._num_settled = 0
        # Claims of lots from `_unsent_from` on. The next query sends them.
        self._unsent: list[Claims] = []
        self._unsent_from = 0
        self._reported_error = 0.0

    @property
    def nbytes(self) -> int:
        """Memory of the actors' tables or filters in bytes, as of their last answers; sends no request."""
        return self._shards.nbytes

    @property
    def num_rows(self) -> int:
        """Rows that own their bands, committed or claimed."""
        return self._num_settled + sum(len(owners) for _, owners in self._uncommitted.values())

    def start(self, num_committed: int, should_stop: Callable[[], bool] | None = None) -> None:
        """Start the actors and load the claims of the committed lots; actors that are lost meanwhile start again.

        Raises RunFailed when actors are lost too often, or when a shard cannot be read.
        """
        self._num_committed = self._unsent_from = num_committed
        self._rebuild(self._shards.numbers, should_stop)
        self._check_fill()

    def _rebuild(self, numbers: list[int], should_stop: Callable[[], bool] | None = None) -> None:
        """Replace these actors, with all claims that had been sent to them."""
        self.flush()
        sent = [claims for lot, claims in sorted(self._uncommitted.items()) if lot < self._unsent_from]
        cause: BaseException
        for _ in range(self.max_retries + 1):
            try:
                self._num_settled = self._shards.fill(numbers, self._num_committed, sent, should_stop)
                return
            except LOSSES as error:
                cause = error
            except ray.exceptions.RayTaskError as error:
                cause = error.cause
                if not isinstance(cause, LOSSES):
                    raise RunFailed(f"dedup: the index cannot be read back: {one_line(cause)}") from error
        raise self._lost(one_line(cause)) from cause

    def query(self, lot: int, keys: np.ndarray) -> np.ndarray:
        """Owners of the keys, uint64 (n, bands), among the rows of lots before `lot`: int64 (n,).

        An owner is an ask number, NOBODY (-1), or UNKNOWN (-2) if the index cannot name it. Raises RunFailed when
        actors are lost too often.
        """
        for _ in range(self.max_retries + 1):
            try:
                owners = self._shards.ask(self._joined(self._unsent), keys, self._num_committed * self._lot_size)
                self._unsent, self._unsent_from = [], lot
                return owners
            except IndexLost as error:
                cause = error
                logger.warning(f"lot {lot}: the dedup index was lost and is built again ({error})")
                self._rebuild(error.numbers)
        raise self._lost(str(cause)) from cause

    def _lost(self, cause: str) -> RunFailed:
        actors = f"cluster.index_actors = {len(self._shards.numbers)}"
        return RunFailed(
            f"dedup: the index was lost {self.max_retries + 1} times ({cause}). It holds {self.num_rows:,} rows with "
            f"{actors}: if memory ran out, raise that number or take larger nodes, and run the same command again"
        )

    def add(self, lot: int, claims: Claims) -> None:
        """Add the claims of a lot's kept rows. Raises RunFailed when Bloom filters hold far too many rows."""
        self._uncommitted[lot] = claims
        self._unsent.append(claims)
        self._check_fill()

    def committed(self, lot: int) -> None:
        """Note that the shard of a lot is written. Its claims go into the next snapshot."""
        claims = self._uncommitted.pop(lot)
        self._num_settled += len(claims[1])
        self._num_committed = lot + 1
        self._writer.add(lot, claims)

    def rewind(self, lot: int, first_owner: int) -> None:
        """Retract the claims of `lot`, whose first ask is `first_owner`, and of all later lots; none is committed."""
        retracted = {n: self._uncommitted.pop(n) for n in sorted(self._uncommitted) if n >= lot}
        sent = self._joined([claims for n, claims in retracted.items() if n < self._unsent_from])
        self._unsent = [(keys[o < first_owner], o[o < first_owner]) for keys, o in self._unsent]
        self._unsent_from = min(self._unsent_from, lot)
        if len(sent[1]):
            try:
                self._shards.retract(sent)
            except IndexLost:
                pass  # the other actors have retracted; the next query rebuilds this one without these claims

    def flush(self) -> None:
        """Return when snapshots hold all committed claims, as far as the store accepts them."""
        self._writer.flush()

    def stop(self) -> None:
        """Stop the actors. Claims in no snapshot stay so: a run that fails or is interrupted must not wait."""
        self._writer.close()
        self._shards.kill(self._shards.numbers)

    def _check_fill(self) -> None:
        """Warn when Bloom filters hold more rows than planned. Raises RunFailed when they hold far too many."""
        if self.dedup.is_exact:
            return
        stated_error, planned_rows = self.dedup.spec.bloom_error, self.dedup.spec.bloom_rows
        if self.num_rows <= planned_rows:
            return
        error = self.dedup.error_at(self.num_rows)
        problem = f"{self.num_rows:,} rows are in Bloom filters made for {planned_rows:,} (bloom_rows)"
        problem += f": the chance to reject a fresh row is now {error:.2g} (bloom_error is {stated_error:g})"
        if error > MAX_EXCESS * stated_error:
            raise RunFailed(
                f"dedup: {problem}; the run stops here. The committed rows are sound: pack them, and continue in "
                f"another --out with a larger bloom_rows"
            )
        if error > 1.5 * self._reported_error:
            self._reported_error = error
            logger.warning(f"dedup index: {problem}; at {MAX_EXCESS:g} times bloom_error the run stops")

    def _joined(self, claims: Sequence[Claims]) -> Claims:
        empty = np.zeros((0, self.dedup.bands), np.uint64), np.zeros(0, np.int64)
        return np.concatenate([c[0] for c in [*claims, empty]]), np.concatenate([c[1] for c in [*claims, empty]])

"""Commits lots in order, on threads. The bytes travel before the turn of a lot; its commit is one small step.

Rejected shards are put at once. Kept shards are sent on several connections, unseen, and become objects in lot order.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from gristmill.records.output import answers
from gristmill.records.output.shards import Encoded, begin_kept, put_kept, put_rejected
from gristmill.records.output.summary import Summary
from gristmill.records.stores.contract import PendingPut, Store

NUM_PUTS = 4  # of rejected shards at once
MAX_DELETES = 64  # committed lots whose answers wait to be deleted; those of further lots are left to the next start
NUM_AHEAD = 16  # kept shards that are sent at once. Their bytes are in memory anyway, see `Flow.max_in_commit`


def commit_lot(store: Store, encoded: Encoded, leftovers: Sequence[str], pending: PendingPut | None = None) -> None:
    """Put the kept shard of a lot, then delete `leftovers`: rejected shards that others have put for the lot.

    Raises Conflict when another driver has committed the lot.
    """
    put_kept(store, encoded, pending)
    for name in leftovers:
        if name != encoded.rejected_name:
            store.delete(name)  # the lot is committed with other rows, so no kept shard can ever name it


@dataclass(frozen=True)
class LotInCommit:
    """A lot that was submitted and not yet reported."""

    lot: int
    kept: PendingPut
    summary: Future[Summary]

    @property
    def is_committed(self) -> bool:
        return self.summary.done() and not self.summary.cancelled() and self.summary.exception() is None


class Committer:
    """Puts encoded lots, which must be submitted in lot order. `done` raises the errors of puts.

    `leftovers`: names of rejected shards that other drivers have put for lots that are not committed, by lot; they are
    deleted when this driver commits the lot. `check` raises UserError when another driver has taken the output; it is
    asked before each commit. `keeps_answers`: whether there are answers of lots in flight, which are deleted, too.
    """

    def __init__(
        self,
        store: Store,
        leftovers: Mapping[int, Sequence[str]] | None = None,
        check: Callable[[], None] = lambda: None,
        keeps_answers: bool = False,
    ) -> None:
        self.store, self._check = store, check
        self._leftovers = dict(leftovers or {})
        self._rejected = ThreadPoolExecutor(NUM_PUTS, thread_name_prefix="put")
        self._ahead = ThreadPoolExecutor(NUM_AHEAD, thread_name_prefix="send")
        self._ordered = ThreadPoolExecutor(1, thread_name_prefix="commit")
        self._deleter = ThreadPoolExecutor(1, thread_name_prefix="answers") if keeps_answers else None
        self._deletes: deque[Future[None]] = deque()
        self._running: deque[LotInCommit] = deque()
        self._has_failed = False  # used only by the thread of `_ordered`

    def submit(self, encoded: Encoded) -> None:
        rejected = self._rejected.submit(put_rejected, self.store, encoded)
        kept = begin_kept(self.store, encoded)
        self._ahead.submit(kept.send)
        summary = self._ordered.submit(self._commit, encoded, rejected, kept)
        self._running.append(LotInCommit(encoded.lot, kept, summary))

    def _commit(self, encoded: Encoded, rejected: Future[None], kept: PendingPut) -> Summary:
        if self._has_failed:
            raise RuntimeError("an earlier lot was not committed")  # committed lots have no gaps
        try:
            rejected.result()
            self._check()
            commit_lot(self.store, encoded, self._leftovers.pop(encoded.lot, ()), kept)
        except BaseException:
            self._has_failed = True
            raise
        self._delete_answers(encoded.lot)
        encoded.summary.kept_bytes = len(encoded.kept)
        return encoded.summary

    def _delete_answers(self, lot: int) -> None:
        """Delete the kept answers of a committed lot, on a thread of its own."""
        if self._deleter is None:
            return
        while self._deletes and self._deletes[0].done():
            self._deletes.popleft()
        if len(self._deletes) < MAX_DELETES:
            self._deletes.append(self._deleter.submit(answers.delete, self.store, lot))

    @property
    def num_running(self) -> int:
        return len(self._running)

    def done(self) -> list[tuple[int, Summary]]:
        """Lots committed since the last call, in order.

        Raises the error of a put (Conflict, UserError) once all lots before it have been returned.
        """
        finished: list[tuple[int, Summary]] = []
        while self._running and self._running[0].summary.done():
            first = self._running[0]
            if finished and not first.is_committed:
                break
            finished.append((first.lot, first.summary.result()))
            self._running.popleft()
        return finished

    def stop(self) -> list[tuple[int, Summary]]:
        """Finish the commit that runs, drop all others, and return the lots that were committed. Never raises."""
        self._ordered.shutdown(wait=True, cancel_futures=True)
        for running in self._running:
            if not running.is_committed:
                running.kept.drop()
        for pool in (self._rejected, self._ahead):
            pool.shutdown(wait=True, cancel_futures=True)
        if self._deleter is not None:
            self._deleter.shutdown(wait=True)
        finished = []
        for running in self._running:
            if not running.is_committed:
                break
            finished.append((running.lot, running.summary.result()))
        self._running.clear()
        return finished

"""Commits lots in order, on threads. Rejected shards are put at once; kept shards wait for their turn."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from gristmill.records.output.shards import Encoded, put_kept, put_rejected
from gristmill.records.output.summary import Summary
from gristmill.records.stores.contract import Store

NUM_PUTS = 4


def commit_lot(store: Store, encoded: Encoded, leftovers: Sequence[str]) -> None:
    """Put the kept shard of a lot, then delete `leftovers`: rejected shards that others have put for the lot.

    Raises Conflict when another driver has committed the lot.
    """
    put_kept(store, encoded)
    for name in leftovers:
        if name != encoded.rejected_name:
            store.delete(name)  # the lot is committed with other rows, so no kept shard can ever name it


class Committer:
    """Puts encoded lots, which must be submitted in lot order. `done` raises the errors of puts.

    `leftovers`: names of rejected shards that other drivers have put for lots that are not committed, by lot; they are
    deleted when this driver commits the lot. `check` raises UserError when another driver has taken the output; it is
    asked before each commit.
    """

    def __init__(
        self,
        store: Store,
        leftovers: Mapping[int, Sequence[str]] | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self.store, self._check = store, check
        self._leftovers = dict(leftovers or {})
        self._ahead = ThreadPoolExecutor(NUM_PUTS, thread_name_prefix="put")
        self._ordered = ThreadPoolExecutor(1, thread_name_prefix="commit")
        self._running: deque[tuple[int, Future[Summary]]] = deque()
        self._has_failed = False  # used only by the thread of `_ordered`

    def submit(self, encoded: Encoded) -> None:
        rejected = self._ahead.submit(put_rejected, self.store, encoded)
        self._running.append((encoded.lot, self._ordered.submit(self._commit, encoded, rejected)))

    def _commit(self, encoded: Encoded, rejected: Future[None]) -> Summary:
        if self._has_failed:
            raise RuntimeError("an earlier lot was not committed")  # committed lots have no gaps
        try:
            rejected.result()
            self._check()
            commit_lot(self.store, encoded, self._leftovers.pop(encoded.lot, ()))
        except BaseException:
            self._has_failed = True
            raise
        encoded.summary.kept_bytes = len(encoded.kept)
        return encoded.summary

    @property
    def num_running(self) -> int:
        return len(self._running)

    def done(self) -> list[tuple[int, Summary]]:
        """Lots committed since the last call, in order.

        Raises the error of a put (Conflict, UserError) once all lots before it have been returned.
        """
        finished: list[tuple[int, Summary]] = []
        while self._running and self._running[0][1].done():
            lot, future = self._running[0]
            if finished and future.exception() is not None:
                break
            finished.append((lot, future.result()))
            self._running.popleft()
        return finished

    def stop(self) -> list[tuple[int, Summary]]:
        """Drop puts that have not begun, wait for the others, and return the lots that they committed. Never raises."""
        self._ahead.shutdown(wait=True, cancel_futures=True)
        self._ordered.shutdown(wait=True, cancel_futures=True)
        finished = []
        for lot, future in self._running:
            if future.cancelled() or future.exception() is not None:
                break
            finished.append((lot, future.result()))
        self._running.clear()
        return finished

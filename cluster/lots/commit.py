"""Commits lots in order, on threads. Rejected shards are put at once; kept shards wait for their turn."""

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor

from gristmill.records.output.shards import Encoded, Summary, put_kept, put_rejected
from gristmill.records.stores.contract import Store

NUM_PUTS = 4


class Committer:
    """Puts encoded lots, which must be submitted in lot order. `done` raises the errors of puts."""

    def __init__(self, store: Store) -> None:
        self.store = store
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
            put_kept(self.store, encoded)
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

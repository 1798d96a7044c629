"""Many small reads at once, their results in order: what every loop over the lots of a remote store needs."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

from gristmill.records.stores.contract import Store

T = TypeVar("T")
R = TypeVar("R")

NUM_THREADS = 32  # as many connections as a client of S3 keeps open
LOCAL_THREADS = 4  # a file of a local disk is there before another thread gets its turn
AHEAD = 2  # calls that are begun or done for each thread, before their results are taken


def ordered_map(work: Callable[[T], R], items: Iterable[T], num_threads: int = NUM_THREADS) -> Iterator[R]:
    """`work(item)` of each item, in the order of the items, on `num_threads` threads.

    At most `AHEAD * num_threads` results exist at once, so memory is bounded and a slow caller slows the threads down.
    The first error ends the iteration and is raised in its place. `items` is read on the caller's thread.
    """
    if num_threads <= 1:
        yield from map(work, items)
        return
    rest = iter(items)
    waiting: deque[Future[R]] = deque()
    pool = ThreadPoolExecutor(num_threads)
    try:
        for item in rest:
            waiting.append(pool.submit(copy_context().run, work, item))  # pins are in the context
            if len(waiting) >= AHEAD * num_threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def read_ahead(store: Store | None, read: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """`ordered_map` of reads of a store, with as many threads as the store is worth; None: data of a package."""
    return ordered_map(read, items, NUM_THREADS if store and store.is_remote else LOCAL_THREADS)

"""Copies objects into a local folder: ranges of all of them at once, over many connections."""

import logging
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path

from gristmill.records.stores.contract import Entry, Store

logger = logging.getLogger(__name__)

RANGE_BYTES, NUM_THREADS = 16 << 20, 16  # their product is the memory that a download takes
REPORT_S = 15.0  # between two lines of progress


def download(store: Store, entries: Sequence[Entry], folder: Path) -> None:
    """Copy objects in their listed versions to the same names under `folder`.

    Raises Changed when an object is in another version by now, and UserError for a store in trouble.
    """
    progress = _Progress(store.uri, sum(entry.size for entry in entries))

    def copy(entry: Entry, start: int) -> None:
        data = store.fetch(entry.name, start, min(start + RANGE_BYTES, entry.size), entry.version)
        descriptor = os.open(folder / entry.name, os.O_WRONLY)
        try:
            view, at = memoryview(data), start
            while view:
                num_written = os.pwrite(descriptor, view, at)
                view, at = view[num_written:], at + num_written
        finally:
            os.close(descriptor)
        progress.add(len(data))

    with ThreadPoolExecutor(NUM_THREADS, thread_name_prefix="download") as pool:
        ranges = []
        for entry in entries:
            path = folder / entry.name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                file.truncate(entry.size)
            ranges += [pool.submit(copy, entry, start) for start in range(0, entry.size, RANGE_BYTES)]
        done, rest = wait(ranges, return_when=FIRST_EXCEPTION)
        for pending in rest:
            pending.cancel()
        for ended in done:
            ended.result()


class _Progress:
    """Logs how far a download is."""

    def __init__(self, uri: str, total: int) -> None:
        self._uri, self._total, self._done = uri, total, 0
        self._began = self._reported = time.monotonic()
        self._lock = threading.Lock()

    def add(self, num_bytes: int) -> None:
        with self._lock:
            self._done += num_bytes
            now = time.monotonic()
            if now - self._reported < REPORT_S:
                return
            self._reported = now
        rate = self._done / (now - self._began) / 1e9
        logger.info(f"{self._uri}: {self._done / 1e9:.1f} of {self._total / 1e9:.1f} GB here ({rate:.2f} GB/s)")

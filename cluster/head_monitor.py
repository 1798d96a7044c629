"""Says that a cluster's head does not answer: Ray itself ends a driver whose head is lost without a word of ours."""

import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import ray

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 2.0
TIMEOUT_S = 2.0
NUM_MISSES = 2  # in a row; a busy head may miss one


@contextmanager
def watching(address: str) -> Iterator[None]:
    """Knock at the head's control store for the length of the block, from a thread of its own.

    Nothing is watched where it cannot be reached at the start: a proxy may stand before it.
    """
    host, _, port = address.rpartition(":")
    if not (host and port.isdigit()):
        address = ray.get_runtime_context().gcs_address  # "auto" and the like
    if not _answers(address):
        yield
        return
    over = threading.Event()
    thread = threading.Thread(target=_watch, args=(address, over), name="headwatch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _watch(address: str, over: threading.Event) -> None:
    num_missed = 0
    while not over.wait(LOOK_EVERY_S):
        if _answers(address):
            if num_missed >= NUM_MISSES:
                logger.warning(f"the Ray head at {address} answers again")
            num_missed = 0
            continue
        num_missed += 1
        if num_missed == NUM_MISSES:
            logger.warning(
                f"the Ray head at {address} does not answer; if it stays away Ray ends this driver within a minute or "
                f"so. What is committed is safe: start the head again and run the same command"
            )


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), TIMEOUT_S).close()
    except OSError:
        return False
    return True

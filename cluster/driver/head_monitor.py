"""Warns when the head of the cluster does not answer: Ray ends the driver later without such a message."""

import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import ray

logger = logging.getLogger(__name__)

POLL_S = 2.0
TIMEOUT_S = 2.0
NUM_MISSES = 2  # in sequence; a busy head may miss one


@contextmanager
def watching(address: str) -> Iterator[None]:
    """Connect to the head's control store every POLL_S during the block, on a thread.

    Does nothing if the first connection fails: the head may be behind a proxy.
    """
    host, _, port = address.rpartition(":")
    if not (host and port.isdigit()):
        address = ray.get_runtime_context().gcs_address  # "auto" and the like
    if not _answers(address):
        yield
        return
    stop = threading.Event()
    thread = threading.Thread(target=_watch, args=(address, stop), name="head-monitor", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _watch(address: str, stop: threading.Event) -> None:
    num_missed = 0
    while not stop.wait(POLL_S):
        if _answers(address):
            if num_missed >= NUM_MISSES:
                logger.info(f"the Ray head at {address} answers again")
            num_missed = 0
            continue
        num_missed += 1
        if num_missed == NUM_MISSES:
            logger.warning(
                f"the Ray head at {address} does not answer; if it stays down, Ray ends this driver within about a "
                f"minute. Committed lots are safe: start the head again and run the same command"
            )


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), TIMEOUT_S).close()
    except OSError:
        return False
    return True

"""The lease of an output: its driver renews it, so that a second driver stops before it makes rows.

The lease saves work; the names of rejected shards and the if-absent put of the kept shard protect the data. The lease
needs no synchronised clocks. Its holder is alive when the beat changes while we watch, or when its process runs on this
host.
"""

import json
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Mapping
from typing import Any, NotRequired, TypedDict

from gristmill.records.errors import Conflict, UserError
from gristmill.records.output.formats import parse_json
from gristmill.records.processes import has_process_table, process_start
from gristmill.records.shapes import check_shape
from gristmill.records.stores.contract import Store
from gristmill.records.stores.retry import patience

logger = logging.getLogger(__name__)

NAME = "lease.json"
BEAT_S = 5.0
DEAD_S = 20.0  # without a beat, at BEAT_S; at a slower beat as many beats
SLOW_BEAT_S = 30.0  # where each renewal leaves a version behind that nobody may delete
OVERDUE_BEATS = 3  # a lease that was not seen for so long may have been taken
RELEASE_S = 10.0  # a lease that is not released by then remains; its process is gone, so others may take it


class LeaseFile(TypedDict):
    """The content of lease.json."""

    token: str
    host: str
    pid: int
    beat: NotRequired[int]
    beat_s: NotRequired[float]
    process_start: NotRequired[str | None]


def read_lease(store: Store) -> dict[str, Any] | None:
    """The content of the lease; None when there is none, and empty when it is of another shape: nobody renews it."""
    data = store.read_if_there(NAME)
    if data is None:
        return None
    try:
        held = parse_json(data, NAME)
        check_shape(held, LeaseFile, NAME)
    except UserError:
        return {}
    return dict(held)


def dead_s(held: Mapping[str, Any]) -> float:
    """Seconds without a beat after which the holder of a lease is dead. The lease states its own pace."""
    pace_s = min(max(float(held.get("beat_s", BEAT_S)), BEAT_S), SLOW_BEAT_S)
    return DEAD_S * pace_s / BEAT_S


class Lease:
    """Held between `acquire` and `release`; `lost` is set when another driver has taken it."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.token = secrets.token_hex(8)
        self.lost: str | None = None  # the driver that has it now
        self._beat, self._beat_s = 0, BEAT_S
        self._held_s = 0.0  # when it was last seen to be ours
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def _content(self) -> bytes:
        pid = os.getpid()
        content = {"token": self.token, "host": socket.gethostname(), "pid": pid, "beat": self._beat}
        return json.dumps({**content, "beat_s": self._beat_s, "process_start": process_start(pid)}).encode()

    def _put(self, *, if_absent: bool = False) -> None:
        """Write the lease. Where old versions of it remain, it is renewed at a slower pace, which it states first."""
        has_no_versions = self.store.renew(NAME, self._content(), if_absent=if_absent)
        if not has_no_versions and self._beat_s < SLOW_BEAT_S:
            self._beat, self._beat_s = self._beat + 1, SLOW_BEAT_S
            self.store.renew(NAME, self._content())
            logger.info(
                f"{self.store.uri}: the bucket keeps versions and the keys may not delete them, so {NAME} is renewed "
                f"every {SLOW_BEAT_S:.0f} s; a driver on another host waits {dead_s({'beat_s': SLOW_BEAT_S}):.0f} s"
            )

    def acquire(self) -> None:
        """Take the lease. Raises UserError when another driver holds it and is alive.

        A driver on another host is watched for `dead_s` seconds; this is logged.
        """
        try:
            self._put(if_absent=True)
        except Conflict:
            self._outlive(read_lease(self.store))
            self._put()
        self._held_s = _clock_s()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise UserError when another driver has taken the lease.

        After a pause of this process or its machine the lease is read first: the thread that renews it slept too.
        """
        if self._thread is not None and self.lost is None and _clock_s() - self._held_s > OVERDUE_BEATS * self._beat_s:
            self._is_ours(read_lease(self.store))
        if self.lost is not None:
            raise UserError(f"{self.store.uri} has been taken over by another driver ({self.lost}); this one stops")

    def _is_ours(self, held: dict[str, Any] | None) -> bool:
        if not held or held.get("token") != self.token:
            self.lost = who(held) if held else "it has ended since, or has removed lease.json"
            return False
        self._held_s = _clock_s()
        return True

    def _outlive(self, held: dict[str, Any] | None) -> None:
        if not held or held.get("token") == self.token:
            return
        if held.get("host") == socket.gethostname() and has_process_table():
            if process_start(held["pid"]) != held.get("process_start"):
                return
            self._refuse(held)
        logger.info(
            f"{self.store.uri} was last written by {who(held)}; watching for {dead_s(held):.0f} s whether it is alive"
        )
        end = time.monotonic() + dead_s(held)
        while time.monotonic() < end:
            time.sleep(1.0)
            current = read_lease(self.store)
            if current is None:
                return
            if (current.get("token"), current.get("beat")) != (held.get("token"), held.get("beat")):
                self._refuse(current)

    def _refuse(self, held: dict[str, Any]) -> None:
        raise UserError(
            f"{self.store.uri} is being written by another driver ({who(held)}); "
            f"wait for it, stop it, or choose another --out"
        )

    def _renew(self) -> None:
        while not self._stop.wait(self._beat_s):
            try:
                with patience(BEAT_S):  # a put with long retries may overwrite the lease of a successor
                    if not self._is_ours(read_lease(self.store)):
                        return
                    self._beat += 1
                    self._put()
            except (UserError, OSError):
                continue  # the next commit reports a store in trouble

    def release(self) -> None:
        """Release the lease. Raises nothing and returns within `RELEASE_S`, whatever the state of the store."""
        self._stop.set()
        ender = threading.Thread(target=self._let_go, name="lease-end", daemon=True)
        ender.start()
        ender.join(RELEASE_S)

    def _let_go(self) -> None:
        if self._thread is not None:
            self._thread.join()
        if self.lost is not None:
            return
        try:
            with patience(RELEASE_S / 2):
                if (held := read_lease(self.store)) and held.get("token") == self.token:
                    self.store.delete(NAME)
        except (UserError, OSError):
            return  # the run reports its own error, and a remaining lease delays others by `dead_s` at most


def _clock_s() -> float:
    """Seconds of a clock that goes on while the machine sleeps, where there is such a clock."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


def is_alive(held: dict[str, Any]) -> bool | None:
    """Whether the process of the holder runs; None when it is on another host, where only its beat shows that."""
    if held.get("host") != socket.gethostname() or not os.path.isdir("/proc/self"):
        return None
    if "pid" not in held or "process_start" not in held:
        return None
    return process_start(held["pid"]) == held["process_start"]


def who(held: dict[str, Any]) -> str:
    """The holder of a lease, for messages."""
    return f"process {held.get('pid')} on {held.get('host')}"

"""The structured log of a run: JSON lines in parts under `events/` beside the shards.

{"t": UTC time, "run": 12 characters of the fingerprint, "start": number of the driver's start, "event": ...,
"lot": ..., "stage": ..., ...values}. Events are for people and collectors. No verdict and no resume depends on them, so
a store in trouble can lose events, but no row.
"""

import json
import math
import re
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

from gristmill.records.errors import Conflict, UserError
from gristmill.records.masking.masks import masked, masked_text
from gristmill.records.printable import json_text
from gristmill.records.stores.contract import Store

FOLDER = "events"
PART = re.compile(rf"{FOLDER}/start-(\d+)-(\d+)\.jsonl")
PART_BYTES = 256 * 1024  # a part is rewritten with new lines up to this size, so that a long run has few objects
MAX_PENDING = 100_000  # lines in memory during an outage of the store
MAX_CHARS = 500  # of one string value
NUM_READERS = 16
FIRST_YEAR, LAST_YEAR = 1970, 9000  # of an event; differences of such times can be computed


def part_name(start: int, part: int) -> str:
    return f"{FOLDER}/start-{start:04d}-{part:06d}.jsonl"


class Events:
    """The log of a start of the driver. Any thread may call `note`; one thread calls `flush` regularly."""

    def __init__(self, store: Store, run: str, start: int, echo: bool = False) -> None:
        """`run` is the fingerprint, `start` the number of the driver's start; with `echo` lines go to stderr too."""
        self.store, self.run, self.start, self.echo = store, run[:12], start, echo
        self._pending: deque[bytes] = deque()
        self._num_dropped = 0
        self._lock = threading.Lock()  # of the pending lines; not held during requests to the store
        self._flushing = threading.Lock()
        self._part, self._so_far = 0, b""  # the number and the content of the current part

    def note(
        self, event: str, *, lot: int | None = None, stage: str | None = None, echo: bool = True, **values: Any
    ) -> None:
        """Log one event; `echo` is whether it may go to stderr too.

        Values are numbers, names and reasons, or lists and tables of them.
        """
        line = {"t": "", "run": self.run, "start": self.start, "event": event}
        line |= {k: v for k, v in (("lot", lot), ("stage", stage)) if v is not None}
        for name, value in values.items():
            line.setdefault(name, masked(self._plain(value), name))
        with self._lock:  # the time is taken inside, so that lines are in the order of their times
            text = self._text(line)
            self._pending.append(text.encode() + b"\n")
            if len(self._pending) > MAX_PENDING:
                self._pending.popleft()
                self._num_dropped += 1
        if self.echo and echo:
            try:
                sys.stderr.write(text + "\n")
                sys.stderr.flush()
            except (OSError, ValueError):  # the reader of the pipe is gone
                self.echo = False

    def _text(self, line: dict[str, Any]) -> str:
        line["t"] = datetime.now(UTC).isoformat(timespec="milliseconds")
        return json_text(line, allow_nan=False)

    def _plain(self, value: Any) -> Any:
        """`value` for JSON: scalars of numpy as Python scalars, NaN as null, texts without secrets and shortened."""
        if isinstance(value, bool | int) or value is None:
            return value
        if isinstance(value, float):
            return value if math.isfinite(value) else None
        if isinstance(value, str):
            text = masked_text(value.encode("utf-8", "replace").decode())  # no lone surrogates
            return text if len(text) <= MAX_CHARS else f"{text[: MAX_CHARS - 3]}..."
        if isinstance(value, dict):
            return {self._plain(str(k)): self._plain(v) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [self._plain(v) for v in value]
        return self._plain(value.tolist() if hasattr(value, "tolist") else str(value))

    def flush(self) -> None:
        """Write the lines since the last flush. After a failure of the store, the next flush retries."""
        with self._flushing:
            with self._lock:
                fresh, self._pending = self._pending, deque()
                num_dropped, self._num_dropped = self._num_dropped, 0
                lines = list(fresh)
                if num_dropped:
                    dropped = {"t": "", "run": self.run, "start": self.start, "event": "dropped", "num": num_dropped}
                    lines.append(self._text(dropped).encode() + b"\n")
            if not lines:
                return
            data = self._so_far + b"".join(lines)
            try:
                self._put(data)
            except (UserError, OSError):
                with self._lock:
                    self._num_dropped += num_dropped
                    self._pending.extendleft(reversed(fresh))
                    while len(self._pending) > MAX_PENDING:
                        self._pending.popleft()
                        self._num_dropped += 1
                return
            if len(data) < PART_BYTES:
                self._so_far = data
            else:
                self._part, self._so_far = self._part + 1, b""

    def _put(self, data: bytes) -> None:
        """Write the current part. A part of another driver under the same name is kept."""
        while not self._so_far:
            name = part_name(self.start, self._part)
            try:
                self.store.renew(name, data, if_absent=True)
                return
            except Conflict:
                stored = self.store.read_if_there(name)
                if stored is not None and data.startswith(stored):
                    break  # an earlier put of this log, whose answer was lost
                self._part += 1
        self.store.renew(part_name(self.start, self._part), data)


def parts(store: Store) -> list[str]:
    """The names of all parts, in order of start and time."""
    numbered = [
        (int(match[1]), int(match[2]), e.name) for e in store.list(f"{FOLDER}/") if (match := PART.fullmatch(e.name))
    ]
    return [name for _, _, name in sorted(numbered)]


def read_events(store: Store, names: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """All events (or those of some parts), in order of start and time. Lines that are not events are skipped.

    Parts are read in groups, so memory does not grow with the log. Raises UserError for a store in trouble.
    """
    names = parts(store) if names is None else names
    with ThreadPoolExecutor(NUM_READERS) as pool:
        for first in range(0, len(names), NUM_READERS):
            for data in pool.map(store.read_if_there, names[first : first + NUM_READERS]):
                for line in (data or b"").splitlines():
                    event = _parse(line)
                    if event is not None:
                        yield event


def newest_events(store: Store, num_parts: int = 2) -> list[dict[str, Any]]:
    """The events of the last parts, for the display of a run; takes a listing."""
    return list(read_events(store, parts(store)[-num_parts:]))


def when(event: dict[str, Any]) -> datetime:
    """The time of an event, with its time zone."""
    return datetime.fromisoformat(event["t"])


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
        is_ours = isinstance(event["event"], str) and isinstance(event["start"], int)
        return event if is_ours and FIRST_YEAR <= when(event).astimezone(UTC).year <= LAST_YEAR else None
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError):
        return None

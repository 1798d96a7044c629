"""The history of a run from its events, read once and kept in bounded memory however long the run was.

Times are seconds of running time: the starts of the driver follow one another, without the pauses between them.
"""

import math
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from itertools import accumulate, pairwise
from typing import Any

import numpy as np

from gristmill.jobs.pages.figure import PHASES
from gristmill.records.output.events import when

NUM_BINS = 512
MAX_SPANS = 100  # lots shown singly; a longer run is shown in bins, and its last lots singly
MAX_RECENT = 60
MAX_MARKS = 2000
MAX_LANES = 64  # engines
MAX_LOG = 60
MAX_S = 3e10  # a thousand years
LOGGED = ("start", "end", "engine", "index", "retry", "poison", "storage", "dropped")
PLAIN_STATES = ("loading", "taken over", "open", "closed", "handed on")  # every engine passes through these


class Bins:
    """Sums over equal steps of time, a fixed number of them: the step doubles when the time outgrows them."""

    def __init__(self, *names: str, num: int = NUM_BINS, step_s: float = 0.25) -> None:
        self.num, self.step_s, self.end_s = num, step_s, 0.0
        self.sums = {name: np.zeros(num) for name in names}

    def _reach(self, at_s: float) -> None:
        while at_s >= self.step_s * self.num:
            for name, sums in self.sums.items():
                pairs = sums.reshape(-1, 2).sum(axis=1)
                self.sums[name] = np.concatenate([pairs, np.zeros(self.num // 2)])
            self.step_s *= 2
        self.end_s = max(self.end_s, at_s)

    def add(self, at_s: float, **values: float) -> None:
        """Add values at a time. Raises ValueError for a number that is not finite, or a time beyond MAX_S."""
        if not (at_s < MAX_S and all(math.isfinite(value) for value in values.values())):
            raise ValueError(f"{values} at {at_s} s cannot be added")
        at_s = max(at_s, 0.0)
        self._reach(at_s)
        for name, value in values.items():
            self.sums[name][int(at_s / self.step_s)] += value

    def spread(self, since_s: float, at_s: float, **values: float) -> None:
        """Add values evenly over a time. Raises ValueError as `add` does."""
        self._reach(min(max(at_s, 0.0), MAX_S))
        num = max(1, min(self.num, round((at_s - since_s) / self.step_s)))
        for number in range(num):
            at = since_s + (number + 0.5) * (at_s - since_s) / num
            self.add(at, **{name: value / num for name, value in values.items()})

    def coarse(self, num: int, end_s: float) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """(edges in s, sums) in at most `num` equal steps from 0 to `end_s` or the last addition, if that is later.

        The last step may be a shorter one.
        """
        self._reach(end_s)
        used = int(self.end_s / self.step_s) + 1
        group = -(-used // max(1, num))
        starts = np.arange(0, used, group)
        edges = np.append(starts * self.step_s, max(self.end_s, starts[-1] * self.step_s + 1e-3))
        return edges, {name: np.add.reduceat(sums[:used], starts) for name, sums in self.sums.items()}


@dataclass(frozen=True)
class Span:
    """One committed lot: the times at which it was born, made, processed, claimed and committed."""

    lot: int
    tries: int
    edges_s: tuple[float, ...]


@dataclass
class Start:
    """One start of the driver, from its events."""

    number: int
    began: datetime
    zero_s: float
    last_s: float
    event: dict[str, Any] = field(default_factory=dict)  # its "start" event
    ended: str = ""  # its "end" event in words; empty for a driver that was killed or still runs
    made_tokens: float = 0.0  # by its engines, at the last progress event
    progress_s: float | None = None  # time of that event


@dataclass
class Engine:
    """One place in a pool."""

    name: str
    num_opened: int = 0
    num_lost: int = 0
    state: str = ""
    loading_since_s: float | None = None
    load_s: float | None = None  # of the last time it was loaded
    why: str = ""  # of its last loss


class History:
    """Takes events in order of start and time."""

    def __init__(self, events: Iterable[dict[str, Any]] = ()) -> None:
        self.starts: list[Start] = []
        self.commits = Bins("lots", "rows", "kept", "tokens", *PHASES)
        self.engine_tokens = Bins("tokens", "seconds")
        self.lanes: dict[str, Bins] = {}  # by engine: busy share times seconds, and seconds
        # (lots committed so far, share of the most frequent mark by kind); every second one goes when they are many
        self.templates: list[tuple[int, dict[str, float]]] = []
        self._template_step = 1
        self.spans: list[Span] = []  # of all lots, while they are few
        self.recent: deque[Span] = deque(maxlen=MAX_RECENT)
        self.retries: deque[tuple[float, int]] = deque(maxlen=MAX_MARKS)  # (time, lot)
        self.losses_s: deque[float] = deque(maxlen=MAX_MARKS)  # times at which engines were lost
        self.engines: dict[str, Engine] = {}
        self.counts: Counter[str] = Counter()
        self.log: deque[tuple[float, int, str, str]] = deque(maxlen=MAX_LOG)  # (time, start, event, the rest in words)
        self.num_logged = self.num_unclear = 0
        for event in events:
            self.take(event)

    @property
    def end_s(self) -> float:
        return self.starts[-1].last_s if self.starts else 0.0

    def take(self, event: dict[str, Any]) -> None:
        """Add one event. Events of unknown names are counted; an event without its values is left out."""
        name = event["event"]
        start = self._start(event)
        at_s = start.zero_s + max(0.0, (when(event) - start.began).total_seconds())
        start.last_s = max(start.last_s, at_s)
        try:
            if name == "commit":
                self._commit(event, start)
            elif name == "progress":
                self._progress(event, start, at_s)
            elif name == "engine":
                self._engine(event, at_s)
            elif name == "end":
                start.ended = ": ".join(str(event[key]) for key in ("state", "why") if event.get(key))
            elif name == "retry":
                self.retries.append((at_s, int(event["lot"])))
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
            self.num_unclear += 1
            return
        self.counts[name] += 1
        if name in LOGGED and not (name == "engine" and event["state"] in PLAIN_STATES):
            self.num_logged += 1
            self.log.append((at_s, start.number, name, _words(event)))

    def _start(self, event: dict[str, Any]) -> Start:
        """The start of the driver that an event belongs to. Its time counts from its "start" event, if it has one."""
        last = self.starts[-1] if self.starts else None
        is_other = last is None or event["start"] != last.number or (event["event"] == "start" and bool(last.event))
        if last is None or is_other:  # a driver that dies early leaves its number to the next
            last = Start(event["start"], when(event), self.end_s, self.end_s)
            self.starts.append(last)
        if event["event"] == "start":
            waited_s = max(0.0, (when(event) - last.began).total_seconds())
            last.event, last.began, last.zero_s = event, when(event), last.zero_s + waited_s
        return last

    def _commit(self, event: dict[str, Any], start: Start) -> None:
        names = ("born_s", "made_s", "processed_s", "claimed_s", "committed_s")
        times = (float(event["born_s"] if event.get(name) is None else event[name]) for name in names)
        edges = tuple(start.zero_s + time for time in accumulate(times, max))
        span = Span(int(event["lot"]), int(event.get("tries", 0)), edges)
        num_rejected = sum(event.get("rejected", {}).values())
        values = {
            "lots": 1.0,
            "kept": float(event["kept"]),
            "rows": float(event.get("asks", event["kept"] + num_rejected)),
            "tokens": float(event.get("tokens_out", 0)),
        }
        start.last_s = max(start.last_s, edges[-1])
        self.commits.add(edges[-1], **values, **{p: b - a for p, (a, b) in zip(PHASES, pairwise(edges))})
        self._template_shares(span.lot + 1, event.get("templates") or {})
        self.recent.append(span)
        if len(self.spans) <= MAX_SPANS:
            self.spans.append(span)

    def _template_shares(self, num_lots: int, shares: dict[str, Any]) -> None:
        if shares and num_lots % self._template_step == 0:
            self.templates.append((num_lots, {str(kind): float(share) for kind, share in shares.items()}))
            if len(self.templates) > MAX_MARKS:
                self._template_step *= 2
                self.templates = [entry for entry in self.templates if entry[0] % self._template_step == 0]

    @property
    def shows_every_lot(self) -> bool:
        return len(self.spans) <= MAX_SPANS

    def _progress(self, event: dict[str, Any], start: Start, at_s: float) -> None:
        made_tokens = float(event.get("made_tokens") or 0)
        since_s = start.zero_s if start.progress_s is None else start.progress_s
        if at_s > since_s and made_tokens >= start.made_tokens:
            self.engine_tokens.add((at_s + since_s) / 2, tokens=made_tokens - start.made_tokens, seconds=at_s - since_s)
        for name, share in (event.get("lanes") or {}).items():
            if at_s > since_s and (name in self.lanes or len(self.lanes) < MAX_LANES):
                lane = self.lanes.setdefault(name, Bins("busy", "seconds"))
                lane.spread(since_s, at_s, busy=float(share) * (at_s - since_s), seconds=at_s - since_s)
        start.made_tokens, start.progress_s = made_tokens, at_s

    def _engine(self, event: dict[str, Any], at_s: float) -> None:
        name = " ".join(str(event[key]) for key in ("pool", "replica") if event.get(key) is not None)
        engine = self.engines.setdefault(name, Engine(name))
        state = str(event["state"])
        if state in ("loading", "taken over"):
            engine.loading_since_s = at_s
        elif state == "open":
            engine.num_opened += 1
            since_s = at_s if engine.loading_since_s is None else engine.loading_since_s
            engine.load_s = float(event.get("seconds") or at_s - since_s)
        elif state == "lost":
            engine.num_lost += 1
            engine.why = str(event.get("why") or "")
            self.losses_s.append(at_s)
        engine.state = state


def _words(event: dict[str, Any]) -> str:
    """The values of an event in one line."""
    left_out = ("t", "run", "start", "event")
    words = [f"{k} {_value(v)}" for k, v in event.items() if k not in left_out and v is not None and v != ""]
    return ", ".join(words)


def _value(value: Any) -> str:
    return f"{value:,.4g}" if isinstance(value, float) else str(value)

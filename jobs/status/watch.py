"""`gristmill status URI --watch`: a run as it goes, seen from anywhere; reads the store only, and lightly.

A listing grows with lots, so it is made again only after five times as long as it took, and a footer is read once.
"""

import json
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from gristmill.jobs.status.command import Life, cost_of, life, literals, load_book, read_lease, show
from gristmill.jobs.terminal.tables import clock, money
from gristmill.records import ledger
from gristmill.records.events import newest_events, part_name, read_events
from gristmill.records.lease import DEAD_S
from gristmill.records.manifest import Manifest
from gristmill.records.shards import KEPT, Summary
from gristmill.records.stores.contract import Store
from gristmill.records.stores.opening import open_store

EVERY_S = 2.0
PLAIN_EVERY_S = 10.0
LISTING_SHARE = 0.2  # of the time that may go into listings
RATE_OVER_S = 120.0
MAX_REASONS = 8


@dataclass
class View:
    """What one look at a run has shown."""

    book: Manifest
    totals: Summary
    life: Life
    beat: dict[str, Any]  # the newest "beat" event of the driver's newest start
    num_asks: int | None  # of the whole run, as its "start" event tells


class Watcher:
    """Looks again and again, and remembers what one look cannot tell: rates, whether the lease's beat changes."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._totals = Summary()
        self._listed_s, self._took_s = float("-inf"), 0.0
        self._beat: tuple[Any, Any] | None = None  # of the lease
        self._changed_s: float | None = None  # when the lease's beat was last seen to change
        self._first_s = time.monotonic()
        self._start: tuple[int, int | None] | None = None  # the newest start, and its num_asks
        self.marks: deque[tuple[float, Summary]] = deque()

    def look(self) -> View:
        """The run as it is now. Raises UserError when it is none, or when the store cannot be read."""
        book = load_book(self.store)
        events = newest_events(self.store)
        totals = self._tally(book)
        now = time.monotonic()
        if not self.marks or totals.asks != self.marks[-1][1].asks:
            self.marks.append((now, totals))
            while len(self.marks) > 2 and now - self.marks[0][0] > RATE_OVER_S:
                self.marks.popleft()
        start = events[-1]["start"] if events else None
        beats = [e for e in events if e["event"] == "beat" and e["start"] == start]
        return View(book, totals, self._life(book, events), beats[-1] if beats else {}, self._num_asks(start))

    def _num_asks(self, start: int | None) -> int | None:
        """Asks of the whole run, as the "start" event tells: it is looked for once a start, in its first part."""
        if start is None:
            return None
        if self._start is None or self._start[0] != start:
            events = read_events(self.store, [part_name(start, 0)])
            self._start = start, next((e.get("num_asks") for e in events if e["event"] == "start"), None)
        return self._start[1]

    def _tally(self, book: Manifest) -> Summary:
        """Totals of what is committed: the manifest's, and the footers of the lots that it has not counted yet."""
        mine = self._totals
        if book.totals.num_lots > mine.num_lots:
            mine = book.totals
        now = time.monotonic()
        is_at_rest = book.state != "running"
        if is_at_rest or now - self._listed_s >= self._took_s / LISTING_SHARE:
            lots = ledger.lots_in(self.store, KEPT)
            whole = Summary()
            whole.add(mine)
            upto = whole.num_lots
            while upto in lots:
                upto += 1
            for summary in ledger.summaries(self.store, range(whole.num_lots, upto)):
                whole.add(summary)
            whole.kept_bytes = sum(lots.values())
            mine, self._listed_s, self._took_s = whole, time.monotonic(), time.monotonic() - now
        self._totals = mine
        return mine

    def _life(self, book: Manifest, events: list[dict[str, Any]]) -> Life:
        """The driver's life, with what its lease has shown while we watched."""
        seen = life(self.store, book, events)
        if seen.state != "running" or seen.alive is not None:
            return seen
        held = read_lease(self.store) or {}
        now, beat = time.monotonic(), (held.get("token"), held.get("beat"))
        if self._beat is not None and beat != self._beat:
            self._changed_s = now
        self._beat = beat
        quiet_s = now - (self._first_s if self._changed_s is None else self._changed_s)
        if quiet_s > DEAD_S:
            return Life("stopped", seen.driver, False, seen.silent_s)
        return seen if self._changed_s is None else Life("running", seen.driver, True, seen.silent_s)

    def rates(self) -> tuple[float, float, float, float]:
        """Asks, tokens, kept rows and kept tokens a second over the last two minutes of commits."""
        (first_s, first), (_, last) = self.marks[0], self.marks[-1]
        elapsed = max(time.monotonic() - first_s, 1e-9)
        names = ("asks", "tokens_out", "kept", "kept_tokens")
        asks, tokens, kept, kept_tokens = ((getattr(last, n) - getattr(first, n)) / elapsed for n in names)
        return asks, tokens, kept, kept_tokens

    def share(self, view: View) -> tuple[float | None, float | None]:
        """Share of the run that is done and the seconds left, by the limit nearest to its end; None when unknown."""
        limits, totals = view.book.recipe["limits"], view.totals
        asks_s, tokens_s, kept_s, kept_tokens_s = self.rates()
        num_asks = min((n for n in (view.num_asks, limits.get("asks")) if n), default=None)
        goals = [
            (totals.asks, num_asks, asks_s),
            (totals.kept, limits.get("kept_rows"), kept_s),
            (totals.kept_tokens, limits.get("kept_tokens"), kept_tokens_s),
            (totals.tokens_out, limits.get("tokens"), tokens_s),
        ]
        shares = [
            (min(1.0, done / goal), max(0.0, goal - done) / rate if rate > 0 else None)
            for done, goal, rate in goals
            if goal
        ]
        return max(shares, key=lambda s: s[0], default=(None, None))


def watch(uri: str, as_json: bool = False) -> int:
    """Show a run until it no longer goes on, or until Ctrl-C; returns the exit code. Raises UserError for no run."""
    store = open_store(uri)
    watcher = Watcher(store)
    console = Console(highlight=False)
    view = watcher.look()
    try:
        if console.is_terminal and not as_json:
            with Live(console=console, auto_refresh=False, transient=True) as live:
                while view.life.state == "running":
                    live.update(panel(watcher, view), refresh=True)
                    time.sleep(EVERY_S)
                    view = watcher.look()
        else:
            said_s = float("-inf")
            while view.life.state == "running":
                if time.monotonic() - said_s >= PLAIN_EVERY_S:
                    said_s = time.monotonic()
                    _say(watcher, view, as_json)
                time.sleep(EVERY_S)
                view = watcher.look()
    except KeyboardInterrupt:
        return 0  # the run goes on; only the watching ends
    if as_json:
        _say(watcher, view, as_json)
    else:
        show(literals(store, view.book, view.totals, view.life), console)
    return 0


def _say(watcher: Watcher, view: View, as_json: bool) -> None:
    if as_json:
        beat = {k: v for k, v in view.beat.items() if k not in ("run", "event", "start")}
        print(json.dumps({**literals(watcher.store, view.book, view.totals, view.life), "beat": beat}), flush=True)
    else:
        print(line(watcher, view), flush=True)


def _pulse(view: View) -> list[tuple[str, str]]:
    """What the newest beat tells, as (name, words)."""
    beat, told = view.beat, []
    in_flight = {k: v for k, v in (beat.get("in_flight") or {}).items() if v}
    if in_flight:
        phases = ", ".join(f"{number} {phase}" for phase, number in in_flight.items())
        told.append(("in flight", f"{sum(in_flight.values())} lots ({phases})"))
    if beat.get("engines_open") or beat.get("engines_loading"):
        loading = f", {beat['engines_loading']} loading" if beat.get("engines_loading") else ""
        told.append(("engines", f"{beat.get('engines_open', 0)} open{loading}"))
    if beat.get("commit_lag_s") is not None:
        told.append(("commit lag", f"{beat['commit_lag_s']:.1f} s"))
    cost = cost_of(view.book)
    if cost:
        told.append(("cost", f"{money(cost['cost'])} {cost.get('currency') or ''}".strip()))
    return told


def line(watcher: Watcher, view: View) -> str:
    """A look at a run in one line."""
    totals, (asks_s, tokens_s, _, _) = view.totals, watcher.rates()
    share, left_s = watcher.share(view)
    parts = [
        view.life.word,
        *([f"{share:.0%}"] if share is not None else []),
        f"{totals.num_lots:,} lots",
        f"{totals.asks:,} rows = {totals.kept:,} kept + {totals.num_rejected:,} rejected",
        f"{asks_s:,.1f} rows/s",
        f"{tokens_s:,.0f} tokens/s",
        *(f"{name} {words}" for name, words in _pulse(view)),
        *([f"ETA {clock(left_s)}"] if left_s is not None else []),
    ]
    return "  ".join(parts)


def panel(watcher: Watcher, view: View) -> RenderableType:
    """A look at a run as it stands on a terminal."""
    totals, (asks_s, tokens_s, _, _) = view.totals, watcher.rates()
    share, left_s = watcher.share(view)
    head = Table.grid(padding=(0, 1))
    bar = ProgressBar(total=1.0, completed=share or 0.0, width=40)
    eta = f"ETA {clock(left_s)}" if left_s is not None else ""
    head.add_row(*([bar, f"{share:.0%}", eta] if share is not None else [Text("no limit is known", style="dim")]))
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_row(Text(view.book.recipe["name"]), Text(view.life.word))
    table.add_row("lots", f"{totals.num_lots:,} committed")
    table.add_row("rows", f"{totals.asks:,} = {totals.kept:,} kept + {totals.num_rejected:,} rejected")
    for reason, count in sorted(totals.rejected.items(), key=lambda r: (-r[1], r[0]))[:MAX_REASONS]:
        table.add_row("", Text(f"{reason}  {count:,}", style="dim"))
    table.add_row("speed", f"{asks_s:,.1f} rows/s, {tokens_s:,.0f} tokens/s")
    for name, words in _pulse(view):
        table.add_row(name, Text(words))
    if view.life.driver:
        table.add_row("driver", Text(view.life.driver))
    return Group(head, table)

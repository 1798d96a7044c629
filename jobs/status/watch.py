"""`gristmill status URI --watch`: shows a run until it ends, from any machine; reads the store only, and lightly.

A listing grows with lots, so it is made again only after five times as long as it took, and a footer is read once.
"""

import time
from dataclasses import dataclass
from typing import Any

from rich.live import Live

from gristmill.jobs.status.life import Life, cost_of, driver_life, load_manifest, run_literals, show
from gristmill.jobs.terminal.console import open_console, print_json, print_line
from gristmill.jobs.terminal.view import Pace, View, facts, nearest_goal
from gristmill.records.output import ledger
from gristmill.records.output.events import newest_events, part_name, read_events
from gristmill.records.output.lease import dead_s, read_lease
from gristmill.records.output.manifest import Manifest
from gristmill.records.output.shards import Summary
from gristmill.records.stores.contract import Store
from gristmill.records.stores.opening import open_store

EVERY_S = 2.0
PLAIN_EVERY_S = 10.0
LISTING_SHARE = 0.2  # of the time that may go into listings


@dataclass
class Look:
    """A run as it was at one moment."""

    manifest: Manifest
    totals: Summary
    life: Life
    progress: dict[str, Any]  # the newest "progress" event of the driver's newest start
    num_asks: int | None  # of the whole run, as its "start" event says


class Watcher:
    """Looks again and again, and remembers what one look cannot show: rates, and whether the lease is renewed."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.pace = Pace()
        self._totals = Summary()
        self._listed_s, self._took_s = float("-inf"), 0.0
        self._renewal: tuple[Any, Any] | None = None  # token and beat of the lease
        self._renewed_s: float | None = None  # when the lease was last seen to be renewed
        self._first_s = time.monotonic()
        self._start: tuple[int, int | None] | None = None  # the newest start, and its num_asks

    def look(self) -> Look:
        """The run as it is now. Raises UserError when it is no run, or when the store cannot be read."""
        manifest = load_manifest(self.store)
        events = newest_events(self.store)
        totals = self._tally(manifest)
        manifest.recount(totals)
        self.pace.mark(totals)
        start = events[-1]["start"] if events else None
        progress = [e for e in events if e["event"] == "progress" and e["start"] == start]
        life = self._life(manifest, events)
        return Look(manifest, totals, life, progress[-1] if progress else {}, self._num_asks(start))

    def view(self, look: Look) -> View:
        """The look with rates and the time left."""
        limits, rates = look.manifest.recipe.get("limits", {}), self.pace.rates()
        num_asks = min((n for n in (look.num_asks, limits.get("asks")) if n), default=None)
        share, left_s = nearest_goal(look.totals, rates, num_asks, limits)
        words = facts(look.progress, cost_of(look.manifest))
        if look.life.driver:
            words.append(("driver", look.life.driver))
        return View(look.manifest.recipe["name"], look.life.word, look.totals, rates, share, left_s, words)

    def _num_asks(self, start: int | None) -> int | None:
        """Asks of the whole run, from the "start" event. Each start's first part is read once for it."""
        if start is None:
            return None
        if self._start is None or self._start[0] != start:
            events = read_events(self.store, [part_name(start, 0)])
            self._start = start, next((e.get("num_asks") for e in events if e["event"] == "start"), None)
        return self._start[1]

    def _tally(self, manifest: Manifest) -> Summary:
        """Totals of what is committed: the manifest's, and the footers of lots that it has not counted yet."""
        totals = self._totals
        if manifest.totals.num_lots > totals.num_lots:
            totals = manifest.totals
        now = time.monotonic()
        is_at_rest = manifest.state != "running"
        if is_at_rest or now - self._listed_s >= self._took_s / LISTING_SHARE:
            lots = ledger.kept_lots(self.store, num_lots=totals.num_lots)
            whole = Summary()
            whole.add(totals)
            stop = whole.num_lots
            while stop in lots:
                stop += 1
            for summary in ledger.summaries(self.store, range(whole.num_lots, stop)):
                whole.add(summary)
            whole.kept_bytes = sum(lots.values())
            totals, self._listed_s, self._took_s = whole, time.monotonic(), time.monotonic() - now
        self._totals = totals
        return totals

    def _life(self, manifest: Manifest, events: list[dict[str, Any]]) -> Life:
        """The driver's life, with what its lease has shown while we watched."""
        life = driver_life(self.store, manifest, events)
        if life.state != "running" or life.alive is not None:
            return life
        lease = read_lease(self.store) or {}
        now, renewal = time.monotonic(), (lease.get("token"), lease.get("beat"))
        if self._renewal is not None and renewal != self._renewal:
            self._renewed_s = now
        self._renewal = renewal
        quiet_s = now - (self._first_s if self._renewed_s is None else self._renewed_s)
        if quiet_s > dead_s(lease):
            return Life("stopped", life.driver, False, life.silent_s)
        return life if self._renewed_s is None else Life("running", life.driver, True, life.silent_s)


def watch(uri: str, as_json: bool = False) -> int:
    """Show a run until it ends, or until Ctrl-C; returns the exit code. Raises UserError when it is no run."""
    store = open_store(uri)
    watcher = Watcher(store)
    console = open_console()
    look = watcher.look()
    try:
        if console.is_terminal and not as_json:
            with Live(console=console, auto_refresh=False, transient=True) as live:
                while look.life.state == "running":
                    live.update(watcher.view(look).panel(), refresh=True)
                    time.sleep(EVERY_S)
                    look = watcher.look()
        else:
            printed_s = float("-inf")
            while look.life.state == "running":
                if time.monotonic() - printed_s >= PLAIN_EVERY_S:
                    printed_s = time.monotonic()
                    _print(watcher, look, as_json)
                time.sleep(EVERY_S)
                look = watcher.look()
    except KeyboardInterrupt:
        return 0  # the run goes on; only the watching ends
    if as_json:
        _print(watcher, look, as_json)
    else:
        show(_literals(store, look), console)
    return 0


def _print(watcher: Watcher, look: Look, as_json: bool) -> None:
    if as_json:
        progress = {k: v for k, v in look.progress.items() if k not in ("run", "event", "start")}
        print_json({**_literals(watcher.store, look), "progress": progress}, indent=None)
    else:
        print_line(watcher.view(look).line())


def _literals(store: Store, look: Look) -> dict[str, Any]:
    return run_literals(store, look.manifest, look.totals, look.life)

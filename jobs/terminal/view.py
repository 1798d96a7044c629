"""A run as people see it while it goes on: `produce` shows its own, `status --watch` shows any run from its store."""

import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Group
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from gristmill.jobs.terminal.speed import slots_words
from gristmill.jobs.terminal.tables import clock, money
from gristmill.records.output.shards import Summary
from gristmill.records.printable import printable_line

RATE_OVER_S = 120.0
MAX_REASONS = 8
BAR_WIDTH = 40


@dataclass(frozen=True)
class Rates:
    """Per second."""

    asks: float = 0.0
    tokens: float = 0.0  # generated, in kept rows or not
    kept: float = 0.0
    kept_tokens: float = 0.0


class Pace:
    """Rates over the last two minutes of commits. Give it the totals each time they may have changed."""

    def __init__(self) -> None:
        self._marks: deque[tuple[float, Summary]] = deque()

    def mark(self, totals: Summary) -> None:
        now = time.monotonic()
        if not self._marks or totals.asks != self._marks[-1][1].asks:
            copy = Summary()
            copy.add(totals)
            self._marks.append((now, copy))
            while len(self._marks) > 2 and now - self._marks[0][0] > RATE_OVER_S:
                self._marks.popleft()

    def rates(self) -> Rates:
        """Zero before the first mark."""
        if not self._marks:
            return Rates()
        (first_s, first), (_, last) = self._marks[0], self._marks[-1]
        elapsed = max(time.monotonic() - first_s, 1e-9)
        names = ("asks", "tokens_out", "kept", "kept_tokens")
        return Rates(*((getattr(last, name) - getattr(first, name)) / elapsed for name in names))


@dataclass(frozen=True)
class View:
    """One moment of a run."""

    title: str  # the name of the run
    state: str  # "running", or how long it has run
    totals: Summary
    rates: Rates
    share: float | None = None  # of the run that is done; None where no limit is known
    left_s: float | None = None
    facts: Sequence[tuple[str, str]] = ()  # (name, words), as `facts` makes them

    def line(self) -> str:
        """One line, for a log."""
        totals = self.totals
        parts = [
            self.state,
            *([f"{self.share:.0%}"] if self.share is not None else []),
            f"{totals.num_lots:,} lots",
            f"{totals.asks:,} rows = {totals.kept:,} kept + {totals.num_rejected:,} rejected",
            f"{self.rates.asks:,.1f} rows/s",
            f"{self.rates.tokens:,.0f} tokens/s",
            *(f"{name} {words}" for name, words in self.facts),
            *([f"ETA {clock(self.left_s)}"] if self.left_s is not None else []),
        ]
        return "  ".join(parts)

    def panel(self) -> Group:
        """A bar and a table, for a terminal."""
        totals = self.totals
        head = Table.grid(padding=(0, 1))
        if self.share is None:
            head.add_row(Text("no limit is known", style="dim"))
        else:
            eta = f"ETA {clock(self.left_s)}" if self.left_s is not None else ""
            head.add_row(ProgressBar(total=1.0, completed=self.share, width=BAR_WIDTH), f"{self.share:.0%}", eta)
        table = Table.grid(padding=(0, 2))
        table.add_column(style="bold")
        table.add_row(self.title, self.state)
        table.add_row("lots", f"{totals.num_lots:,} committed")
        table.add_row("rows", f"{totals.asks:,} = {totals.kept:,} kept + {totals.num_rejected:,} rejected")
        for reason, count in sorted(totals.rejected.items(), key=lambda r: (-r[1], r[0]))[:MAX_REASONS]:
            table.add_row("", Text(printable_line(f"{reason}  {count:,}"), style="dim"))
        table.add_row("speed", f"{self.rates.asks:,.1f} rows/s, {self.rates.tokens:,.0f} tokens/s")
        for name, words in self.facts:
            table.add_row(name, words)
        return Group(head, table)


def nearest_goal(
    totals: Summary, rates: Rates, num_asks: int | None, limits: Mapping[str, Any]
) -> tuple[float | None, float | None]:
    """The share of the run that is done and the seconds left, by the limit nearest to its end; None when unknown.

    `num_asks` are the asks of the whole run; `limits` is the recipe's table.
    """
    goals = [
        (totals.asks, num_asks, rates.asks),
        (totals.kept, limits.get("kept_rows"), rates.kept),
        (totals.kept_tokens, limits.get("kept_tokens"), rates.kept_tokens),
        (totals.tokens_out, limits.get("tokens"), rates.tokens),
    ]
    shares = [
        (min(1.0, done / goal), max(0.0, goal - done) / rate if rate > 0 else None)
        for done, goal, rate in goals
        if goal
    ]
    return max(shares, key=lambda s: s[0], default=(None, None))


def facts(progress: Mapping[str, Any], cost: Mapping[str, Any] | None = None) -> list[tuple[str, str]]:
    """What a "progress" event says, as (name, words); `cost` is the manifest's cost table of a run with a price."""
    words = []
    in_flight = {k: v for k, v in (progress.get("in_flight") or {}).items() if v}
    if in_flight:
        phases = ", ".join(f"{number} {phase}" for phase, number in in_flight.items())
        words.append(("in flight", f"{sum(in_flight.values())} lots ({phases})"))
    if progress.get("engines_open") or progress.get("engines_loading"):
        loading = f", {progress['engines_loading']} loading" if progress.get("engines_loading") else ""
        words.append(("engines", f"{progress.get('engines_open', 0)} open{loading}"))
    if slots := slots_words(progress):
        words.append(("slots busy", slots))
    if (progress.get("window_share") or 0) >= 1:
        words.append(("window", "full: no further lot begins until lots are committed"))
    if progress.get("commit_lag_s") is not None:
        words.append(("commit lag", f"{progress['commit_lag_s']:.1f} s"))
    if progress.get("retries"):
        words.append(("retries", f"{progress['retries']:,}"))
    if cost:
        words.append(("cost", f"{money(cost['cost'])} {cost.get('currency') or ''}".strip()))
    elif progress.get("paid"):
        words.append(("calls", f"{money(progress['paid'])} {progress.get('currency') or ''}".strip()))
    return words

"""What a person sees while a run goes on: a live display on a terminal, plain lines elsewhere."""

import sys
import time
from collections import deque
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from gristmill.cluster.lots.job import Progress
from gristmill.cluster.spec import Limits
from gristmill.jobs.terminal.tables import clock
from gristmill.records.shards import Summary

PLAIN_EVERY_S = 10.0
LIVE_EVERY_S = 0.5
RATE_OVER_S = 120.0
ENGINE_RATE_OVER_S = 30.0


class ProgressDisplay:
    """Shows lots, rows and tokens per second, kept and rejected by reason, and the time left."""

    def __init__(
        self,
        num_asks: int | None,
        limits: Limits,
        start: Summary,
        console: Console | None = None,
        quiet: bool = False,
    ) -> None:
        self.quiet = quiet  # shows nothing: somebody else tells
        self.console = console or Console(file=sys.stderr, highlight=False)
        self.num_asks, self.limits = num_asks, limits
        self.started = time.monotonic()
        # (time, asks, tokens_out, kept, kept_tokens) committed: the window that rates are taken over
        self.marks: deque[tuple[float, int, int, int, int]] = deque([self._mark(start)])
        self.made: deque[tuple[float, int, int]] = deque()  # (time, asks, tokens), as engines tell
        self.asks_before = start.asks
        self.last_shown = 0.0
        self.first_shown = False
        self.live: Live | None = None

    def __enter__(self) -> "ProgressDisplay":
        if self.console.is_terminal and not self.quiet:
            self.live = Live(console=self.console, auto_refresh=False, transient=True)
            self.live.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        if self.live:
            self.live.__exit__(*error)

    @staticmethod
    def _mark(totals: Summary) -> tuple[float, int, int, int, int]:
        return time.monotonic(), totals.asks, totals.tokens_out, totals.kept, totals.kept_tokens

    def beat(self, beat: Progress) -> None:
        if self.quiet:
            return
        now = time.monotonic()
        if beat.totals.asks != self.marks[-1][1]:
            self.marks.append(self._mark(beat.totals))
            while len(self.marks) > 2 and now - self.marks[0][0] > RATE_OVER_S:
                self.marks.popleft()
        if beat.num_engines_open and (not self.made or now - self.made[-1][0] > 1.0):
            self.made.append((now, beat.made_asks, beat.made_tokens))
            while len(self.made) > 2 and now - self.made[0][0] > ENGINE_RATE_OVER_S:
                self.made.popleft()
        if now - self.last_shown < (LIVE_EVERY_S if self.live else PLAIN_EVERY_S) and self.first_shown:
            return
        self.last_shown, self.first_shown = now, True
        if self.live:
            self.live.update(self._panel(beat), refresh=True)
        else:
            self.console.print(self._line(beat), soft_wrap=True, markup=False)

    def _rates(self) -> tuple[float, float, float, float]:
        """Asks, tokens, kept rows and kept tokens per second, over committed lots."""
        first, last = self.marks[0], self.marks[-1]
        elapsed = max(time.monotonic() - first[0], 1e-9)
        a, t, k, kt = (float(b - a) / elapsed for a, b in zip(first[1:], last[1:]))
        if len(self.made) > 1:  # a lot may take minutes: what the engines say is nearer to now
            first_made, last_made = self.made[0], self.made[-1]
            seconds = max(last_made[0] - first_made[0], 1e-9)
            a, t = (last_made[1] - first_made[1]) / seconds, (last_made[2] - first_made[2]) / seconds
        return a, t, k, kt

    def _share(self, totals: Summary) -> tuple[float, float | None]:
        """Share of the run that is done, and the seconds left; the limit nearest to its end counts."""
        asks_s, _, kept_s, kept_tokens_s = self._rates()
        goals = [
            (totals.asks, self.num_asks, asks_s),
            (totals.kept, self.limits.kept_rows, kept_s),
            (totals.kept_tokens, self.limits.kept_tokens, kept_tokens_s),
        ]
        shares = [(done / goal, (goal - done) / rate if rate else None) for done, goal, rate in goals if goal]
        return max(shares, key=lambda s: s[0], default=(0.0, None))

    def _state(self, beat: Progress) -> str:
        if beat.num_engines and not beat.num_engines_open:
            return f"engine loading ({clock(time.monotonic() - self.started)})"
        pending = max(0, beat.made_asks - (beat.totals.asks - self.asks_before))
        made = f" ({pending} rows made)" if pending else ""
        return f"{sum(beat.in_flight.values())} lots in flight{made}"

    def _line(self, beat: Progress) -> str:
        totals, (asks_s, tokens_s, _, _) = beat.totals, self._rates()
        share, left_s = self._share(totals)
        parts = [
            f"[{clock(time.monotonic() - self.started)}]",
            f"{share:.0%}",
            f"{totals.num_lots} lots",
            f"{totals.asks} rows = {totals.kept} kept + {totals.num_rejected} rejected",
            f"{asks_s:.1f} rows/s",
            f"{tokens_s:,.0f} tokens/s",
            self._state(beat),
        ]
        if beat.num_retries:
            parts.append(f"{beat.num_retries} retries")
        if left_s is not None:
            parts.append(f"ETA {clock(left_s)}")
        return "  ".join(parts)

    def _panel(self, beat: Progress) -> Group:
        totals, (asks_s, tokens_s, _, _) = beat.totals, self._rates()
        share, left_s = self._share(totals)
        bar = Table.grid(padding=(0, 1))
        eta = f"ETA {clock(left_s)}" if left_s is not None else ""
        bar.add_row(ProgressBar(total=1.0, completed=share, width=40), f"{share:.0%}", eta)
        table = Table.grid(padding=(0, 2))
        table.add_column(style="bold")
        table.add_row("lots", f"{totals.num_lots} committed, {self._state(beat)}")
        table.add_row("rows", f"{totals.asks:,} made = {totals.kept:,} kept + {totals.num_rejected:,} rejected")
        table.add_row("speed", f"{asks_s:,.1f} rows/s, {tokens_s:,.0f} tokens/s")
        for reason, count in sorted(totals.rejected.items(), key=lambda r: -r[1])[:8]:
            table.add_row("", Text(f"{reason}  {count:,}", style="dim"))
        if beat.num_retries:
            table.add_row("retries", str(beat.num_retries))
        return Group(bar, table)

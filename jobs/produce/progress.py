"""What a person sees while a run goes on: a live display on a terminal, plain lines elsewhere."""

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rich.live import Live

from gristmill.cluster.spec import Limits
from gristmill.jobs.terminal.console import SafeConsole, open_console
from gristmill.jobs.terminal.tables import clock
from gristmill.jobs.terminal.view import Pace, Rates, View, facts, nearest_goal
from gristmill.records.output.shards import Summary

if TYPE_CHECKING:
    from gristmill.cluster.lots.job import Progress

PLAIN_EVERY_S = 10.0
LIVE_EVERY_S = 0.5
ENGINE_RATE_OVER_S = 30.0


class ProgressDisplay:
    """Shows lots, rows and tokens per second, kept and rejected by reason, and the time left."""

    def __init__(
        self,
        name: str,
        num_asks: int | None,
        limits: Limits,
        start: Summary,
        console: SafeConsole | None = None,
        quiet: bool = False,
    ) -> None:
        """`start` are the totals before this run; a `quiet` display shows nothing."""
        self.quiet = quiet
        self.console = console or open_console(is_error=True)
        self.name, self.num_asks, self.limits = name, num_asks, limits
        self.started = time.monotonic()
        self.pace = Pace()
        self.pace.mark(start)
        self.engine_marks: deque[tuple[float, int, int]] = deque()  # (time, asks, tokens) that engines have made
        self.shown_s: float | None = None
        self.live: Live | None = None

    def __enter__(self) -> "ProgressDisplay":
        if self.console.is_terminal and not self.quiet:
            self.live = Live(console=self.console, auto_refresh=False, transient=True)
            self.live.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        if self.live:
            self.live.__exit__(*error)

    def update(self, progress: "Progress", literals: Mapping[str, Any]) -> None:
        """Show `progress`, if it is time to; `literals` are its values as an event."""
        if self.quiet:
            return
        now = time.monotonic()
        self.pace.mark(progress.totals)
        if progress.num_engines_open and (not self.engine_marks or now - self.engine_marks[-1][0] > 1.0):
            self.engine_marks.append((now, progress.made_asks, progress.made_tokens))
            while len(self.engine_marks) > 2 and now - self.engine_marks[0][0] > ENGINE_RATE_OVER_S:
                self.engine_marks.popleft()
        every_s = LIVE_EVERY_S if self.live else PLAIN_EVERY_S
        if self.shown_s is not None and now - self.shown_s < every_s:
            return
        self.shown_s = now
        view = self._view(progress.totals, literals)
        if self.live:
            self.live.update(view.panel(), refresh=True)
        else:
            self.console.print_line(view.line())

    def _view(self, totals: Summary, literals: Mapping[str, Any]) -> View:
        rates, state = self._rates(), f"[{clock(time.monotonic() - self.started)}]"
        share, left_s = nearest_goal(totals, rates, self.num_asks, self.limits.__dict__)
        return View(self.name, state, totals, rates, share, left_s, facts(literals))

    def _rates(self) -> Rates:
        """Rates of commits; asks and tokens as the engines make them, where there are engines: a lot may take
        minutes."""
        rates = self.pace.rates()
        if len(self.engine_marks) < 2:
            return rates
        first, last = self.engine_marks[0], self.engine_marks[-1]
        seconds = max(last[0] - first[0], 1e-9)
        return replace(rates, asks=(last[1] - first[1]) / seconds, tokens=(last[2] - first[2]) / seconds)

"""How far a long job is: a bar on a terminal, a log line now and then elsewhere."""

import logging
import time
from typing import Any

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from gristmill.jobs.terminal.console import SafeConsole
from gristmill.jobs.terminal.logs import is_json
from gristmill.jobs.terminal.tables import clock
from gristmill.records.printable import printable_line

logger = logging.getLogger(__name__)


class Bar:
    """A context manager; call `show` with how much is done, of how much, and a text that says so."""

    def __init__(self, console: SafeConsole, name: str, plain_every_s: float) -> None:
        self.started, self._shown, self.plain_every_s = time.monotonic(), 0.0, plain_every_s
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
        )
        is_live = console.is_terminal and not is_json()
        self.bar = Progress(*columns, console=console, transient=True) if is_live else None
        self.task = self.bar.add_task(printable_line(name), total=None) if self.bar else None

    def __enter__(self) -> "Bar":
        if self.bar:
            self.bar.start()
        return self

    def __exit__(self, *error: Any) -> None:
        if self.bar:
            self.bar.stop()

    def show(self, done: float, total: float, text: str) -> None:
        """Show it now on a terminal; elsewhere at most every `plain_every_s` seconds."""
        if self.bar and self.task is not None:
            self.bar.update(self.task, total=total, completed=done, description=printable_line(text))
            return
        now = time.monotonic()
        if now - self._shown < self.plain_every_s:
            return
        self._shown, took = now, now - self.started
        left = f"  ETA {clock(took / done * (total - done))}" if 0 < done < total else ""
        logger.info(f"[{clock(took)}]  {text}{left}")

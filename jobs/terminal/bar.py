"""How far a long job is: a bar on a terminal, plain lines now and then elsewhere."""

import sys
import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from gristmill.jobs.terminal.tables import clock


class Bar:
    """A context manager; `show` is called with how much is done of how much, and in what words."""

    def __init__(self, console: Console, name: str, plain_every_s: float) -> None:
        self.started, self._shown, self.plain_every_s = time.monotonic(), 0.0, plain_every_s
        columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn()
        self.bar = Progress(*columns, console=console, transient=True) if console.is_terminal else None
        self.task = self.bar.add_task(name, total=None) if self.bar else None

    def __enter__(self) -> "Bar":
        if self.bar:
            self.bar.start()
        return self

    def __exit__(self, *error: Any) -> None:
        if self.bar:
            self.bar.stop()

    def show(self, done: float, total: float, text: str) -> None:
        if self.bar and self.task is not None:
            self.bar.update(self.task, total=total, completed=done, description=text)
            return
        now = time.monotonic()
        if now - self._shown < self.plain_every_s:
            return
        self._shown, took = now, now - self.started
        left = f"  ETA {clock(took / done * (total - done))}" if done else ""
        print(f"[{clock(took)}]  {text}{left}", file=sys.stderr, flush=True)

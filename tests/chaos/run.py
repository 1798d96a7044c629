"""One run under attack: the driver is kept going, kills come when they are due, and what was taken away comes back."""

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from gristmill.records.stores.opening import open_store
from tests.chaos.driver import Driver, Paused, Start, WrongEnd
from tests.chaos.nodes import Nodes, title
from tests.chaos.outage import Outages
from tests.chaos.plan import S3_KINDS, Kill, Shape, wake
from tests.chaos.rival import Rivalry
from tests.chaos.source import SourceFile
from tests.chaos.watch import Watch
from tests.s3server import S3Server

TICK_S = 0.05
DRIVER_PATIENCE_S = 180.0  # for a driver to end of itself when its head is gone; Ray itself waits 60 s for another
WORKING = ("ray::process_task", "ray::finish_task", "ray::warm_task", "ray::claimed_task")
TITLES = {"replica": ("ray::Replica",), "index": ("ray::BandShard",), "worker": WORKING}
OR_ELSE, OR_ELSE_AFTER_S = {"worker": ("ray::IDLE",)}, 3.0
NEEDS_WHOLE = {
    **{"node": ("nodes",), "head": ("nodes",), "pause": ("nodes", "s3"), "source": ("nodes", "s3")},
    **{kind: ("s3",) for kind in S3_KINDS},
}


@dataclass
class Struck:
    """A kill that was done; times are monotonic seconds."""

    kill: Kill
    run: int
    at: float
    num_before: int  # lots committed
    victim: str
    start: int  # which life of the driver it met, from 0
    driver_end: str = ""  # head, pause, source: how the driver ended
    newcomer: Start | None = None  # pause: the start that took its lease


class NoProgress(Exception):
    """Nothing was committed for too long."""


class Run:
    """`struck` grows as kills are done. What is left of `due` at the end belongs to the next run."""

    def __init__(
        self,
        number: int,
        num_lots: int,
        driver: Driver,
        nodes: Nodes,
        server: S3Server,
        source: SourceFile,
        watch: Watch,
        out: str,
        shape: Shape,
        say: Callable[[str], None],
    ) -> None:
        self.number, self.num_lots, self.shape = number, num_lots, shape
        self.driver, self.nodes, self.source, self.watch, self.say = driver, nodes, source, watch, say
        self.rivalry = Rivalry(driver, nodes, watch, open_store(out), shape)
        self.patience_s = 420.0  # without a commit
        self.struck: list[Struck] = []
        self._heals: dict[str, Future[None]] = {}  # what is being given back: "nodes", "s3"
        self._healers = ThreadPoolExecutor(2, thread_name_prefix="heal")
        self._over = threading.Event()  # ends every outage at once
        self.outages = Outages(server, self._over)
        self._counted_from, self._moment = 0, 0.0
        self._num_at_start = 0  # lots committed when the driver was started
        self._paused: Paused
        self._last = (0, time.monotonic())  # commits, and when there were so many

    def play(self, due: deque[Kill]) -> None:
        """Return when the driver has said that all is done. Raises NoProgress, WrongData, WrongEnd or RuntimeError."""
        try:
            while not self.driver.is_done:
                self.driver.env = self.nodes.env
                num_starts = len(self.driver.starts)
                self.driver.go_on(self.watch.num_committed)
                if len(self.driver.starts) > num_starts:
                    self._num_at_start = self.watch.num_committed
                self._progress()
                if due and self._is_due(due[0]) and self._strike(due[0]):
                    due.popleft()
                    self._counted_from, self._moment = self.watch.num_committed, 0.0
                time.sleep(TICK_S)
                self.driver.lives  # noqa: B018 - notes its end
        finally:
            self._over.set()
            self._healers.shutdown()
        for heal in self._heals.values():
            heal.result()
        self.watch.settle()

    def _progress(self) -> None:
        now, num = time.monotonic(), self.watch.num_committed
        if num > self._last[0]:
            if self.struck and self._last[1] < self.struck[-1].at:
                self.say(f"    next commit after {now - self.struck[-1].at:.1f} s")
            self._last = num, now
        elif now - self._last[1] > self.patience_s:
            raise NoProgress(f"nothing was committed for {self.patience_s:.0f} s after {num} of {self.num_lots} lots")
        for what in [w for w, heal in self._heals.items() if heal.done()]:
            self._heals.pop(what).result()

    def _is_due(self, kill: Kill) -> bool:
        num = self.watch.num_committed
        if num >= self.num_lots - self._num_reserved(kill) or num < self._counted_from + kill.after:
            return False
        if any(what in self._heals for what in NEEDS_WHOLE.get(kill.kind, ())):
            return False  # what it would take away, or what it needs, is not back yet
        if not self._moment:
            self._moment = time.monotonic() + kill.plus_s
        return time.monotonic() >= self._moment

    def _num_reserved(self, kill: Kill) -> int:
        """Lots that must be left: for a source, some that are not made of its rows yet."""
        return {"source": self.shape.window + 2, "pause": 3}.get(kill.kind, 1)

    def _strike(self, kill: Kill) -> bool:
        """Whether there was a victim."""
        num_before, start = self.watch.num_committed, len(self.driver.starts) - 1
        deed: Callable[[], str | None] = {
            "driver": self._driver,
            "node": lambda: self._node(kill),
            "head": self._head,
            "pause": lambda: self._pause(kill),
            "source": self._source,
            **{kind: lambda: self._s3(kill) for kind in S3_KINDS},
        }.get(kill.kind, lambda: self._process(kill))
        at = time.monotonic()
        victim = deed()
        if victim is None:
            return False
        struck = Struck(kill, self.number, at, num_before, victim, start)
        self.struck.append(struck)
        self.say(f"  kill {kill.number} {kind_words(kill)}: {victim}; {num_before} of {self.num_lots} lots committed")
        if kill.kind in ("head", "source"):
            self._until_end(struck)
        if kill.kind == "head":
            self._new_cluster()
        elif kill.kind == "source":
            self._restore(struck)
        elif kill.kind == "pause":
            self._rival(struck)
        return True

    def _driver(self) -> str | None:
        if not self.driver.lives:
            return None
        self.driver.kill()
        return f"start {len(self.driver.starts)} of the driver"

    def _process(self, kill: Kill) -> str | None:
        """SIGKILL of one of Ray's worker processes."""
        found = self.nodes.titled(*TITLES[kill.kind])
        if not found and time.monotonic() > self._moment + OR_ELSE_AFTER_S:
            found = self.nodes.titled(*OR_ELSE.get(kill.kind, ()))
        if not found:
            return None
        where, process = found[int(kill.victim * len(found))]
        name = title(process)
        if not name:
            return None
        process.kill()
        return f"{name.split()[0]} (pid {process.pid}) on {where}"

    def _node(self, kill: Kill) -> str | None:
        if not self.nodes.workers:
            return None
        node = self.nodes.workers[int(kill.victim * len(self.nodes.workers))]
        self.nodes.remove(node)

        def heal() -> None:
            self._over.wait(kill.outage_s)
            self.nodes.add()

        self._heals["nodes"] = self._healers.submit(heal)
        return f"{node.name}, a new one in {kill.outage_s:.0f} s"

    def _head(self) -> str:
        assert self.nodes.head
        name = self.nodes.head.name
        self.nodes.kill_head()
        return name

    def _source(self) -> str | None:
        """Only under a driver that reads it: a start would find another recipe, which is a case of its own."""
        if not self.driver.lives or self.watch.num_committed <= self._num_at_start:
            return None
        self.source.replace()
        return str(self.source.path)

    def _pause(self, kill: Kill) -> str | None:
        """Only of a driver that has committed, and so holds the lease."""
        if not self.driver.lives or self.watch.num_committed <= self._num_at_start:
            return None
        name = f"start {len(self.driver.starts)} of the driver, woken while a newcomer runs, {wake(kill)}"
        self._paused = self.driver.pause()
        return name

    def _until_end(self, struck: Struck) -> None:
        """The driver must end of itself."""
        end = time.monotonic() + DRIVER_PATIENCE_S
        while self.driver.lives and time.monotonic() < end:
            time.sleep(TICK_S)
        took_s = time.monotonic() - struck.at
        if self.driver.lives:
            self.driver.kill()
            struck.driver_end = f"killed after {took_s:.0f} s"
        elif self.driver.starts[-1].was_killed:
            struck.driver_end = "was dead before"
        else:
            struck.driver_end = f"ended after {took_s:.0f} s, {self.driver.starts[-1].end}"
        self.say(f"    the driver {struck.driver_end}")

    def _new_cluster(self) -> None:
        num_workers = len(self.nodes.workers)
        self.nodes.stop()
        self.nodes.start(num_workers)

    def _restore(self, struck: Struck) -> None:
        self.source.restore()
        if struck.driver_end.startswith("killed"):
            raise WrongEnd(f"the driver did not stop: {struck.driver_end} with another source in place")
        self.driver.starts[-1].check_line([f"source {self.source.path} changed"])

    def _rival(self, struck: Struck) -> None:
        struck.driver_end = self.rivalry.play(self._paused, struck.kill)
        struck.newcomer = self.driver.starts[-1]
        self._num_at_start = self.watch.num_committed
        self.say(f"    the first driver {struck.driver_end}")

    def _s3(self, kill: Kill) -> str:
        victim, heal = self.outages.begin(kill)
        self._heals["s3"] = self._healers.submit(heal)
        return victim


def kind_words(kill: Kill) -> str:
    when = f"{kill.after} commit(s) and {kill.plus_s:.1f} s after the one before" if kill.number > 1 else "the first"
    return f"{kill.kind} ({when})"

"""One run under attack: the driver is kept going, kills come when they are due, and what was taken away comes back."""

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from tests.chaos.driver import Driver
from tests.chaos.nodes import Nodes, title
from tests.chaos.plan import Kill
from tests.chaos.watch import Watch
from tests.s3server import S3Server

TICK_S = 0.05
DRIVER_PATIENCE_S = 180.0  # for a driver to end of itself when its head is gone; Ray itself waits 60 s for another
S3_STARTS = 3
SLOW_PERIOD_S, SLOW_RUNS_S = 0.5, 0.05
WORKING = ("ray::process_task", "ray::finish_task", "ray::warm_task", "ray::claimed_task")
TITLES = {"replica": ("ray::Replica",), "index": ("ray::BandShard",), "worker": WORKING}
OR_ELSE, OR_ELSE_AFTER_S = {"worker": ("ray::IDLE",)}, 3.0
NEEDS_WHOLE = {"node": "nodes", "head": "nodes", "s3-stop": "s3", "s3-freeze": "s3", "s3-slow": "s3"}


@dataclass
class Struck:
    """A kill that was done; times are monotonic seconds."""

    kill: Kill
    run: int
    at: float
    num_before: int  # lots committed
    victim: str
    start: int  # which life of the driver it met, from 0
    driver_end: str = ""  # head: how the driver ended


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
        watch: Watch,
        say: Callable[[str], None],
        patience_s: float,
    ) -> None:
        self.number, self.num_lots = number, num_lots
        self.driver, self.nodes, self.server, self.watch, self.say = driver, nodes, server, watch, say
        self.patience_s = patience_s  # without a commit
        self.struck: list[Struck] = []
        self._heals: dict[str, Future[None]] = {}  # what is being given back: "nodes", "s3"
        self._healers = ThreadPoolExecutor(2, thread_name_prefix="heal")
        self._over = threading.Event()  # ends every outage at once
        self._counted_from, self._moment = 0, 0.0
        self._last = (0, time.monotonic())  # commits, and when there were so many

    def play(self, due: deque[Kill]) -> None:
        """Return when the driver has said that all is done. Raises NoProgress, WrongData or RuntimeError."""
        try:
            while not self.driver.is_done:
                self.driver.env = self.nodes.env
                self.driver.go_on(self.watch.num_committed)
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
        if num >= self.num_lots - 1 or num < self._counted_from + kill.after:
            return False
        if NEEDS_WHOLE.get(kill.kind) in self._heals:
            return False  # what it would take away is not back yet
        if not self._moment:
            self._moment = time.monotonic() + kill.plus_s
        return time.monotonic() >= self._moment

    def _strike(self, kill: Kill) -> bool:
        """Whether there was a victim."""
        num_before, start = self.watch.num_committed, len(self.driver.starts) - 1
        deed: Callable[[], str | None] = {
            "driver": self._driver,
            "node": lambda: self._node(kill),
            "head": self._head,
            "s3-stop": lambda: self._s3_stop(kill.outage_s),
            "s3-freeze": lambda: self._s3_freeze(kill.outage_s),
            "s3-slow": lambda: self._s3_slow(kill.outage_s),
        }.get(kill.kind, lambda: self._process(kill))
        at = time.monotonic()
        victim = deed()
        if victim is None:
            return False
        struck = Struck(kill, self.number, at, num_before, victim, start)
        self.struck.append(struck)
        self.say(f"  kill {kill.number} {kind_words(kill)}: {victim}; {num_before} of {self.num_lots} lots committed")
        if kill.kind == "head":
            self._after_head(struck)
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

    def _after_head(self, struck: Struck) -> None:
        """The driver must end; then a cluster is started anew for it."""
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
        num_workers = len(self.nodes.workers)
        self.nodes.stop()
        self.nodes.start(num_workers)

    def _s3_stop(self, outage_s: float) -> str:
        self.server.kill()

        def heal() -> None:
            self._over.wait(outage_s)
            for attempt in range(S3_STARTS):
                try:
                    return self.server.start()
                except RuntimeError:
                    self.server.kill()
                    if attempt == S3_STARTS - 1:
                        raise

        self._heals["s3"] = self._healers.submit(heal)
        return f"the server, started again in {outage_s:.0f} s"

    def _s3_freeze(self, outage_s: float) -> str:
        self.server.freeze()

        def heal() -> None:
            self._over.wait(outage_s)
            self.server.thaw()

        self._heals["s3"] = self._healers.submit(heal)
        return f"the server, for {outage_s:.0f} s"

    def _s3_slow(self, outage_s: float) -> str:
        def heal() -> None:
            end = time.monotonic() + outage_s
            while time.monotonic() < end and not self._over.wait(SLOW_RUNS_S):
                self.server.freeze()
                self._over.wait(SLOW_PERIOD_S - SLOW_RUNS_S)
                self.server.thaw()

        self._heals["s3"] = self._healers.submit(heal)
        return f"the server runs a tenth of the time, for {outage_s:.0f} s"


def kind_words(kill: Kill) -> str:
    when = f"{kill.after} commit(s) and {kill.plus_s:.1f} s after the one before" if kill.number > 1 else "the first"
    return f"{kill.kind} ({when})"


def leftovers(nodes: Nodes, patience_s: float) -> list[str]:
    """Engines and index actors that still live after the run has ended, on the cluster or set free by a kill."""
    end = time.monotonic() + patience_s
    while found := nodes.titled("ray::Replica", "ray::BandShard") + nodes.set_free("VLLM"):
        if time.monotonic() > end:
            return [f"{title(process)} on {where}" for where, process in found]
        time.sleep(0.5)
    return []

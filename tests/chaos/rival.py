"""Two drivers of one output: the first is stopped, a newcomer on another host takes its lease, and the first wakes."""

import json
import math
import time
from collections.abc import Callable

from gristmill.records.output.lease import NAME as LEASE
from gristmill.records.stores.contract import Store
from tests.chaos.driver import LOST_PUT, Driver, Paused, WrongEnd
from tests.chaos.nodes import NODE_CPUS, Nodes
from tests.chaos.plan import WAKES, Kill, Shape, wake
from tests.chaos.watch import Watch

TICK_S = 0.05
TAKE_OVER_S = 300.0  # until the newcomer has the lease: it starts, watches for 20 s, and the machine may be busy
COMMIT_S = 300.0
SPARE_CPUS = 2  # of the newcomer, for its workers
STOP_S = 120.0  # from the wake until the first has stopped
# The first learns it from the lease, or from the put that it loses before that.
REASONS = ("has been taken over by another driver", LOST_PUT, "is being written by another run")


class Rivalry:
    """`play` is one case of it, from the stopped driver to the one that is left."""

    def __init__(self, driver: Driver, nodes: Nodes, watch: Watch, output: Store, shape: Shape) -> None:
        self.driver, self.nodes, self.watch, self.output, self.shape = driver, nodes, watch, output, shape

    def make_room(self) -> None:
        """Nodes for the newcomer: the first keeps the CPUs of its engines and of its workers while it is stopped."""
        for _ in range(math.ceil((self.shape.replicas + SPARE_CPUS) / NODE_CPUS)):
            self.nodes.add()

    def play(self, first: Paused, kill: Kill) -> str:
        """How the first has ended, in words. Raises WrongEnd when it or the newcomer does something else."""
        self.make_room()
        self.driver.host = f"newcomer-{kill.number}"
        self._wait("the newcomer takes the lease", self._has_lease, TAKE_OVER_S)
        if wake(kill) != WAKES[0]:
            num = self.watch.num_committed
            self._wait("the newcomer commits", lambda: self.watch.num_committed > num, COMMIT_S)
        woken = time.monotonic()
        first.wake()
        first.wait(STOP_S)
        first.start.check_line(REASONS)
        if wake(kill) == WAKES[2]:
            self.driver.kill()
            self.driver.host = None  # the command is given again where it was given first
        return f"ended {time.monotonic() - woken:.1f} s after it was woken, {first.start.end}"

    def _has_lease(self) -> bool:
        data = self.output.read_if_there(LEASE)
        return data is not None and json.loads(data)["host"] == self.driver.host

    def _wait(self, what: str, is_so: Callable[[], bool], timeout_s: float) -> None:
        """Return when it is so, or when the newcomer has done all there was to do."""
        end = time.monotonic() + timeout_s
        while not is_so() and not self.driver.is_done:
            if time.monotonic() > end:
                raise WrongEnd(f"not within {timeout_s:.0f} s: {what}; see {self.driver.starts[-1].log}")
            self.driver.go_on(self.watch.num_committed)
            time.sleep(TICK_S)
            self.driver.lives  # noqa: B018 - notes its end

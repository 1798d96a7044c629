"""A second run on the same cluster, which meets the same kills of nodes, heads and workers."""

import threading
import time
from pathlib import Path

from tests.chaos.driver import Driver
from tests.chaos.nodes import Nodes
from tests.chaos.watch import Watch, folder_look

TICK_S = 0.1
END_TIMEOUT_S = 1800.0  # after the end of the run beside it


class Neighbour:
    """Keeps a driver going on a thread, from `start` to the end of its run."""

    def __init__(self, arguments: list[str], folder: Path, nodes: Nodes) -> None:
        folder.mkdir(exist_ok=True)
        self.out = str(folder / "out")
        self.driver = Driver([*arguments, "--out", self.out], folder)
        self.nodes = nodes
        self.failure: Exception | None = None
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._play, name="neighbour", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def _play(self) -> None:
        try:
            with Watch(folder_look(Path(self.out))) as watch:
                while not self.driver.is_done and not self._is_over.is_set():
                    if self.nodes.head:
                        self.driver.env = self.nodes.env
                        self.driver.go_on(watch.num_committed)
                    time.sleep(TICK_S)
                    self.driver.lives  # noqa: B018 - notes its end
                watch.settle()
        except Exception as error:  # noqa: BLE001 - raised by `wait`, on the thread that judges
            self.failure = error

    def wait(self) -> None:
        """Return when its run is done. Raises what went wrong."""
        self._thread.join(END_TIMEOUT_S)
        if self._thread.is_alive():
            raise RuntimeError(f"the run beside is not done {END_TIMEOUT_S:.0f} s after the other; see {self.out}")
        if self.failure is not None:
            raise RuntimeError(f"the run beside: {self.failure}")

    def end(self) -> None:
        self._is_over.set()
        self.driver.end()

"""The lots that wait for a step: later steps and older lots go first."""

import heapq
from collections.abc import Callable, Iterator

from gristmill.cluster.lots.in_flight import InFlightLot, Step


class WaitingLots:
    """Suspect lots (see quarantine.py) wait apart, since each needs an engine that has nothing else."""

    def __init__(self, num_steps: int) -> None:
        self._heaps: list[list[tuple[int, InFlightLot]]] = [[] for _ in range(num_steps)]  # by step
        self.suspects: dict[int, InFlightLot] = {}

    def add(self, lot: InFlightLot) -> None:
        """A lot waits for its step, or a suspect lot for its next span."""
        lot.phase = "waiting"
        if lot.quarantine:
            self.suspects[lot.number] = lot
        else:
            heapq.heappush(self._heaps[lot.step], (lot.number, lot))

    def start_suspects(self, start: Callable[[InFlightLot], bool]) -> None:
        """Start the suspect lots that `start` finds an engine for."""
        for number in sorted(self.suspects):
            if start(self.suspects[number]):
                del self.suspects[number]

    def pop_while(self, steps: list[Step], has_room: Callable[[Step], bool]) -> Iterator[InFlightLot]:
        """The lots to start now, as long as there is room for the step of each."""
        for step, heap in reversed(list(zip(steps, self._heaps))):
            while heap and has_room(step):
                yield heapq.heappop(heap)[1]

    @property
    def counts(self) -> list[int]:
        """Number of lots that wait for each step."""
        return [len(heap) for heap in self._heaps]

"""What a pool has used and done: device-seconds of its replicas, and the rate of their tokens."""

import time


class DeviceMeter:
    """Device-seconds from the placement of each replica to its removal: loading costs as much as work."""

    def __init__(self, devices_per_replica: float) -> None:
        self.devices_per_replica = devices_per_replica
        self._past_s = 0.0  # device-seconds of removed replicas
        self._num_placed, self._sum_placed_at = 0, 0.0  # of the replicas that hold devices

    def place(self, at: float) -> None:
        """A replica holds its devices since `at`, in monotonic seconds."""
        self._num_placed, self._sum_placed_at = self._num_placed + 1, self._sum_placed_at + at

    def remove(self, placed_at: float) -> None:
        """A replica that was placed at `placed_at` is gone."""
        self._past_s += self.devices_per_replica * (time.monotonic() - placed_at)
        self._num_placed, self._sum_placed_at = self._num_placed - 1, self._sum_placed_at - placed_at

    @property
    def num_devices(self) -> float:
        """Devices held at present."""
        return self.devices_per_replica * self._num_placed

    @property
    def device_s(self) -> float:
        """Device-seconds so far."""
        held_s = self._num_placed * time.monotonic() - self._sum_placed_at
        return self._past_s + self.devices_per_replica * held_s


class RateMeter:
    """The rate of a growing count over the last `period_s` seconds."""

    def __init__(self, period_s: float) -> None:
        self.period_s = period_s
        self._marks: list[tuple[float, int]] = []  # (time, count)

    def mark(self, now: float, count: int) -> None:
        self._marks = [*(mark for mark in self._marks if now - mark[0] < self.period_s), (now, count)]

    @property
    def per_s(self) -> float:
        if len(self._marks) < 2:
            return 0.0
        (start, before), (stop, after) = self._marks[0], self._marks[-1]
        return max(0, after - before) / max(stop - start, 1e-9)

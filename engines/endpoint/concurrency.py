"""How many calls a server takes at once: as many as make it faster, found by trying.

Additive increase, multiplicative decrease (Chiu and Jain 1989), as TCP does it: the number is doubled while that helps
and then grows by steps; an error that means overload cuts it. Latency counts by Little's law: if more calls at once do
not bring more tokens a second, each only takes longer, and the number goes back.
"""

START = 64  # calls at once before anything is known of the server
CUT = 0.7  # of the number, after an overload
STEP = 8  # an increase is an eighth
LEAST_CALLS = 8  # that are measured before the number changes
MIN_GAIN = 1.02  # of the rate, for a step to be kept
MIN_DOUBLE_GAIN = 1.1  # of the rate, for a doubling to be kept
REST = 8  # measurements at the best number between two tries of another one
WEIGHT = 0.3  # of the last measurement at the best number
FULL = 0.9  # share of the number that must be in flight for a measurement to count


class Concurrency:
    """The number of calls at once, `limit`, in 1..`most`. All times are seconds of one clock."""

    def __init__(self, most: int, adapts: bool = True) -> None:
        self.most, self.adapts = most, adapts
        self.limit = min(most, START) if adapts else most
        self.epoch = 0  # of cuts: an overload counts only for calls that started since the last one
        self._doubles = True
        self._best: tuple[int, float] | None = None  # (number, tokens a second)
        self._num_rests, self._goes_down = 0, False
        self._begin_window()

    def _begin_window(self) -> None:
        """Measure anew, after the calls that are in flight: they started under another number."""
        self._num_skipped = self._num_calls = self._num_full = 0
        self._amount, self._since = 0.0, 0.0

    def overload(self, epoch: int, num_in_flight: int) -> None:
        """Note an error that means overload, of a call that started at `epoch`."""
        if epoch != self.epoch or not self.adapts:
            return
        self.epoch += 1
        self.limit = max(1, int(min(self.limit, num_in_flight) * CUT))
        self._doubles, self._best, self._num_rests = False, None, 0
        self._begin_window()

    def answer(self, amount: float, num_in_flight: int, now: float) -> None:
        """Note an answer of `amount` tokens, which arrived while `num_in_flight` calls were running, itself too."""
        if not self.adapts:
            return
        if self._num_skipped < self.limit:
            self._num_skipped += 1
            self._since = now
            return
        self._num_calls += 1
        self._amount += amount
        self._num_full += num_in_flight >= FULL * self.limit
        if self._num_calls >= max(self.limit, LEAST_CALLS):
            if self._num_full > self._num_calls / 2 and now > self._since:
                self._judge(self._amount / (now - self._since))
            else:
                self._begin_window()

    def _judge(self, rate: float) -> None:
        """Set the number after a measurement of its rate, in tokens a second."""
        before = self.limit
        if self._best is None:
            self._best = before, rate
        number, best = self._best
        if before == number:
            self._best = number, best + WEIGHT * (rate - best)
            self._num_rests -= 1
            if self._num_rests <= 0:
                self._try_another()
        elif rate >= best * (MIN_DOUBLE_GAIN if self._doubles else MIN_GAIN):
            self._best, self._num_rests = (before, rate), 0
            self._try_another()
        else:
            self._doubles, self._num_rests = False, REST
            self._goes_down = before > number
            self.limit = number
        self._begin_window()

    def _try_another(self) -> None:
        if self._doubles:
            self.limit = min(self.most, 2 * self.limit)
        elif self._goes_down and self.limit > 1:
            self.limit -= max(1, self.limit // STEP)
        else:
            self.limit = min(self.most, self.limit + max(1, self.limit // STEP))

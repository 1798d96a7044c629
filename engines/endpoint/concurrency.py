"""How many calls a server takes at once: as many as make it faster, found by trying.

Additive increase, multiplicative decrease (Chiu and Jain 1989), as TCP does it: the number is doubled while that helps
and then changes by steps. An error that means overload cuts it, and afterwards it goes back in equal steps to where it
was. Latency counts by Little's law: if more calls at once do not bring more tokens a second, each only takes longer,
and the number stays or goes down.
"""

from collections import deque

START = 64  # calls at once before anything is known of the server
CUT = 0.7  # of the number, after an overload
OUTCOMES, MAX_FAULTS = 200, 20  # of so many last calls, the faults that are no overload; more of them are one
RECOVERY = 1 / 8  # of the number before the cut, that is added in each round of calls after it
PLATEAU = 3  # rounds without a cut, before a number is tried that was cut before
STEP, LARGEST_STEP = 1 / 8, 1 / 2  # of the number; a step is twice the last one while steps in its direction help
FIRST_STEP = 1 / 4  # after the doubling
LEAST_CALLS = 8  # that are measured before the number changes
MIN_GAIN = 1.05  # of the rate, for a step to be kept
MIN_DOUBLE_GAIN = 1.1  # of the rate, for a doubling to be kept
PAIRS = 3  # measurements at each of two numbers, in turns, before one is preferred: other loads come and go
REST = 24  # measurements at a number that is better than those around it, before these are tried again
FULL = 0.9  # share of the number that must be in flight for a measurement to count


class Concurrency:
    """The number of calls at once, `limit`, in 1..`most`. All times are seconds of one clock."""

    def __init__(self, most: int, adapts: bool = True) -> None:
        self.most, self.adapts = most, adapts
        self.limit = min(most, START) if adapts else most
        self.epoch = 0  # of cuts: an overload counts only for calls that started since the last one
        self._number = self.limit  # the best so far
        self._good: int | None = None  # the number to go back to after a cut; None: it is there
        self._goal = self.limit  # on the way there: the largest number that is likely to work
        self._num_clean = 0  # rounds without a cut
        self._outcomes: deque[bool] = deque(maxlen=OUTCOMES)  # of the last calls: whether a fault
        self._doubled_from: float | None = None  # the rate before the last doubling
        self._doubles = True
        self._settle()
        self._begin_window()

    def _settle(self) -> None:
        """Take the best number; the next measurement decides what to try."""
        self._direction, self._step, self._num_refused = 1, STEP, 0
        self._rates: dict[int, list[float]] = {}  # by number, of a trial
        self._num_rests = 0

    def _begin_window(self) -> None:
        """Measure anew, after the calls that are in flight: they started under another number."""
        self._num_skipped = self._num_calls = self._num_full = 0
        self._amount, self._since = 0.0, 0.0

    def overload(self, epoch: int, num_in_flight: int) -> None:
        """Note an error that means overload, of a call that started at `epoch`."""
        if epoch == self.epoch and self.adapts:
            self._cut(num_in_flight)

    def fault(self, epoch: int, num_in_flight: int) -> None:
        """Note an error that may have any cause. Many of them mean overload."""
        if epoch != self.epoch or not self.adapts:
            return
        self._outcomes.append(True)
        if sum(self._outcomes) > MAX_FAULTS:
            self._cut(num_in_flight)

    def _cut(self, num_in_flight: int) -> None:
        self.epoch += 1
        if self._good is None:
            self._good = self._goal = self.limit if self._doubles else self._number
        elif self._num_clean:  # the server may take less than before: look for the number between
            self._goal = min(self._goal - 1, (self.limit + self._goal) // 2)
        self.limit = max(1, int(min(self.limit, num_in_flight) * CUT))
        self._goal, self._num_clean = max(self._goal, self.limit), 0
        self._outcomes.clear()
        self._settle()
        self._begin_window()

    def _recover(self, good: int) -> None:
        """Go a step back to the number that was good, after a round of calls without a cut."""
        self._num_clean += 1
        if self.limit >= good:
            self._number, self._good = good, None
        elif self.limit >= self._goal and self._num_clean >= PLATEAU:
            self._goal, self._num_clean = min(good, self._goal + max(1, int(self._goal * RECOVERY))), 1
        self.limit = max(self.limit, min(self._goal, self.limit + max(1, int(self._goal * RECOVERY))))
        self._begin_window()

    def answer(self, amount: float, num_in_flight: int, now: float) -> None:
        """Note an answer of `amount` tokens, which arrived while `num_in_flight` calls were running, itself too."""
        if not self.adapts:
            return
        self._outcomes.append(False)
        if self._good is not None:
            self._num_calls += num_in_flight <= self.limit  # those from before the cut do not count
            if self._num_calls >= self.limit:
                self._recover(self._good)
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
            self._begin_window()

    def _judge(self, rate: float) -> None:
        """Set the number after a measurement of its rate, in tokens a second."""
        if self._doubles:
            self._double(rate)
        elif self._num_rests > 0:
            self._num_rests -= 1
        else:
            self._compare(rate)

    def _double(self, rate: float) -> None:
        if self._doubled_from is not None and rate < self._doubled_from * MIN_DOUBLE_GAIN:
            # The rates before may have been chance as well: see first whether fewer calls do better.
            self._doubles, self.limit, self._direction, self._step = False, self._number, -1, FIRST_STEP
            return
        self._number, self._doubled_from = self.limit, rate
        self.limit = min(self.most, 2 * self.limit)
        self._doubles = self.limit > self._number

    def _compare(self, rate: float) -> None:
        """Measure the best number and another in turns, then take the better one."""
        self._rates.setdefault(self.limit, []).append(rate)
        other = self._other
        if len(self._rates.get(other, ())) < PAIRS or len(self._rates.get(self._number, ())) < PAIRS:
            self.limit = other if self.limit == self._number else self._number
            return
        is_better = sum(self._rates[other]) >= MIN_GAIN * sum(self._rates[self._number])
        self._rates = {}
        if is_better and other != self._number:
            self._number, self._step, self._num_refused = other, min(LARGEST_STEP, 2 * self._step), 0
        else:
            self._direction, self._step = -self._direction, STEP
            self._num_refused += 1
            if self._num_refused >= 2:  # both directions
                self._num_refused, self._num_rests = 0, REST
        self.limit = self._number

    @property
    def _other(self) -> int:
        """The number that is tried beside the best one."""
        change = self._direction * max(1, int(self._number * self._step))
        return max(1, min(self.most, self._number + change))

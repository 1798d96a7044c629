"""Device-seconds and cost of engines over all starts, checked against the budgets."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from gristmill.cluster.pools.meters import DeviceMeter
from gristmill.cluster.spec import Limits


class Spender(Protocol):
    """The cost data of a pool."""

    price_per_device_hour: float | None
    mean_lot_s: float

    @property
    def meter(self) -> DeviceMeter: ...

    @property
    def num_done(self) -> int: ...  # asks that its engines have finished in this start

    @property
    def paid(self) -> float: ...  # money for the calls of its engines in this start


@dataclass(frozen=True)
class Spending:
    """What the engines of a pool have used since the start."""

    device_s: float
    device_cost: float  # price of its devices, in cluster.currency; 0 without a price
    paid: float  # money for its calls

    @staticmethod
    def of(pool: Spender) -> "Spending":
        device_s = pool.meter.device_s
        return Spending(device_s, device_s * (pool.price_per_device_hour or 0.0) / 3600, pool.paid)

    @property
    def cost(self) -> float:
        return self.device_cost + self.paid


class Budget:
    """Adds to the totals of earlier starts. A second of an engine counts once per device that it holds.

    Cost is the price of the devices and the money paid for calls. `device_s`, `cost` and `paid` are those of earlier
    starts; `cost` includes `paid`. `committed_paid` is the money in the rows of all committed lots: engines report
    theirs a little later. `paid_per_ask` is the expected money for an ask, until engines have shown it.
    `num_generators`: the first of the pools, among which each ask goes to one.
    """

    def __init__(
        self,
        limits: Limits,
        pools: Sequence[Spender],
        device_s: float = 0.0,
        cost: float = 0.0,
        paid: float = 0.0,
        committed_paid: Callable[[], float] = lambda: 0.0,
        paid_per_ask: float = 0.0,
        num_generators: int = 1,
    ) -> None:
        self.limits, self.pools, self.committed_paid = limits, pools, committed_paid
        self.paid_per_ask, self.num_generators = paid_per_ask, num_generators
        self.num_begun = self.num_judged = 0  # asks of the lots that this start has begun, and of those it has judged
        self._before = {"device_s": device_s, "cost": cost, "paid": paid}

    @property
    def device_s(self) -> float:
        return self._before["device_s"] + sum(Spending.of(pool).device_s for pool in self.pools)

    @property
    def _new_paid(self) -> float:
        return max(sum(p.paid for p in self.pools), self.committed_paid() - self._before["paid"])

    @property
    def paid(self) -> float:
        """Money for calls, in cluster.currency. Answers that earlier starts have kept were paid once."""
        return self._before["paid"] + self._new_paid

    @property
    def cost(self) -> float:
        """In cluster.currency; 0 without prices."""
        devices = sum(Spending.of(pool).device_cost for pool in self.pools)
        return self._before["cost"] + devices + self._new_paid

    def _draining(self) -> dict[str, float]:
        """Estimated spending until the lots in flight are finished."""
        drains = [(p.meter.num_devices * p.mean_lot_s, p.price_per_device_hour or 0.0) for p in self.pools]
        cost = sum(d * price / 3600 for d, price in drains) + self._unpaid()
        return {"device_s": sum(d for d, _ in drains), "cost": cost}

    def _unpaid(self) -> float:
        """Estimated money for the calls of the lots in flight that their engines have not made yet."""
        # An ask goes to one of the generators, and not every row reaches the stages.
        groups = [self.pools[: self.num_generators], *([pool] for pool in self.pools[self.num_generators :])]
        num_open, are_known, calls = self.num_begun - self.num_judged, True, 0.0
        for group in filter(None, groups):
            if num_done := sum(pool.num_done for pool in group):
                calls += sum(pool.paid for pool in group) / num_done * min(num_open, max(0, self.num_begun - num_done))
            else:
                are_known = False
        return calls if are_known else max(calls, self.paid_per_ask * num_open)

    def _over(self, extra: dict[str, float]) -> str | None:
        if not self.limits.budgets:
            return None
        spent = {"device_s": self.device_s, "cost": self.cost}
        for name, budget in self.limits.budgets.items():
            if spent[name] + extra.get(name, 0.0) >= budget:
                return name
        return None

    @property
    def spent(self) -> str | None:
        """The budget that is used up, else None."""
        return self._over({})

    @property
    def closing(self) -> str | None:
        """The budget that the lots in flight will use up, so that no further lot may start."""
        # Called for every lot: without a budget it costs nothing.
        return self._over(self._draining()) if self.limits.budgets else None

    @property
    def share(self) -> float | None:
        """Spent share of the tightest budget; None without a budget."""
        if not self.limits.budgets:
            return None
        spent = {"device_s": self.device_s, "cost": self.cost}
        return max(spent[name] / budget for name, budget in self.limits.budgets.items())

"""What commits in order cost a fleet, on a simulated clock: uncommitted lots, commit lag, and engines that wait."""

import heapq
from dataclasses import dataclass

import numpy as np

DAY_S = 86_400.0
LOAD_S = 180.0  # of the engine that replaces a lost one
LOTS_PER_ENGINE = 2  # at once


@dataclass(frozen=True)
class Order:
    """The course of a run. Times in seconds."""

    lots_per_s: float
    lag_s: float  # from the end of a lot to its commit: median
    max_lag_s: float
    num_uncommitted: int  # lots, the most at once
    num_losses: int
    share: float  # of the engines' time that was used


def simulate(
    num_engines: int, num_lots: int, lot_s: float, sigma: float, losses_per_day: float, window: int, seed: int = 0
) -> Order:
    """A run of `num_lots` lots that take `lot_s` on average, with lognormal spread `sigma`.

    Each engine is lost `losses_per_day` times a day: its lot begins again at the engine that is free next. No lot
    starts while `window` lots are uncommitted.
    """
    draw = np.random.default_rng(seed)
    durations = lot_s * np.exp(draw.normal(-(sigma**2) / 2, sigma, num_lots))
    again = lot_s * np.exp(draw.normal(-(sigma**2) / 2, sigma, num_lots))
    is_lost = draw.random(num_lots) < durations * losses_per_day / DAY_S / LOTS_PER_ENGINE
    part = draw.random(num_lots)
    first = draw.random(num_engines * LOTS_PER_ENGINE) * lot_s  # engines do not begin all at once
    slots = list(first)
    heapq.heapify(slots)
    ended, committed, started = np.zeros(num_lots), np.zeros(num_lots), np.zeros(num_lots)
    last = 0.0
    for lot in range(num_lots):
        free = heapq.heappop(slots)
        start = max(free, committed[lot - window] if lot >= window else 0.0)
        end = start + durations[lot]
        if is_lost[lot]:
            lost = start + part[lot] * durations[lot]
            heapq.heappush(slots, lost + LOAD_S)
            resumed = max(lost, heapq.heappop(slots))
            end = resumed + again[lot]
        heapq.heappush(slots, end)
        last = max(last, end)
        started[lot], ended[lot], committed[lot] = start, end, last
    middle = slice(num_lots // 4, num_lots * 3 // 4)  # neither the start nor the end of the run
    lags = (committed - ended)[middle]
    uncommitted = np.searchsorted(started, committed[middle]) - np.arange(num_lots)[middle]
    span_s = started[middle.stop] - started[middle.start]
    return Order(
        float((middle.stop - middle.start) / span_s),
        float(np.median(lags)),
        float(lags.max()),
        int(uncommitted.max()),
        int(is_lost.sum()),
        float(durations[middle].sum() / span_s / (num_engines * LOTS_PER_ENGINE)),
    )

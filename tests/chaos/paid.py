"""An endpoint that fails under a run that is killed, and the count of its calls."""

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import Any

from tests.chaos.plan import Shape
from tests.chaos.run import Struck
from tests.engines.endpoint.proxy import MODEL, Proxy
from tests.recipes import write

MAX_IN_FLIGHT, FLUSH_S = 8, 1.0
FAULTS = ("429", "500", "cut", "json", "drop", "503", "hang")
CALLS_PER_FAULT = 50
TIMEOUT_S = 3.0
KINDS = ("driver", "replica", "node", "worker", "s3-stop")
KILLS_ENGINE = ("driver", "replica", "node", "head")


class CountedProxy(Proxy):
    """Every 50th call fails. `pace` sets how long an answer takes."""

    def __init__(self) -> None:
        self.answered_at: list[float] = []
        self.seconds = 0.0
        super().__init__(
            script=lambda number, body: (
                FAULTS[number // CALLS_PER_FAULT % len(FAULTS)] if number % CALLS_PER_FAULT == 49 else None
            ),
            latency_s=lambda in_flight: self.seconds,
            change=self._note,
            hang_s=2 * TIMEOUT_S,
        )

    def _note(self, data: dict[str, Any], body: Mapping[str, Any]) -> dict[str, Any]:
        self.answered_at.append(monotonic())
        return data

    def pace(self, calls_per_s: float, replicas: int) -> None:
        """So many calls per second of all replicas."""
        self.seconds = replicas * MAX_IN_FLIGHT / calls_per_s

    @property
    def num_calls(self) -> int:
        """Calls without those that failed."""
        return len(self.bodies) - sum(self.faults.values())

    def wrong(self, num_before: int, needed: int, struck: Sequence[Struck], shape: Shape) -> list[str]:
        """What the count says against a run that needed so many calls; `num_before`: those before it.

        A kill of engines may lose the calls in flight, and those that were answered within the last `flush_s`.
        """
        num_calls, allowed = self.num_calls - num_before, needed
        for one in struck:
            if one.kill.kind in KILLS_ENGINE:
                last = bisect_right(self.answered_at, one.at) - bisect_left(self.answered_at, one.at - FLUSH_S)
                allowed += shape.replicas * MAX_IN_FLIGHT + last
        if needed <= num_calls <= allowed:
            return []
        return [f"{num_calls} calls, where {needed} are needed and {allowed} allowed after {len(struck)} kills"]


def recipe(folder: Path, server: Proxy, num_asks: int, lot_size: int, source: dict[str, Any]) -> str:
    """The path of a recipe of one call for each row."""
    endpoint = {"kind": "endpoint", "base_url": server.url, "model": MODEL, "sampling": {"max_tokens": 8}}
    limits = {"max_in_flight": MAX_IN_FLIGHT, "flush_s": FLUSH_S, "timeout_s": TIMEOUT_S, "price_out": 250_000.0}
    return write(
        folder / "recipe.toml",
        {
            "name": "paid-test",
            "lot_size": lot_size,
            "source": source,
            "generator": {**endpoint, **limits},
            "method": {"kind": "prompt", "template": "Write about {text}."},
            "stages": [{"kind": "dedup"}],
            "limits": {"asks": num_asks},
            "cluster": {"num_cpus": 2},
        },
    )

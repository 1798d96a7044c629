"""The room of 10,000 engines: one division of a cluster among its runs, and what the driver of each run does for it."""

import pickle
import random
import time
from typing import Any

from gristmill.cluster.room.queue import RunQueue
from gristmill.cluster.room.runs import PoolRequest, RunReport, RunRequest
from gristmill.engines.needs import Needs

NUM_ENGINES = 10_000
CLUSTERS = {"1,250 nodes of 8 GPUs": (1250, 8), "10,000 pods of one GPU": (10_000, 1)}
NUM_ROUNDS = 20


def bench() -> list[dict[str, Any]]:
    rows = []
    for words, (num_nodes, num_gpus) in CLUSTERS.items():
        for num_runs in (1, 8):
            seconds = sorted(divisions(num_nodes, num_gpus, num_runs))
            rows.append(
                {
                    "what": f"room for {NUM_ENGINES:,} engines on {words}, {num_runs} run(s), one division",
                    "value": f"{seconds[len(seconds) // 2] * 1000:.0f} ms (most {seconds[-1] * 1000:.0f})",
                    "peer": "in the queue's actor, at most every 2 to 5 s; before, on the driver's loop: 7.3 s",
                }
            )
    rows.append(
        {
            "what": f"the same, what the loop of a driver of {NUM_ENGINES:,} engines does for it, a poll",
            "value": f"{report_s() * 1000:.1f} ms",
            "target": "< 20 ms",
        }
    )
    return rows


def divisions(num_nodes: int, num_gpus: int, num_runs: int) -> list[float]:
    """Seconds of single divisions, each after a node was lost or came back."""
    draw = random.Random(0)
    nodes = {
        f"{at:056x}": {"CPU": 2.0 * num_gpus + 4, "GPU": float(num_gpus), "memory": draw.uniform(0.9, 1.0) * 2**40}
        for at in range(num_nodes)
    }
    names, live = list(nodes), dict(nodes)
    queue = RunQueue(lambda: (live, {}), list)
    share = NUM_ENGINES // num_runs
    needs = Needs(1.0, 1.0, 16.0)
    requests = [
        RunRequest(f"s3://bucket/{at}", "recipe", "user", (PoolRequest("generator", needs, 1, share),))
        for at in range(num_runs)
    ]
    seconds: list[float] = []
    for turn in range(NUM_ROUNDS):
        live = dict(nodes)
        if turn % 2:
            del live[draw.choice(names)]
        for at, request in enumerate(requests):
            placed = tuple(names[(at * share + engine) // num_gpus % num_nodes] for engine in range(share))
            queue._looked = queue._divided = float("-inf")  # else it would do so every few seconds
            started = time.perf_counter()
            queue.sync(request, request.run, RunReport(True, {"generator": placed if turn else ()}))
            seconds.append(time.perf_counter() - started)
    return seconds


class _Member:
    def __init__(self, node: str) -> None:
        self.node = node


def report_s() -> float:
    """Seconds of a driver's report on its engines."""
    from gristmill.cluster.pools.fleet import Fleet

    fleet = Fleet.__new__(Fleet)
    fleet.members = [_Member(f"{at:056x}") for at in range(NUM_ENGINES)]  # type: ignore[misc]
    times = []
    for _ in range(NUM_ROUNDS):
        started = time.perf_counter()
        pickle.dumps(RunReport(True, {"generator": fleet.nodes()}))  # as it is sent
        times.append(time.perf_counter() - started)
    return sorted(times)[NUM_ROUNDS // 2]

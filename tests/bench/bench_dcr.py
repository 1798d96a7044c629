"""Distances to closest records at 30,000 x 30,000 rows as wide as Adult, each in a process of its own."""

import json
import subprocess
import sys
import time

import psutil

NUM_ROWS, NUM_COLUMNS = 30_000, 108  # Adult: 6 numbers and 102 categories
SCRIPT = """
import json, resource, sys, time
import numpy as np
from gristmill.evaluation.distances import nearest
num, wide = int(sys.argv[1]), int(sys.argv[2])
draws = np.random.default_rng(0)
def rows():
    made = np.zeros((num, wide), np.float32)
    made[:, :6] = draws.random((num, 6))
    edges = np.linspace(6, wide, 9).astype(int)
    for low, high in zip(edges, edges[1:]):
        made[np.arange(num), draws.integers(low, high, num)] = 0.5**0.5
    return made
left, right = rows(), rows()
right[:100] = left[-100:]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
started = time.perf_counter()
distances, _ = nearest(left, right, 2)
took_s = time.perf_counter() - started
assert (distances[-100:, 0] == 0).all() and np.isfinite(distances).all()
print(json.dumps({"took_s": took_s, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
"""
PEER = """
import json, resource, sys, time
import numpy as np
from sklearn.neighbors import NearestNeighbors
num, wide = int(sys.argv[1]), int(sys.argv[2])
draws = np.random.default_rng(0)
left, right = (draws.random((num, wide)).astype(np.float32) for _ in range(2))
started = time.perf_counter()
NearestNeighbors(n_neighbors=2, algorithm="brute").fit(right).kneighbors(left)
took_s = time.perf_counter() - started
print(json.dumps({"took_s": took_s, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
"""


def measured(script: str) -> dict[str, float]:
    command = [sys.executable, "-c", script, str(NUM_ROWS), str(NUM_COLUMNS)]
    found: dict[str, float] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return found


def bench() -> list[dict[str, object]]:
    """One row: seconds and peak MiB of the whole process, beside scikit-learn's brute force in the same run."""
    ours = measured(SCRIPT)
    time.sleep(1)
    peer = measured(PEER)
    what = f"DCR and NNDR, {NUM_ROWS:,} x {NUM_ROWS:,} rows of {NUM_COLUMNS} features, {psutil.cpu_count()} cores"
    return [
        {
            "what": what,
            "value": f"{ours['took_s']:.1f} s, {ours['peak_mb']:,.0f} MiB",
            "peer": f"scikit-learn brute force: {peer['took_s']:.1f} s, {peer['peak_mb']:,.0f} MiB",
            "ratio": peer["took_s"] / ours["took_s"],
            "target": "< 30 s, < 2,048 MiB",
        }
    ]


if __name__ == "__main__":
    for row in bench():
        print(row)

#!/usr/bin/env python3
"""Waits until the nodes of the allocation have joined Ray. Used by gristmill.sbatch.

    python deploy/slurm/wait_for_nodes.py NUM_NODES

Exits with 0 when all have joined, or when GRISTMILL_NODES_WAIT_S have passed and GRISTMILL_MIN_NODES have joined; else
with 1.
"""

import os
import sys
import time

import ray

POLL_S = 1.0


def main() -> int:
    num_nodes = int(sys.argv[1])
    wait_s, min_nodes = float(os.environ["GRISTMILL_NODES_WAIT_S"]), int(os.environ["GRISTMILL_MIN_NODES"])
    end = time.monotonic() + wait_s
    try:
        ray.init(logging_level="ERROR", log_to_driver=False)
    except (ConnectionError, RuntimeError) as error:
        print(f"gristmill: the head did not start: {str(error).splitlines()[0]}", flush=True)
        return 1
    while (num_joined := sum(node["Alive"] for node in ray.nodes())) < num_nodes and time.monotonic() < end:
        time.sleep(POLL_S)
    if num_joined < num_nodes:
        verdict = "starting with these" if num_joined >= min_nodes else f"fewer than GRISTMILL_MIN_NODES={min_nodes}"
        print(f"gristmill: {num_joined} of {num_nodes} nodes joined in {wait_s:g} s: {verdict}", flush=True)
    return 0 if num_joined >= min_nodes else 1


if __name__ == "__main__":
    sys.exit(main())

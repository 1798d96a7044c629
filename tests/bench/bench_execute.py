"""Programs in the sandbox a second and core, start-up of each included; beside it a fresh Python without a sandbox."""

import subprocess
import sys
import time
from typing import Any

from gristmill.stages.sandbox.runner import Limits, Sandbox

PROGRAM, TESTS = "def f(x):\n    return x + 1", "assert f(1) == 2\nassert f(2) == 3"
NUM_PROGRAMS, NUM_FRESH = 400, 30


def bench() -> list[dict[str, Any]]:
    sandbox = Sandbox(1)
    try:
        sandbox.run([(PROGRAM, TESTS)] * 20, Limits())
        started = time.perf_counter()
        found = sandbox.run([(PROGRAM, TESTS)] * NUM_PROGRAMS, Limits())
        rate = NUM_PROGRAMS / (time.perf_counter() - started)
    finally:
        sandbox.close()
    if {o.verdict for o in found} != {"passed"}:
        raise RuntimeError("not all passed")
    started = time.perf_counter()
    for _ in range(NUM_FRESH):
        subprocess.run([sys.executable, "-I", "-S", "-c", f"{PROGRAM}\n{TESTS}"], check=True)
    fresh = NUM_FRESH / (time.perf_counter() - started)
    return [
        {
            "what": "trivial programs run and tested in the sandbox, one after another",
            "value": f"{rate:.0f} programs/s",
            "peer": f"a fresh Python each, without a sandbox: {fresh:.0f}",
            "ratio": rate / fresh,
            "target": ">= 20",
        }
    ]

"""How the processes of a CPU engine start and wait; vLLM loads this plugin in each of them.

On a GPU node vLLM is unchanged: it can spare a core, and CUDA does not survive a fork.
"""

import multiprocessing
import os
from typing import Any

POLL_S = "GRISTMILL_ENGINE_POLL_S"  # seconds of polling before sleep; set in the environment of CPU engines only
FORKS = "GRISTMILL_ENGINE_FORKS"  # "1": the core forks its workers; set in the environment of CPU engines only


def install() -> None:
    """Change what the variables in the environment ask for. Without them, vLLM is unchanged."""
    if poll_s := os.environ.get(POLL_S):
        _sleep_after(float(poll_s))
    if os.environ.get(FORKS) == "1":
        _fork_workers()


def _sleep_after(poll_s: float) -> None:
    """Let the processes sleep while they wait for each other.

    The core and the worker communicate through shared memory. A waiting process polls for a second before it sleeps,
    which takes a whole core during every step. On a CPU machine the cluster, the stages and other engines need it. A
    step takes tens of milliseconds there, and a wake-up a tenth of a millisecond. A version of vLLM that waits in
    another way is unchanged: only the speed depends on it.
    """
    from vllm.distributed.device_communicators import shm_broadcast

    condition = getattr(shm_broadcast, "SpinCondition", None)
    if condition is None or getattr(condition, "is_patient", False):
        return
    original_init = condition.__init__

    def patient_init(self: Any, *args: Any, **kwargs: Any) -> None:
        original_init(self, *args, **kwargs)
        if getattr(self, "is_reader", False):
            self.busy_loop_s = poll_s

    condition.__init__, condition.is_patient = patient_init, True


def _fork_workers() -> None:
    """Let the core fork its workers, which saves each of them the 12 s of an import of vLLM.

    The core itself is spawned: its parent is a Ray worker with threads, and only a spawned process has the mark of the
    guard in its environment, which a fork of it then has, too.
    """
    if multiprocessing.current_process().name.startswith("EngineCore"):
        os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "fork"

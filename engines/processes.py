"""How the processes of a CPU engine start and wait; vLLM loads this plugin in each of them.

On a GPU node vLLM is unchanged: it can spare a core, and CUDA does not survive a fork.
"""

import multiprocessing
import os
import time
from multiprocessing import forkserver
from typing import Any

POLL_S = "GRISTMILL_ENGINE_POLL_S"  # seconds of polling before sleep; set in the environment of CPU engines only
LONGEST_SLEEP_MS = 50
FORKS = "GRISTMILL_ENGINE_FORKS"  # "1": the core and its workers are forks; set in the environment of CPU engines only


def install() -> None:
    """Change what the variables in the environment ask for. Without them, vLLM is unchanged."""
    if poll_s := os.environ.get(POLL_S):
        _sleep_after(float(poll_s))
    if os.environ.get(FORKS) == "1":
        _fork()


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
    original_init, original_wait = condition.__init__, condition.wait

    def patient_init(self: Any, *args: Any, **kwargs: Any) -> None:
        original_init(self, *args, **kwargs)
        if getattr(self, "is_reader", False):
            self.busy_loop_s = poll_s

    def patient_wait(self: Any, timeout_ms: int | None = None) -> None:
        # The writer drops a notification that follows another within a millisecond, and those before it knows of
        # this reader. The loop of the caller looks again after every sleep; vLLM's own sleep takes 5 s.
        sleep_ms = int(1000 * (time.monotonic() - self.last_read))
        sleep_ms = max(1, min(sleep_ms, LONGEST_SLEEP_MS))
        original_wait(self, sleep_ms if timeout_ms is None else min(sleep_ms, timeout_ms))

    condition.__init__, condition.wait, condition.is_patient = patient_init, patient_wait, True


def preload() -> None:
    """Begin to import vLLM in a process of which the core will be a fork, while this process imports it, too.

    The environment must be complete: the core inherits it as it is now.
    """
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["vllm.v1.engine.core", "vllm.v1.executor.multiproc_executor"])
    forkserver.ensure_running()


def _fork() -> None:
    """Let the core and its workers be forks, which saves each of them the 7 to 12 s of an import of vLLM.

    The core is a fork of the process of `preload`, because the process of the engine is a Ray worker with threads.
    """
    if multiprocessing.current_process().name.startswith("EngineCore"):
        os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "fork"
    else:
        from vllm.v1.engine import utils

        utils.get_mp_context = lambda: multiprocessing.get_context("forkserver")

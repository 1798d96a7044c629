"""Lets the processes of a CPU engine sleep while they wait for each other; vLLM loads this plugin in each of them.

The core and the worker of vLLM communicate through shared memory. A waiting process polls for a second before it
sleeps, which takes a whole core during every step. A GPU node can spare that core; on a CPU machine the cluster, the
stages and other engines need it. A step takes tens of milliseconds there, and a wake-up a tenth of a millisecond.
"""

import os
from typing import Any

POLL_S = "GRISTMILL_ENGINE_POLL_S"  # seconds of polling before sleep; set in the environment of CPU engines only


def install() -> None:
    """Shorten the polling to the seconds in the environment. Without the variable, vLLM is unchanged.

    A version of vLLM that waits in another way is unchanged too: only the speed depends on it.
    """
    poll_s = os.environ.get(POLL_S)
    if not poll_s:
        return
    from vllm.distributed.device_communicators import shm_broadcast

    condition = getattr(shm_broadcast, "SpinCondition", None)
    if condition is None or getattr(condition, "is_patient", False):
        return
    original_init = condition.__init__

    def patient_init(self: Any, *args: Any, **kwargs: Any) -> None:
        original_init(self, *args, **kwargs)
        if getattr(self, "is_reader", False):
            self.busy_loop_s = float(poll_s)

    condition.__init__, condition.is_patient = patient_init, True

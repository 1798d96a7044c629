"""Lets a CPU engine's processes sleep while they wait for each other; vLLM loads this in each of them as a plugin.

vLLM's core and worker talk through shared memory, and the one that waits polls it for a second before it goes to
sleep: a whole core for the length of every step. On a GPU node that core is not missed. On a CPU machine it is the one
that the cluster, the stages and other engines want. A step takes tens of milliseconds here, a wake-up a tenth of one.
"""

import os
from typing import Any

POLL_S = "GRISTMILL_ENGINE_POLL_S"  # how long to poll before sleeping; set in the environment of CPU engines only


def install() -> None:
    """Shorten the polling to what the environment says; without the variable vLLM stays as it is.

    Another vLLM, which waits in another way, stays as it is too: only speed hangs on it.
    """
    poll_s = os.environ.get(POLL_S)
    if not poll_s:
        return
    from vllm.distributed.device_communicators import shm_broadcast

    condition = getattr(shm_broadcast, "SpinCondition", None)
    if condition is None or getattr(condition, "is_patient", False):
        return
    begin = condition.__init__

    def patient(self: Any, *args: Any, **kwargs: Any) -> None:
        begin(self, *args, **kwargs)
        if getattr(self, "is_reader", False):
            self.busy_loop_s = float(poll_s)

    condition.__init__, condition.is_patient = patient, True

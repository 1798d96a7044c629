"""A fit on the cluster: one actor where it fits, told and telling while it goes on, bounded retries when it is lost."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray

from gristmill.cluster.connect import WORKER_ENV
from gristmill.cluster.errors import LOST, RunFailed, short
from gristmill.generators.families.fit import Fit, FitProgress, Stopped
from gristmill.generators.families.folder import ModelCard
from gristmill.records.errors import UserError

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 0.25


@dataclass(frozen=True)
class TrainSpec:
    """`[train]` of a fit recipe: what the fit takes, and how it is kept."""

    num_cpus: int = 1  # also the threads of its sums, so part of the model's identity
    num_gpus: float = 0.0
    memory_gb: float = 0.0
    checkpoint_s: float = 60.0
    max_retries: int = 3

    def __post_init__(self) -> None:
        if self.num_cpus < 1 or self.num_gpus < 0 or self.memory_gb < 0:
            raise ValueError("num_cpus must be at least 1; num_gpus and memory_gb must not be negative")
        if self.checkpoint_s <= 0 or self.max_retries < 0:
            raise ValueError("checkpoint_s must be above 0 and max_retries not negative")


class Trainer:
    """One fit. `run` works on a thread of its own; the other calls answer meanwhile."""

    def __init__(self, fit: Fit) -> None:
        self.fit = fit
        self.told: FitProgress | None = None
        self.is_stopped = False

    def run(self) -> ModelCard | None:
        """The card; None when it was asked to stop."""

        def tell(told: FitProgress) -> None:
            self.told = told

        try:
            return self.fit.run(tell, lambda: self.is_stopped)
        except Stopped:
            return None

    def look(self) -> FitProgress | None:
        return self.told

    def stop(self) -> None:
        self.is_stopped = True


def train(
    fit: Fit, spec: TrainSpec, tell: Callable[[FitProgress], None], is_stopped: Callable[[], bool]
) -> ModelCard | None:
    """Run `fit` on the cluster; None when it was stopped (it goes on from its checkpoint).

    A lost worker or node is replaced `max_retries` times. Raises UserError when the fit itself cannot go on, and
    RunFailed when workers are lost again and again or no node has room.
    """
    check_room(spec)
    num_lost = 0
    while True:
        try:
            return _attempt(fit, spec, tell, is_stopped)
        except LOST as error:
            num_lost += 1
            if num_lost > spec.max_retries:
                raise RunFailed(f"the fit's worker was lost {num_lost} times, last: {short(error)}") from error
            logger.warning(f"the fit's worker was lost ({short(error)}); going on from the last checkpoint")


def _attempt(
    fit: Fit, spec: TrainSpec, tell: Callable[[FitProgress], None], is_stopped: Callable[[], bool]
) -> ModelCard | None:
    threads = {name: str(spec.num_cpus) for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS")}
    options: dict[str, Any] = {
        "num_cpus": spec.num_cpus,
        "num_gpus": spec.num_gpus,
        "memory": int(spec.memory_gb * 2**30) or None,
        "max_concurrency": 2,
        "max_restarts": 0,
        "runtime_env": {"env_vars": {**WORKER_ENV, **threads}},
    }
    trainer: Any = ray.remote(Trainer).options(**options).remote(fit)
    try:
        result, asked, last = trainer.run.remote(), False, None
        while not ray.wait([result], timeout=LOOK_EVERY_S)[0]:
            told = ray.get(trainer.look.remote())
            if told is not None and told != last:
                last = told
                tell(told)
            if is_stopped() and not asked:
                asked = True
                ray.get(trainer.stop.remote())
        card: ModelCard | None = ray.get(result)
        return card
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, UserError):
            raise cause from None
        if isinstance(cause, LOST):
            raise cause from error
        raise RunFailed(f"the fit failed: {type(cause).__name__}: {short(cause)}") from error
    finally:
        ray.kill(trainer)


def check_room(spec: TrainSpec) -> None:
    """Raise UserError when no node is large enough; that would wait for ever."""
    wanted = {"CPU": float(spec.num_cpus), "GPU": spec.num_gpus, "memory": spec.memory_gb * 2**30}
    nodes = [n["Resources"] for n in ray.nodes() if n["Alive"]]
    if not any(all(node.get(k, 0.0) >= v for k, v in wanted.items()) for node in nodes):
        most = max((node.get("CPU", 0.0) for node in nodes), default=0.0)
        raise UserError(
            f"no node has room for the fit: it takes {spec.num_cpus} CPUs, {spec.num_gpus:g} GPUs and "
            f"{spec.memory_gb:g} GB; the largest of {len(nodes)} nodes has {most:g} CPUs. Lower [train] or add nodes"
        )

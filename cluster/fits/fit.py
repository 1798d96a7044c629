"""Runs a fit on the cluster: in one actor, with progress reports and a bounded number of retries."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray

from gristmill.cluster.connect import WORKER_ENV
from gristmill.cluster.errors import LOSSES, RunFailed, one_line
from gristmill.generators.families.fit import Fit, FitProgress, FitStopped
from gristmill.generators.families.folder import ModelCard
from gristmill.records.errors import UserError
from gristmill.records.pins import Pins

logger = logging.getLogger(__name__)

POLL_S = 0.25


@dataclass(frozen=True)
class TrainSpec:
    """`[train]` of a fit recipe: resources, checkpoints and retries of the fit."""

    num_cpus: int = 1  # CPU cores and threads of the fit; threads change sums, so this is identity of the model.
    num_gpus: float = 0.0  # GPUs of the fit.
    memory_gb: float = 0.0  # Memory reserved for the fit in GiB; 0: no reservation.
    checkpoint_s: float = 60.0  # Seconds between two checkpoints.
    max_retries: int = 3  # Retries of a fit that lost its worker.

    def __post_init__(self) -> None:
        if self.num_cpus < 1 or self.num_gpus < 0 or self.memory_gb < 0:
            raise ValueError("num_cpus must be at least 1; num_gpus and memory_gb must not be negative")
        if self.checkpoint_s <= 0 or self.max_retries < 0:
            raise ValueError("checkpoint_s must be above 0 and max_retries not negative")


class Trainer:
    """One fit. `run` occupies one thread; the actor answers other calls meanwhile."""

    def __init__(self, fit: Fit) -> None:
        self.fit = fit
        self.latest: FitProgress | None = None
        self.is_stopped = False

    def run(self) -> ModelCard | None:
        """Run the fit; returns its card, or None after `stop`."""

        def on_progress(progress: FitProgress) -> None:
            self.latest = progress

        try:
            with (self.fit.pins or Pins()).active():
                return self.fit.run(on_progress, lambda: self.is_stopped)
        except FitStopped:
            return None

    def progress(self) -> FitProgress | None:
        return self.latest

    def stop(self) -> None:
        self.is_stopped = True


def train(
    fit: Fit, spec: TrainSpec, on_progress: Callable[[FitProgress], None], is_stopped: Callable[[], bool]
) -> ModelCard | None:
    """Run `fit` on the cluster; None if it was stopped (it can resume from its checkpoint).

    A lost worker or node is replaced `max_retries` times. Raises UserError when the fit cannot continue, and RunFailed
    when workers are lost too often.
    """
    num_lost = 0
    while True:
        try:
            return _attempt(fit, spec, on_progress, is_stopped)
        except LOSSES as error:
            num_lost += 1
            if num_lost > spec.max_retries:
                raise RunFailed(f"the fit's worker was lost {num_lost} times, last: {one_line(error)}") from error
            logger.warning(f"the fit's worker was lost ({one_line(error)}); continuing from the last checkpoint")


def _attempt(
    fit: Fit, spec: TrainSpec, on_progress: Callable[[FitProgress], None], is_stopped: Callable[[], bool]
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
        result, stop_sent, last = trainer.run.remote(), False, None
        while not ray.wait([result], timeout=POLL_S)[0]:
            latest = ray.get(trainer.progress.remote())
            if latest is not None and latest != last:
                last = latest
                on_progress(latest)
            if is_stopped() and not stop_sent:
                stop_sent = True
                ray.get(trainer.stop.remote())
        card: ModelCard | None = ray.get(result)
        return card
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, UserError):
            raise cause from None
        if isinstance(cause, LOSSES):
            raise cause from error
        raise RunFailed(f"the fit failed: {type(cause).__name__}: {one_line(cause)}") from error
    finally:
        ray.kill(trainer)

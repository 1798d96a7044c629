"""The engines of a study: actors that serve all generations and load the weights of each."""

from collections.abc import Mapping, Sequence
from typing import Any

import ray
from ray.util.placement_group import remove_placement_group

from gristmill.cluster.errors import LOSSES, RunFailed, one_line
from gristmill.cluster.pools.replica import placement_options
from gristmill.cluster.spec import EngineUse
from gristmill.engines.errors import EngineDead
from gristmill.engines.served import ModelSpec
from gristmill.engines.weight_reload import ReloadingEngine
from gristmill.records.errors import UserError

CLOSE_TIMEOUT_S = 20.0


@ray.remote
class EngineActor:
    """One engine. Units use it in turn."""

    def __init__(self, spec: ModelSpec, max_retries: int) -> None:
        self._engine = ReloadingEngine(spec, max_retries)

    async def num_waiting(self) -> int:
        return self._engine.num_waiting

    async def texts(self, *args: Any) -> list[str]:
        return await self._engine.texts(*args)

    async def close(self) -> None:
        self._engine.close()


class Engines:
    """Handles of all engines, sent to units."""

    def __init__(self, actors: Sequence[Any]) -> None:
        self.actors = list(actors)

    def texts(
        self,
        files: Mapping[str, bytes],
        args: Mapping[str, Any],
        prompts: Sequence[str],
        seeds: Sequence[int],
        sampling: Mapping[str, Any],
    ) -> list[str]:
        """The completion of each prompt by the model of `files`, from the engine with the shortest queue.

        Runs in the task of a unit. Raises UserError for requests that the engine refuses, RunFailed when it cannot
        serve the model, and a Ray error when its process is lost too often.
        """
        waiting = ray.get([actor.num_waiting.remote() for actor in self.actors])
        actor = self.actors[min(range(len(waiting)), key=lambda i: waiting[i])]
        try:
            texts: list[str] = ray.get(actor.texts.remote(files, args, prompts, seeds, sampling))
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, UserError):
                raise error.cause from None
            if isinstance(error.cause, EngineDead | RuntimeError):  # after all restarts
                raise RunFailed(f"the engine cannot serve this model: {one_line(error.cause)}") from error
            raise
        return texts


def model_spec(use: EngineUse) -> ModelSpec:
    """The engine of a study, which loads the model of each unit."""
    return ModelSpec(
        "", chat=False, num_cpus=use.num_cpus, num_gpus=use.num_gpus, memory_gb=use.memory_gb,
        kv_cache_gb=use.kv_cache_gb, threads=use.threads, engine=dict(use.parallel), env=dict(use.env),
    )  # fmt: skip


class EngineRoom:
    """A context with running engines. The run must be admitted to the cluster before."""

    def __init__(self, use: EngineUse) -> None:
        self.use = use
        self._groups: list[Any] = []
        self._actors: list[Any] = []

    def __enter__(self) -> Engines:
        use, spec = self.use, model_spec(self.use)
        needs = spec.needs
        for _ in range(use.replicas):
            options, group = placement_options(needs)
            options |= {"max_restarts": use.max_retries, "max_task_retries": use.max_retries}
            self._actors.append(EngineActor.options(**options).remote(spec, use.max_retries))  # type: ignore[attr-defined]
            self._groups += [group] if group is not None else []
        try:
            ray.get([actor.num_waiting.remote() for actor in self._actors], timeout=use.start_timeout_s)
        except ray.exceptions.GetTimeoutError:
            raise RunFailed(f"the cluster had no room for the engines for {use.start_timeout_s:.0f} s") from None
        except LOSSES as error:
            raise RunFailed(f"an engine cannot start: {one_line(error)}") from error
        return Engines(self._actors)

    def __exit__(self, *error: object) -> None:
        """Close the engines, which frees devices and the processes of vLLM, then kill the actors."""
        closing = [actor.close.remote() for actor in self._actors]
        if closing:
            ray.wait(closing, num_returns=len(closing), timeout=CLOSE_TIMEOUT_S)
        for actor in self._actors:
            ray.kill(actor)
        for group in self._groups:
            remove_placement_group(group)

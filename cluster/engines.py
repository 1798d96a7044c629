"""The engines of a study: actors that outlive generations, and take over each one's weights."""

from collections.abc import Mapping, Sequence
from typing import Any

import ray
from ray.util.placement_group import remove_placement_group

from gristmill.cluster.errors import LOSSES, RunFailed, one_line
from gristmill.cluster.pools.replica import placement_options
from gristmill.cluster.spec import EngineUse
from gristmill.engines.served import ModelSpec
from gristmill.engines.vllm import EngineDead
from gristmill.engines.weight_reload import ReloadingEngine
from gristmill.records.errors import UserError

CALLS_AT_ONCE = 1000  # units that may wait for one engine
CLOSE_TIMEOUT_S = 20.0


@ray.remote
class Served:
    """One engine; units take turns."""

    def __init__(self, spec: ModelSpec, max_retries: int) -> None:
        self._engine = ReloadingEngine(spec, max_retries)

    async def num_waiting(self) -> int:
        return self._engine.num_waiting

    async def texts(self, *asked: Any) -> list[str]:
        return await self._engine.texts(*asked)

    async def close(self) -> None:
        self._engine.close()


class Engines:
    """Handles of all engines, to be sent to units."""

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
        """What the model of `files` writes after each prompt, by the engine that has the fewest waiting.

        Called in a unit's task. Raises UserError for asks that the engine refuses, RunFailed where it cannot serve the
        model, and a Ray error when its process is lost again and again.
        """
        waiting = ray.get([actor.num_waiting.remote() for actor in self.actors])
        actor = self.actors[min(range(len(waiting)), key=lambda i: waiting[i])]
        try:
            made: list[str] = ray.get(actor.texts.remote(files, args, prompts, seeds, sampling))
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, UserError):
                raise error.cause from None
            if isinstance(error.cause, EngineDead | RuntimeError):  # it was started anew often enough
                raise RunFailed(f"the engine cannot serve this model: {one_line(error.cause)}") from error
            raise
        return made


class EngineRoom:
    """A context in which engines are there. Raises UserError where the cluster has no room for them and a unit."""

    def __init__(self, use: EngineUse, num_cpus_of_unit: float) -> None:
        self.use, self._unit = use, num_cpus_of_unit
        self._groups: list[Any] = []
        self._actors: list[Any] = []

    def __enter__(self) -> Engines:
        use = self.use
        spec = ModelSpec(
            "", chat=False, num_cpus=use.num_cpus, num_gpus=use.num_gpus, memory_gb=use.memory_gb,
            kv_cache_gb=use.kv_cache_gb, threads=use.threads, engine=dict(use.parallel), env=dict(use.env),
        )  # fmt: skip
        needs = spec.needs
        there = ray.cluster_resources()
        for name, wanted, had in (
            ("CPUs", use.replicas * needs.num_cpus + self._unit, there.get("CPU", 0.0)),
            ("GPUs", use.replicas * needs.num_gpus, there.get("GPU", 0.0)),
        ):
            if wanted > had:
                raise UserError(
                    f"{use.replicas} engines and a unit need {wanted:g} {name}, the cluster has {had:g}: "
                    f"lower [engines] or work.num_cpus, or add nodes"
                )
        for _ in range(use.replicas):
            options, group = placement_options(needs, CALLS_AT_ONCE)
            options |= {"max_restarts": use.max_retries, "max_task_retries": use.max_retries}
            self._actors.append(Served.options(**options).remote(spec, use.max_retries))  # type: ignore[attr-defined]
            self._groups += [group] if group is not None else []
        try:
            ray.get([actor.num_waiting.remote() for actor in self._actors], timeout=use.start_timeout_s)
        except ray.exceptions.GetTimeoutError:
            raise RunFailed(f"engines had no room for {use.start_timeout_s:.0f} s") from None
        except LOSSES as error:
            raise RunFailed(f"an engine cannot start: {one_line(error)}") from error
        return Engines(self._actors)

    def __exit__(self, *error: object) -> None:
        """Close them (that frees the device, and vLLM's own children), then kill what is left."""
        closing = [actor.close.remote() for actor in self._actors]
        if closing:
            ray.wait(closing, num_returns=len(closing), timeout=CLOSE_TIMEOUT_S)
        for actor in self._actors:
            ray.kill(actor)
        for group in self._groups:
            remove_placement_group(group)

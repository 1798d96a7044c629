"""Pools: long-lived actors that hold one engine each and outlive lots."""

import time
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import ray

from cluster.errors import LOST, RunFailed, short
from cluster.spec import ClusterSpec
from generators.contract import Generator

CLOSE_TIMEOUT_S = 20.0


@ray.remote
class Replica:
    """One engine. Its calls are async programs on one event loop, so several lots share the engine's batch."""

    def __init__(self, generator: Generator) -> None:
        self.generator = generator

    async def open(self) -> None:
        self.generator.open()

    @ray.method(num_returns=2)
    async def make(self, asks: pa.RecordBatch) -> tuple[pa.RecordBatch, int]:
        """The made rows, and apart from them (so that the driver need not fetch rows) the number of rows."""
        batch = await self.generator.make(asks)
        return batch, batch.num_rows

    async def progress(self) -> tuple[int, int]:
        return self.generator.progress

    async def close(self) -> None:
        self.generator.close()


@dataclass
class Member:
    """A replica as the driver sees it."""

    actor: Any
    opening: Any  # reference to the running open(), None once it is open
    since: float
    lots: set[int] = field(default_factory=set)  # in flight
    num_lost: int = 0  # engines of this slot that were lost since one of them finished a lot
    asking: Any = None  # reference to the running progress(), if any
    made: tuple[int, int] = (0, 0)  # asks and tokens when it last told


class Pool:
    """`replicas` engines; hands each lot to the open engine with the fewest lots, replaces engines that die.

    Raises RunFailed when an engine cannot be opened, or one slot's engines die again and again without finishing a lot
    (counted by slot: a node that takes eight engines with it has killed each of them once).
    """

    def __init__(self, generator: Generator, spec: ClusterSpec) -> None:
        self.generator, self.spec = generator, spec
        self.members: list[Member] = []
        self.device_s = 0.0
        self._gone = (0, 0)  # made by engines that were replaced
        self._generator_ref: Any = None

    def start(self) -> None:
        self._generator_ref = ray.put(self.generator)
        self.members = [self._new() for _ in range(self.spec.replicas)]

    def _new(self) -> Member:
        needs = self.generator.needs
        actor = Replica.options(  # type: ignore[attr-defined]
            num_cpus=needs.num_cpus,
            num_gpus=needs.num_gpus,
            memory=int(needs.memory_gb * 2**30) or None,
            max_concurrency=self.spec.lots_per_replica + 2,
            max_restarts=0,
            runtime_env={"env_vars": needs.env} if needs.env else None,
        ).remote(self._generator_ref)
        return Member(actor, actor.open.remote(), time.monotonic())

    @property
    def num_open(self) -> int:
        return sum(m.opening is None for m in self.members)

    def poll(self) -> None:
        """Note engines that have come up; raise for one that cannot."""
        for number, member in enumerate(self.members):
            if member.opening is None:
                continue
            done, _ = ray.wait([member.opening], timeout=0)
            if not done:
                is_late = time.monotonic() - member.since > self.spec.start_timeout_s
                if is_late and not self.num_open:  # else the others go on, and this one waits for room
                    raise RunFailed(
                        f"no engine was up after {self.spec.start_timeout_s:.0f} s; look at the log of its actor, "
                        f"check that the cluster has room for it, or raise cluster.start_timeout_s"
                    )
                continue
            try:
                ray.get(done[0])
                member.opening = None
            except ray.exceptions.RayTaskError as error:
                raise RunFailed(
                    f"the engine cannot start: {type(error.cause).__name__}: {short(error.cause)}"
                ) from error
            except LOST as error:
                self._replace(number, f"while starting ({short(error)})")
            except ray.exceptions.RayError as error:
                raise RunFailed(f"the engine cannot start: {type(error).__name__}: {short(error)}") from error

    def made(self) -> tuple[int, int]:
        """(asks, tokens_out) made so far by all engines, as they last told; asks them again, waits for none."""
        for member in self.members:
            if member.opening is not None:
                continue
            if member.asking is None:
                member.asking = member.actor.progress.remote()
            elif ray.wait([member.asking], timeout=0)[0]:
                try:
                    member.made = ray.get(member.asking)
                except LOST:
                    pass  # its lots tell of the loss
                member.asking = None
        asks, tokens = zip(*(m.made for m in self.members)) if self.members else ((0,), (0,))
        return self._gone[0] + sum(asks), self._gone[1] + sum(tokens)

    def room(self) -> Member | None:
        """The open engine with the fewest lots, None when all are full."""
        free = [m for m in self.members if m.opening is None and len(m.lots) < self.spec.lots_per_replica]
        return min(free, key=lambda m: len(m.lots), default=None)

    def submit(self, member: Member, lot: int, asks_ref: Any) -> tuple[Any, Any]:
        """References to the made rows, and to the small answer that says that they are there."""
        member.lots.add(lot)
        return member.actor.make.remote(asks_ref)

    def finished(self, member: Member, lot: int) -> None:
        member.lots.discard(lot)
        member.num_lost = 0

    def lose(self, member: Member, lot: int, why: str) -> None:
        """A lot was lost with its engine: replace the engine, unless an earlier lot's loss has done so already."""
        member.lots.discard(lot)
        for number, current in enumerate(self.members):
            if current is member:
                self._replace(number, why)

    def _replace(self, number: int, why: str) -> None:
        old = self.members[number]
        if old.num_lost >= self.spec.max_retries:
            raise RunFailed(
                f"an engine died {old.num_lost + 1} times in a row without finishing a lot; the last: {why}"
            )
        self._stop(old)
        self.members[number] = self._new()
        self.members[number].num_lost = old.num_lost + 1

    def _stop(self, member: Member) -> None:
        self.device_s += self._devices() * (time.monotonic() - member.since)
        self._gone = self._gone[0] + member.made[0], self._gone[1] + member.made[1]
        ray.kill(member.actor)

    def _devices(self) -> float:
        return self.generator.needs.num_gpus or 1.0

    def alive_device_s(self) -> float:
        """Device-seconds held so far, living engines included (an engine without a GPU counts as one device)."""
        return self.device_s + sum(self._devices() * (time.monotonic() - m.since) for m in self.members)

    def stop(self) -> None:
        """Close every engine (that frees the device, and vLLM's own children), then kill what is left."""
        closing = [m.actor.close.remote() for m in self.members]
        if closing:
            ray.wait(closing, num_returns=len(closing), timeout=CLOSE_TIMEOUT_S)
        for member in self.members:
            self._stop(member)
        self.members = []

"""The actor that holds one engine, and the options that place it."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any, Protocol

import pyarrow as pa
import ray
from ray.util.placement_group import PlacementGroup, placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from gristmill.cluster.inputs import open_unchanged
from gristmill.cluster.pools.feed import Report, Reporter
from gristmill.engines import parking
from gristmill.engines.needs import Needs
from gristmill.engines.throttle import Throttle
from gristmill.records.lots import SourceLot, ask_batch
from gristmill.stages.contract import Stage

LOOK_S = 0.05  # between two looks for something to report
MAX_CALLS = 10_000  # lots in a replica and calls beside them


class Worker(Protocol):
    """The content of a replica: a generator, or a stage with its engine."""

    @property
    def needs(self) -> Needs: ...

    @property
    def throttle(self) -> Throttle | None: ...

    @property
    def engine_key(self) -> str | None: ...

    def open(self) -> None: ...

    async def facts(self) -> dict[str, Any]: ...

    async def make(self, asks: pa.RecordBatch) -> pa.RecordBatch: ...

    def refuse(self, asks: pa.RecordBatch, reason: str) -> pa.RecordBatch: ...

    @property
    def progress(self) -> tuple[int, int]: ...

    def close(self) -> None: ...


class StageWorker:
    """A stage as the content of a replica."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.name = stage.name
        self.needs = stage.needs or Needs()
        self.pins = stage.pins
        self._rows = 0

    @property
    def engine_key(self) -> str | None:
        return self.stage.engine_key

    def open(self) -> None:
        self.stage.open()

    async def facts(self) -> dict[str, Any]:
        return await self.stage.facts()

    async def make(self, asks: pa.RecordBatch) -> pa.RecordBatch:
        batch = await self.stage.run_pooled(asks)
        self._rows += batch.num_rows
        return batch

    def refuse(self, asks: pa.RecordBatch, reason: str) -> pa.RecordBatch:
        return self.stage.refuse(asks, reason)

    @property
    def progress(self) -> tuple[int, int]:
        rows, tokens = self.stage.progress
        return max(rows, self._rows), tokens

    @property
    def paid(self) -> float:
        return self.stage.paid

    @property
    def throttle(self) -> Throttle | None:
        return self.stage.throttle

    def close(self) -> None:
        self.stage.close()


@ray.remote
class Replica:
    """One engine. Its calls run on one event loop, so several lots share the batch of the engine."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self._reporter = Reporter()
        self._calls: set[asyncio.Future[pa.RecordBatch]] = set()  # of `make`

    async def where(self) -> str:
        """Id of its node."""
        return ray.get_runtime_context().get_node_id()

    async def open(self, secrets: Mapping[str, str]) -> dict[str, Any]:
        """Open the engine; returns its facts. `secrets`: see `open_unchanged`."""
        open_unchanged(self.worker, secrets)
        return await self.worker.facts()

    async def adopt(self, worker: Worker, secrets: Mapping[str, str]) -> dict[str, Any]:
        """Become the replica of another worker, whose engine has the same key as the present one; returns its facts.

        Calls of the old worker that are still running are cancelled: their run has ended.
        """
        for call in self._calls:
            call.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)
        with parking.parking():
            self.worker.close()
        try:
            self.worker, self._reporter = worker, Reporter()
            return await self.open(secrets)
        finally:
            parking.clear()

    @ray.method(num_returns=2)
    async def make(self, batch: SourceLot | pa.RecordBatch, start: int, stop: int) -> tuple[pa.RecordBatch, int]:
        """The generated rows [start, stop) and, as a separate object, their bytes: the driver never fetches rows."""
        self._reporter.num_received += stop - start
        call = asyncio.ensure_future(self.worker.make(ask_batch(batch).slice(start, stop - start)))
        self._calls.add(call)
        try:
            rows = await call
        finally:
            self._calls.discard(call)
        return rows, rows.nbytes

    async def report(self, known: list[int] | None, wait_s: float) -> Report:
        """The next report after that with the news `known`: as soon as there are others, at the latest after `wait_s`;
        at once without `known`. Ray sends numbers at half the price of a Report."""
        end = time.monotonic() + wait_s
        while True:
            paid = getattr(self.worker, "paid", 0.0)
            report = self._reporter.report(self.worker.progress, self.worker.throttle, paid)
            if known is None or report.news != known or time.monotonic() >= end:
                return report
            await asyncio.sleep(LOOK_S)

    async def close(self) -> None:
        self.worker.close()


def placement_options(needs: Needs) -> tuple[dict[str, Any], PlacementGroup | None]:
    """Options of the actor of a replica, and its placement group if it needs several GPUs.

    The group reserves all GPUs at once, so that two replicas never wait for each other.
    """
    options: dict[str, Any] = {
        "num_cpus": needs.num_cpus,
        "num_gpus": 0 if needs.across_nodes else needs.num_gpus,
        "memory": int(needs.memory_gb * 2**30) or None,
        "max_concurrency": MAX_CALLS,
        "max_restarts": 0,
        "runtime_env": {"env_vars": needs.env} if needs.env else None,
    }
    if needs.num_gpus <= 1:
        return options, None
    group = placement_group(needs.bundles, strategy="PACK" if needs.across_nodes else "STRICT_PACK")
    options["scheduling_strategy"] = PlacementGroupSchedulingStrategy(
        group, placement_group_bundle_index=0, placement_group_capture_child_tasks=needs.across_nodes
    )
    return options, group


@ray.remote(num_cpus=1, num_returns=2, max_retries=0)
def join_task(
    worker: list, batch: SourceLot | pa.RecordBatch, parts: list[tuple[int, Any]], refused: dict[int, str]
) -> tuple[pa.RecordBatch, int]:
    """Join a lot from its spans and its rejected rows, in row order; returns it and its bytes."""
    holder: Worker = ray.get(worker[0])
    batch = ask_batch(batch)
    spans = [(start, ray.get(ref)) for start, ref in parts]
    spans += [(row, holder.refuse(batch.slice(row, 1), reason)) for row, reason in refused.items()]
    joined = pa.concat_batches([rows for _, rows in sorted(spans, key=lambda span: span[0])])
    return joined, joined.nbytes

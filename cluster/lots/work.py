"""The work of a CPU worker on a lot: run the stages, and later split the lot into its shards.

The pipeline is pickled once per run, and each worker process opens it once.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import ray

from gristmill.cluster.inputs import open_unchanged
from gristmill.cluster.lots.verdicts import mark_verdicts
from gristmill.generators.contract import Generator
from gristmill.records.lots import Plan, SourceLot, ask_batch
from gristmill.records.output import shards
from gristmill.records.output.shards import Encoded, OutputSpec
from gristmill.records.schema import ASK, REJECT
from gristmill.stages.admission.contract import Admission, LotVerdicts, tally
from gristmill.stages.contract import Stage
from gristmill.stages.dedup.contract import Duplicates


@dataclass
class LotPipeline:
    """Plan, stages and generator of a run. It can be pickled, and it is opened only in workers."""

    plan: Plan
    stages: Sequence[Stage]
    schema: pa.Schema
    output: OutputSpec
    generator: Generator | None = None  # only a generator without a pool
    pooled: frozenset[str] = frozenset()  # names of the stages in pools
    is_open: bool = field(default=False, init=False)

    @property
    def segments(self) -> list[list[Stage]]:
        """The stages of CPU workers, split at each pooled stage: one segment more than pooled stages."""
        segments: list[list[Stage]] = [[]]
        for stage in self.stages:
            if stage.name in self.pooled:
                segments.append([])
            else:
                segments[-1].append(stage)
        return segments

    @property
    def dedup(self) -> Duplicates | None:
        return next((s for s in self.stages if isinstance(s, Duplicates)), None)

    @property
    def admissions(self) -> list[Admission]:
        return [s for s in self.stages if isinstance(s, Admission)]

    def open(self) -> "LotPipeline":
        if self.generator is not None:
            open_unchanged(self.generator)
        for stage in self.stages:
            if stage.name not in self.pooled:
                open_unchanged(stage)
        self.is_open = True
        return self

    def close(self) -> None:
        """Free what `open` has loaded."""
        if self.generator is not None:
            self.generator.close()
        for stage in self.stages:
            if stage.name not in self.pooled:
                stage.close()
        self.is_open = False


@dataclass(frozen=True)
class LotResult:
    """The driver's data on a processed lot, enough to claim its rows. The rows stay in the object store."""

    alive: np.ndarray  # bool (num_rows,)
    keys: np.ndarray | None  # uint64 (num_rows, bands), zeros for rejected rows; None without dedup
    busy_s: dict[str, float]  # seconds by stage
    offers: Sequence[Sequence[Any]] = ()  # for each admission stage, its data on every row
    nbytes: int = 0  # of the rows


class StageFailed(Exception):
    """Error of a stage, with the name of the stage."""


_OPEN: dict[str, LotPipeline] = {}
_USED_S: dict[str, float] = {}  # when each was last used
MAX_OPEN = 4
IDLE_S = 30.0  # a pipeline that was not used for so long is of a run that has ended


def opened(pipeline_ref: Sequence[ray.ObjectRef]) -> LotPipeline:
    """The pipeline behind a reference, opened once per worker process.

    The reference is in a list, so that Ray does not unpickle the pipeline for every task. Runs of one driver that go
    on at the same time (gristmill.jobs.flow) share its workers.
    """
    key, now = pipeline_ref[0].hex(), time.monotonic()
    if key not in _OPEN:
        for other, used_s in sorted(_USED_S.items(), key=lambda item: item[1]):
            if now - used_s > IDLE_S or len(_OPEN) >= MAX_OPEN:
                del _USED_S[other]
                _OPEN.pop(other).close()
        pa.set_cpu_count(1)  # Ray schedules cores; a thread pool in a task would use them twice
        _OPEN[key] = ray.get(pipeline_ref[0]).open()
    _USED_S[key] = now
    return _OPEN[key]


def process(
    pipeline: LotPipeline, batch: SourceLot | pa.RecordBatch, segment: int = 0
) -> tuple[pa.RecordBatch, LotResult]:
    """Run the stages of a segment on a lot. Without a generator pool the first segment also generates the rows.

    Only the result of the last segment has keys and offers for the claim. Raises StageFailed.
    """
    busy_s: dict[str, float] = {}
    batch = ask_batch(batch)
    if pipeline.generator is not None and segment == 0:
        started = time.perf_counter()
        batch = asyncio.run(pipeline.generator.make(batch))
        busy_s["make"] = time.perf_counter() - started
    if ASK.name in batch.schema.names:
        batch = batch.drop_columns([ASK.name])
    segments = pipeline.segments
    for stage in segments[segment]:
        started = time.perf_counter()
        try:
            batch = stage.run(batch)
        except Exception as error:
            raise StageFailed(f"stage '{stage.name}': {type(error).__name__}: {error}") from error
        busy_s[stage.name] = time.perf_counter() - started
    alive = batch.column(REJECT.name).is_null().to_numpy(zero_copy_only=False)
    keys = None
    if pipeline.dedup is not None and segment == len(segments) - 1:
        keys = np.zeros((batch.num_rows, pipeline.dedup.bands), np.uint64)
        if alive.any():
            keys[alive] = pipeline.dedup.keys(batch.column(pipeline.dedup.signature).filter(pa.array(alive)))
    is_last = segment == len(segments) - 1
    offers = [stage.offers(batch) for stage in pipeline.admissions] if is_last else ()
    return batch, LotResult(alive, keys, busy_s, offers, batch.nbytes)


def finish(pipeline: LotPipeline, batch: pa.RecordBatch, lot: int, verdicts: LotVerdicts | None) -> Encoded:
    """Mark duplicates and rows that admission or an exact limit refused, and split the lot into its shards."""
    closed_at = None
    if verdicts is not None:
        batch = mark_verdicts(pipeline.plan, pipeline.dedup, batch, verdicts)
        closed_at = verdicts.closed_at
    labels, has_several = tally(pipeline.admissions, batch), pipeline.plan.division is not None
    return shards.encode(batch, pipeline.schema, lot, pipeline.output, labels, closed_at, has_several)


# The lot loop bounds, counts and reports retries, so Ray's retries are off.
@ray.remote(num_cpus=1, num_returns=2, max_retries=0)
def process_task(
    pipeline_ref: list, batch: SourceLot | pa.RecordBatch, segment: int
) -> tuple[pa.RecordBatch, LotResult]:
    return process(opened(pipeline_ref), batch, segment)


@ray.remote(num_cpus=1, max_retries=0)
def warm_task(pipeline_ref: list) -> None:
    """Open the pipeline in a worker before the first lot arrives: stages load while engines start."""
    opened(pipeline_ref)


@ray.remote(num_cpus=1, max_retries=0)
def finish_task(pipeline_ref: list, batch: pa.RecordBatch, lot: int, verdicts: LotVerdicts | None) -> Encoded:
    return finish(opened(pipeline_ref), batch, lot, verdicts)

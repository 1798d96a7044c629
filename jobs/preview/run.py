"""Makes the first rows of a recipe and carries them through its stages, as a run would, and writes nothing.

Parts without an engine run in this process. A part with an engine runs on Ray, in a process of its own, and ends before
the next one starts, so that one device is enough.
"""

import asyncio
import logging
import tempfile
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from gristmill.cluster.spec import PoolSpec
from gristmill.generators.contract import Generator
from gristmill.jobs.produce.existing import existing_of, prepare
from gristmill.jobs.recipes.compile import CompiledRecipe
from gristmill.jobs.terminal.session import interruptible, is_stopping
from gristmill.records.errors import UserError
from gristmill.records.lots import Plan, asks
from gristmill.records.pins import active
from gristmill.records.schema import ASK, REJECT
from gristmill.records.stores.opening import open_store
from gristmill.stages.admission.contract import Admission, LotVerdicts, resolve_admitting
from gristmill.stages.contract import Stage
from gristmill.stages.dedup.bandindex import NOBODY
from gristmill.stages.dedup.contract import Duplicates

logger = logging.getLogger(__name__)

Show = Callable[[str, str, int], None]  # a part, what it does, and how many rows are done
STOPPING = "ending the engine"


def sample_plan(compiled: CompiledRecipe, num_rows: int) -> Plan:
    """The plan cut to the first asks: `num_rows`, and those that complete the last group of `source.together`.

    Asks of later rounds are made of kept rows, which a preview does not have.
    """
    plan, size = compiled.plan, compiled.source.num_together
    whole = -(-num_rows // size) * size
    most = [whole, plan.num_asks, plan.round_lots * plan.lot_size if plan.round_lots else None]
    num_asks = min(number for number in most if number is not None)
    if num_asks > num_rows:
        logger.info(f"preview: {num_asks} rows instead of {num_rows}, as the {size} samples of a row stay together")
    return replace(plan, num_asks=num_asks)


def first_asks(compiled: CompiledRecipe, plan: Plan) -> pa.RecordBatch:
    """The asks of all lots of `plan`, with the ids and seeds that they have in a run."""
    source = compiled.ask_source(open_store(tempfile.gettempdir()))  # its store is never read: see `sample_plan`
    return pa.concat_batches([asks(plan, source, lot) for lot in range(plan.num_lots or 0)])


def finished_rows(compiled: CompiledRecipe, plan: Plan, batch: pa.RecordBatch, show: Show) -> pa.RecordBatch:
    """The rows of these asks with all findings and verdicts, dedup and admission among them included.

    Raises UserError when a part cannot be opened, KeyboardInterrupt when it is stopped.
    """
    if existing := existing_of(compiled):
        prepare(existing, open_store(tempfile.gettempdir()), is_output=False)
    generator = compiled.generator
    with _Engines(compiled, show) as engines:
        for name, part in generator.pooled.items():
            batch = engines.run(name, part, batch)
        if unpooled := generator.unpooled:
            batch = _here("generator", unpooled, show, lambda: asyncio.run(unpooled.make(batch)))
        batch = batch.drop_columns([ASK.name])
        for stage in compiled.stages:
            if stage.needs:
                batch = engines.run(stage.name, stage, batch)
            else:
                batch = _here(stage.name, stage, show, partial(stage.run, batch))
    return _claimed(compiled, plan, batch)


def _here(name: str, part: Generator | Stage, show: Show, run: Callable[[], pa.RecordBatch]) -> pa.RecordBatch:
    """Open a part in this process and run it."""
    show(name, "running", 0)
    try:
        with active(part.pins):
            part.open()
        return run()
    except (UserError, KeyboardInterrupt):
        raise
    except Exception as error:
        raise UserError(f"{name}: {type(error).__name__}: {error}") from error
    finally:
        part.close()


class _Engines:
    """Runs parts on Ray, which the first of them starts. A context manager."""

    def __init__(self, compiled: CompiledRecipe, show: Show) -> None:
        self.spec, self.name, self.show = compiled.recipe.cluster, compiled.recipe.name, show
        self._stack, self._is_connected = ExitStack(), False
        self._stopping = threading.Event()

    def __enter__(self) -> "_Engines":
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.close()

    def run(self, name: str, part: Generator | Stage, batch: pa.RecordBatch) -> pa.RecordBatch:
        """`batch` as the part fills it. Its engine starts, and ends before this returns."""
        from gristmill.cluster.connect import connected  # ray is imported only when an engine starts
        from gristmill.cluster.pools.replica import StageWorker, Worker
        from gristmill.cluster.preflight import request_of, seated
        from gristmill.cluster.single_engine import SingleEngine, Stopped, TrialFailed

        if not self._is_connected:
            self.show(name, "starting Ray", 0)
            self._stack.enter_context(connected(self.spec))
            self._stack.enter_context(interruptible(self._stopping.set, lambda: None, STOPPING))
            self._is_connected = True
        worker: Worker = StageWorker(part) if isinstance(part, Stage) else part
        pools = {name: (worker.needs, PoolSpec())}
        request = request_of(f"preview {self.name}", self.name, pools, self.spec, stage_cpus=0)
        try:
            with (
                seated(request, self.spec, is_stopping),
                SingleEngine(worker, self._stopping.is_set, partial(self.show, name)) as engine,
            ):
                engine.open(self.spec.start_timeout_s)
                return engine.make(batch)
        except Stopped:
            raise KeyboardInterrupt from None
        except TrialFailed as error:
            raise UserError(f"{name}: {error}") from None


def _claimed(compiled: CompiledRecipe, plan: Plan, batch: pa.RecordBatch) -> pa.RecordBatch:
    """`batch` with what is decided at commit: duplicates among its rows, and admission."""
    from gristmill.cluster.lots.verdicts import admitter, mark_verdicts

    dedup = next((s for s in compiled.stages if isinstance(s, Duplicates)), None)
    books = [(s, s.new_book(), s.offers(batch)) for s in compiled.stages if isinstance(s, Admission)]
    alive = batch.column(REJECT.name).is_null().to_numpy(zero_copy_only=False)
    nobody = np.full(len(alive), NOBODY, np.int64)

    def resolve(living: np.ndarray) -> np.ndarray:
        return nobody.copy()

    if dedup is not None and alive.any():
        keys = np.zeros((len(alive), dedup.bands), np.uint64)
        keys[alive] = dedup.keys(batch.column(dedup.signature).filter(pa.array(alive)))
        resolve = partial(dedup.resolve, keys, nobody, first_owner=0)
    admit, refused, evidence = admitter(books, 0, [])
    owners, _ = resolve_admitting(resolve, alive, 0, admit)
    return mark_verdicts(plan, dedup, batch, LotVerdicts(owners, refused, evidence))

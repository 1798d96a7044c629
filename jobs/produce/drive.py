"""Runs the lot loop of a recipe to its end, and keeps display, manifest, log and metrics up to date meanwhile."""

import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console

from gristmill.jobs.produce.monitor import Monitor
from gristmill.jobs.recipes.recipe import CompiledRecipe
from gristmill.records.lease import Lease
from gristmill.records.manifest import Manifest, State
from gristmill.records.shards import Summary
from gristmill.records.stores.contract import Store

logger = logging.getLogger(__name__)

BUDGET_ENDS = ("device_s", "cost")


def end_state(compiled: CompiledRecipe, totals: Summary, ended: str | None) -> State:
    """The state of a run that has not been stopped."""
    if ended == "quotas" or compiled.is_full(totals):
        return "complete"
    limits, num_asks = compiled.recipe.limits, compiled.plan.num_asks
    if ended in BUDGET_ENDS:
        only_goal = num_asks is None and not (limits.kept_rows or limits.kept_tokens or limits.tokens)
        return "complete" if only_goal else "budget"
    wanted_more = (limits.kept_rows or limits.kept_tokens or limits.tokens) and not limits.reached(totals)
    return "exhausted" if wanted_more else "complete"


def drive(
    compiled: CompiledRecipe, store: Store, book: Manifest, totals: Summary, lease: Lease, console: Console
) -> State:
    """Run until a limit, the end of the source, or a stop; `totals` is brought up to date. Returns how it ended."""
    from gristmill.cluster.connect import connected  # ray is imported only when a run starts
    from gristmill.cluster.lots.job import Job
    from gristmill.cluster.lots.loop import LotLoop
    from gristmill.cluster.lots.work import LotPipeline
    from gristmill.cluster.preflight import check_room

    recipe, generator = compiled.recipe, compiled.generator
    spec, is_pooled = recipe.cluster, generator.needs.pooled
    pipeline = LotPipeline(
        compiled.plan,
        compiled.stages,
        compiled.schema,
        recipe.output,
        None if is_pooled else generator,
        compiled.pooled,
    )
    spent = book.spent("device_s"), book.spent("cost")
    with Monitor(compiled, store, book, totals, lease, console) as monitor, connected(spec):
        check_room(compiled.pools, spec.nodes_timeout_s)
        monitor.begin()
        generator_here = generator if is_pooled else None
        job = Job(
            pipeline,
            compiled.asked(store),
            store,
            spec,
            recipe.limits,
            generator_here,
            totals,
            *spent,
            monitor.events.note,
        )
        loop = LotLoop(job, monitor.beat)
        with interruptible(loop.stop, store.give_up):
            try:
                ended = loop.run()
            except BaseException as error:
                monitor.end("stopped", None, why=f"{type(error).__name__}: {error}")
                raise
        state = "stopped" if ended == "stopped" else end_state(compiled, totals, ended)
        monitor.end(state, None if ended == "stopped" else ended)
    return state


@contextmanager
def interruptible(stop: Callable[[], None], give_up: Callable[[], None]) -> Iterator[None]:
    """Ctrl-C or SIGTERM once: end after the lots in commit. Twice: end at once (nothing committed is lost)."""
    asked = False

    def handle(number: int, frame: Any) -> None:
        nonlocal asked
        if asked:
            give_up()
            raise KeyboardInterrupt
        asked = True
        stop()
        logger.warning("stopping after the lots in commit (once more: at once)")

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

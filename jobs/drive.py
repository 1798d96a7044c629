"""Runs the lot loop of a recipe to its end, and keeps display, manifest, log and metrics up to date meanwhile."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console

from jobs.recipe import Mill
from records.errors import UserError
from records.lease import Lease
from records.manifest import Manifest, State
from records.shards import Summary
from records.store import Store

SAVE_EVERY_S = 10.0
BUDGET_ENDS = ("device_s", "cost")


def end_state(mill: Mill, totals: Summary, ended: str | None) -> State:
    """The state of a run that has not been stopped."""
    limits, num_asks = mill.recipe.limits, mill.plan.num_asks
    if ended in BUDGET_ENDS:
        only_goal = num_asks is None and not (limits.kept_rows or limits.kept_tokens or limits.tokens)
        return "complete" if only_goal else "budget"
    wanted_more = (limits.kept_rows or limits.kept_tokens or limits.tokens) and not limits.reached(totals)
    return "exhausted" if wanted_more else "complete"


def drive(mill: Mill, store: Store, book: Manifest, totals: Summary, lease: Lease, console: Console) -> State:
    """Run until a limit, the end of the source, or a stop; `totals` is brought up to date. Returns how it ended."""
    from cluster.connect import connected  # ray is imported only when a run starts
    from cluster.job import Beat, Job
    from cluster.preflight import check_room
    from cluster.run import LotLoop
    from cluster.work import Kit
    from jobs.progress import Progress

    recipe, generator = mill.recipe, mill.generator
    spec, is_pooled = recipe.cluster, generator.needs.pooled
    kit = Kit(mill.plan, mill.stages, mill.schema, recipe.output, None if is_pooled else generator, mill.pooled)
    before = book.spent("device_s"), book.spent("cost")
    with Progress(mill.plan.num_asks, recipe.limits, totals, console) as shown, connected(spec, shown.say):
        check_room(mill.pools, spec.nodes_timeout_s, shown.say)
        job = Job(kit, mill.source, store, spec, recipe.limits, generator if is_pooled else None, totals, *before)
        started = saved = time.monotonic()
        book.begin()

        def save(state: Beat | None) -> None:
            start = book.starts[-1]
            start["wall_s"] = round(time.monotonic() - started, 1)
            start["stage_s"] = {k: round(v, 2) for k, v in loop.busy_s.items()} if loop else {}
            if loop:
                start["device_s"] = round(loop.budget.device_s - before[0], 1)
                start["cost"] = round(loop.budget.cost - before[1], 6)
            book.totals = totals
            book.account(spec.price_per_device_hour, spec.currency)
            book.save(store)

        def beat(state: Beat) -> None:
            nonlocal saved
            shown.beat(state)
            if lease.lost:
                raise UserError(f"{store.uri} has been taken over by another driver ({lease.lost}); this one stops")
            if time.monotonic() - saved > SAVE_EVERY_S:
                save(state)
                saved = time.monotonic()

        loop: LotLoop | None = None
        save(None)
        loop = LotLoop(job, beat, shown.say)
        with interruptible(loop.stop, shown.say):
            try:
                ended = loop.run()
            except BaseException:
                book.state = "stopped"
                if not lease.lost:
                    save(None)
                raise
        book.ended = None if ended == "stopped" else ended
        book.state = "stopped" if ended == "stopped" else end_state(mill, totals, ended)
        save(None)
    return book.state


@contextmanager
def interruptible(stop: Callable[[], None], say: Callable[[str], None]) -> Iterator[None]:
    """Ctrl-C or SIGTERM once: end after the lots in commit. Twice: end at once (nothing committed is lost)."""
    asked = False

    def handle(number: int, frame: Any) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        stop()
        say("stopping after the lots in commit (once more: at once)")

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

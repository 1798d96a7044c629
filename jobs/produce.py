"""`gristmill produce RECIPE --out URI`: a recipe in, a corpus out; the same command again resumes."""

import shlex
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import pyarrow.parquet as pq
from rich.console import Console

from jobs.recipe import Mill, build_mill, load
from jobs.tables import plan_table, totals_table
from records import ledger, manifest
from records.errors import UserError
from records.lease import Lease
from records.manifest import Manifest, State, differences
from records.shards import KEPT, Summary, shard_name
from records.store import Store, open_store

SAVE_EVERY_S = 10.0
NUM_SAMPLES = 3


@dataclass(frozen=True)
class Outcome:
    """How a call of produce ended."""

    state: State
    totals: Summary


def produce(recipe_path: str, out: str, settings: Sequence[str] = (), dry_run: bool = False) -> int:
    """Run a recipe into `out`; returns the exit code. Raises UserError before any engine starts, where it can."""
    console = Console(stderr=True, highlight=False)

    def say(text: str) -> None:
        console.print(text, soft_wrap=True, markup=False, style="dim" if console.is_terminal else None)

    mill = build_mill(load(recipe_path, settings))
    mill.check()
    store = open_store(out)
    store.say = say
    _admit(manifest.load(store), mill, store)
    if dry_run:
        Console().print(plan_table(mill, store.uri))
        return 0
    store.check(write=True)
    lease = Lease(store)
    lease.acquire(say)
    try:
        book, totals = _resume(mill, store)
        if _is_done(mill, totals):
            say(f"{store.uri}: all of this run is there already; nothing to do")
            book.totals, book.state = totals, _end_state(mill, totals)  # the driver may have died before it wrote them
            book.save(store)
            outcome = Outcome(book.state, totals)
        else:
            if totals.num_lots:
                say(f"{store.uri}: going on after {totals.num_lots} committed lots ({totals.kept} rows kept)")
            outcome = _run(mill, store, book, totals, lease, console)
    finally:
        lease.release()
    return _report(outcome, mill, store, resume_command(recipe_path, out, settings))


def resume_command(recipe_path: str, out: str, settings: Sequence[str]) -> str:
    words = ["gristmill", "produce", recipe_path, "--out", out]
    for setting in settings:
        words += ["--set", setting]
    return shlex.join(words)


def _admit(book: Manifest | None, mill: Mill, store: Store) -> None:
    """Refuse an output that another recipe has made, and say what differs."""
    if book is None:
        if next(store.list(f"{KEPT}/"), None) is not None:
            raise UserError(f"{store.uri} holds shards but no {manifest.NAME}; choose another --out")
        return
    if book.fingerprint != mill.fingerprint:
        found = list(differences(book.identity, mill.identity))
        shown = "; ".join(found[:5]) + (f"; and {len(found) - 5} more" if len(found) > 5 else "")
        raise UserError(
            f"{store.uri} was made by another recipe, nothing is changed there. Differences (old -> new): {shown}. "
            f"Choose another --out, or undo the difference to go on"
        )


def _resume(mill: Mill, store: Store) -> tuple[Manifest, Summary]:
    """The manifest and the totals of what is committed, read after the lease is held."""
    book = manifest.load(store)
    _admit(book, mill, store)
    if book is None:
        book = Manifest(mill.fingerprint, mill.resolved(), mill.identity)
    book.recipe = mill.resolved()
    lots = ledger.committed(store)
    totals = ledger.totals(store, book, lots)
    full = totals.num_lots * mill.plan.lot_size
    if totals.asks != full and not _is_done(mill, totals):
        raise UserError(
            f"{store.uri}: its last lot holds fewer asks than lot_size, so the run cannot be lengthened from "
            f"{totals.asks} asks; use a limits.asks that is a multiple of {mill.plan.lot_size}, or another --out"
        )
    for name in ledger.orphans(store, totals.num_lots):
        store.delete(name)  # its lot is made again, and writes it again
    store.sweep()
    return book, totals


def _is_done(mill: Mill, totals: Summary) -> bool:
    num_asks = mill.plan.num_asks
    return bool(mill.recipe.limits.reached(totals)) or (num_asks is not None and totals.asks >= num_asks)


def _end_state(mill: Mill, totals: Summary) -> State:
    limits = mill.recipe.limits
    wanted_more = (limits.kept_rows or limits.kept_tokens) and not limits.reached(totals)
    return "exhausted" if wanted_more else "complete"


def _run(mill: Mill, store: Store, book: Manifest, totals: Summary, lease: Lease, console: Console) -> Outcome:
    from cluster.connect import connected  # ray is imported only when a run starts
    from cluster.preflight import check_room
    from cluster.run import Beat, Job, LotLoop
    from cluster.work import Kit
    from jobs.progress import Progress

    recipe, generator = mill.recipe, mill.generator
    needs = generator.needs
    kit = Kit(mill.plan, mill.stages, mill.schema, recipe.output, None if needs.pooled else generator)
    with Progress(mill.plan.num_asks, recipe.limits, totals, console) as shown, connected(recipe.cluster, shown.say):
        check_room(needs, recipe.cluster)
        job = Job(kit, mill.source, store, recipe.cluster, recipe.limits, generator if needs.pooled else None, totals)
        started = saved = time.monotonic()
        loop: LotLoop | None = None
        book.begin()

        def save() -> None:
            book.totals = totals
            book.starts[-1]["wall_s"] = round(time.monotonic() - started, 1)
            book.starts[-1]["stage_s"] = {k: round(v, 2) for k, v in loop.busy_s.items()} if loop else {}
            book.starts[-1]["device_s"] = round(loop.pool.alive_device_s(), 1) if loop and loop.pool else 0.0
            book.save(store)

        def beat(state: Beat) -> None:
            nonlocal saved
            shown.beat(state)
            if lease.lost:
                raise UserError(f"{store.uri} has been taken over by another driver ({lease.lost}); this one stops")
            if time.monotonic() - saved > SAVE_EVERY_S:
                save()
                saved = time.monotonic()

        save()
        loop = LotLoop(job, beat, shown.say)
        with _interruptible(loop.stop, store.give_up, shown.say):
            try:
                ended = loop.run()
            except BaseException:
                book.state = "stopped"
                if not lease.lost:
                    with suppress(UserError, OSError):  # the footers say it too, and the first error is the one to tell
                        save()
                raise
        book.state = "stopped" if ended == "stopped" else _end_state(mill, totals)
        save()
    return Outcome(book.state, totals)


@contextmanager
def _interruptible(stop: Callable[[], None], give_up: Callable[[], None], say: Callable[[str], None]) -> Iterator[None]:
    """Ctrl-C or SIGTERM once: end after the lots in commit. Twice: end at once (nothing committed is lost)."""
    asked = False

    def handle(number: int, frame: Any) -> None:
        nonlocal asked
        if asked:
            give_up()
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


def _report(outcome: Outcome, mill: Mill, store: Store, command: str) -> int:
    console = Console(highlight=False)
    console.print(totals_table(outcome.totals, f"{mill.recipe.name}: {outcome.state}"))
    for text in _samples(mill, store, outcome.totals):
        console.print(text, markup=False, soft_wrap=True)
    console.print(f"output: {store.uri}  (kept/, rejected/, {manifest.NAME})", markup=False, soft_wrap=True)
    if outcome.state == "stopped":
        console.print(f"stopped; to go on: {command}", markup=False, soft_wrap=True)
        return 130
    if outcome.state == "exhausted":
        console.print(
            "the source ended before the limit was reached: take source.cycle = true, or more rows and a new --out",
            markup=False,
            soft_wrap=True,
        )
        return 3
    return 0


def _samples(mill: Mill, store: Store, totals: Summary) -> Iterator[str]:
    """The first kept rows, cut short, so that a person sees at once what the corpus is like."""
    if "text" not in mill.schema.names or not totals.kept:
        return
    left = NUM_SAMPLES
    for lot in range(totals.num_lots):
        with store.open(shard_name(KEPT, lot)) as file:
            rows = pq.read_table(file, columns=["id", "text"]).slice(0, left).to_pylist()
        for row in rows:
            text = " ".join((row["text"] or "").split())
            yield f"  {row['id'][:8]}  {text[:240]}{'...' if len(text) > 240 else ''}"
        left -= len(rows)
        if left <= 0:
            return

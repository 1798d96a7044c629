"""`gristmill produce RECIPE --out URI`: a recipe in, a corpus out; the same command again resumes."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console

from gristmill.jobs.produce.drive import drive, end_state
from gristmill.jobs.produce.forecast import forecast, forecast_table
from gristmill.jobs.recipes.compile import CompiledRecipe, compile_recipe
from gristmill.jobs.recipes.recipe import load
from gristmill.jobs.report import gate_audit
from gristmill.jobs.report.command import write_report
from gristmill.jobs.report.tallies import in_order
from gristmill.jobs.terminal.output import Output, refusal
from gristmill.jobs.terminal.tables import cost_table, plan_table, totals_table
from gristmill.records import ledger, manifest
from gristmill.records.errors import UserError
from gristmill.records.manifest import Manifest, State
from gristmill.records.readers.parquet import read_parquet
from gristmill.records.shards import KEPT, Summary, shard_name
from gristmill.records.stores.contract import Store

logger = logging.getLogger(__name__)

NUM_SAMPLES = 3


@dataclass(frozen=True)
class Outcome:
    """How a call of produce ended."""

    state: State
    totals: Summary


def produce(recipe_path: str, out: str, settings: Sequence[str] = (), dry_run: bool = False) -> int:
    """Run a recipe into `out`; returns the exit code. Raises UserError before any engine starts, where it can."""
    console = Console(stderr=True, highlight=False)

    compiled = compile_recipe(load(recipe_path, settings))
    compiled.check()
    output = Output("produce", recipe_path, out, settings)
    store = output.store
    _admit(manifest.load(store), compiled, store)
    if dry_run:
        console = Console(highlight=False)
        console.print(plan_table(compiled, store.uri))
        console.print(forecast_table(forecast(compiled, manifest.load(store))))
        return 0
    with output.writing() as lease:
        book, totals = _resume(compiled, store)
        spent = _spent_budget(compiled, book)
        if _is_done(compiled, totals) or spent:
            logger.info(
                f"{store.uri}: {f'its budget ({spent}) is spent' if spent else 'all of this run is there already'}"
            )
            # The driver may have died before it wrote them.
            book.totals, book.state = totals, end_state(compiled, totals, spent)
            book.recipe = compiled.resolved()
            book.save(store)
            outcome = Outcome(book.state, totals)
        else:
            if totals.num_lots:
                logger.info(f"{store.uri}: going on after {totals.num_lots} committed lots ({totals.kept} rows kept)")
            book.recipe = compiled.resolved()
            outcome = Outcome(drive(compiled, store, book, totals, lease, console), totals)
            _write_page(store)
    return _report(outcome, book, compiled, output)


def _write_page(store: Store) -> None:
    """The rows are committed: a page that cannot be written must not fail the run."""
    try:
        write_report(store)
    except (UserError, OSError) as error:
        logger.info(f"no report.html: {error}")


def _admit(book: Manifest | None, compiled: CompiledRecipe, store: Store) -> None:
    """Raise UserError for an output of another recipe, with the differences."""
    if book is None:
        if next(store.list(f"{KEPT}/"), None) is not None:
            raise UserError(f"{store.uri} holds shards but no {manifest.NAME}; choose another --out")
        return
    if book.fingerprint != compiled.fingerprint:
        raise refusal(store.uri, "was made by another recipe", book.identity, compiled.identity)


def _resume(compiled: CompiledRecipe, store: Store) -> tuple[Manifest, Summary]:
    """The manifest and the totals of what is committed, read after the lease is held."""
    book = manifest.load(store)
    _admit(book, compiled, store)
    if book is None:
        book = Manifest(compiled.fingerprint, compiled.resolved(), compiled.identity)
    lots = ledger.committed(store)
    totals = ledger.totals(store, book, lots)
    full = totals.num_lots * compiled.plan.lot_size
    if totals.asks != full and not _is_done(compiled, totals):
        raise UserError(
            f"{store.uri}: its last lot holds fewer asks than lot_size, so the run cannot be lengthened from "
            f"{totals.asks} asks; use a limits.asks that is a multiple of {compiled.plan.lot_size}, or another --out"
        )
    for name in ledger.orphans(store, totals.num_lots):
        store.delete(name)  # its lot is made again, and writes it again
    store.sweep()
    return book, totals


def _is_done(compiled: CompiledRecipe, totals: Summary) -> bool:
    num_asks = compiled.plan.num_asks
    return (
        bool(compiled.recipe.limits.reached(totals))
        or compiled.is_full(totals)
        or (num_asks is not None and totals.asks >= num_asks)
    )


def _spent_budget(compiled: CompiledRecipe, book: Manifest) -> str | None:
    """The budget that ended this run before, if it has not been raised since."""
    before = book.recipe.get("limits", {}).get(book.ended or "")
    now = compiled.recipe.limits.budgets.get(book.ended or "")
    return book.ended if before is not None and now is not None and now <= before else None


def _report(outcome: Outcome, book: Manifest, compiled: CompiledRecipe, output: Output) -> int:
    store, console = output.store, Console(highlight=False)
    console.print(totals_table(outcome.totals, f"{compiled.recipe.name}: {outcome.state}"))
    console.print(cost_table(outcome.totals, [s.name for s in compiled.stages], book.cost))
    if compiled.recipe.gate_audit and outcome.totals.num_lots:
        found = gate_audit.count(store, outcome.totals.num_lots, compiled.recipe.gate_audit)
        names = [stage["name"] for stage in in_order(book.recipe)]
        console.print(gate_audit.gates_table(gate_audit.gates(found, names)))
    for text in _samples(compiled, store, outcome.totals):
        console.print(text, markup=False, soft_wrap=True)
    console.print(
        f"output: {store.uri}  (kept/, rejected/, {manifest.NAME}, report.html, events/)", markup=False, soft_wrap=True
    )
    if outcome.state == "stopped":
        return output.stopped()
    if outcome.state == "budget":
        console.print("the budget was spent before the run was done; raise it to go on", soft_wrap=True)
        return 3
    if outcome.state == "exhausted":
        console.print(
            "the source ended before the limit was reached: take source.cycle = true, or more rows and a new --out",
            markup=False,
            soft_wrap=True,
        )
        return 3
    return 0


def _samples(compiled: CompiledRecipe, store: Store, totals: Summary) -> Iterator[str]:
    """The first kept rows, cut short, so that a person sees at once what the corpus is like."""
    if "text" not in compiled.schema.names or not totals.kept:
        return
    left = NUM_SAMPLES
    for lot in range(totals.num_lots):
        with store.open(shard_name(KEPT, lot)) as file:
            rows = read_parquet(file, ["id", "text"]).slice(0, left).to_pylist()
        for row in rows:
            text = " ".join((row["text"] or "").split())
            yield f"  {row['id'][:8]}  {text[:240]}{'...' if len(text) > 240 else ''}"
        left -= len(rows)
        if left <= 0:
            return

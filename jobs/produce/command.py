"""`gristmill produce RECIPE --out URI`: makes a corpus from a recipe; the same command again resumes."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from gristmill.jobs.produce.closing import check_closed, closed_at, unreached
from gristmill.jobs.produce.drive import drive, end_state
from gristmill.jobs.produce.existing import existing_of, prepare
from gristmill.jobs.produce.forecast import forecast, forecast_table, plan_table
from gristmill.jobs.produce.inputs import check_model, pin_source
from gristmill.jobs.recipes.compile import CompiledRecipe, compile_recipe
from gristmill.jobs.recipes.recipe import load
from gristmill.jobs.recipes.toml_file import TomlSource
from gristmill.jobs.report import gate_audit
from gristmill.jobs.report.command import write_report
from gristmill.jobs.report.tallies import in_order
from gristmill.jobs.results import Result
from gristmill.jobs.terminal.console import SafeConsole, open_console
from gristmill.jobs.terminal.generator_yields import generator_table
from gristmill.jobs.terminal.output import Output, refusal
from gristmill.jobs.terminal.speed import bound
from gristmill.jobs.terminal.tables import cost_table, money, totals_table
from gristmill.records.errors import UserError
from gristmill.records.exit_codes import DONE, SHORT, STOPPED
from gristmill.records.output import answers, ledger
from gristmill.records.output.manifest import NAME as MANIFEST
from gristmill.records.output.manifest import Manifest, State, generator_names, tools_sentence
from gristmill.records.output.manifest import load as read_manifest
from gristmill.records.output.shard_names import KEPT, REJECTED, shard_name
from gristmill.records.output.shard_reading import read_shard
from gristmill.records.output.summary import Summary
from gristmill.records.output.templates import likeness
from gristmill.records.readers.sources import Source
from gristmill.records.stores.contract import Store

logger = logging.getLogger(__name__)

NUM_EXAMPLES = 3  # kept rows that are printed at the end
MAX_EXAMPLE_LOTS = 16  # that are read for them
MAX_CHARS = 240  # of each


@dataclass(frozen=True)
class Outcome:
    """How a call of produce ended."""

    state: State
    totals: Summary
    manifest: Manifest

    @property
    def exit_code(self) -> int:
        if self.state == "stopped":
            return STOPPED
        return SHORT if self.state in ("budget", "exhausted", "alarm") else DONE


def command(recipe_path: str, out: str, settings: Sequence[str] = (), dry_run: bool = False) -> int:
    """`gristmill produce`; returns the exit code. Raises UserError before any engine starts, where it can."""
    compiled, output = open_run(recipe_path, out, settings)
    if dry_run:
        console = open_console()
        console.print(plan_table(compiled, output.store.uri))
        console.print(forecast_table(forecast(compiled, read_manifest(output.store))))
        return 0
    outcome = run(compiled, output)
    show_outcome(outcome, compiled, output.store)
    if outcome.state == "stopped":
        output.stopped()
    return outcome.exit_code


def produce(recipe: TomlSource, out: str, settings: Sequence[str] = ()) -> Result:
    """Run a recipe into `out`, as the command does. Raises UserError before any engine starts, where it can."""
    compiled, output = open_run(recipe, out, settings)
    outcome = run(compiled, output)
    parts = {"rows": f"{KEPT}/", "rejected": f"{REJECTED}/"}
    return Result(output.store.uri, outcome.state, outcome.totals.literals(), outcome.exit_code, parts)


def open_run(
    recipe: TomlSource, out: str, settings: Sequence[str] = (), source: Source | None = None
) -> tuple[CompiledRecipe, Output]:
    """The compiled recipe and its output. Raises UserError when they do not fit.

    source: takes the place of the source that the recipe names.
    """
    compiled = compile_recipe(load(recipe, settings), source=source)
    compiled.check()
    output = Output("produce", recipe, out, settings)
    manifest = read_manifest(output.store)
    if manifest and manifest.fingerprint == compiled.old_fingerprint != compiled.fingerprint:
        compiled = compile_recipe(compiled.recipe, True, source)
    check_output(manifest, compiled, output.store)
    return compiled, output


def run(compiled: CompiledRecipe, output: Output, console: SafeConsole | None = None) -> Outcome:
    """Produce what is missing in the output. `console` shows the progress; by default stderr does."""
    store = output.store
    with output.writing() as lease:
        manifest, totals, leftovers = _resume(compiled, store)
        spent = _spent_budget(compiled, manifest)
        manifest.recipe = compiled.resolved()
        if _is_done(compiled, totals) or spent:
            reason = f"its budget ({spent}) is spent" if spent else "all of this run is there already"
            if compiled.recipe.limits.alarm(totals):
                reason = f"its kept texts are alike: {likeness(totals.templates)}"
            logger.info(f"{store.uri}: {reason}")
            # A driver that was killed may not have written them.
            manifest.state = end_state(compiled, totals, spent)
            manifest.recount(totals)
            if totals.kept == compiled.recipe.limits.exact_rows:
                manifest.closed_at = totals.kept
            manifest.save(store)
            if compiled.paid_parts and manifest.state == "complete":
                answers.delete(store)
            outcome = Outcome(manifest.state, totals, manifest)
        else:
            if totals.num_lots:
                logger.info(f"{store.uri}: going on after {totals.num_lots} committed lots ({totals.kept} rows kept)")
            if sentence := tools_sentence(manifest.recipe):
                logger.info(f"{store.uri}: {sentence[0].lower()}{sentence[1:]}")
            if names := compiled.remote_pools:
                logger.info(
                    f"{', '.join(names)}: an endpoint promises no answer twice. Committed rows stay as they are, but a "
                    f"lot that is made again can have other rows"
                )
            console = console or open_console(is_error=True)
            if existing := existing_of(compiled):
                prepare(existing, store)
            outcome = Outcome(drive(compiled, store, manifest, totals, leftovers, lease, console), totals, manifest)
            _write_page(store)
    return outcome


def _write_page(store: Store) -> None:
    """Write report.html. The rows are committed, so a page that cannot be written does not fail the run."""
    try:
        write_report(store)
    except Exception as error:  # noqa: BLE001 - whatever a page cannot show, the run is done
        logger.warning(f"no report.html: {type(error).__name__}: {error}; `gristmill report {store.uri}` tries again")


def check_output(manifest: Manifest | None, compiled: CompiledRecipe, store: Store) -> None:
    """Raise UserError for an output of another recipe, with the differences."""
    if manifest is None:
        if ledger.is_begun(store):
            raise UserError(f"{store.uri} holds shards but no {MANIFEST}; choose another --out")
        return
    if manifest.fingerprint != compiled.fingerprint:
        raise refusal(store.uri, "was made by another recipe", manifest.identity, compiled.identity)
    check_closed(compiled.recipe.limits, manifest.closed_at, manifest.totals, store.uri)


def _resume(compiled: CompiledRecipe, store: Store) -> tuple[Manifest, Summary, dict[int, list[str]]]:
    """The manifest, the totals of the committed lots, and rejected shards of others (see `ledger.settle`).

    Call it with the lease held; leftovers of committed lots are deleted.
    """
    manifest = read_manifest(store)
    check_output(manifest, compiled, store)
    if manifest is None:
        manifest = Manifest(compiled.fingerprint, compiled.resolved(), compiled.identity)
    pin_source(manifest, compiled.source)
    strangers: list[str] = []
    totals = ledger.totals(store, manifest, ledger.committed(store, manifest, strangers))
    # A driver that was killed may not have written it.
    manifest.closed_at = closed_at(store, totals.num_lots) or manifest.closed_at
    check_closed(compiled.recipe.limits, manifest.closed_at, totals, store.uri)
    if totals.num_lots:
        check_model(store, compiled.plan, hasattr(compiled.generator.spec, "name"))
    full = totals.num_lots * compiled.plan.lot_size
    if totals.asks != full and not _is_done(compiled, totals):
        raise UserError(
            f"{store.uri}: its last lot holds fewer asks than lot_size, so the run cannot be lengthened from "
            f"{totals.asks} asks; use a limits.asks that is a multiple of {compiled.plan.lot_size}, or another --out"
        )
    leftovers = ledger.settle(store, totals, strangers)
    if compiled.paid_parts:
        if kept := answers.settle(store, compiled.fingerprint, totals.num_lots):
            currency = compiled.recipe.cluster.currency
            logger.info(
                f"{store.uri}: answers for {money(kept)} {currency} of lots in flight are there, and used again"
            )
        manifest.count_paid(totals.paid + kept)
    if strangers:
        more = f" and {len(strangers) - 1:,} more" if len(strangers) > 1 else ""
        logger.warning(
            f"{store.uri}: {strangers[0]}{more} is no shard of this run, but readers of {KEPT}/ or {REJECTED}/ may "
            f"take it for one; move it away"
        )
    store.sweep((KEPT, REJECTED, answers.FOLDER))
    return manifest, totals, leftovers


def _is_done(compiled: CompiledRecipe, totals: Summary) -> bool:
    num_asks = compiled.plan.num_asks
    return (
        bool(compiled.recipe.limits.reached(totals) or compiled.recipe.limits.alarm(totals))
        or compiled.is_full(totals)
        or (num_asks is not None and totals.asks >= num_asks)
    )


def _spent_budget(compiled: CompiledRecipe, manifest: Manifest) -> str | None:
    """The budget that ended this run before, unless it has been raised since."""
    before = manifest.recipe.get("limits", {}).get(manifest.ended or "")
    now = compiled.recipe.limits.budgets.get(manifest.ended or "")
    return manifest.ended if before is not None and now is not None and now <= before else None


def show_outcome(outcome: Outcome, compiled: CompiledRecipe, store: Store) -> None:
    """Print the totals, some kept rows and what to do next."""
    manifest, console = outcome.manifest, open_console()
    console.print(totals_table(outcome.totals, f"{compiled.recipe.name}: {outcome.state}"))
    if (table := generator_table(outcome.totals, manifest.cost, generator_names(manifest.recipe))) is not None:
        console.print(table)
    console.print(cost_table(outcome.totals, [s.name for s in compiled.stages], manifest.cost))
    if compiled.recipe.gate_audit and outcome.totals.num_lots:
        labels = gate_audit.count(store, outcome.totals.num_lots, compiled.recipe.gate_audit)
        names = [stage["name"] for stage in in_order(manifest.recipe)]
        console.print(gate_audit.gates_table(gate_audit.gates(labels, names)))
    if words := bound(manifest.starts[-1].get("engines") or {} if manifest.starts else {}):
        console.print_line(f"speed: {words}")
    for text in _examples(compiled, store, outcome.totals):
        console.print_line(text)
    console.print_line(f"output: {store.uri}  (kept/, rejected/, {MANIFEST}, report.html, events/)")
    if outcome.state == "budget":
        console.print_line(
            f"limits.{manifest.ended} is spent before {_unreached(compiled, outcome.totals)}; raise it to resume"
        )
    elif outcome.state == "alarm":
        console.print_line(
            f"limits.template_share = {compiled.recipe.limits.template_share:g} is exceeded before "
            f"{_unreached(compiled, outcome.totals)}: {likeness(outcome.totals.templates)}; change the prompts and use "
            f"a new --out, or raise the limit to resume"
        )
    elif outcome.state == "exhausted":
        console.print_line(_exhausted(compiled, outcome.totals))


def _exhausted(compiled: CompiledRecipe, totals: Summary) -> str:
    """What ended a run before its goal, and what to do."""
    limits, goal = compiled.recipe.limits, _unreached(compiled, totals)
    if unreached(limits, totals):
        if compiled.is_full(totals):
            return f"all quotas were full before {goal}: raise the quotas and use a new --out"
        other = limits.reached(totals) or ("asks" if limits.asks is not None and totals.asks >= limits.asks else None)
        if other:
            return f"limits.{other} = {getattr(limits, other):,} ended the run before {goal}: raise it to resume"
    return f"the source ended before {goal}: set source.cycle = true, or add rows and use a new --out"


def _unreached(compiled: CompiledRecipe, totals: Summary) -> str:
    """The first limit that the run has not reached, with how far it came."""
    limits, num_asks = compiled.recipe.limits, compiled.plan.num_asks
    for name, limit, done in (
        ("limits.kept_rows", limits.kept_rows, totals.kept),
        ("limits.kept_tokens", limits.kept_tokens, totals.kept_tokens),
        ("limits.tokens", limits.tokens, totals.tokens_out),
        ("limits.asks", limits.asks, totals.asks),
        ("the end of the source", num_asks, totals.asks),
    ):
        if limit is not None and done < limit:
            return (
                f"{name} = {limit:,} (at {done:,})" if name.startswith("limits") else f"{name} ({done:,} of {limit:,})"
            )
    return "its limits"


def _examples(compiled: CompiledRecipe, store: Store, totals: Summary) -> Iterator[str]:
    """Kept rows, cut short: they show at once what the corpus is like. The first of each source come first."""
    if "text" not in compiled.schema.names or not totals.kept:
        return
    firsts: dict[str, dict[str, Any]] = {}
    others: list[dict[str, Any]] = []
    for lot in range(min(totals.num_lots, MAX_EXAMPLE_LOTS)):
        for row in read_shard(store, shard_name(KEPT, lot), ["id", "source_id", "text"]).to_pylist():
            if firsts.setdefault(row["source_id"], row) is not row and len(others) < NUM_EXAMPLES:
                others.append(row)
        if len(firsts) >= NUM_EXAMPLES:
            break
    for row in [*firsts.values(), *others][:NUM_EXAMPLES]:
        text = " ".join((row["text"] or "").split())
        yield f"  {row['id'][:8]}  {text[:MAX_CHARS]}{'...' if len(text) > MAX_CHARS else ''}"

"""Runs the lot loop of a compiled recipe to its end, under a monitor that keeps display and manifest up to date."""

from collections.abc import Mapping, Sequence

from gristmill.jobs.produce.call_costs import call_cost
from gristmill.jobs.produce.closing import closed_at, unreached
from gristmill.jobs.produce.inputs import SourceWatch
from gristmill.jobs.produce.monitor import Monitor
from gristmill.jobs.recipes.compile import CompiledRecipe
from gristmill.jobs.terminal.console import SafeConsole
from gristmill.jobs.terminal.session import interruptible, is_stopping
from gristmill.records.committed import CommittedRows
from gristmill.records.output import answers
from gristmill.records.output.lease import Lease
from gristmill.records.output.manifest import Manifest, State
from gristmill.records.output.shards import Summary
from gristmill.records.stores.contract import Store

BUDGET_ENDS = ("device_s", "cost")


def end_state(compiled: CompiledRecipe, totals: Summary, ended: str | None) -> State:
    """The state of a run that was not stopped; `ended` is the limit that ended it, None where the asks ran out."""
    limits, num_asks = compiled.recipe.limits, compiled.plan.num_asks
    if ended == "quotas" or compiled.is_full(totals):
        return "exhausted" if unreached(limits, totals) else "complete"
    if ended in BUDGET_ENDS:
        is_endless = num_asks is None and compiled.recipe.source.cycle
        only_goal = is_endless and not (limits.kept_rows or limits.kept_tokens or limits.tokens)
        return "complete" if only_goal else "budget"
    if limits.alarm(totals) and not limits.reached(totals) and (num_asks is None or totals.asks < num_asks):
        return "alarm"
    wanted_more = (limits.kept_rows or limits.kept_tokens or limits.tokens) and not limits.reached(totals)
    return "exhausted" if wanted_more or unreached(limits, totals) else "complete"


def drive(
    compiled: CompiledRecipe,
    store: Store,
    manifest: Manifest,
    totals: Summary,
    leftovers: Mapping[int, Sequence[str]],
    lease: Lease,
    console: SafeConsole,
) -> State:
    """Run until a limit, the end of the source, or a stop; returns the state of the run. Updates `totals`.

    `leftovers`: see `ledger.settle`.
    """
    from gristmill.cluster.answer_store import answer_store  # ray is imported only when a run starts
    from gristmill.cluster.connect import connected
    from gristmill.cluster.lots.job import Job, Progress
    from gristmill.cluster.lots.loop import LotLoop
    from gristmill.cluster.lots.work import LotPipeline
    from gristmill.cluster.preflight import request_of, seated

    recipe, generator = compiled.recipe, compiled.generator
    spec = recipe.cluster
    pipeline = LotPipeline(
        compiled.plan,
        compiled.stages,
        compiled.schema,
        recipe.output,
        generator.unpooled,
        compiled.pooled,
    )
    spent, paid_parts = (manifest.spent("device_s"), manifest.spent("cost")), compiled.paid_parts
    request = request_of(store.uri, recipe.name, compiled.pools, spec)
    with (
        Monitor(compiled, store, manifest, totals, lease, console) as monitor,
        connected(spec),
        seated(request, spec, is_stopping) as seat,
    ):
        monitor.begin()
        for part in paid_parts:
            part.answers = answers.AnswerFolder(answer_store(store), compiled.fingerprint)
        job = Job(
            pipeline,
            compiled.ask_source(store),
            store,
            spec,
            recipe.limits,
            seat,
            generator.pooled,
            totals,
            *spent,
            leftovers,
            lease.check,
            monitor.events.note,
            None if compiled.source.is_ended or not isinstance(compiled.source, CommittedRows) else compiled.source,
            manifest.spent("paid"),
            expected.per_ask if recipe.limits.cost and (expected := call_cost(compiled, totals)) else 0.0,
            bool(paid_parts),
        )
        watch = SourceWatch(compiled.source, manifest)

        def update(progress: Progress) -> None:
            monitor.update(progress)
            watch.look()

        loop = LotLoop(job, update)
        with interruptible(loop.stop, store.give_up):
            try:
                ended = loop.run()
            except BaseException as error:
                monitor.end("stopped", None, why=f"{type(error).__name__}: {error}")
                raise
        if ended != "stopped":
            watch.end()
        if recipe.limits.exact:
            manifest.closed_at = closed_at(store, totals.num_lots)
        state = "stopped" if ended == "stopped" else end_state(compiled, totals, ended)
        if paid_parts:
            monitor.paid = totals.paid + answers.settle(store, compiled.fingerprint, totals.num_lots)
            if state == "complete":
                answers.delete(store)
        monitor.end(state, None if ended == "stopped" else ended)
    return state

"""`gristmill fit RECIPE --out URI`: trains a model on rows. The same command resumes at the last checkpoint."""

import logging
from collections.abc import Sequence

from rich.table import Table

from gristmill.generators.families.contract import family_class
from gristmill.generators.families.fit import Fit, FitProgress, clear, is_finished
from gristmill.generators.families.folder import ModelCard, read_card
from gristmill.generators.private.account import privacy_line
from gristmill.jobs.fit.plan import FitRecipe, Plan, load_plan
from gristmill.jobs.recipes.toml_file import TomlSource
from gristmill.jobs.results import Result
from gristmill.jobs.terminal.bar import Bar
from gristmill.jobs.terminal.console import SafeConsole, open_console
from gristmill.jobs.terminal.output import Output, refusal
from gristmill.jobs.terminal.session import interruptible, is_stopping
from gristmill.records.ids import fingerprint

logger = logging.getLogger(__name__)

PLAIN_EVERY_S = 10.0


def command(recipe_path: str, out: str, settings: Sequence[str] = (), dry_run: bool = False) -> int:
    """`gristmill fit`; returns the exit code. Raises UserError, where possible before anything starts."""
    plan, output = open_fit(recipe_path, out, settings)
    if dry_run and not is_finished(output.store):
        open_console().print(plan_table(plan, output.store.uri))
        return 0
    card = run(plan, output)
    if card is None:
        return output.stopped()
    open_console().print(card_table(card, output.store.uri))
    return 0


def fit(recipe: TomlSource, out: str, settings: Sequence[str] = ()) -> Result:
    """Fit a model into `out`, as the command does. Raises UserError, where possible before anything starts."""
    plan, output = open_fit(recipe, out, settings)
    card = run(plan, output)
    if card is None:
        return Result(output.store.uri, "stopped", {}, output.stopped())
    totals = {"kind": card.kind, "losses": card.losses, "privacy": card.privacy, "trained_on": card.trained_on}
    return Result(output.store.uri, "complete", totals)


def open_fit(recipe: TomlSource, out: str, settings: Sequence[str]) -> tuple[Plan, Output]:
    plan = load_plan(recipe, settings)
    for doubt in plan.doubts:
        logger.info(f"schema: {doubt}")
    return plan, Output("fit", recipe, out, settings)


def run(plan: Plan, output: Output) -> ModelCard | None:
    """Fit the model, or read it where it is finished. Returns None if the fit was stopped."""
    job = plan.fit(output.store)
    if is_finished(output.store):
        return finished(job, output)
    with output.writing():
        return run_fit(job, plan.recipe, open_console(is_error=True))


def finished(job: Fit, output: Output) -> ModelCard:
    """The card of a finished model. Raises UserError for the model of another recipe."""
    store = output.store
    card = read_card(store.uri)
    # A model made before secrets were left out has a fingerprint over them.
    if card.fingerprint not in (job.fingerprint, fingerprint(job.identity())):
        raise refusal(store.uri, "holds another model", card.identity, job.identity())
    clear(store)  # a crash after the model was written leaves checkpoints behind
    logger.info(f"{store.uri}: this model is already there")
    return card


def run_fit(job: Fit, recipe: FitRecipe, console: SafeConsole) -> ModelCard | None:
    """Fit on the cluster and show the progress. Returns None if it was stopped."""
    from gristmill.cluster.connect import connected  # imports ray
    from gristmill.cluster.fits.fit import train
    from gristmill.cluster.preflight import request_of, seated
    from gristmill.cluster.spec import PoolSpec
    from gristmill.engines.needs import Needs

    needs = Needs(recipe.train.num_cpus, recipe.train.num_gpus, recipe.train.memory_gb)
    request = request_of(job.store.uri, "fit", {"the fit": (needs, PoolSpec())}, recipe.cluster, stage_cpus=0)
    stops: list[bool] = []
    with (
        connected(recipe.cluster),
        seated(request, recipe.cluster, is_stopping),
        interruptible(lambda: stops.append(True), job.store.give_up),
        FitBar(console) as bar,
    ):
        return train(job, recipe.train, bar.tell, lambda: bool(stops))


class FitBar(Bar):
    """Progress of a fit: steps, losses, epsilon and the time left."""

    def __init__(self, console: SafeConsole) -> None:
        super().__init__(console, "fit", PLAIN_EVERY_S)

    def __enter__(self) -> "FitBar":
        super().__enter__()
        return self

    def tell(self, progress: FitProgress) -> None:
        losses = "  ".join(f"{name} {value:.4g}" for name, value in progress.losses.items())
        epsilon = f"  epsilon {progress.epsilon:.3f}" if progress.epsilon is not None else ""
        self.show(
            progress.step, progress.num_steps, f"step {progress.step:,} of {progress.num_steps:,}  {losses}{epsilon}"
        )


def plan_table(plan: Plan, uri: str) -> Table:
    schema, recipe = plan.family.schema, plan.recipe
    table = Table(title=f"{recipe.name}: what would be fitted", show_header=False, title_justify="left")
    table.add_row("model", f"{plan.family.kind} into {uri}")
    table.add_row("rows", f"{plan.table.num_rows:,} of {recipe.data.path}" if recipe.data else "none")
    kinds = {c.kind for c in schema.columns}
    table.add_row("columns", ", ".join(f"{len(schema.of_kind(k))} {k}" for k in sorted(kinds)))
    if recipe.privacy:
        table.add_row("privacy", f"epsilon {recipe.privacy.epsilon:g}, delta {recipe.privacy.delta:g}")
    return table


def card_table(card: ModelCard, uri: str) -> Table:
    """A finished model as a table for the terminal."""
    table = Table(title=f"model: {uri}", show_header=False, title_justify="left")
    table.add_row("kind", card.kind)
    rows = f"{card.trained_on['num_rows']:,} rows of {card.trained_on['path']}"
    table.add_row("fitted to", rows if card.trained_on["path"] else "no rows")
    if card.losses:
        last = card.losses[-1]
        table.add_row("steps", f"{last['step']:,.0f}")
        table.add_row("losses", ", ".join(f"{k} {v:.4g}" for k, v in last.items() if k != "step"))
    family = family_class(card.kind)
    for name, line in family.summary(card.facts).items():
        table.add_row(name, line)
    table.add_row("privacy", privacy_line(card.privacy))
    table.add_row("use it", family.used_by.format(uri=uri), style="dim")
    return table

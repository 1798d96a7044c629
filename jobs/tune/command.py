"""`gristmill tune RECIPE`: measures settings of the recipe's engine on its own asks. It writes into no output."""

import logging
import os
import threading
import time
from collections.abc import Sequence

from gristmill.cluster.spec import PoolSpec
from gristmill.engines.installed import on_gpu
from gristmill.jobs.recipes.compile import compile_recipe
from gristmill.jobs.recipes.recipe import load
from gristmill.jobs.recipes.toml_file import TomlSource
from gristmill.jobs.terminal.bar import Bar
from gristmill.jobs.terminal.console import SafeConsole, open_console, print_json, print_text
from gristmill.jobs.terminal.session import interruptible, is_stopping
from gristmill.jobs.terminal.tables import clock
from gristmill.jobs.tune.bench import Bench
from gristmill.jobs.tune.candidates import is_identity
from gristmill.jobs.tune.halving import Candidate, Trial, TrialLimits, best_of, halve
from gristmill.jobs.tune.show import recommended, toml_block, trial_literals, trials_table
from gristmill.records.errors import UserError
from gristmill.records.exit_codes import DONE, STOPPED

logger = logging.getLogger(__name__)

CPU_MINUTES, GPU_MINUTES = 10.0, 30.0  # an engine starts in 20 s on CPU, in minutes on GPUs
FIRST_ASKS = 64  # of a trial of the first round, or one for each slot of its engine if those are more
PLAIN_EVERY_S = 10.0
BUSY = 0.5  # load per core from which speeds of a CPU engine are not to be trusted
DRIFT = 0.25  # of the baseline's speed between rounds, from which the machine was too busy
STOPPING = "ending the engine; the table of what was measured follows"


def command(
    recipe_path: str,
    settings: Sequence[str] = (),
    minutes: float | None = None,
    asks: int | None = None,
    as_json: bool = False,
) -> int:
    """`gristmill tune`; returns the exit code. Raises UserError before any engine starts, where it can."""
    stopping = threading.Event()
    bench, budget_s = _open(recipe_path, settings, minutes, asks, stopping)
    trials: list[Trial] = []
    is_stopped = _measure(bench, budget_s, trials, stopping)
    if trials and trials[0].failure:
        raise UserError(f"the engine cannot be measured with the recipe's own settings: {trials[0].failure}")
    if as_json:
        print_json(_literals(bench, trials, is_stopped))
    else:
        _report(bench, trials, is_stopped)
    return STOPPED if is_stopped else DONE


def _open(
    recipe: TomlSource, settings: Sequence[str], minutes: float | None, asks: int | None, stopping: threading.Event
) -> tuple[Bench, float]:
    """The bench and the seconds to spend. Raises UserError for what cannot be measured."""
    if minutes is None:
        minutes = GPU_MINUTES if on_gpu() else CPU_MINUTES
    if not 0 < minutes < float("inf"):
        raise UserError(f"--minutes {minutes:g}: it must be more than 0")
    if asks is not None and asks < 1:
        raise UserError(f"--asks {asks}: it must be at least 1")
    return Bench(compile_recipe(load(recipe, settings)), asks, stopping.is_set), 60 * minutes


def _measure(bench: Bench, budget_s: float, trials: list[Trial], stopping: threading.Event) -> bool:
    """Fill `trials` until the time is spent; returns whether the user has stopped it."""
    from gristmill.cluster.connect import connected  # ray is imported only when engines start
    from gristmill.cluster.preflight import request_of, seated
    from gristmill.cluster.trial import Stopped

    recipe = bench.compiled.recipe
    load, num_cpus = os.getloadavg()[0], os.cpu_count() or 1
    if not on_gpu() and load > BUSY * num_cpus:
        logger.warning(f"this machine is busy (load {load:.1f} on {num_cpus} cores): speeds will vary by chance")
    pools = {"generator": (bench.teacher.needs, PoolSpec())}
    request = request_of(f"tune {recipe.name}", recipe.name, pools, recipe.cluster)
    with (
        connected(recipe.cluster),
        seated(request, recipe.cluster, is_stopping),
        interruptible(stopping.set, lambda: None, STOPPING),
    ):
        began = time.monotonic()
        with Bar(open_console(is_error=True), f"{recipe.name}: tune", PLAIN_EVERY_S) as bar:

            def show(candidate: Candidate, phase: str, done: int, num_asks: int) -> None:
                count = f", {done} of {num_asks} asks" if phase == "measuring" else ""
                spent = time.monotonic() - began
                bar.show(min(spent, budget_s), budget_s, f"trial {len(trials) + 1}: {candidate.name}: {phase}{count}")

            def measure(candidate: Candidate, num_asks: int, limits: TrialLimits) -> Trial:
                return bench.measure(candidate, num_asks, limits, show)

            try:
                for trial in halve(measure, bench.propose, FIRST_ASKS, budget_s, bench.most_asks):
                    trials.append(trial)
                    logger.info(_line(trial))
            except Stopped:
                return True
    return False


def _line(trial: Trial) -> str:
    """A trial as a line of the log."""
    head = f"round {trial.round}: {trial.candidate.name}: "
    if trial.failure:
        return head + trial.failure
    return f"{head}{trial.tokens_per_s:,.0f} tokens/s on {trial.num_asks} asks, started in {trial.start_s:.0f} s"


def _report(bench: Bench, trials: Sequence[Trial], is_stopped: bool) -> None:
    """Print the table and the settings to paste."""
    console, spec = open_console(), bench.teacher.spec
    if not trials:
        console.print_line("stopped before the recipe's own settings were measured")
        return
    took = clock(sum(trial.cost_s for trial in trials))
    console.print(trials_table(spec, trials, f"{bench.compiled.recipe.name}: tune, {took}"))
    console.print_line("")
    if any(trial.is_cut for trial in trials):
        console.print_line("* measured until its time was over, before every ask was answered")
    for trial in trials:
        if trial.failure:
            console.print_line(f"failed: {trial.candidate.name}: {trial.failure}")
    for note in bench.notes:
        console.print_line(f"not tried: {note}")
    tried = {trial.candidate.name for trial in trials}
    if untried := [candidate.name for candidate in bench.candidates if candidate.name not in tried]:
        console.print_line(f"no time for: {'; '.join(untried)} (raise --minutes)")
    if (drift := _drift(trials)) > 1 + DRIFT:
        console.print_line(
            f"the recipe's own settings were {drift:.1f} times as fast in one round as in another: measure again"
        )
    _advise(console, bench, trials)
    if is_stopped:
        console.print_line("stopped: this is what was measured so far")


def _drift(trials: Sequence[Trial]) -> float:
    """The best speed of the recipe's own settings in any round, as a multiple of the worst."""
    speeds = [trial.score for trial in trials if not trial.candidate.changes and trial.score]
    return max(speeds) / min(speeds) if speeds else 1.0


def _advise(console: SafeConsole, bench: Bench, trials: Sequence[Trial]) -> None:
    spec = bench.teacher.spec
    if spec.batch_invariant is False or (spec.batch_invariant is None and on_gpu()):
        console.print_line(
            "texts of this recipe depend on the batch (batch_invariant), so they differ between any two runs"
        )
    fastest, same = recommended(spec, trials)
    ratios = {trial.candidate.name: ratio for trial, ratio in best_of(trials)}
    if fastest is None:
        console.print_line("no setting is faster than the recipe's own by 5 % or more: keep them")
        return
    for trial, what in ((same, "the same texts"), (fastest, "other texts")):
        if trial is None or (trial is same and what == "other texts"):
            continue
        name = trial.candidate.name
        console.print_line("")
        console.print_line(f"{ratios[name]:.2f} times as fast, with {what}: {name}")
        if trial.round == 1:
            console.print_line("it was measured in the first round only: raise --minutes to confirm it")
        if is_identity(spec, trial.candidate):
            console.print_line("these settings are part of the recipe's identity: a run needs a new --out")
        elif what == "other texts":
            console.print_line("a run resumes with these settings, but lots made from then on may hold other texts")
        print_text(toml_block(spec, trial.candidate))


def _literals(bench: Bench, trials: Sequence[Trial], is_stopped: bool) -> dict:
    """The result for JSON."""
    spec = bench.teacher.spec
    fastest, same = recommended(spec, trials)

    def setting(trial: Trial | None) -> dict | None:
        if trial is None:
            return None
        return {"changes": dict(trial.candidate.changes), "toml": toml_block(spec, trial.candidate)}

    return {
        "recipe": bench.compiled.recipe.name,
        "is_stopped": is_stopped,
        "trials": trial_literals(spec, trials),
        "not_tried": bench.notes,
        "fastest": setting(fastest),
        "fastest_with_same_texts": setting(same),
    }

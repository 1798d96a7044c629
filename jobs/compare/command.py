"""`gristmill compare A B ... --real PATH --out URI`: which corpus teaches a small language model most?

Output: compare.json (settings, measures, summary), report.html, and units/ (finished students). The same command
resumes; with more corpora or seeds it trains only what is missing.
"""

import functools
import logging
import time
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from gristmill.generators.lm import student
from gristmill.generators.lm.student import StudentUnit, do_all, read_unit, unit_name
from gristmill.jobs.compare.inputs import CompareArgs, Comparison, read_comparison
from gristmill.jobs.compare.results import summary, verdict
from gristmill.jobs.compare.show import compare_table, plan_table
from gristmill.jobs.results import Result
from gristmill.jobs.terminal.bar import Bar
from gristmill.jobs.terminal.console import open_console, print_json
from gristmill.jobs.terminal.output import Output, refusal
from gristmill.jobs.terminal.session import interruptible, is_stopping
from gristmill.records.errors import UserError
from gristmill.records.exit_codes import DONE, FINDING, STOPPED
from gristmill.records.extras import check_installed
from gristmill.records.ids import fingerprint
from gristmill.records.output.formats import newest, parse
from gristmill.records.output.manifest import versions
from gristmill.records.pins import Pins
from gristmill.records.printable import json_text
from gristmill.records.sealed import write_sealed
from gristmill.records.spec import literals
from gristmill.records.stores.contract import Store
from gristmill.records.stores.opening import open_store

logger = logging.getLogger(__name__)

NAME, REPORT = "compare.json", "report.html"
FORMAT = newest(NAME)
OTHER_OUTPUTS = ("manifest.json", "model.json", "study.json", "metrics.json", "mixture.json")
PLAIN_EVERY_S = 5.0


def command(as_json: bool = False, dry_run: bool = False, **flags: Any) -> int:
    """`gristmill compare`. Returns the exit code: 0 complete, 1 a student failed, 130 stopped."""
    args = CompareArgs(**flags)
    comparison, output = open_comparison(args)
    console = open_console()
    if dry_run:
        console.print(plan_table(args, comparison, output.store))
        return DONE
    compare_file = run(args, comparison, output)
    if compare_file["state"] == "stopped":
        return output.stopped()
    if as_json:
        print_json(compare_file)
    else:
        console.print(compare_table(compare_file))
        for line in (*compare_file["notes"], compare_file["verdict"], output.store.path(REPORT)):
            console.print_line(line)
    return exit_code_of(compare_file)


def compare(args: CompareArgs) -> Result:
    """Compare corpora, as the command does; `totals` is the content of compare.json."""
    comparison, output = open_comparison(args)
    compare_file = run(args, comparison, output)
    return Result(output.store.uri, compare_file["state"], compare_file, exit_code_of(compare_file))


def exit_code_of(compare_file: dict[str, Any]) -> int:
    return {"complete": DONE, "stopped": STOPPED}.get(compare_file["state"], FINDING)


def open_comparison(args: CompareArgs) -> tuple[Comparison, Output]:
    """The inputs and the output. Raises UserError when they do not fit, before anything is trained."""
    check_installed("lm", "torch", "transformers")
    flags = {
        "real": args.real,
        "holdout": args.holdout,
        "text-column": args.text_column,
        "tokens": args.num_tokens,
        "seeds": args.num_seeds,
        "student": args.student,
    }
    output = Output("compare", list(args.corpora), args.out, args.settings, flags)
    for name in OTHER_OUTPUTS:
        if output.store.exists(name):
            raise UserError(f"{output.store.uri} holds {name}: choose a folder of its own for --out")
    with Pins().active():
        comparison = read_comparison(args)
    before = _before(output.store)
    if before is not None and before["identity"] != comparison.identity:
        raise refusal(output.store.uri, "holds another comparison", before["identity"], comparison.identity)
    return comparison, output


def _before(store: Store) -> dict[str, Any] | None:
    data = store.read_if_there(NAME)
    return None if data is None else parse(data, NAME, store.path(NAME))


def run(args: CompareArgs, comparison: Comparison, output: Output) -> dict[str, Any]:
    """Train and judge the students that are missing; returns the content of compare.json."""
    store, started = output.store, time.monotonic()
    units = comparison.units(args.num_seeds)
    for note in comparison.notes:
        logger.info(f"note: {note}")
    with output.writing():
        compare_file: dict[str, Any] = {
            "format": FORMAT,
            "fingerprint": fingerprint(comparison.identity),
            "identity": comparison.identity,
            "state": "stopped",
            "corpora": [
                {"name": c.name, "path": c.path, "num_texts": c.num_texts, "digest": c.digest}
                for c in comparison.corpora
            ],
            "model": literals(comparison.recipe.model),
            "notes": comparison.notes,
            "versions": versions(),
        }
        _write(store, compare_file)  # refuses another comparison from now on
        failed, work_s = _run_units(comparison, units, store)
        students = [measures for unit in units if (measures := read_unit(store, unit)) is not None]
        is_whole = len(students) == len(units)
        compare_file["state"] = "complete" if is_whole else "failed" if failed else "stopped"
        rows = summary(comparison.corpora, students)
        compare_file |= {
            "summary": rows,
            "verdict": verdict(rows, students),
            "students": students,
            "failed": failed,
            "work_s": round(work_s, 1),
            "wall_s": round(time.monotonic() - started, 1),
        }
        _write(store, compare_file)
        if compare_file["state"] != "stopped":
            from gristmill.jobs.compare.page import page

            store.put(REPORT, page(compare_file).encode("utf-8", "replace"))
            open_store(store.path(student.WORK)).clear()
    return compare_file


def _run_units(comparison: Comparison, units: Sequence[StudentUnit], store: Store) -> tuple[dict[str, str], float]:
    """Reasons of the students that failed, by corpus and seed, and the seconds of all that were trained."""
    from gristmill.cluster.connect import connected  # imports ray, so only when students are trained
    from gristmill.cluster.fits.units import Progress, run_units
    from gristmill.cluster.preflight import request_of, seated
    from gristmill.cluster.spec import PoolSpec, UnitSpec
    from gristmill.engines.needs import Needs

    done = {unit.key for unit in units if store.exists(unit_name(unit.key))}
    if all(unit.key in done for unit in units):
        logger.info(f"{store.uri}: all {len(units)} students are there already")
        return {}, 0.0
    _put_work(comparison, store)
    train, spec = comparison.recipe.train, comparison.recipe.cluster
    pools = {"units": (Needs(train.num_cpus, train.num_gpus), PoolSpec())}
    request = request_of(store.uri, "compare", pools, spec, stage_cpus=0)
    work = UnitSpec(train.num_cpus, train.num_gpus, train.max_retries)
    stopped: list[bool] = []
    names = {unit.key: f"{unit.corpus}, seed {unit.seed}" for unit in reversed(units)}  # the first of equal corpora
    with (
        Bar(open_console(is_error=True), "compare", PLAIN_EVERY_S) as bar,
        connected(spec),
        seated(request, spec, is_stopping),
        interruptible(lambda: stopped.append(True), store.give_up),
    ):

        def show(progress: Progress) -> None:
            going = ", ".join(names[key] for key in progress.going[:3])
            text = f"{len(progress.done)} of {progress.num_units} students{f', now: {going}' if going else ''}"
            bar.show(len(progress.done), progress.num_units, text)

        do = functools.partial(do_all, store=store)
        progress = run_units(units, lambda keys: done, do, work, show, lambda: bool(stopped), train.num_cpus)
    failed = [unit for unit in units if unit.key in progress.failed]
    return {f"{unit.corpus}, seed {unit.seed}": progress.failed[unit.key] for unit in failed}, progress.seconds


def _put_work(comparison: Comparison, store: Store) -> None:
    """Put what students read: their task and the corpora."""
    store.put(student.TASK, json_text(literals(comparison.task)).encode())
    for unit in {unit.corpus: unit for unit in comparison.units(1)}.values():
        texts = next(corpus.texts for corpus in comparison.corpora if corpus.name == unit.corpus)
        if not store.exists(unit.rows):
            store.put(unit.rows, write_sealed(pa.table({"text": pa.array(texts, pa.string())}), 8192, None))


def _write(store: Store, compare_file: dict[str, Any]) -> None:
    store.renew(NAME, (json_text(compare_file, indent=1) + "\n").encode())

"""`gristmill study STUDY --out URI`: runs a grid of chains, or resumes it.

Output: study.json (study and end state), units/ (finished units by key), rows/ (rows of heavy families),
results.parquet (one row per chain and generation), summary.parquet (over chains, with laws) and report.html.
"""

import contextlib
import functools
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
from rich.table import Table

from gristmill.generators.chains.cells import Cell
from gristmill.generators.chains.registry import chain_class
from gristmill.jobs.recipes.toml_file import TomlSource
from gristmill.jobs.results import Result
from gristmill.jobs.study.laws import check_laws
from gristmill.jobs.study.plan import cost_line, extend_chains, extension_line, plan_table
from gristmill.jobs.study.results import RESULTS, SUMMARY
from gristmill.jobs.study.show import StudyBar, cells_table, verdict_line
from gristmill.jobs.study.spec import StudySpec, load_study
from gristmill.jobs.study.study_file import NAME, identity, read_study
from gristmill.jobs.terminal.console import SafeConsole, open_console
from gristmill.jobs.terminal.output import Output, refusal
from gristmill.jobs.terminal.session import interruptible, is_stopping
from gristmill.records.errors import UserError
from gristmill.records.exit_codes import DONE, FINDING, STOPPED
from gristmill.records.masking.masks import masked
from gristmill.records.output.formats import newest
from gristmill.records.output.manifest import versions
from gristmill.records.pins import Pins, active
from gristmill.records.printable import json_text
from gristmill.records.spec import literals
from gristmill.records.stores.contract import Store

logger = logging.getLogger(__name__)

REPORT = "report.html"
FORMAT = newest(NAME)


@dataclass
class StudyEnd:
    """End state of a study, stored in study.json as `ended`."""

    state: str  # complete | failed | stopped
    num_units: int
    num_done: int
    failed: dict[str, str]
    work_s: float
    worst: dict[str, Any] | None  # row of the summary with the largest |z|


def command(path: str, out: str, settings: Sequence[str] = (), dry_run: bool = False) -> int:
    """`gristmill study`. Returns the exit code: 0 complete, 1 a law or a chain failed, 130 stopped."""
    spec, cells, output = open_study(path, out, settings)
    console, store = open_console(), output.store
    if dry_run:
        console.print(plan_table(spec, cells, store))
        console.print_line(cost_line(spec, cells, store))
        return 0
    study_file = run(spec, cells, output)
    if study_file["ended"]["state"] == "stopped":
        return output.stopped()
    table: Table | None = cells_table(study_file, store)
    if table is not None:
        console.print(table)
    console.print_line(verdict_line(study_file["ended"]))
    console.print_line(store.path(REPORT))
    return exit_code_of(study_file)


def study(study: TomlSource, out: str, settings: Sequence[str] = ()) -> Result:
    """Run a study into `out`, as the command does. `totals` is how it ended, as study.json has it."""
    spec, cells, output = open_study(study, out, settings)
    study_file = run(spec, cells, output)
    ended = study_file["ended"]
    parts = {"rows": RESULTS, "summary": SUMMARY}
    return Result(output.store.uri, ended["state"], ended, exit_code_of(study_file), parts)


def exit_code_of(study_file: dict[str, Any]) -> int:
    return {"complete": DONE, "stopped": STOPPED}.get(study_file["ended"]["state"], FINDING)


def open_study(study: TomlSource, out: str, settings: Sequence[str]) -> tuple[StudySpec, list[Cell], Output]:
    pins = Pins()
    with active(pins):
        spec, cells = load_study(study, settings)
        check_laws(spec, cells)
        for cell in cells:
            cell.family().identity()
    return spec, [replace(cell, pins=pins) for cell in cells], Output("study", study, out, settings)


def run(spec: StudySpec, cells: list[Cell], output: Output) -> dict[str, Any]:
    """Run what is missing; returns the content of study.json. Raises UserError for the output of another study."""
    store, console = output.store, open_console(is_error=True)
    study_file = _study_file(spec, store)
    ended_before = study_file.get("ended", {})
    if ended_before.get("state") in ("complete", "failed") and not ended_before["failed"]:  # failed chains: tried again
        logger.info(f"{store.uri}: this study is finished")
        return study_file
    with output.writing():
        started = time.monotonic()
        ended, summary = _run_units(spec, cells, store, console)
        if summary is not None and spec.laws.precision and (more := extend_chains(spec, cells, summary)) != cells:
            logger.info(extension_line(cells, more))
            cells, before_s = more, ended.work_s
            study_file["chains"] = {cell.name: cell.chains for cell in cells}
            ended, summary = _run_units(spec, cells, store, console)
            ended.work_s = round(ended.work_s + before_s, 1)
        study_file["ended"] = {**literals(vars(ended)), "wall_s": round(time.monotonic() - started, 1)}
        _write(store, study_file)
        if ended.state != "stopped":
            _write_page(spec, cells, study_file, summary, store)
    return study_file


def _write_page(
    spec: StudySpec, cells: list[Cell], study_file: dict[str, Any], summary: pa.Table | None, store: Store
) -> None:
    from gristmill.jobs.study.page import page

    try:
        store.put(REPORT, page(spec, cells, study_file, summary, store).encode("utf-8", "replace"))
    except Exception as error:  # noqa: BLE001 - whatever a page cannot show, the study is done
        logger.warning(f"no {REPORT}: {type(error).__name__}: {error}")


def _study_file(spec: StudySpec, store: Store) -> dict[str, Any]:
    """The content of study.json, new for a new output. Raises UserError for the output of another study."""
    data = store.read_if_there(NAME)
    if data is None:
        study_file = {
            "format": FORMAT,
            "fingerprint": identity(spec),
            "study": masked(literals(spec)),
            "versions": versions(),
        }
        if store.exists("manifest.json") or store.exists("model.json"):
            raise UserError(f"{store.uri} holds a run or a model; choose another --out")
        return study_file
    study_file = read_study(data, store.path(NAME))
    study_file["study"] = masked(study_file["study"])
    if study_file["fingerprint"] != identity(spec):
        raise refusal(store.uri, "holds another study", study_file["study"], literals(spec))
    return study_file


def _write(store: Store, study_file: dict[str, Any]) -> None:
    store.put(NAME, json_text(study_file, indent=1).encode())


def _run_units(
    spec: StudySpec, cells: list[Cell], store: Store, console: SafeConsole
) -> tuple[StudyEnd, pa.Table | None]:
    from gristmill.cluster.connect import connected  # imports ray, so only when a study starts
    from gristmill.cluster.fits.engines import EngineRoom, model_spec
    from gristmill.cluster.fits.units import Progress, run_units
    from gristmill.cluster.preflight import request_of, seated
    from gristmill.cluster.spec import PoolSpec
    from gristmill.engines.needs import Needs
    from gristmill.evaluation.collapse.chains import ChainMetrics
    from gristmill.evaluation.laws.precision import SURE
    from gristmill.generators.chains.work import do_all, done_units
    from gristmill.jobs.study.results import write_results

    is_served = any(chain_class(cell.kind).is_served for cell in cells)
    pools = {"units": (Needs(spec.work.num_cpus, spec.work.num_gpus), PoolSpec())}
    if is_served:
        pools["engines"] = (model_spec(spec.engines).needs, PoolSpec(spec.engines.replicas))
    request = request_of(store.uri, "study", pools, spec.cluster, stage_cpus=0)
    stopped: list[bool] = []
    units = [unit for cell in cells for unit in cell.units()]
    done = done_units({unit.key for unit in units}, store)
    do = functools.partial(do_all, store=store, metrics=ChainMetrics())
    keys = {unit.key for unit in units}
    with StudyBar(console, units) as bar:
        if keys <= done:
            progress = Progress(len(keys), keys)
        else:
            with (
                connected(spec.cluster),
                seated(request, spec.cluster, is_stopping),
                interruptible(lambda: stopped.append(True), store.give_up),
                contextlib.ExitStack() as stack,
            ):
                if is_served:
                    engines = stack.enter_context(EngineRoom(spec.engines))
                    do = functools.partial(do, engines=engines)
                progress = run_units(
                    units, lambda keys: done, do, spec.work, bar.update, lambda: bool(stopped), spec.threads
                )
    named = {unit.key: f"{unit.cell.name}, block {unit.block}, generation {unit.first}" for unit in units}
    failed = {named[key]: why for key, why in progress.failed.items()}
    for name, why in list(failed.items())[:5]:
        logger.info(f"failed: {name}: {why}")
    left = progress.num_units - len(progress.done) - len(progress.failed)
    ended = StudyEnd("stopped", progress.num_units, len(progress.done), failed, round(progress.seconds, 1), None)
    if left and stopped:
        return ended, None
    logger.info("writing the results")
    summary = write_results(cells, store)
    ended.worst = worst_z(summary)
    is_off = ended.worst is not None and abs(ended.worst["z"]) > SURE
    ended.state = "failed" if failed or (is_off and spec.laws.check) else "complete"
    return ended, summary


def worst_z(summary: pa.Table) -> dict[str, Any] | None:
    """The row of the summary whose estimate is farthest from its law in standard errors; None without a test."""
    import pyarrow.compute as pc

    tested = summary.filter(pc.is_valid(summary.column("z")))
    if not tested.num_rows:
        return None
    z = tested.column("z")
    row: dict[str, Any] = tested.slice(pc.index(pc.abs(z), pc.max(pc.abs(z))).as_py(), 1).to_pylist()[0]
    return {**row, "num_tested": tested.num_rows}

"""`gristmill flow FLOW --out URI`: runs a chain of steps as one job; the same command again resumes.

Output: flow.json (the state of each step), report.html, and the output of each step in a folder of its name.
"""

import logging
from collections.abc import Sequence

from gristmill.jobs.flow.build import build_chain
from gristmill.jobs.flow.run import FlowRun
from gristmill.jobs.flow.state import NAME, FlowFile
from gristmill.jobs.flow.step import Chain
from gristmill.jobs.flow.view import flow_literals, show_flow
from gristmill.jobs.recipes.toml_file import TomlSource
from gristmill.jobs.results import Result
from gristmill.jobs.terminal.console import open_console
from gristmill.jobs.terminal.output import Output
from gristmill.records.exit_codes import STOPPED
from gristmill.records.output.shard_names import KEPT

logger = logging.getLogger(__name__)

ROWS = {"produce": f"{KEPT}/", "pack": "train-", "study": "results.parquet"}  # where a step of this verb has rows


def command(path: str, out: str, settings: Sequence[str] = (), dry_run: bool = False) -> int:
    """`gristmill flow`. Returns the exit code: 0 if all steps are done, else that of the first step without 0.

    Raises UserError before anything runs, where it can.
    """
    output = Output("flow", path, out, settings)
    chain, state = build_chain(path, output.store, settings)
    if dry_run:
        _show_plan(chain)
        return 0
    code = _run(chain, state, output)
    console = open_console()
    show_flow(flow_literals(output.store, state), console)
    console.print_line(f"output: {output.store.uri}  ({NAME}, report.html, {', '.join(chain.steps)})")
    return output.stopped() if code == STOPPED else code


def flow(flow: TomlSource, out: str, settings: Sequence[str] = ()) -> Result:
    """Run a flow into `out`, as the command does. `totals` is what `status --json` prints; rows by step."""
    output = Output("flow", flow, out, settings)
    chain, state = build_chain(flow, output.store, settings)
    code = _run(chain, state, output)
    literals = flow_literals(output.store, state)
    rows = {s.name: f"{s.name}/{ROWS[s.spec.verb]}" for s in chain.steps.values() if s.spec.verb in ROWS}
    return Result(output.store.uri, literals["state"], literals, code, rows)


def _run(chain: Chain, state: FlowFile, output: Output) -> int:
    with output.writing() as lease:
        return FlowRun(chain, state, lease).run()


def _show_plan(chain: Chain) -> None:
    console = open_console()
    for number, step in enumerate(chain.steps.values(), 1):
        reads = ", ".join(f"{link.key} = {link}" for link in step.links)
        done = " (done)" if step.record.is_done else ""
        console.print_line(f"{number}. {step.name}: {step.spec.verb}{f', {reads}' if reads else ''}{done}", "bold")
        step.show_plan(console)
        console.print()

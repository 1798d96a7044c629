"""`gristmill status URI`: how far a run is, from its manifest, a listing and the newest events. Nothing is changed."""

from typing import Any

from gristmill.jobs.flow.state import NAME as FLOW
from gristmill.jobs.flow.state import load as load_flow
from gristmill.jobs.flow.view import flow_literals, show_flow, watch_flow
from gristmill.jobs.results import Result
from gristmill.jobs.status.life import run_of, show
from gristmill.jobs.status.watch import watch
from gristmill.jobs.terminal.console import open_console, print_json
from gristmill.records.output.shards import KEPT, REJECTED
from gristmill.records.stores.opening import open_store


def status(uri: str) -> Result:
    """How far a run is; `totals` is what `describe` gives. Raises UserError when `uri` holds no run."""
    facts = describe(uri)
    row_names = {} if "steps" in facts else {"rows": f"{KEPT}/", "rejected": f"{REJECTED}/"}
    return Result(uri, facts["state"], facts, row_names=row_names)


def command(uri: str, as_json: bool = False, is_watching: bool = False) -> int:
    """Print the state and totals of an output; returns the exit code. Raises UserError when it is no run."""
    if is_watching:
        store = open_store(uri)
        store.check(write=False)
        return watch_flow(store, as_json) if store.exists(FLOW) else watch(uri, as_json)
    literals = describe(uri)
    if as_json:
        print_json(literals)
    elif "steps" in literals:
        show_flow(literals, open_console())
    else:
        show(literals, open_console())
    return 0


def describe(uri: str) -> dict[str, Any]:
    """The state of an output as literals: name, state, fingerprint, totals, starts, driver, alive, cost, ...; of a
    flow, its steps."""
    store = open_store(uri)
    store.check(write=False)
    if (flow := load_flow(store)) is not None:
        return flow_literals(store, flow)
    return run_of(store)

"""`gristmill status URI`: how far a run is, from its manifest, a listing and the newest events. Nothing is changed."""

from typing import Any

from gristmill.jobs.results import Result
from gristmill.jobs.status.life import driver_life, load_manifest, run_literals, show
from gristmill.jobs.status.watch import watch
from gristmill.jobs.terminal.console import open_console, print_json
from gristmill.records.output import ledger
from gristmill.records.output.events import newest_events
from gristmill.records.output.shards import KEPT, REJECTED
from gristmill.records.stores.opening import open_store


def status(uri: str) -> Result:
    """How far a run is; `totals` is what `describe` gives. Raises UserError when `uri` holds no run."""
    facts = describe(uri)
    return Result(uri, facts["state"], facts, row_names={"rows": f"{KEPT}/", "rejected": f"{REJECTED}/"})


def command(uri: str, as_json: bool = False, is_watching: bool = False) -> int:
    """Print the state and totals of an output; returns the exit code. Raises UserError when it is no run."""
    if is_watching:
        return watch(uri, as_json)
    run = describe(uri)
    if as_json:
        print_json(run)
    else:
        show(run, open_console())
    return 0


def describe(uri: str) -> dict[str, Any]:
    """The state of an output as literals: name, state, fingerprint, totals, starts, driver, alive, cost, ..."""
    store = open_store(uri)
    manifest = load_manifest(store)
    totals = ledger.totals(store, manifest, ledger.committed(store, manifest))
    return run_literals(store, manifest, totals, driver_life(store, manifest, newest_events(store, 1)))

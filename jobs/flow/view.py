"""A flow as people see it: the state of all steps, for `status`, `status --watch` and the page."""

import time
from typing import Any

from rich.live import Live
from rich.table import Table

from gristmill.jobs.flow.state import FlowFile, flow_life, load
from gristmill.jobs.status.life import run_of
from gristmill.jobs.terminal.console import SafeConsole, open_console, print_json, print_line
from gristmill.jobs.terminal.tables import clock, money
from gristmill.records.errors import UserError
from gristmill.records.output.manifest import NAME as MANIFEST
from gristmill.records.output.manifest import load as read_manifest
from gristmill.records.stores.contract import Store
from gristmill.records.stores.opening import open_store

EVERY_S = 2.0
PLAIN_EVERY_S = 10.0
LISTING_SHARE = 0.2  # of the time that may go into looks


def flow_literals(store: Store, flow: FlowFile) -> dict[str, Any]:
    """The state of a flow, ready for JSON. A produce step has the state of its run as `run`."""
    life = flow_life(store, flow)
    steps = []
    for record in flow.steps:
        uri = store.path(record.name)
        state = "stopped" if record.state == "running" and life.state == "stopped" else record.state
        run, problem = None, None
        if record.verb == "produce":
            try:
                run = _run_of(open_store(uri), record.is_done)
            except UserError as error:  # a broken step does not hide the others
                problem = str(error)
        literals = {"name": record.name, "verb": record.verb, "state": state, "uri": uri, "run": run}
        rest = {key: getattr(record, key) for key in ("note", "exit_code", "error", "started", "wall_s", "inputs")}
        rest["error"] = rest["error"] or problem
        steps.append({**literals, "fingerprint": record.fingerprint, **rest})
    driver = {"driver": life.driver, "alive": life.alive}
    facts = {"name": flow.name, "uri": store.uri, "state": life.state, "description": flow.description}
    return {**facts, **driver, "starts": flow.starts, "steps": steps}


def _run_of(store: Store, is_done: bool) -> dict[str, Any] | None:
    """Totals and cost of a run; None before it has begun. A run that is done needs no listing."""
    if is_done and (manifest := read_manifest(store)) is not None:
        return {"state": manifest.state, "totals": manifest.totals.literals(), "cost": manifest.cost}
    if not store.exists(MANIFEST):
        return None
    run = run_of(store)
    return {key: run[key] for key in ("state", "totals", "cost")}


def steps_table(flow: dict[str, Any]) -> Table:
    """A row a step."""
    table = Table(box=None, padding=(0, 2), title=f"{flow['name']}: {flow['state']}", title_justify="left")
    for name in ("step", "verb", "state", "rows", "kept", "lots", "time"):
        table.add_column(name, justify="right" if name in ("rows", "kept", "lots") else "left")
    table.add_column("", overflow="fold")
    for step in flow["steps"]:
        totals = step["run"]["totals"] if step["run"] else {}
        counts = [f"{totals[key]:,}" if totals else "" for key in ("asks", "kept", "num_lots")]
        took = clock(step["wall_s"]) if step["wall_s"] else ""
        table.add_row(step["name"], step["verb"], step["state"], *counts, took, step["error"] or step["note"])
    return table


def show_flow(flow: dict[str, Any], console: SafeConsole) -> None:
    """Print what `flow_literals` gives."""
    console.print(steps_table(flow))
    if flow["driver"]:
        console.print_line(f"driver: {flow['driver']}{' (gone)' if flow['alive'] is False else ''}")
    if cost := cost_words(flow):
        console.print_line(f"cost: {cost}")


def cost_words(flow: dict[str, Any]) -> str:
    """What all steps with a price have cost; "" without one."""
    costs = [
        step["run"]["cost"] for step in flow["steps"] if step["run"] and step["run"]["cost"].get("cost") is not None
    ]
    currencies = {cost.get("currency") or "" for cost in costs}
    if len(currencies) != 1:
        return ""
    return f"{money(sum(cost['cost'] for cost in costs))} {currencies.pop()}".strip()


def line_of(flow: dict[str, Any]) -> str:
    """One line, for a log."""
    words = [flow["state"]]
    for step in flow["steps"]:
        kept = f" {step['run']['totals']['kept']:,} kept" if step["run"] else ""
        words.append(f"{step['name']} {step['state']}{kept}")
    return "  ".join(words)


def watch_flow(store: Store, as_json: bool) -> int:
    """Show a flow until it ends, or until Ctrl-C; returns the exit code."""
    console = open_console()

    def look() -> tuple[dict[str, Any], float]:
        began = time.monotonic()
        state = load(store)
        if state is None:
            raise UserError(f"{store.uri}: the flow is no longer there")
        return flow_literals(store, state), time.monotonic() - began

    flow, took_s = look()
    try:
        with Live(console=console, auto_refresh=False, transient=True) as live:
            printed_s = float("-inf")
            while flow["state"] == "running":
                if console.is_terminal and not as_json:
                    live.update(steps_table(flow), refresh=True)
                elif time.monotonic() - printed_s >= PLAIN_EVERY_S:
                    printed_s = time.monotonic()
                    print_json(flow, indent=None) if as_json else print_line(line_of(flow))
                time.sleep(max(EVERY_S, took_s / LISTING_SHARE))
                flow, took_s = look()
    except KeyboardInterrupt:
        return 0  # the flow goes on; only the watching ends
    if as_json:
        print_json(flow, indent=None)
    else:
        show_flow(flow, console)
    return 0

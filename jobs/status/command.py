"""`gristmill status URI`: how far a run is, from its manifest, a listing and the newest events; nothing is touched."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from rich.console import Console

from gristmill.jobs.terminal.tables import clock, cost_table, totals_table
from gristmill.records import ledger, manifest
from gristmill.records.errors import UserError
from gristmill.records.events import newest_events, when
from gristmill.records.lease import NAME as LEASE
from gristmill.records.lease import is_alive, who
from gristmill.records.manifest import Manifest
from gristmill.records.shards import Summary
from gristmill.records.stores.contract import Store
from gristmill.records.stores.opening import open_store

QUIET_S = 60.0  # a driver that nobody has heard of for longer may be dead; a living one saves its manifest every 10 s


@dataclass(frozen=True)
class Life:
    """What can be known of a run's driver."""

    state: str  # of the manifest, but "stopped" where it says "running" and the driver is gone
    driver: str | None  # who holds the lease
    alive: bool | None  # None: on another host
    silent_s: float | None  # since the last sign of life, by the clocks of both hosts

    @property
    def word(self) -> str:
        """The state for a person: "running?" when the driver was not heard of for a while."""
        is_doubtful = self.state == "running" and self.alive is None and (self.silent_s or 0.0) > QUIET_S
        return f"running? (last sign of life {clock(self.silent_s or 0.0)} ago)" if is_doubtful else self.state


def load_book(store: Store) -> Manifest:
    """The manifest of an output. Raises UserError when there is none."""
    store.check(write=False)
    book = manifest.load(store)
    if book is None:
        raise UserError(f"{store.uri}: no {manifest.NAME} there, so this is not the output of a run")
    return book


def read_lease(store: Store) -> dict[str, Any] | None:
    """What the lease says; empty when it cannot be understood, None when there is none."""
    data = store.read_if_there(LEASE)
    if data is None:
        return None
    try:
        held = json.loads(data)
    except ValueError:
        return {}
    return held if isinstance(held, dict) else {}


def life(store: Store, book: Manifest, events: list[dict[str, Any]]) -> Life:
    """Whether the run goes on. A killed driver leaves a lease and a manifest that says "running"."""
    held = read_lease(store)
    alive = is_alive(held) if held else None
    driver = who(held) if held else None
    if book.state != "running":
        return Life(book.state, driver, alive, None)
    if held is None or alive is False:
        return Life("stopped", driver, False, _silent_s(book, events))
    return Life("running", driver, alive, _silent_s(book, events))


def _silent_s(book: Manifest, events: list[dict[str, Any]]) -> float | None:
    """Seconds since the last event or the last save of the manifest, whichever came later."""
    signs = [when(event) for event in events[-1:]]
    for start in book.starts[-1:]:
        signs.append(datetime.fromisoformat(start["started"]) + timedelta(seconds=start.get("wall_s", 0.0)))
    return max(0.0, (datetime.now(UTC) - max(signs)).total_seconds()) if signs else None


def status(uri: str, as_json: bool = False, is_watching: bool = False) -> int:
    """Print the state and totals of an output; returns the exit code. Raises UserError when it is none."""
    if is_watching:
        from gristmill.jobs.status.watch import watch

        return watch(uri, as_json)
    found = describe(uri)
    if as_json:
        print(json.dumps(found, indent=2))
        return 0
    show(found, Console(highlight=False))
    return 0


def show(found: dict[str, Any], console: Console) -> None:
    """Print what `describe` has found."""
    console.print(f"{found['name']}: {found['said']}", style="italic", markup=False, soft_wrap=True)
    console.print(totals_table(Summary(**found["totals"]), ""))
    if found["driver"]:
        gone = " (gone)" if found["alive"] is False else ""
        console.print(f"driver: {found['driver']}{gone}", markup=False)
    last = found["starts"][-1] if found["starts"] else {}
    if last:
        console.print(f"driver starts: {len(found['starts'])}, the last {last['started']} on {last['host']}")
    console.print(cost_table(Summary(**found["totals"]), found["stages"], found["cost"]))


def describe(uri: str) -> dict[str, Any]:
    """The state of an output as literals: name, state, fingerprint, totals, starts, driver, alive, cost, ..."""
    store = open_store(uri)
    book = load_book(store)
    totals = ledger.totals(store, book, ledger.committed(store))
    return literals(store, book, totals, life(store, book, newest_events(store, 1)))


def literals(store: Store, book: Manifest, totals: Summary, seen: Life) -> dict[str, Any]:
    """What is known of a run, ready for JSON."""
    return {
        "name": book.recipe["name"],
        "uri": store.uri,
        "state": seen.state,
        "said": seen.word,
        "fingerprint": book.fingerprint,
        "totals": totals.literals(),
        "driver": seen.driver,
        "alive": seen.alive,
        "silent_s": seen.silent_s,
        "starts": book.starts,
        "stages": [stage["name"] for stage in book.recipe.get("stages", [])],
        "cost": book.cost,
    }


def cost_of(book: Manifest) -> dict[str, Any] | None:
    """The manifest's cost table; None for a run without a price."""
    return book.cost if book.cost.get("cost") is not None else None

"""`gristmill status URI`: how far a run is, from its manifest and a listing; nothing is touched."""

import json
from typing import Any

from rich.console import Console

from jobs.tables import totals_table
from records import ledger, manifest
from records.errors import UserError
from records.lease import NAME as LEASE
from records.lease import who
from records.store import open_store


def status(uri: str, as_json: bool = False) -> int:
    """Print the state and totals of an output; returns the exit code. Raises UserError when it is none."""
    found = describe(uri)
    if as_json:
        print(json.dumps(found, indent=2))
        return 0
    console = Console(highlight=False)
    totals = manifest.Summary(**found["totals"])
    console.print(totals_table(totals, f"{found['name']}: {found['state']}"))
    if found["driver"]:
        console.print(f"driver: {found['driver']}", markup=False)
    last = found["starts"][-1] if found["starts"] else {}
    if last:
        console.print(f"driver starts: {len(found['starts'])}, the last {last['started']} on {last['host']}")
    return 0


def describe(uri: str) -> dict[str, Any]:
    """The state of an output as literals: name, state, fingerprint, totals, starts, driver."""
    store = open_store(uri)
    store.check(write=False)
    book = manifest.load(store)
    if book is None:
        raise UserError(f"{store.uri}: no {manifest.NAME} there, so this is not the output of a run")
    totals = ledger.totals(store, book, ledger.committed(store))
    held = store.read_if_there(LEASE)
    return {
        "name": book.recipe["name"],
        "uri": store.uri,
        "state": book.state if held or book.state != "running" else "stopped",
        "fingerprint": book.fingerprint,
        "totals": totals.literals(),
        "driver": who(json.loads(held)) if held else None,
        "starts": book.starts,
    }

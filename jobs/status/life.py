"""The state of a run from its store alone: manifest, lease, newest events. Nothing is changed."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from gristmill.jobs.terminal.console import SafeConsole
from gristmill.jobs.terminal.generator_yields import generator_table
from gristmill.jobs.terminal.tables import clock, cost_table, totals_table
from gristmill.records.errors import UserError
from gristmill.records.output import answers, ledger
from gristmill.records.output.events import newest_events, when
from gristmill.records.output.lease import is_alive, read_lease, who
from gristmill.records.output.manifest import NAME as MANIFEST
from gristmill.records.output.manifest import Manifest, generator_names
from gristmill.records.output.manifest import load as read_manifest
from gristmill.records.output.shards import Summary
from gristmill.records.stores.contract import Store

QUIET_S = 60.0  # a driver without a sign of life for longer may be dead: a living one saves its manifest every 10 s


@dataclass(frozen=True)
class Life:
    """What can be known of a run's driver."""

    state: str  # the manifest's, but "stopped" where it says "running" and the driver is gone
    driver: str | None  # the holder of the lease
    alive: bool | None  # None: on another host
    silent_s: float | None  # since the last sign of life, by the clocks of both hosts

    @property
    def word(self) -> str:
        """The state for people: "running?" when the driver has been silent for a while."""
        is_doubtful = self.state == "running" and self.alive is None and (self.silent_s or 0.0) > QUIET_S
        return f"running? (last sign of life {clock(self.silent_s or 0.0)} ago)" if is_doubtful else self.state


def load_manifest(store: Store) -> Manifest:
    """The manifest of an output. Raises UserError when there is none."""
    store.check(write=False)
    manifest = read_manifest(store)
    if manifest is None:
        raise UserError(f"{store.uri}: no {MANIFEST} there, so this is not the output of a run")
    return manifest


def driver_life(store: Store, manifest: Manifest, events: list[dict[str, Any]]) -> Life:
    """Whether the run goes on. A killed driver leaves a lease, and a manifest that says "running"."""
    lease = read_lease(store)
    alive = is_alive(lease) if lease else None
    driver = who(lease) if lease else None
    if manifest.state != "running":
        return Life(manifest.state, driver, alive, None)
    if lease is None or alive is False:
        return Life("stopped", driver, False, _silent_s(manifest, events))
    return Life("running", driver, alive, _silent_s(manifest, events))


def _silent_s(manifest: Manifest, events: list[dict[str, Any]]) -> float | None:
    """Seconds since the last event or the last save of the manifest, whichever is later."""
    signs = [when(event) for event in events[-1:]]
    for start in manifest.starts[-1:]:
        signs.append(datetime.fromisoformat(start["started"]) + timedelta(seconds=start.get("wall_s", 0.0)))
    return max(0.0, (datetime.now(UTC) - max(signs)).total_seconds()) if signs else None


def run_literals(store: Store, manifest: Manifest, totals: Summary, life: Life) -> dict[str, Any]:
    """The state of a run, ready for JSON."""
    return {
        "name": manifest.recipe["name"],
        "uri": store.uri,
        "state": life.state,
        "said": life.word,
        "fingerprint": manifest.fingerprint,
        "totals": totals.literals(),
        "driver": life.driver,
        "alive": life.alive,
        "silent_s": life.silent_s,
        "starts": manifest.starts,
        "stages": [stage["name"] for stage in manifest.recipe.get("stages", [])],
        "generators": generator_names(manifest.recipe),
        "cost": manifest.cost,
        "closed_at": manifest.closed_at,
    }


def show(run: dict[str, Any], console: SafeConsole) -> None:
    """Print what `run_literals` gives."""
    totals = Summary(**run["totals"])
    console.print_line(f"{run['name']}: {run['said']}", style="italic")
    console.print(totals_table(totals, ""))
    if run["closed_at"] is not None:
        console.print(f"closed at exactly {run['closed_at']:,} kept rows (limits.exact)")
    if run["driver"]:
        gone = " (gone)" if run["alive"] is False else ""
        console.print(f"driver: {run['driver']}{gone}")
    if run["starts"]:
        last = run["starts"][-1]
        console.print(f"driver starts: {len(run['starts'])}, the last {last['started']} on {last['host']}")
    if (table := generator_table(totals, run["cost"], run["generators"])) is not None:
        console.print(table)
    console.print(cost_table(totals, run["stages"], run["cost"]))


def cost_of(manifest: Manifest) -> dict[str, Any] | None:
    """The manifest's cost table; None for a run without a price."""
    return manifest.cost if manifest.cost.get("cost") is not None else None


def run_of(store: Store) -> dict[str, Any]:
    """The state of a run as literals, from a listing of its store. Raises UserError when there is none."""
    manifest = load_manifest(store)
    life = driver_life(store, manifest, newest_events(store, 1))
    return run_literals(store, manifest, count_again(store, manifest, life), life)


def count_again(store: Store, manifest: Manifest, life: Life) -> Summary:
    """The totals of the committed lots. The manifest gets them, and the money that a driver has not noted there."""
    totals = ledger.totals(store, manifest, ledger.committed(store, manifest))
    # A driver that lives notes what it has paid for lots in flight.
    kept = 0.0 if life.state == "running" else answers.money(store, manifest.fingerprint, totals.num_lots)
    manifest.recount(totals, totals.paid + kept)
    return totals

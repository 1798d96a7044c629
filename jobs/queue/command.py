"""`gristmill queue`: the runs of a cluster, in the order in which they are served, and its quotas."""

import re
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table

from gristmill.cluster.spec import ClusterSpec
from gristmill.jobs.terminal.console import open_console, print_json
from gristmill.jobs.terminal.tables import clock
from gristmill.records.errors import UserError

if TYPE_CHECKING:
    from gristmill.cluster.room.runs import QueuedRun

QUOTA = re.compile(r"(?P<label>[^=:]+=[^:]+):(?P<devices>\d+(\.\d+)?|none)")


def command(address: str | None = None, quotas: Sequence[str] = (), as_json: bool = False) -> int:
    """Show the runs of the cluster at `address` or RAY_ADDRESS, after a change of quotas; returns the exit code.

    Raises UserError for a quota that is not KEY=VALUE:DEVICES, and when no cluster answers.
    """
    from gristmill.cluster.connect import on_cluster  # imports ray
    from gristmill.cluster.room.seat import queue_state

    changes = dict(_quota(text) for text in quotas)
    with on_cluster(ClusterSpec(address=address)):
        runs, in_force = queue_state(changes)
    literals = {"runs": [_literals(run) for run in runs], "quotas": in_force}
    if as_json:
        print_json(literals)
    else:
        _show(literals)
    return 0


def _quota(text: str) -> tuple[str, float | None]:
    match = QUOTA.fullmatch(text)
    if match is None:
        raise UserError(f"--quota {text}: write KEY=VALUE:DEVICES, e.g. team=vision:16, or KEY=VALUE:none to remove it")
    devices = match["devices"]
    return match["label"], None if devices == "none" else float(devices)


def _literals(run: "QueuedRun") -> dict[str, Any]:
    request, report = run.request, run.report
    pools = {
        pool.name: {
            "engines": run.num_engines(pool.name),
            "allowed": run.grant.widths.get(pool.name, 0),
            "replicas": pool.replicas,
            "max_replicas": pool.max_replicas,
            "needs": str(pool.needs),
        }
        for pool in request.pools
    }
    return {
        "run": request.run,
        "recipe": request.recipe,
        "owner": request.owner,
        "state": "running" if run.grant.is_admitted else "waiting",
        "why": run.grant.why,
        "for_s": round(time.time() - run.since),
        "priority": request.priority,
        "share": request.share,
        "labels": dict(request.labels),
        "pools": pools,
        "stage_cpus": request.stage_cpus,
        "devices": run.num_devices,
        "progress": report.progress,
    }


def _show(literals: dict[str, Any]) -> None:
    console = open_console()
    if not literals["runs"]:
        console.print_line("no run on this cluster")
    else:
        table = Table(box=None, padding=(0, 2))
        for name in ("run", "recipe", "owner", "state", "for", "priority", "share", "engines", "progress"):
            table.add_column(name, overflow="fold")
        for run in literals["runs"]:
            engines = [f"{name} {pool['engines']}/{pool['allowed']}" for name, pool in run["pools"].items()]
            words = [run["run"], run["recipe"], run["owner"], run["state"], clock(run["for_s"])]
            rest = [str(run["priority"]), f"{run['share']:g}", ", ".join(engines), run["progress"]]
            table.add_row(*words, *rest)
        console.print(table)
        console.print_line("engines: placed/allowed now")
        for run in literals["runs"]:
            if run["why"]:
                console.print_line(f"{run['run']}: {run['why']}")
    for label, devices in literals["quotas"].items():
        console.print_line(f"quota of {label}: {devices:g} devices")

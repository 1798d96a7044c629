"""report.html of a flow: its steps, what each has read, and links to their own pages."""

import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gristmill.jobs.flow.state import FlowFile
from gristmill.jobs.flow.view import cost_words, flow_literals
from gristmill.jobs.pages.page import render
from gristmill.jobs.terminal.tables import clock
from gristmill.records.stores.contract import Store

logger = logging.getLogger(__name__)

NAME = "report.html"
MAX_REASONS = 6  # of the rejects of a step


def write_page(store: Store, flow: FlowFile) -> None:
    """Write the page. The outputs are there, so a page that cannot be written does not fail the flow."""
    try:
        store.put(NAME, page(store, flow).encode("utf-8", "replace"))
    except Exception as error:  # noqa: BLE001 - whatever a page cannot show, the steps are done
        logger.warning(f"no {NAME}: {type(error).__name__}: {error}; `gristmill report {store.uri}` tries again")


def page(store: Store, flow: FlowFile) -> str:
    """The page of a flow as it is now; the flow may still go on."""
    literals = flow_literals(store, flow)
    steps = [{**step, **_facts(store, step)} for step in literals["steps"]]
    facts = {
        **literals,
        "steps": steps,
        "wall": clock(sum(step["wall_s"] for step in steps)),
        "cost": cost_words(literals),
        "written": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "num_done": sum(step["state"] == "complete" for step in steps),
    }
    return render(Path(__file__).with_name("report.html"), facts, {"count": lambda n: f"{n:,}", "clock": clock})


def _facts(store: Store, step: dict[str, Any]) -> dict[str, Any]:
    totals = step["run"]["totals"] if step["run"] else None
    rejected = sorted((totals or {}).get("rejected", {}).items(), key=lambda r: (-r[1], r[0]))
    names = (NAME, "README.md", "model.json")
    entry = next((name for name in names if store.exists(f"{step['name']}/{name}")), None)
    return {
        "totals": totals,
        "rejected": rejected[:MAX_REASONS],
        "num_reasons": len(rejected),
        "share": totals["kept"] / totals["asks"] if totals and totals["asks"] else None,
        "link": f"{step['name']}/{entry}" if entry else None,
    }

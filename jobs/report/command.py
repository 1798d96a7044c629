"""`gristmill report URI`: report.html, one page that shows a run to people: counts, cost, speed, losses, rejects."""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from gristmill.jobs.pages.page import render
from gristmill.jobs.report import gate_audit, plots
from gristmill.jobs.report.gallery import gallery
from gristmill.jobs.report.gate_plot import plane
from gristmill.jobs.report.history import History
from gristmill.jobs.report.sample import Sample, read_sample
from gristmill.jobs.report.tallies import (
    balances,
    clusters,
    cost_of_tokens,
    in_order,
    lengths_note,
    looked_for,
    rejects,
    starts,
    versions,
    yields,
)
from gristmill.jobs.status.command import Life, cost_of, life, load_book
from gristmill.jobs.terminal.tables import clock, money
from gristmill.records import ledger
from gristmill.records.errors import UserError
from gristmill.records.events import newest_events, read_events
from gristmill.records.manifest import Manifest
from gristmill.records.shards import Summary
from gristmill.records.stores.contract import Store
from gristmill.records.stores.opening import open_store

NAME = "report.html"
MAX_ENGINES = 16
MAX_RECIPE_CHARS = 200_000  # a recipe may list all of its source in `items`


def report(uri: str) -> int:
    """Write the page beside the shards and print its address. Raises UserError when there is no run or no room."""
    store = open_store(uri)
    try:
        write_report(store)
    except PermissionError as error:
        raise UserError(f"{store.path(NAME)}: cannot be written ({error.strerror})") from None
    print(store.path(NAME))
    return 0


def write_report(store: Store) -> None:
    """Put `report.html` beside the shards. Raises UserError, OSError when the store cannot be read or written."""
    store.put(NAME, page(store, load_book(store)).encode("utf-8", "replace"))


def page(store: Store, book: Manifest) -> str:
    """The page of an output as it is now, of a run that goes on too."""
    totals = ledger.totals(store, book, ledger.committed(store))
    history = History(read_events(store))
    sample = read_sample(store, totals.num_lots, totals.asks, book.recipe["stages"])
    seen = life(store, book, newest_events(store, 1))
    filters: dict[str, Callable[..., Any]] = {
        "soft": _soft,
        "count": _count,
        "share": _share,
        "percent": _percent,
        "clock": clock,
    }
    filters |= {"rate": gate_audit.told, "between": lambda g: gate_audit.between(g.low, g.high)}
    rows = gallery(store, sample, book.recipe)
    facts = {**_facts(book, totals, history, sample, seen), **_gates(store, book, totals), "gallery": rows}
    drawn = {**_figures(history, sample), "gates": plane(facts["gates"])}
    figures = {name: Markup(svg) for name, svg in drawn.items()}
    return render(Path(__file__).with_name("report.html"), {**facts, "figures": figures}, filters)


def _figures(history: History, sample: Sample) -> dict[str, str]:
    found = dict.fromkeys(("throughput", "lots", "phases", "lengths"), "")
    if history.counts["commit"]:
        found["throughput"] = plots.throughput(history)
        found["lots"] = plots.lots(history)
        if not history.shows_every_lot:
            found["phases"] = plots.phases(history)
    if len(sample.lengths) and sample.lengths.max():  # rows that no model wrote have none
        found["lengths"] = plots.lengths(sample.lengths)
    return found


def _facts(book: Manifest, totals: Summary, history: History, sample: Sample, seen: Life) -> dict[str, Any]:
    recipe, cost = book.recipe, cost_of(book)
    funnel = yields(book, totals)
    refused, is_estimated = rejects(totals, sample, cost)
    rejected_tokens = totals.tokens_out - totals.kept_tokens
    engines = sorted(history.engines.values(), key=lambda e: (-e.num_lost, len(e.name), e.name))
    return {
        "name": recipe["name"],
        "description": recipe.get("description"),
        "state": {"word": "unclear" if "?" in seen.word else seen.state, "text": seen.word},
        "made_by": _made_by(recipe),
        "fingerprint": book.fingerprint,
        "written": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "totals": totals,
        "tiles": _tiles(book, totals, cost, sample),
        "cost": cost,
        "funnel": funnel,
        "has_cpu": any(step.cpu for step in funnel),
        "rejects": refused,
        "tokens_estimated": is_estimated,
        "rejected_tokens": rejected_tokens,
        "rejected_cost": cost_of_tokens(rejected_tokens, totals, cost),
        "history": history,
        "num_lots_untold": max(0, totals.num_lots - history.counts["commit"]),
        "sample": sample,
        "lengths_note": lengths_note(sample),
        "balanced": balances(book, totals),
        "clusters": clusters(sample.duplicates),
        "most_repeated": max(sample.duplicates.items(), key=lambda d: (d[1], d[0]), default=None),
        "looked_for": looked_for(recipe, sample),
        "engines": engines[:MAX_ENGINES],
        "num_engines": len(engines),
        "starts": starts(book, history),
        "log": list(history.log),
        "log_note": _log_note(history),
        "recipe": json.dumps(recipe, indent=2, ensure_ascii=False)[:MAX_RECIPE_CHARS],
        "versions": versions(book),
    }


def _gates(store: Store, book: Manifest, totals: Summary) -> dict[str, Any]:
    """`gates` in order, empty where the recipe names no labels or no row has come, and the `slice` that tells."""
    spec = gate_audit.spec_of(book.recipe)
    if spec is None or not totals.num_lots:
        return {"gates": [], "slice": None, "label_column": ""}
    found = gate_audit.count(store, totals.num_lots, spec)
    told = gate_audit.gates(found, [stage["name"] for stage in in_order(book.recipe)])
    return {"gates": told, "slice": found, "label_column": spec.column}


def _made_by(recipe: dict[str, Any]) -> str:
    generator, method = recipe["generator"], recipe["method"]
    model = generator.get("name") or generator.get("model")
    how = f", method {method['kind']}" if method else ""
    return f"{generator['kind']}{f' {model}' if model else ''}{how}"


def _log_note(history: History) -> str:
    some = (
        f"The last {len(history.log)} of {history.num_logged:,}, by" if history.num_logged > len(history.log) else "By"
    )
    unclear = f" {history.num_unclear:,} events could not be understood." if history.num_unclear else ""
    return f"{some} running time of the driver.{unclear}"


def _tiles(book: Manifest, totals: Summary, cost: dict[str, Any] | None, sample: Sample) -> list[dict[str, str]]:
    wall_s = sum(start.get("wall_s", 0.0) for start in book.starts)
    device_s = sum(start.get("device_s", 0.0) for start in book.starts)
    tiles = [
        ("yield", _share(totals.kept, totals.asks) or "–", "of the rows"),
        ("kept tokens", _count(totals.kept_tokens), f"of {_count(totals.tokens_out)} generated"),
        ("running time", clock(wall_s), f"{len(book.starts)} start{'s' * (len(book.starts) != 1)} of the driver"),
        ("tokens per second", _count(totals.tokens_out / wall_s) if wall_s else "–", "over the running time"),
        ("kept shards", _bytes(totals.kept_bytes), f"{_count(totals.num_lots)} lots"),
    ]
    if sample.num_called:
        calls = sum(c.num for c in sample.calls.values()) / sample.num_called
        tiles.append(
            ("calls per row", f"{calls:,.1f}", f"{len(sample.calls)} kind{'s' * (len(sample.calls) != 1)} of call")
        )
    if sample.num_called and totals.kept:
        tiles.append(("tokens per kept row", _count(totals.tokens_out / totals.kept), "generated, rejected rows too"))
    if device_s:
        tiles.append(("engine time", clock(device_s), "summed over devices"))
    if cost:
        price, unit = cost.get("price_per_device_hour"), cost.get("currency") or ""
        tiles.append(("cost", money(cost["cost"]), f"{unit}, at {price:g} a device hour" if price else unit))
        tiles.append(("cost per kept row", money(cost.get("per_kept_row")) or "–", unit))
        tiles.append(("cost per 1,000", money(cost.get("per_1000_kept_tokens")) or "–", f"{unit}, kept tokens"))
    return [{"label": label, "value": value, "note": note} for label, value, note in tiles]


def _soft(text: str) -> Markup:
    """A long name, escaped, that may be broken after its parts."""
    return Markup(re.sub(r"([:_/.])(?=.)", r"\1<wbr>", str(escape(text))))  # no character of an entity is among them


def _count(number: float) -> str:
    return f"{number:,.0f}"


def _share(part: float, whole: float) -> str:
    if not whole:
        return ""
    share = part / whole
    return f"{share:.1%}" if share >= 0.001 or not share else "<0.1%"


def _percent(part: float, whole: float) -> str:
    """A width: a number without its sign."""
    return f"{100 * part / whole:.2f}" if whole else "0"


def _bytes(number: float) -> str:
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if number < 1000 or unit == "TB":
            break
        number /= 1000
    return f"{number:,.0f} {unit}" if unit == "B" else f"{number:,.1f} {unit}"

"""`gristmill report URI`: writes report.html, one page about a run: counts, cost, speed, losses and rejects."""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from gristmill.jobs.flow.page import page as flow_page
from gristmill.jobs.flow.state import load as load_flow
from gristmill.jobs.pages.page import render
from gristmill.jobs.report import gate_audit, plots
from gristmill.jobs.report.gallery import gallery
from gristmill.jobs.report.gate_plot import plane
from gristmill.jobs.report.generators import bars, legend
from gristmill.jobs.report.history import History
from gristmill.jobs.report.lanes import lanes
from gristmill.jobs.report.sample import Sample, read_sample
from gristmill.jobs.report.tallies import (
    balances,
    benchmark_searches,
    clusters,
    cost_of_tokens,
    in_order,
    lengths_note,
    rejects,
    starts,
    versions,
    yields,
)
from gristmill.jobs.results import Result
from gristmill.jobs.status.life import Life, cost_of, count_again, driver_life, load_manifest
from gristmill.jobs.terminal.console import print_line
from gristmill.jobs.terminal.generator_yields import GeneratorYield, generator_yields
from gristmill.jobs.terminal.speed import bound
from gristmill.jobs.terminal.tables import clock, money
from gristmill.records.output.events import newest_events, read_events
from gristmill.records.output.manifest import Manifest, check_recipe, generator_names, generators_of
from gristmill.records.output.shards import Summary
from gristmill.records.output.templates import KINDS, num_texts, top
from gristmill.records.printable import json_text
from gristmill.records.stores.contract import Store
from gristmill.records.stores.opening import open_store

NAME = "report.html"
MAX_ENGINES = 16
NUM_MARKS = 5  # openings, closings and skeletons that are shown
MAX_RECIPE_CHARS = 200_000  # a recipe may list its whole source in `items`


def command(uri: str) -> int:
    """Write the page beside the shards and print its address; see `report`."""
    print_line(report(uri).totals["page"])
    return 0


def report(uri: str) -> Result:
    """Write the page of a run or a flow into its output; `totals["page"]` is its address.

    Raises UserError when there is no run, or when the page cannot be written.
    """
    store = open_store(uri)
    store.check(write=False)
    if (flow := load_flow(store)) is not None:
        store.put(NAME, flow_page(store, flow).encode("utf-8", "replace"))
    else:
        write_report(store)
    return Result(store.uri, "complete", {"page": store.path(NAME)})


def write_report(store: Store) -> None:
    """Put `report.html` beside the shards. Raises UserError when the store cannot be read or written."""
    store.put(NAME, page(store, load_manifest(store)).encode("utf-8", "replace"))


def page(store: Store, manifest: Manifest) -> str:
    """The page of an output as it is now; the run may still go on."""
    check_recipe(manifest, store)
    life = driver_life(store, manifest, newest_events(store, 1))
    totals = count_again(store, manifest, life)
    history = History(read_events(store))
    sample = read_sample(store, totals.num_lots, totals.asks, manifest.recipe["stages"])
    filters: dict[str, Callable[..., Any]] = {
        "soft": _soft,
        "count": _count,
        "share": _share,
        "percent": _percent,
        "clock": clock,
        "money": money,
    }
    filters |= {"rate": gate_audit.three_digits, "between": lambda g: gate_audit.between(g.low, g.high)}
    rows = gallery(store, sample, manifest.recipe)
    facts = {**_facts(manifest, totals, history, sample, life), **_gates(store, manifest, totals), "gallery": rows}
    svgs = {**_figures(history, sample, manifest.recipe, facts["generators"]), "gates": plane(facts["gates"])}
    figures = {name: Markup(svg) for name, svg in svgs.items()}
    return render(Path(__file__).with_name("report.html"), {**facts, "figures": figures}, filters)


def _figures(
    history: History, sample: Sample, recipe: dict[str, Any], by_generator: list[GeneratorYield]
) -> dict[str, str]:
    figures = dict.fromkeys(("throughput", "lanes", "lots", "phases", "templates", "lengths", "thinking"), "")
    figures["lanes"] = lanes(history)
    figures["generators"] = bars(by_generator)
    if history.counts["commit"]:
        figures["throughput"] = plots.throughput(history)
        figures["lots"] = plots.lots(history)
        if not history.shows_every_lot:
            figures["phases"] = plots.phases(history)
    if history.templates:
        limit = (recipe.get("limits") or {}).get("template_share")
        figures["templates"] = plots.template_shares(history, limit)
    if len(sample.lengths) and sample.lengths.max():  # rows that no model wrote have none
        figures["lengths"] = plots.lengths(sample.lengths)
    if sample.reasoning.any():
        figures["thinking"] = plots.thinking(sample.reasoning, sample.answers)
    return figures


def _facts(manifest: Manifest, totals: Summary, history: History, sample: Sample, life: Life) -> dict[str, Any]:
    recipe, cost = manifest.recipe, cost_of(manifest)
    closed = "" if manifest.closed_at is None else f", closed at exactly {manifest.closed_at:,} rows"
    steps = yields(manifest, totals)
    reasons, is_estimated = rejects(totals, sample, cost)
    rejected_tokens = totals.spent_on_rejected
    by_generator = generator_yields(totals, manifest.cost, generator_names(recipe))
    engines = sorted(history.engines.values(), key=lambda e: (-e.num_lost, len(e.name), e.name))
    return {
        "name": recipe["name"],
        "description": recipe.get("description"),
        "state": {"word": "unclear" if "?" in life.word else life.state, "text": f"{life.word}{closed}"},
        "made_by": _made_by(recipe),
        "fingerprint": manifest.fingerprint,
        "written": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "totals": totals,
        "tiles": _tiles(manifest, totals, cost, sample),
        "cost": cost,
        "steps": steps,
        "has_cpu": any(step.cpu for step in steps),
        "generators": by_generator,
        "generator_legend": legend(by_generator),
        "rejects": reasons,
        "tokens_estimated": is_estimated,
        "rejected_tokens": rejected_tokens,
        "rejected_cost": cost_of_tokens(rejected_tokens, totals, cost),
        "history": history,
        "speed_note": _sentence(bound(manifest.starts[-1].get("engines") or {} if manifest.starts else {})),
        "repeatability": manifest.repeatability,
        "num_lots_without_events": max(0, totals.num_lots - history.counts["commit"]),
        "sample": sample,
        "lengths_note": lengths_note(sample),
        "marks": [mark for kind in KINDS for mark in top(totals.templates, kind, NUM_MARKS)],
        "num_texts": num_texts(totals.templates),
        "template_limit": (recipe.get("limits") or {}).get("template_share"),
        "balanced": balances(manifest, totals),
        "clusters": clusters(sample.duplicates),
        "most_repeated": max(sample.duplicates.items(), key=lambda d: (d[1], d[0]), default=None),
        "searches": benchmark_searches(manifest, sample),
        "engines": engines[:MAX_ENGINES],
        "num_engines": len(engines),
        "starts": starts(manifest, history),
        "log": list(history.log),
        "log_note": _log_note(history),
        "recipe": json_text(recipe, indent=2)[:MAX_RECIPE_CHARS],
        "versions": versions(manifest),
    }


def _gates(store: Store, manifest: Manifest, totals: Summary) -> dict[str, Any]:
    """`gates` in order, and the labelled rows as `labels`; empty where the recipe names no labels, or has no row."""
    spec = gate_audit.spec_of(manifest.recipe)
    if spec is None or not totals.num_lots:
        return {"gates": [], "labels": None, "label_column": ""}
    labels = gate_audit.count(store, totals.num_lots, spec)
    gates = gate_audit.gates(labels, [stage["name"] for stage in in_order(manifest.recipe)])
    return {"gates": gates, "labels": labels, "label_column": spec.column}


def _made_by(recipe: dict[str, Any]) -> str:
    method, parts = recipe.get("method"), []
    for generator in generators_of(recipe):
        model = generator.get("name") or generator.get("model")
        parts.append(f"{generator['kind']}{f' {model}' if model else ''}")
    how = f", method {method['kind']}" if method else ""
    return f"{' and '.join(parts)}{how}"


def _sentence(words: str) -> str:
    return f"{words[0].upper()}{words[1:]}." if words else ""


def _log_note(history: History) -> str:
    scope = (
        f"The last {len(history.log)} of {history.num_logged:,}, by" if history.num_logged > len(history.log) else "By"
    )
    unclear = f" {history.num_unclear:,} events could not be understood." if history.num_unclear else ""
    return f"{scope} running time of the driver.{unclear}"


def _tiles(manifest: Manifest, totals: Summary, cost: dict[str, Any] | None, sample: Sample) -> list[dict[str, str]]:
    wall_s = sum(start.get("wall_s", 0.0) for start in manifest.starts)
    device_s = sum(start.get("device_s", 0.0) for start in manifest.starts)
    tiles = [
        ("yield", _share(totals.kept, totals.asks) or "–", "of the rows"),
        ("kept tokens", _count(totals.kept_tokens), f"of {_count(totals.tokens_out)} generated"),
        (
            "running time",
            clock(wall_s),
            f"{len(manifest.starts)} start{'s' * (len(manifest.starts) != 1)} of the driver",
        ),
        ("tokens per second", _count(totals.tokens_out / wall_s) if wall_s else "–", "over the running time"),
        ("kept shards", _bytes(totals.kept_bytes), f"{_count(totals.num_lots)} lots"),
    ]
    if sample.num_called:
        calls = sum(c.num for c in sample.calls.values()) / sample.num_called
        tiles.append(
            ("calls per row", f"{calls:,.1f}", f"{len(sample.calls)} kind{'s' * (len(sample.calls) != 1)} of call")
        )
    if sample.num_called and totals.kept:
        tiles.append(
            ("tokens per kept row", _count(totals.tokens_out / totals.kept), "generated, rejected rows included")
        )
    if device_s:
        tiles.append(("engine time", clock(device_s), "summed over devices"))
    if cost:
        price, unit = cost.get("price_per_device_hour"), cost.get("currency") or ""
        paid = f", of it {money(cost['paid'])} for calls" if cost.get("paid") else ""
        tiles.append(("cost", money(cost["cost"]), f"{unit}{f', at {price:g} a device hour' if price else ''}{paid}"))
        tiles.append(("cost per kept row", money(cost.get("per_kept_row")) or "–", unit))
        tiles.append(("cost per 1,000", money(cost.get("per_1000_kept_tokens")) or "–", f"{unit}, kept tokens"))
    return [{"label": label, "value": value, "note": note} for label, value, note in tiles]


def _soft(text: str) -> Markup:
    """A long name, escaped, with places where a line may break."""
    return Markup(re.sub(r"([:_/.])(?=.)", r"\1<wbr>", str(escape(text))))  # none of these occurs in an entity


def _count(number: float) -> str:
    return f"{number:,.0f}"


def _share(part: float, whole: float) -> str:
    if not whole:
        return ""
    share = part / whole
    return f"{share:.1%}" if share >= 0.001 or not share else "<0.1%"


def _percent(part: float, whole: float) -> str:
    """A percentage without its sign, for a CSS width."""
    return f"{100 * part / whole:.2f}" if whole else "0"


def _bytes(number: float) -> str:
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if number < 1000 or unit == "TB":
            break
        number /= 1000
    return f"{number:,.0f} {unit}" if unit == "B" else f"{number:,.1f} {unit}"

"""`produce --dry-run`: the plan of a run, and a forecast of its asks, tokens, hours and cost."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

from rich.table import Table

from gristmill.generators.several import Several
from gristmill.jobs.produce.call_costs import CallCost, call_cost
from gristmill.jobs.produce.existing import existing_of
from gristmill.jobs.recipes.compile import CompiledRecipe
from gristmill.jobs.terminal.speed import bound
from gristmill.jobs.terminal.tables import clock, money
from gristmill.records.output.manifest import Manifest
from gristmill.records.output.shards import Summary


def plan_table(compiled: CompiledRecipe, uri: str) -> Table:
    """What the run would do."""
    plan, recipe = compiled.plan, compiled.recipe
    table = Table(title=f"{recipe.name} (dry run)", title_justify="left", show_header=False, box=None, padding=(0, 2))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    if recipe.description:
        table.add_row("description", recipe.description)
    table.add_row("output", uri)
    table.add_row("fingerprint", compiled.fingerprint)
    table.add_row("source", compiled.source.words)
    unknown = "no end" if compiled.source.is_ended else "known when that step is done"
    table.add_row("asks", unknown if plan.num_asks is None else f"{plan.num_asks:,}")
    table.add_row("lots", "" if plan.num_lots is None else f"{plan.num_lots:,} of {plan.lot_size:,} asks")
    limits = [f"{k} = {v:,}" for k, v in vars(recipe.limits).items() if v is not None and not isinstance(v, bool)]
    table.add_row("limits", ", ".join([*limits, *(["exact"] if recipe.limits.exact else [])]) or "none")
    for what, words in _generators(compiled):
        table.add_row(what, words)
    if compiled.method:
        table.add_row("method", compiled.method.kind)
    table.add_row("stages", " -> ".join(s.name for s in compiled.stages) or "none")
    if existing := existing_of(compiled):
        keys, missing = existing.num_rows * existing.bands, sum(p.stop - p.start for _, p in existing.missing)
        names = ", ".join(f"{c.name} ({c.num_rows:,} rows)" for c in existing.corpora)
        table.add_row("against", f"{names}: {keys:,} keys in the index, {missing:,} rows to be signed first")
    table.add_row("columns", ", ".join(compiled.schema.names))
    return table


def _generators(compiled: CompiledRecipe) -> Iterator[tuple[str, str]]:
    """The generator, or each of several with the asks that it takes."""
    generator = compiled.generator
    if not isinstance(generator, Several):
        yield "generator", f"{generator.kind} {generator.model or ''}".strip()
        return
    division = generator.division
    for number, (share, weight) in enumerate(zip(generator.shares, division.weights)):
        author, model = share.author, "" if share.model in (share.name, share.kind) else share.model
        how = f"{weight:.0%} of the asks" if division.by == "shares" else "samples in turn"
        if division.column:
            takes = f"{division.column} = {' or '.join(author.when)}" if author.when else f"any other {division.column}"
            how = f"{takes}, share {author.share:g}" if division.by == "shares" else f"{takes}, {how}"
        yield "" if number else "generators", f"{share.name}: {' '.join(filter(None, (share.kind, model)))}, {how}"


@dataclass(frozen=True)
class Forecast:
    """Numbers of the whole run, committed lots included; None where a number is not known."""

    asks: float | None
    kept: float | None
    tokens_out: float | None
    tokens_are_at_most: bool  # no row has been made yet, so `tokens_out` comes from max_tokens
    hours: float | None  # left
    device_hours: float | None  # left
    cost: float | None  # left: of devices and of calls
    calls: float | None  # of it for calls; None where calls have no price
    calls_are_at_most: bool  # `calls` comes from the recipe
    currency: str
    basis: str  # where the numbers come from
    hint: str  # how to get the numbers that are missing
    bound: str = ""  # what bounded the speed of the last start


def forecast(compiled: CompiledRecipe, manifest: Manifest | None) -> Forecast:
    """Yield, tokens and the cost of calls per row come from the rows of this output, else from the recipe; speed from
    its starts or cluster.tokens_per_s."""
    spec, limits = compiled.recipe.cluster, compiled.recipe.limits
    totals = manifest.totals if manifest else Summary()
    per_call = call_cost(compiled, totals)
    asks = _asks(compiled, totals, per_call)
    tokens_a_row = totals.tokens_out / totals.asks if totals.asks else None
    at_most = tokens_a_row is None
    if tokens_a_row is None and compiled.generator.pooled:
        most = [getattr(part, "sampling", {}).get("max_tokens") for part in compiled.generator.parts]
        tokens_a_row = None if None in most else max(number for number in most if number is not None)
        if compiled.method and tokens_a_row is not None:
            tokens_a_row = compiled.method.most_tokens(tokens_a_row)
    tokens = asks * tokens_a_row if asks is not None and tokens_a_row is not None else limits.tokens
    devices = sum(needs.num_devices * pool.replicas for needs, pool in compiled.pools.values())
    rate, basis = _tokens_per_s(compiled, manifest, totals)
    hours = None
    if tokens is not None and rate:
        hours = max(0.0, tokens - totals.tokens_out) / rate / 3600
    device_hours = hours * devices if hours is not None else None
    price = spec.price_per_device_hour
    calls = None
    if per_call is not None and asks is not None:
        calls = max(0.0, asks - totals.asks) * per_call.per_ask
        basis = f"{basis}; calls: {per_call.basis}"
    hint = ""
    if hours is None and compiled.pools:
        what = "hours and cost" if devices else "hours"
        hint = f"to forecast {what}, set cluster.tokens_per_s or make a few lots first: --set limits.asks=..."
    elif device_hours and price is None:
        hint = "to forecast the cost, set cluster.price_per_device_hour"
    kept = asks * totals.kept / totals.asks if asks is not None and totals.asks else None
    return Forecast(
        asks,
        kept if kept is None or limits.exact_rows is None else min(kept, limits.exact_rows),
        tokens,
        at_most,
        hours,
        device_hours,
        _sum(device_hours * price if device_hours is not None and price is not None else None, calls, devices),
        calls,
        per_call is not None and per_call.is_bound,
        spec.currency,
        basis,
        hint,
        bound(manifest.starts[-1].get("engines") or {}) if manifest and manifest.starts else "",
    )


def _sum(devices_cost: float | None, calls: float | None, num_devices: float) -> float | None:
    """Cost of devices and of calls; None where a part of it is not known. Without devices, calls are all."""
    if calls is None or devices_cost is not None:
        return devices_cost if calls is None else calls + (devices_cost or 0.0)
    return calls if not num_devices else None


def _asks(compiled: CompiledRecipe, totals: Summary, per_call: CallCost | None) -> float | None:
    """Asks of the whole run, by the nearest of its limits."""
    limits, goals = compiled.recipe.limits, []
    if compiled.plan.num_asks is not None:
        goals.append(float(compiled.plan.num_asks))
    for goal, done in (
        (limits.kept_rows, totals.kept),
        (limits.kept_tokens, totals.kept_tokens),
        (limits.tokens, totals.tokens_out),
    ):
        if goal is not None and done:
            goals.append(goal * totals.asks / done)
    if limits.cost is not None and per_call is not None and per_call.per_ask:
        goals.append(limits.cost / per_call.per_ask)
    if not goals and limits.kept_rows is not None:
        goals.append(float(limits.kept_rows))  # at least this many
    return min(goals, default=None)


def _tokens_per_s(compiled: CompiledRecipe, manifest: Manifest | None, totals: Summary) -> tuple[float | None, str]:
    """Tokens per second of the whole pool, and the basis of the number."""
    stated = compiled.recipe.cluster.tokens_per_s
    pools = [compiled.pools[name][1] for name in compiled.generator.pooled]
    replicas = sum(pool.replicas for pool in pools) if pools else compiled.recipe.cluster.replicas
    device_s = manifest.spent("device_s") if manifest else 0.0
    if manifest and device_s and totals.tokens_out:
        devices = sum(needs.num_devices * pool.replicas for needs, pool in compiled.pools.values())
        return (
            totals.tokens_out / device_s * devices,
            f"{totals.asks:,} rows of this output, loading of engines included",
        )
    if stated:
        return stated * replicas, "cluster.tokens_per_s"
    wall_s = sum(start.get("wall_s", 0.0) for start in manifest.starts) if manifest else 0.0
    if wall_s and totals.tokens_out:
        return totals.tokens_out / wall_s, f"{totals.asks:,} rows of this output"
    return None, f"{totals.asks:,} rows of this output" if totals.asks else "the recipe alone"


def forecast_table(forecast: Forecast) -> Table:
    table = Table(title="forecast", title_justify="left", show_header=False, box=None, padding=(0, 2))
    table.add_column(style="bold")
    table.add_column(overflow="fold")

    def number(value: float | None, digits: int = 0, unit: str = "") -> str:
        return "not known" if value is None else f"{value:,.{digits}f}{unit}"

    table.add_row("asks", number(forecast.asks))
    table.add_row("kept rows", number(forecast.kept))
    table.add_row(
        "tokens out",
        ("at most " if forecast.tokens_are_at_most and forecast.tokens_out else "") + number(forecast.tokens_out),
    )
    left = "not known" if forecast.hours is None else f"{clock(forecast.hours * 3600)}, done {_at(forecast.hours)}"
    table.add_row("time left", left)
    table.add_row("device-hours left", number(forecast.device_hours, 2))
    at_most = "at most " if forecast.calls_are_at_most else ""
    if forecast.calls is not None:
        table.add_row("calls left", f"{at_most}{money(forecast.calls)} {forecast.currency}")
    cost = "not known" if forecast.cost is None else f"{at_most}{_amount(forecast.cost)} {forecast.currency}"
    table.add_row("cost left", cost)
    if forecast.bound:
        table.add_row("speed", forecast.bound)
    table.add_row("from", forecast.basis)
    if forecast.hint:
        table.add_row("", forecast.hint)
    return table


def _amount(cost: float) -> str:
    """Two decimals; more for a cost below 0.01."""
    return f"{cost:,.2f}" if cost >= 0.01 or not cost else money(cost)


def _at(hours: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(time.time() + hours * 3600))

"""What a run will take: asks, tokens, hours and cost, from what this output has shown so far and from the recipe."""

import time
from dataclasses import dataclass

from rich.table import Table

from gristmill.jobs.recipes.compile import CompiledRecipe
from gristmill.jobs.terminal.tables import clock
from gristmill.records.manifest import Manifest
from gristmill.records.shards import Summary


@dataclass(frozen=True)
class Forecast:
    """Of the whole run, what is there already included; None: not known."""

    asks: float | None
    kept: float | None
    tokens_out: float | None
    tokens_are_at_most: bool  # no row has been made yet, so max_tokens is all that is known
    hours: float | None  # of the run still to do
    device_hours: float | None
    cost: float | None  # of the run still to do
    currency: str
    basis: str  # where the numbers come from
    hint: str  # what would make them known


def forecast(compiled: CompiledRecipe, book: Manifest | None) -> Forecast:
    """Yields and tokens a row come from the rows of this output, speed from its starts or cluster.tokens_per_s."""
    spec, limits = compiled.recipe.cluster, compiled.recipe.limits
    seen = book.totals if book else Summary()
    asks = _asks(compiled, seen)
    tokens_a_row = seen.tokens_out / seen.asks if seen.asks else None
    at_most = tokens_a_row is None
    sampling = getattr(compiled.generator, "sampling", {})
    if tokens_a_row is None and compiled.generator.needs.pooled:
        tokens_a_row = sampling.get("max_tokens")
        if compiled.method and tokens_a_row is not None:
            tokens_a_row = compiled.method.most_tokens(tokens_a_row)
    tokens = asks * tokens_a_row if asks is not None and tokens_a_row is not None else limits.tokens
    devices = sum(needs.num_devices * pool.replicas for needs, pool in compiled.pools.values())
    rate, basis = _tokens_per_s(compiled, book, seen)
    hours = None
    if tokens is not None and rate:
        hours = max(0.0, tokens - seen.tokens_out) / rate / 3600
    device_hours = hours * devices if hours is not None else None
    price = spec.price_per_device_hour
    hint = ""
    if hours is None and compiled.pools:
        hint = "for hours and cost set cluster.tokens_per_s, or make a few lots first: --set limits.asks=..."
    elif device_hours is not None and price is None:
        hint = "for the cost set cluster.price_per_device_hour"
    return Forecast(
        asks,
        asks * seen.kept / seen.asks if asks is not None and seen.asks else None,
        tokens,
        at_most,
        hours,
        device_hours,
        device_hours * price if device_hours is not None and price is not None else None,
        spec.currency,
        basis,
        hint,
    )


def _asks(compiled: CompiledRecipe, seen: Summary) -> float | None:
    """How many asks the run will make: the nearest of its limits."""
    limits, goals = compiled.recipe.limits, []
    if compiled.plan.num_asks is not None:
        goals.append(float(compiled.plan.num_asks))
    for goal, done in (
        (limits.kept_rows, seen.kept),
        (limits.kept_tokens, seen.kept_tokens),
        (limits.tokens, seen.tokens_out),
    ):
        if goal is not None and done:
            goals.append(goal * seen.asks / done)
    if not goals and limits.kept_rows is not None:
        goals.append(float(limits.kept_rows))  # no fewer than that
    return min(goals, default=None)


def _tokens_per_s(compiled: CompiledRecipe, book: Manifest | None, seen: Summary) -> tuple[float | None, str]:
    """Tokens a second of the whole pool, and where that comes from."""
    stated, replicas = compiled.recipe.cluster.tokens_per_s, compiled.recipe.cluster.replicas
    device_s = book.spent("device_s") if book else 0.0
    if book and device_s and seen.tokens_out:
        devices = sum(needs.num_devices * pool.replicas for needs, pool in compiled.pools.values())
        return seen.tokens_out / device_s * devices, f"{seen.asks:,} rows of this output, loading of engines included"
    if stated:
        return stated * replicas, "cluster.tokens_per_s"
    wall_s = sum(start.get("wall_s", 0.0) for start in book.starts) if book else 0.0
    if wall_s and seen.tokens_out:
        return seen.tokens_out / wall_s, f"{seen.asks:,} rows of this output"
    return None, f"{seen.asks:,} rows of this output" if seen.asks else "the recipe alone"


def forecast_table(made: Forecast) -> Table:
    table = Table(title="forecast", title_justify="left", show_header=False, box=None, padding=(0, 2))
    table.add_column(style="bold")
    table.add_column(overflow="fold")

    def number(value: float | None, digits: int = 0, unit: str = "") -> str:
        return "not known" if value is None else f"{value:,.{digits}f}{unit}"

    table.add_row("asks", number(made.asks))
    table.add_row("kept rows", number(made.kept))
    table.add_row(
        "tokens out", ("at most " if made.tokens_are_at_most and made.tokens_out else "") + number(made.tokens_out)
    )
    left = "not known" if made.hours is None else f"{clock(made.hours * 3600)}, done {_at(made.hours)}"
    table.add_row("time left", left)
    table.add_row("device-hours left", number(made.device_hours, 2))
    table.add_row("cost left", number(made.cost, 2, f" {made.currency}"))
    table.add_row("from", made.basis)
    if made.hint:
        table.add_row("", made.hint)
    return table


def _at(hours: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(time.time() + hours * 3600))

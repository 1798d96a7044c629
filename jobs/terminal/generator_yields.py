"""What each of several generators gave: its yield, its rejects, its tokens and its cost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.table import Table

from gristmill.jobs.terminal.tables import clock, money
from gristmill.records.output.summary import Summary
from gristmill.records.printable import printable


@dataclass(frozen=True)
class GeneratorYield:
    """One of several generators. Money is None where there is no price."""

    name: str
    asks: int
    kept: int
    tokens_out: int
    rejected: list[tuple[str, int]] = field(default_factory=list)  # the most frequent reasons first
    device_s: float = 0.0  # of its pool
    device_cost: float | None = None  # of its pool
    paid: float | None = None  # for the calls of its rows, those of judges included

    @property
    def tokens_per_kept_row(self) -> float | None:
        return self.tokens_out / self.kept if self.kept else None

    @property
    def cost(self) -> float | None:
        """What its devices and its answers cost."""
        costs = [value for value in (self.device_cost, self.paid) if value is not None]
        return sum(costs) if costs else None

    @property
    def cost_per_kept_row(self) -> float | None:
        return self.cost / self.kept if self.kept and self.cost is not None else None


def generator_yields(totals: Summary, cost: Mapping[str, Any], names: Sequence[str]) -> list[GeneratorYield]:
    """The generators of a run that has several, in the order of `names`; those of rows that nobody made come last.

    `cost`: the manifest's. `names`: of the generators in the recipe, none where it has one.
    """
    pools: Mapping[str, Mapping[str, float]] = cost.get("pools") or {}
    rows = []
    for name in dict.fromkeys([*names, *totals.generators]):
        counts = totals.generators.get(name, {})
        reasons = [(key, int(n)) for key, n in counts.items() if ":" in key]
        pool = pools.get(name) or {}
        has_price = cost.get("cost") is not None and bool(pool)
        rows.append(
            GeneratorYield(
                name,
                int(counts.get("asks", 0)),
                int(counts.get("kept", 0)),
                int(counts.get("tokens_out", 0)),
                sorted(reasons, key=lambda reason: (-reason[1], reason[0])),
                pool.get("device_s", 0.0),
                pool.get("cost", 0.0) - pool.get("paid", 0.0) if has_price else None,
                counts.get("paid") or None,
            )
        )
    return rows


def generator_table(totals: Summary, cost: Mapping[str, Any], names: Sequence[str]) -> Table | None:
    """Yield and cost of each of several generators; None for a run of one."""
    rows = generator_yields(totals, cost, names)
    if not rows:
        return None
    table = Table(title="by generator", title_justify="left", show_header=True, box=None, padding=(0, 2))
    for name in ("generator", "rows", "kept", "yield", "tokens per kept row", "engine time", "cost"):
        table.add_column(name, justify="left" if name == "generator" else "right")
    for row in rows:
        table.add_row(
            printable(row.name),
            f"{row.asks:,}",
            f"{row.kept:,}",
            f"{row.kept / row.asks:.1%}" if row.asks else "",
            f"{row.tokens_per_kept_row:,.0f}" if row.tokens_per_kept_row is not None else "",
            clock(row.device_s) if row.device_s else "",
            money(row.cost),
        )
    return table

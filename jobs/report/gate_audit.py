"""How many right and wrong rows each gate keeps, and up to which share of wrong rows it is reliable.

phi = P(kept | right) and psi = P(kept | wrong), of each gate and of all together, from the labelled rows of a run. Feng
et al. 2025 (arXiv 2406.07515), theorem 4.2: a corpus selected by a gate teaches the right rule as long as the share of
wrong rows before it is below 1 / (1 + psi/phi), the breakdown share, and the wrong one above.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
from rich.table import Table

from gristmill.jobs.recipes.recipe import GateAuditSpec
from gristmill.jobs.report.sample import spread
from gristmill.records.ordered_map import read_ahead
from gristmill.records.output.shard_names import KEPT, REJECTED
from gristmill.records.output.shard_reading import UnreadableShard, name_of, read_shard
from gristmill.records.schema import REJECT
from gristmill.records.spec import build
from gristmill.records.stores.contract import Store

MAX_LOTS = 20_000  # evenly spread over larger runs
Z = 1.959964  # of an interval of 95%
ALL = "all"  # the gates together


@dataclass
class LabelledRows:
    """Labelled rows of a run: right and wrong rows by the stage that rejected them, "" for kept rows."""

    right: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)
    num_lots: int = 0
    num_lots_of: int = 0
    unreadable: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Rate:
    """How many of the rows that reach a gate pass it, with Wilson's interval of the rate (95%)."""

    passed: int
    of: int
    low: float
    high: float

    @property
    def value(self) -> float | None:
        return self.passed / self.of if self.of else None


@dataclass(frozen=True)
class GateRates:
    """One gate: phi (`right`), psi (`wrong`), and the breakdown share with bounds from their intervals.

    The three numbers are None where no labelled row reached the gate.
    """

    name: str
    right: Rate
    wrong: Rate
    breakdown: float | None
    low: float | None
    high: float | None


def rate(passed: int, of: int) -> Rate:
    """The rate with its interval (Wilson 1927); the interval is 0 to 1 where `of` is 0."""
    if not of:
        return Rate(0, 0, 0.0, 1.0)
    share, spread_ = passed / of, Z * Z / of
    middle = (share + spread_ / 2) / (1 + spread_)
    half = Z / (1 + spread_) * math.sqrt(share * (1 - share) / of + spread_ / (4 * of))
    return Rate(passed, of, max(0.0, middle - half) if passed else 0.0, min(1.0, middle + half) if passed < of else 1.0)


def breakdown(phi: float, psi: float) -> float | None:
    """The breakdown share; 0 for a gate that only wrong rows pass, None for a gate that no row passes."""
    from gristmill.evaluation.laws.selection import breakdown_share

    if phi > 0:
        return breakdown_share(phi, psi)
    return 0.0 if psi > 0 else None


def gate_rates(name: str, right: tuple[int, int], wrong: tuple[int, int]) -> GateRates:
    """From (rows that passed, rows that came) of right and of wrong rows."""
    phi, psi = rate(*right), rate(*wrong)
    if phi.value is None or psi.value is None:
        return GateRates(name, phi, psi, None, None, None)
    return GateRates(
        name, phi, psi, breakdown(phi.value, psi.value), breakdown(phi.low, psi.high), breakdown(phi.high, psi.low)
    )


def gates(labels: LabelledRows, stages: Sequence[str]) -> list[GateRates]:
    """Each stage in the order in which rows pass it, then all together.

    Rows that the generator rejected reached no gate and do not count.
    """
    counts = [{s: c[s] for s in ("", *stages)} for c in (labels.right, labels.wrong)]
    alive = [sum(c.values()) for c in counts]
    came, rates = list(alive), []
    for stage in stages:
        left = [num - c[stage] for num, c in zip(alive, counts)]
        rates.append(gate_rates(stage, (left[0], alive[0]), (left[1], alive[1])))
        alive = left
    return [*rates, gate_rates(ALL, (alive[0], came[0]), (alive[1], came[1]))]


def count(store: Store, num_lots: int, spec: GateAuditSpec) -> LabelledRows:
    """Count labelled rows, lot by lot. Only the label and the reject reason are read, and only counts are kept."""
    lots = spread(num_lots, MAX_LOTS)
    labels = LabelledRows(num_lots=len(lots), num_lots_of=num_lots)
    shards = [(folder, lot) for lot in lots for folder in (KEPT, REJECTED)]
    for counts in read_ahead(store, lambda shard: _counted(store, shard[0], shard[1], spec.column), shards):
        if isinstance(counts, str):
            if counts not in labels.unreadable:  # a kept shard that cannot be read names no rejected shard
                labels.unreadable.append(counts)
            continue
        for (reason, label), number in counts.items():
            side = {spec.right: labels.right, spec.wrong: labels.wrong}.get(label)
            if side is not None:
                side[reason.partition(":")[0]] += number
    return labels


def _counted(store: Store, folder: str, lot: int, column: str) -> Mapping[tuple[str, str], int] | str:
    """Rows by (reason, label), with "" as the reason of a kept row; or the shard and what is wrong with it, as text."""
    try:
        name = name_of(store, folder, lot)
        if name is None:
            return {}
        table = read_shard(store, name, [column, REJECT.name])
    except UnreadableShard as error:
        return f"{error.name}: {error.reason}"
    if column not in table.schema.names:
        return f"{name}: no column '{column}'"
    table = pa.table({"reason": table.column(REJECT.name), "label": table.column(column).cast(pa.string())})
    groups = table.group_by(["reason", "label"]).aggregate([([], "count_all")]).to_pylist()
    return {(g["reason"] or "", g["label"]): g["count_all"] for g in groups if g["label"] is not None}


def spec_of(recipe: Mapping[str, Any]) -> GateAuditSpec | None:
    """The spec in a resolved recipe; None where it audits no gate."""
    table = recipe.get("gate_audit")
    return build(GateAuditSpec, table, "manifest.json: gate_audit") if table else None


def three_digits(number: float | None) -> str:
    return "–" if number is None else f"{number:.3f}"


def between(low: float | None, high: float | None) -> str:
    """An interval as text."""
    return "" if low is None or high is None else f"{low:.3f} to {high:.3f}"


def gates_table(rates: Sequence[GateRates]) -> Table:
    """The table that the end of a run shows."""
    table = Table(
        title="gates, by rows of known label", title_justify="left", show_header=True, box=None, padding=(0, 1)
    )
    for name in ("gate", "right kept", "phi", "wrong kept", "psi", "breakdown", "95%"):
        is_first = name == "gate"
        table.add_column(
            name, justify="left" if is_first else "right", no_wrap=not is_first, min_width=10 if is_first else None
        )
    for gate in rates:
        counts = [f"{r.passed:,} of {r.of:,}" for r in (gate.right, gate.wrong)]
        digits = [three_digits(value) for value in (gate.right.value, gate.wrong.value, gate.breakdown)]
        interval = between(gate.low, gate.high)
        table.add_row(gate.name, counts[0], digits[0], counts[1], digits[1], digits[2], interval)
    return table

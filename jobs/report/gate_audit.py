"""What gates do to rows that are known to be right or wrong, and up to which share of wrong rows they can be relied on.

phi = P(kept | right) and psi = P(kept | wrong), of each gate and of all together, from the labelled rows of a run. Feng
et al. 2025 (arXiv 2406.07515), theorem 4.2: a corpus selected by a gate teaches the right rule as long as the share of
wrong rows before it is below 1 / (1 + psi/phi), the breakdown share, and the wrong one above.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
from rich.table import Table

from gristmill.jobs.recipes.recipe import GateAuditSpec
from gristmill.jobs.report.sample import spread
from gristmill.records.readers.parquet import columns_of, open_parquet
from gristmill.records.schema import REJECT
from gristmill.records.shards import KEPT, REJECTED, shard_name
from gristmill.records.stores.contract import Store

MAX_LOTS = 20_000  # of larger runs so many lots, evenly spread
NUM_THREADS = 8
Z = 1.959964  # of a 95% interval
ALL = "all"  # gates together


@dataclass
class Slice:
    """The labelled rows of a run: how many are right (or wrong), by the stage that rejected them, "" for kept ones."""

    right: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)
    num_lots: int = 0
    num_lots_of: int = 0
    unreadable: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Rate:
    """How many of the rows that came to a gate it let pass, with Wilson's interval of the rate (95%)."""

    passed: int
    of: int
    low: float
    high: float

    @property
    def value(self) -> float | None:
        return self.passed / self.of if self.of else None


@dataclass(frozen=True)
class Audited:
    """One gate: phi (`right`), psi (`wrong`) and the breakdown share with the bounds that their intervals give it.

    None where no row came to tell."""

    name: str
    right: Rate
    wrong: Rate
    breakdown: float | None
    low: float | None
    high: float | None


def rate(passed: int, of: int) -> Rate:
    """Wilson 1927: the rates that a share of `passed` in `of` is compatible with; all of them for no row."""
    if not of:
        return Rate(0, 0, 0.0, 1.0)
    share, spread_ = passed / of, Z * Z / of
    middle = (share + spread_ / 2) / (1 + spread_)
    half = Z / (1 + spread_) * math.sqrt(share * (1 - share) / of + spread_ / (4 * of))
    return Rate(passed, of, max(0.0, middle - half) if passed else 0.0, min(1.0, middle + half) if passed < of else 1.0)


def breakdown(phi: float, psi: float) -> float | None:
    """The breakdown share; 0 for a gate that lets wrong rows pass only, None for one that lets none pass."""
    from gristmill.evaluation.laws.selection import breakdown_share

    if phi > 0:
        return breakdown_share(phi, psi)
    return 0.0 if psi > 0 else None


def audited(name: str, right: tuple[int, int], wrong: tuple[int, int]) -> Audited:
    """From (passed, came) of right rows and of wrong ones."""
    phi, psi = rate(*right), rate(*wrong)
    if phi.value is None or psi.value is None:
        return Audited(name, phi, psi, None, None, None)
    return Audited(
        name, phi, psi, breakdown(phi.value, psi.value), breakdown(phi.low, psi.high), breakdown(phi.high, psi.low)
    )


def gates(found: Slice, stages: Sequence[str]) -> list[Audited]:
    """Each stage in the order in which rows pass, then all together. Rows that the generator itself refused came to no
    gate and do not count."""
    counts = [{s: c[s] for s in ("", *stages)} for c in (found.right, found.wrong)]
    alive = [sum(c.values()) for c in counts]
    came, told = list(alive), []
    for stage in stages:
        left = [num - c[stage] for num, c in zip(alive, counts)]
        told.append(audited(stage, (left[0], alive[0]), (left[1], alive[1])))
        alive = left
    return [*told, audited(ALL, (alive[0], came[0]), (alive[1], came[1]))]


def count(store: Store, num_lots: int, spec: GateAuditSpec) -> Slice:
    """Read the label and the reason of every row, lot by lot; nothing else is read and only counts are held."""
    lots = spread(num_lots, MAX_LOTS)
    found = Slice(num_lots=len(lots), num_lots_of=num_lots)
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        for first in range(0, len(lots), NUM_THREADS):
            names = [(f, shard_name(f, lot)) for lot in lots[first : first + NUM_THREADS] for f in (KEPT, REJECTED)]
            for (_, name), told in zip(names, pool.map(lambda n: _counted(store, n[0], n[1], spec.column), names)):
                if isinstance(told, str):
                    found.unreadable.append(f"{name}: {told}")
                    continue
                for (reason, label), number in told.items():
                    side = {spec.right: found.right, spec.wrong: found.wrong}.get(label)
                    if side is not None:
                        side[reason.partition(":")[0]] += number
    return found


def _counted(store: Store, folder: str, name: str, column: str) -> Mapping[tuple[str, str], int] | str:
    """Rows by (reason, label), "" for a kept row's reason; a text says what is wrong with a shard."""
    try:
        with store.open(name) as source, open_parquet(source) as file:
            if column not in file.schema_arrow.names:
                return f"no column '{column}'"
            table = columns_of(file, [column, REJECT.name])
    except FileNotFoundError:
        return {} if folder == REJECTED else "missing"
    except (pa.ArrowInvalid, OSError) as error:
        return str(error).splitlines()[0]
    table = pa.table({"reason": table.column(REJECT.name), "label": table.column(column).cast(pa.string())})
    groups = table.group_by(["reason", "label"]).aggregate([([], "count_all")]).to_pylist()
    return {(g["reason"] or "", g["label"]): g["count_all"] for g in groups if g["label"] is not None}


def spec_of(recipe: Mapping[str, Any]) -> GateAuditSpec | None:
    """From a resolved recipe; None where it audits no gate."""
    table = recipe.get("gate_audit")
    return GateAuditSpec(**table) if table else None


def told(number: float | None) -> str:
    return "–" if number is None else f"{number:.3f}"


def between(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{low:.3f} to {high:.3f}"


def gates_table(audited_: Sequence[Audited]) -> Table:
    """What the end of a run shows."""
    table = Table(
        title="gates, by rows of known label", title_justify="left", show_header=True, box=None, padding=(0, 1)
    )
    for name in ("gate", "right kept", "phi", "wrong kept", "psi", "breakdown", "95%"):
        is_first = name == "gate"
        table.add_column(
            name, justify="left" if is_first else "right", no_wrap=not is_first, min_width=10 if is_first else None
        )
    for gate in audited_:
        counts = [f"{r.passed:,} of {r.of:,}" for r in (gate.right, gate.wrong)]
        table.add_row(
            gate.name, counts[0], told(gate.right.value), counts[1], told(gate.wrong.value), told(gate.breakdown),
            between(gate.low, gate.high),
        )  # fmt: skip
    return table

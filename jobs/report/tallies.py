"""The tables of the report: who refused how much, what it cost, what repeats, what was met of the benchmarks."""

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from gristmill.jobs.report.history import History
from gristmill.jobs.report.overlaps import MAX_ITEMS, NEAR, WAYS, Overlap, ranked
from gristmill.jobs.report.sample import Sample
from gristmill.jobs.terminal.tables import money
from gristmill.records.manifest import Manifest
from gristmill.records.shards import Summary
from gristmill.stages.registry import ADMISSION, DEDUP

MAX_LABELS = 24


@dataclass(frozen=True)
class Step:
    """A row of the yield table."""

    name: str
    entering: int
    leaving: int
    cpu: str

    @property
    def rejected(self) -> int:
        return self.entering - self.leaving


@dataclass(frozen=True)
class Refused:
    """A row of the table of rejects."""

    reason: str
    rows: int
    tokens: int | None
    cost: str


@dataclass(frozen=True)
class Met:
    """A benchmark and the items of it that were met most, by one kind of stage."""

    kind: str
    name: str
    num_items: int
    num_rejected: int
    num_below: int
    max_share: float
    top: list[tuple[str, Overlap]]


@dataclass(frozen=True)
class Looked:
    """A way in which benchmark items were looked for."""

    note: str
    is_cosine: bool
    benchmarks: list[Met]


@dataclass(frozen=True)
class Label:
    """A label of a stage that balances: rows before it and after."""

    name: str
    offered: int
    admitted: int


@dataclass(frozen=True)
class Balanced:
    """A stage that balances, with the labels that came to it most."""

    name: str
    column: str
    labels: list[Label]
    num_more: int  # labels that are not listed
    offered: int
    admitted: int


@dataclass(frozen=True)
class Cluster:
    """Kept rows with so many duplicates."""

    label: str
    num_clusters: int
    num_rows: int


def in_order(recipe: dict[str, Any]) -> list[dict[str, Any]]:
    """The stages' tables in the order in which rows pass: those that decide at commit come last."""
    return sorted(recipe["stages"], key=lambda s: (s["kind"] in DEDUP) + 2 * (s["kind"] in ADMISSION))


def yields(book: Manifest, totals: Summary) -> list[Step]:
    """Rows entering and leaving each stage in recipe order; those that decide at commit come last.

    Reasons that bear no stage's name belong to the generator.
    """
    stages = in_order(book.recipe)
    by_stage: Counter[str] = Counter()
    names = {stage["name"] for stage in stages}
    for reason, rows in totals.rejected.items():
        name = reason.partition(":")[0]
        by_stage[name if name in names else ""] += rows
    cpu_s: Counter[str] = Counter()
    for start in book.starts:
        cpu_s.update(start.get("stage_s") or {})
    steps, alive = [], totals.asks
    for name, label in [("", "generator"), *((s["name"], s["name"]) for s in stages)]:
        seconds = cpu_s[name or "make"]
        steps.append(Step(label, alive, alive - by_stage[name], f"{seconds:,.1f} s" if seconds else ""))
        alive -= by_stage[name]
    return steps


def rejects(totals: Summary, sample: Sample, cost: dict[str, Any] | None) -> tuple[list[Refused], bool]:
    """Reasons by number of rows, and whether their tokens are estimated from a sample of the lots."""
    told: dict[str, int] = getattr(totals, "rejected_tokens", None) or {}
    is_told = set(told) >= set(totals.rejected)
    scale = totals.asks / sample.num_asks if sample.num_asks else 0.0
    found = []
    for reason, rows in sorted(totals.rejected.items(), key=lambda r: (-r[1], r[0])):
        tokens = told[reason] if is_told else None
        if tokens is None and reason in sample.rejected_tokens:
            tokens = round(sample.rejected_tokens[reason] * scale)
        found.append(Refused(reason, rows, tokens, cost_of_tokens(tokens, totals, cost)))
    return found, bool(found) and not is_told and not sample.is_whole


def cost_of_tokens(tokens: int | None, totals: Summary, cost: dict[str, Any] | None) -> str:
    """The part of the cost that so many generated tokens stand for."""
    if not cost or tokens is None or not totals.tokens_out:
        return ""
    return money(cost["cost"] * tokens / totals.tokens_out)


def clusters(duplicates: Counter[str]) -> list[Cluster]:
    """Kept rows by the number of their duplicates: 1, 2, 3 to 4, 5 to 8, ..."""
    found: dict[int, list[int]] = {}
    for number in duplicates.values():
        found.setdefault((number - 1).bit_length(), []).append(number)
    rows = []
    for power, numbers in sorted(found.items()):
        first, last = (2 ** (power - 1) + 1 if power else 1), 2**power
        rows.append(Cluster(f"{first:,}" if first == last else f"{first:,} to {last:,}", len(numbers), sum(numbers)))
    return rows


def balances(book: Manifest, totals: Summary) -> list[Balanced]:
    """What came to each stage that balances and what it let by, label by label."""
    columns = {stage["name"]: stage.get("column", "") for stage in book.recipe["stages"]}
    found = []
    for name, offered in totals.offered.items():
        admitted = totals.admitted.get(name, {})
        order = sorted(offered, key=lambda label: (-offered[label], label))
        labels = [Label(label or "(none)", offered[label], admitted.get(label, 0)) for label in order]
        sums = sum(offered.values()), sum(admitted.values())
        found.append(Balanced(name, columns[name], labels[:MAX_LABELS], max(0, len(labels) - MAX_LABELS), *sums))
    return found


def contamination(sample: Sample) -> list[Met]:
    """Benchmarks with the items that were met most, for each way in which they were looked for."""
    found = []
    for way in WAYS:
        for name, items in ranked(sample.overlaps, way.kind).items():
            overlaps = [overlap for _, overlap in items]
            num_rejected, num_below = sum(o.num_rejected for o in overlaps), sum(o.num_below for o in overlaps)
            share = max(o.max_share for o in overlaps)
            found.append(Met(way.kind, name, len(items), num_rejected, num_below, share, items[:MAX_ITEMS]))
    return found


def looked_for(recipe: dict[str, Any], sample: Sample) -> list[Looked]:
    """The ways in which benchmark items were looked for, with what each met."""
    met = contamination(sample)
    found = []
    for way in WAYS:
        if way.kind in sample.ways:
            limits = [s[way.threshold] for s in recipe["stages"] if s["kind"] == way.kind and way.threshold in s]
            limit = limits[0] if limits else None
            if way.is_measured:
                at = f"{limit:g}" if limit is not None else "the stage"
                note = (
                    "Rows whose meaning is near that of a benchmark item, by the cosine of embeddings, with the words "
                )
                note += (
                    f"that are. Below the threshold of {at} they are not rejected for it; those further below it than "
                )
                note += f"{NEAR:g} are not listed."
            else:
                at = f"{limit:.0%} of an item" if limit is not None else "the stage"
                note = "Rows that share n-grams with benchmark items, with the longest stretch that they share. "
                note += f"Below the threshold of {at} they are not rejected for it."
            found.append(Looked(note, way.is_measured, [m for m in met if m.kind == way.kind]))
    return found


def lengths_note(sample: Sample) -> str:
    if not len(sample.lengths) or not sample.lengths.max():
        return ""
    low, high = int(sample.lengths.min()), int(sample.lengths.max())
    mean = sample.lengths.mean()
    return f"Generated tokens of {len(sample.lengths):,} kept rows: {low:,} to {high:,}, {mean:,.0f} on average."


def starts(book: Manifest, history: History) -> list[dict[str, Any]]:
    ends = {start.number: start.ended for start in history.starts}
    found = []
    for number, start in enumerate(book.starts, 1):
        when = datetime.fromisoformat(start["started"]).astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
        times = {"wall_s": start.get("wall_s", 0.0), "device_s": start.get("device_s", 0.0)}
        found.append({"number": number, "started": when, "host": start["host"], "ended": ends.get(number, ""), **times})
    return found


def versions(book: Manifest) -> list[tuple[str, str]]:
    """Each package with its version, or its versions by start where they differ."""
    names = dict.fromkeys(name for start in reversed(book.starts) for name in start.get("versions", {}))
    found = []
    for name in names:
        by_version: dict[str, list[str]] = {}
        for number, start in enumerate(book.starts, 1):
            by_version.setdefault(start.get("versions", {}).get(name, "none"), []).append(str(number))
        texts = [f"{version} (start {', '.join(numbers)})" for version, numbers in by_version.items()]
        found.append((name, next(iter(by_version)) if len(by_version) == 1 else "; ".join(texts)))
    return found

"""The tables of the report: rows by stage and reject reason, their cost, duplicates, benchmark hits, versions."""

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from gristmill.jobs.report.history import History
from gristmill.jobs.report.overlaps import MAX_ITEMS, NEAR, WAYS, Overlap, Way, ranked
from gristmill.jobs.report.sample import Sample
from gristmill.jobs.terminal.tables import money
from gristmill.records.output.manifest import Manifest
from gristmill.records.output.shards import Summary
from gristmill.records.schema import LIMIT, SURPLUS
from gristmill.stages.decontaminate.stage import ITEMS, ItemCounts
from gristmill.stages.registry import ADMISSION, DEDUP

MAX_LABELS = 24


@dataclass(frozen=True)
class StageYield:
    """Rows that enter and leave one stage."""

    name: str
    entering: int
    leaving: int
    cpu: str

    @property
    def rejected(self) -> int:
        return self.entering - self.leaving


@dataclass(frozen=True)
class RejectReason:
    """Rows rejected for one reason; `tokens` is None where they are not known."""

    reason: str
    rows: int
    tokens: int | None
    cost: str


@dataclass(frozen=True)
class BenchmarkHits:
    """A benchmark and its items that rows hold most often, as one kind of stage found them."""

    kind: str
    name: str
    num_items: int
    num_rejected: int
    num_below: int
    max_share: float
    top: list[tuple[str, Overlap]]


@dataclass(frozen=True)
class BenchmarkSearch:
    """One kind of search for benchmark items, with what it found."""

    note: str
    is_cosine: bool
    benchmarks: list[BenchmarkHits]
    items: list[str]  # one sentence for each benchmark: how many of its items were looked for


@dataclass(frozen=True)
class LabelCounts:
    """Rows of one label before and after a stage that balances."""

    name: str
    offered: int
    admitted: int


@dataclass(frozen=True)
class StageBalance:
    """A stage that balances, with its most frequent labels."""

    name: str
    column: str
    labels: list[LabelCounts]
    num_more: int  # labels that are not listed
    offered: int
    admitted: int


@dataclass(frozen=True)
class DuplicateCluster:
    """Kept rows with a similar number of duplicates: `label` is the range."""

    label: str
    num_clusters: int
    num_rows: int


def in_order(recipe: dict[str, Any]) -> list[dict[str, Any]]:
    """The stages' tables in the order in which rows pass them: stages that decide at commit come last."""
    return sorted(recipe["stages"], key=lambda s: (s["kind"] in DEDUP) + 2 * (s["kind"] in ADMISSION))


def yields(manifest: Manifest, totals: Summary) -> list[StageYield]:
    """Rows that enter and leave each stage, in the order in which they pass.

    Reasons without the name of a stage belong to the generator.
    """
    stages = in_order(manifest.recipe)
    by_stage: Counter[str] = Counter()
    order = [stage["name"] for stage in stages]
    if SURPLUS in totals.rejected:
        order.append(LIMIT)
    names = set(order)
    for reason, rows in totals.rejected.items():
        name = reason.partition(":")[0]
        by_stage[name if name in names else ""] += rows
    cpu_s: Counter[str] = Counter()
    for start in manifest.starts:
        cpu_s.update(start.get("stage_s") or {})
    steps, alive = [], totals.asks
    for name, label in [("", "generator"), *zip(order, order)]:
        seconds = cpu_s[name or "make"]
        steps.append(StageYield(label, alive, alive - by_stage[name], f"{seconds:,.1f} s" if seconds else ""))
        alive -= by_stage[name]
    return steps


def rejects(totals: Summary, sample: Sample, cost: dict[str, Any] | None) -> tuple[list[RejectReason], bool]:
    """Reasons, the most frequent first, and whether their tokens are estimated from the sample."""
    is_exact = set(totals.rejected_tokens) >= set(totals.rejected)
    scale = totals.asks / sample.num_asks if sample.num_asks else 0.0
    reasons = []
    for reason, rows in sorted(totals.rejected.items(), key=lambda r: (-r[1], r[0])):
        tokens = totals.rejected_tokens[reason] if is_exact else None
        if tokens is None and reason in sample.rejected_tokens:
            tokens = round(sample.rejected_tokens[reason] * scale)
        reasons.append(RejectReason(reason, rows, tokens, cost_of_tokens(tokens, totals, cost)))
    return reasons, bool(reasons) and not is_exact and not sample.is_whole


def cost_of_tokens(tokens: int | None, totals: Summary, cost: dict[str, Any] | None) -> str:
    """The share of the cost that these generated tokens stand for, as text."""
    if not cost or tokens is None or not totals.tokens_out:
        return ""
    return money(cost["cost"] * tokens / totals.tokens_out)


def clusters(duplicates: Counter[str]) -> list[DuplicateCluster]:
    """Kept rows by the number of their duplicates: 1, 2, 3 to 4, 5 to 8, ...

    `duplicates` counts them by the id of the kept row.
    """
    by_size: dict[int, list[int]] = {}
    for number in duplicates.values():
        by_size.setdefault((number - 1).bit_length(), []).append(number)
    rows = []
    for power, numbers in sorted(by_size.items()):
        first, last = (2 ** (power - 1) + 1 if power else 1), 2**power
        rows.append(
            DuplicateCluster(f"{first:,}" if first == last else f"{first:,} to {last:,}", len(numbers), sum(numbers))
        )
    return rows


def balances(manifest: Manifest, totals: Summary) -> list[StageBalance]:
    """Rows by label before and after each stage that balances."""
    columns = {stage["name"]: stage.get("column", "") for stage in manifest.recipe["stages"]}
    stages = []
    for name, offered in totals.offered.items():
        admitted = totals.admitted.get(name, {})
        order = sorted(offered, key=lambda label: (-offered[label], label))
        labels = [LabelCounts(label or "(none)", offered[label], admitted.get(label, 0)) for label in order]
        sums = sum(offered.values()), sum(admitted.values())
        stages.append(StageBalance(name, columns[name], labels[:MAX_LABELS], max(0, len(labels) - MAX_LABELS), *sums))
    return stages


def benchmark_hits(sample: Sample) -> list[BenchmarkHits]:
    """Benchmarks with the items that rows hold most often, for each kind of search."""
    hits = []
    for way in WAYS:
        for name, items in ranked(sample.overlaps, way.kind).items():
            overlaps = [overlap for _, overlap in items]
            num_rejected, num_below = sum(o.num_rejected for o in overlaps), sum(o.num_below for o in overlaps)
            share = max(o.max_share for o in overlaps)
            hits.append(BenchmarkHits(way.kind, name, len(items), num_rejected, num_below, share, items[:MAX_ITEMS]))
    return hits


def item_notes(manifest: Manifest, way: Way) -> list[str]:
    """How many items of each benchmark were looked for this way; nothing from older manifests."""
    notes = []
    for table, literals in zip(manifest.recipe["stages"], manifest.identity.get("stages", [])):
        if table["kind"] == way.kind:
            for name, (searchable, total) in literals.get(ITEMS, {}).items():
                counts = ItemCounts(searchable, total)
                notes.append(counts.line(name, table["min_words"], way.is_measured))
    return notes


def benchmark_searches(manifest: Manifest, sample: Sample) -> list[BenchmarkSearch]:
    """Each kind of search for benchmark items that the run made, with its hits."""
    recipe, hits = manifest.recipe, benchmark_hits(sample)
    searches = []
    for way in WAYS:
        if way.kind in sample.ways:
            limits = [s[way.threshold] for s in recipe["stages"] if s["kind"] == way.kind and way.threshold in s]
            limit = limits[0] if limits else None
            if way.is_measured:
                at = f"{limit:g}" if limit is not None else "the stage"
                note = (
                    "Rows whose meaning is near a benchmark item, by the cosine of embeddings, with the words that "
                    f"are. Rows below the threshold of {at} are not rejected for it. Rows more than {NEAR:g} below "
                    "the threshold are not listed."
                )
            else:
                at = f"{limit:.0%} of an item" if limit is not None else "the stage"
                note = (
                    "Rows that share n-grams with benchmark items, with the longest stretch that they share. "
                    f"Rows below the threshold of {at} are not rejected for it."
                )
            matches = [m for m in hits if m.kind == way.kind]
            searches.append(BenchmarkSearch(note, way.is_measured, matches, item_notes(manifest, way)))
    return searches


def lengths_note(sample: Sample) -> str:
    """One sentence about the lengths of kept rows; empty where no model wrote them."""
    if not len(sample.lengths) or not sample.lengths.max():
        return ""
    low, high = int(sample.lengths.min()), int(sample.lengths.max())
    mean = sample.lengths.mean()
    return f"Kept tokens of {len(sample.lengths):,} kept rows: {low:,} to {high:,}, {mean:,.0f} on average."


def starts(manifest: Manifest, history: History) -> list[dict[str, Any]]:
    """The starts of the driver: number, time, host, seconds and how each ended."""
    ends = {start.number: start.ended for start in history.starts}
    rows = []
    for number, start in enumerate(manifest.starts, 1):
        when = datetime.fromisoformat(start["started"]).astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
        times = {"wall_s": start.get("wall_s", 0.0), "device_s": start.get("device_s", 0.0)}
        rows.append({"number": number, "started": when, "host": start["host"], "ended": ends.get(number, ""), **times})
    return rows


def versions(manifest: Manifest) -> list[tuple[str, str]]:
    """Each package with its version, or with its versions by start where they differ."""
    names = dict.fromkeys(name for start in reversed(manifest.starts) for name in start.get("versions", {}))
    rows = []
    for name in names:
        by_version: dict[str, list[str]] = {}
        for number, start in enumerate(manifest.starts, 1):
            by_version.setdefault(start.get("versions", {}).get(name, "none"), []).append(str(number))
        texts = [f"{version} (start {', '.join(numbers)})" for version, numbers in by_version.items()]
        rows.append((name, next(iter(by_version)) if len(by_version) == 1 else "; ".join(texts)))
    return rows

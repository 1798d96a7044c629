"""Counts of a lot or of a run. generated = kept + rejected, always."""

import math
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from gristmill.records.output import templates
from gristmill.records.schema import REJECT, cost_columns

TOKENS_KEPT = "tokens_kept"  # the column of methods of several calls
GENERATOR_KEYS = ("asks", "kept", "tokens_out", "kept_tokens", "paid")
# Left out of the literals where there are none.
LATER = ("offered", "admitted", "rejected_shards", "templates", "generators", "paid")


@dataclass
class Summary:
    """Counts of one lot or, added up, of a run. generated = kept + sum(rejected)."""

    num_lots: int = 0
    asks: int = 0
    kept: int = 0
    rejected: dict[str, int] = field(default_factory=dict)  # by reason
    tokens_in: int = 0
    tokens_out: int = 0
    # What the model wrote and kept rows hold: `tokens_kept`, or `tokens_out` of rows of one call and of older outputs.
    kept_tokens: int = 0
    rejected_tokens: dict[str, int] = field(default_factory=dict)  # tokens_out by reason: the cost of the filters
    kept_bytes: int = 0  # unknown to the summary of a lot; filled from the listing
    rejected_shards: int = 0  # lots that have a rejected shard; 0 in the totals of a manifest of 0.2
    # Of stages that balance, by stage and label: rows that reached the stage, and kept rows.
    offered: dict[str, dict[str, int]] = field(default_factory=dict)
    admitted: dict[str, dict[str, int]] = field(default_factory=dict)
    paid: float = 0.0  # money for the calls of all rows, in the currency of the run
    templates: dict[str, dict[str, int]] = field(default_factory=dict)  # of kept texts, see records/output/templates.py
    # By generator, where a run has several: GENERATOR_KEYS, and rejected rows by reason. A reason has a colon, so that
    # it is none of the other names.
    generators: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def num_rejected(self) -> int:
        return sum(self.rejected.values())

    @property
    def spent_on_rejected(self) -> int:
        """tokens_out of rejected rows."""
        is_known = set(self.rejected_tokens) >= set(self.rejected)
        return sum(self.rejected_tokens.values()) if is_known else self.tokens_out - self.kept_tokens

    def add(self, other: "Summary") -> None:
        for name in (
            "num_lots",
            "asks",
            "kept",
            "tokens_in",
            "tokens_out",
            "kept_tokens",
            "kept_bytes",
            "rejected_shards",
            "paid",
        ):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for mine, theirs in ((self.rejected, other.rejected), (self.rejected_tokens, other.rejected_tokens)):
            for reason, count in theirs.items():
                mine[reason] = mine.get(reason, 0) + count
        _add(self.offered, other.offered)
        _add(self.admitted, other.admitted)
        _add(self.generators, other.generators)
        templates.merge(self.templates, other.templates)

    @property
    def counts(self) -> dict[str, Any]:
        """Its counts by name. The tables among them are those of the summary."""
        return {k: v for k, v in vars(self).items() if v or k not in LATER}

    def literals(self) -> dict[str, Any]:
        """A copy of `counts`."""
        return deepcopy(self.counts)


def _add(held: dict[str, dict[str, Any]], more: Mapping[str, Mapping[str, Any]]) -> None:
    for group, counts in more.items():
        sums = held.setdefault(group, {})
        for label, count in counts.items():
            sums[label] = sums.get(label, 0) + count


def by_generator(table: pa.Table) -> dict[str, dict[str, float]]:
    """The counts `generators` over the rows of a lot, in an order of names."""
    counts: dict[str, dict[str, float]] = {}
    counted = ("tokens_in", "tokens_out", TOKENS_KEPT, REJECT.name)
    columns = [*(name for name in counted if name in table.schema.names), *cost_columns(table.schema)]
    for name in sorted(pc.unique(table.column("generator")).to_pylist()):
        rows = table.select(columns).filter(pc.equal(table.column("generator"), name))
        part = summarise(rows)
        counts[name] = {key: getattr(part, key) for key in GENERATOR_KEYS} | part.rejected
    return counts


def summarise(table: pa.Table) -> Summary:
    """Counts over the rows of a lot."""
    reject = table.column(REJECT.name)
    rejects = pa.table({"reason": reject, "tokens": table.column("tokens_out")}).filter(reject.is_valid())
    groups = rejects.group_by("reason", use_threads=False)  # a thread takes longer than a lot
    by_reason = groups.aggregate([([], "count_all"), ("tokens", "sum")]).sort_by("reason")
    reasons = by_reason.column("reason").to_pylist()
    alive = reject.is_null()
    tokens_out = table.column("tokens_out")
    is_counted = TOKENS_KEPT in table.schema.names and pa.types.is_int32(table.schema.field(TOKENS_KEPT).type)
    tokens_kept = table.column(TOKENS_KEPT) if is_counted else tokens_out
    return Summary(
        num_lots=1,
        asks=table.num_rows,
        kept=reject.null_count,
        rejected=dict(zip(reasons, by_reason.column("count_all").to_pylist())),
        tokens_in=pc.sum(table.column("tokens_in")).as_py() or 0,
        tokens_out=pc.sum(tokens_out).as_py() or 0,
        kept_tokens=pc.sum(tokens_kept.filter(alive)).as_py() or 0,
        rejected_tokens={r: n or 0 for r, n in zip(reasons, by_reason.column("tokens_sum").to_pylist())},
        rejected_shards=int(reject.null_count < len(reject)),
        # The exact sum, rounded once: it does not depend on the order of the rows.
        paid=math.fsum(v for name in cost_columns(table.schema) for v in table.column(name).drop_null().to_pylist()),
        templates=templates.count(table.select([templates.COLUMN]).filter(alive))
        if templates.COLUMN in table.schema.names
        else {},
    )

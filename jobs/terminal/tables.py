"""Tables that verbs print, and how they write seconds and money."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from gristmill.records.output import templates
from gristmill.records.output.shards import Summary
from gristmill.records.printable import printable
from gristmill.records.schema import LIMIT, SURPLUS


def clock(seconds: float) -> str:
    """12 s, 3 min 20 s, 2 h 05 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def money(amount: float | None) -> str:
    """Two decimals from 1 on, else three significant digits; empty for None."""
    if amount is None:
        return ""
    digits = 2 if amount >= 1 or amount <= 0 else min(12, 2 - math.floor(math.log10(amount)))
    return f"{amount:,.{digits}f}"


def totals_table(totals: Summary, title: str) -> Table:
    """generated = kept + rejected by reason, with tokens."""
    table = Table(title=title, title_justify="left", show_header=False, box=None, padding=(0, 2))
    table.add_column(style="bold")
    table.add_column(justify="right")
    table.add_column(justify="right")

    def share(count: int) -> str:
        return f"{count / totals.asks:.1%}" if totals.asks else ""

    table.add_row("generated", f"{totals.asks:,}", "rows")
    table.add_row("kept", f"{totals.kept:,}", share(totals.kept))
    for reason, count in sorted(totals.rejected.items(), key=lambda r: (-r[1], r[0])):
        table.add_row(f"rejected {reason}", f"{count:,}", share(count))
    table.add_row("tokens in", f"{totals.tokens_in:,}", "")
    table.add_row("tokens out", f"{totals.tokens_out:,}", "")
    table.add_row("kept tokens", f"{totals.kept_tokens:,}", "")
    for kind in templates.KINDS:
        for best in templates.top(totals.templates, kind)[
            : templates.num_texts(totals.templates) >= templates.MIN_TEXTS
        ]:
            table.add_row(f"most frequent {kind.removesuffix('s')}", f"{best.share:.1%}", printable(best.mark))
    table.add_row("lots", f"{totals.num_lots:,}", "")
    table.add_row("kept bytes", f"{totals.kept_bytes:,}", "")
    return table


def cost_table(totals: Summary, stages: Sequence[str], cost: Mapping[str, Any]) -> Table:
    """Yield by stage, what the filters cost in tokens, and money where there is a price."""
    table = Table(title="yield and cost", title_justify="left", show_header=True, box=None, padding=(0, 2))
    for name in ("stage", "rows in", "rejected", "yield", "tokens spent on them"):
        table.add_column(name, justify="left" if name == "stage" else "right")
    rows = totals.asks
    for stage in ["generator", *stages, *([LIMIT] if SURPLUS in totals.rejected else [])]:
        lost = _of_stage(totals.rejected, stage)
        if lost or stage != "generator":
            share = f"{1 - lost / rows:.1%}" if rows else ""
            tokens = _of_stage(totals.rejected_tokens, stage)
            table.add_row(stage, f"{rows:,}", f"{lost:,}", share, f"{tokens:,}" if tokens else "")
        rows -= lost
    spent = f"{sum(totals.rejected_tokens.values()) / totals.tokens_out:.1%}" if totals.tokens_out else ""
    table.add_row("all", f"{totals.asks:,}", f"{totals.num_rejected:,}", "", spent)
    if cost.get("device_s"):
        table.add_row("device-seconds", f"{cost['device_s']:,.0f}", "", "", "")
    if cost.get("cost") is not None:
        unit = cost["currency"]
        table.add_row("cost", f"{money(cost['cost'])} {unit}", "", "", "")
        if cost.get("paid"):
            table.add_row("of it for calls", f"{money(cost['paid'])} {unit}", "", "", "")
        for name, key in (("per kept row", "per_kept_row"), ("per 1,000 kept tokens", "per_1000_kept_tokens")):
            if cost.get(key) is not None:
                table.add_row(name, f"{money(cost[key])} {unit}", "", "", "")
    return table


def _of_stage(counts: Mapping[str, int], stage: str) -> int:
    return sum(count for reason, count in counts.items() if reason.partition(":")[0] == stage)

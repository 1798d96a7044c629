"""Previewed rows for people: a panel for each row, with its words and a line for each stage."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from gristmill.jobs.preview.rows import NOT_RUN, PASS
from gristmill.jobs.terminal.console import SafeConsole
from gristmill.records.printable import printable

MAX_CHARS = 1200  # of a column
MAX_SOURCE_CHARS = 400  # of a column of the source
MAX_TURN_CHARS = 500  # of the prompt and of the answer of a call
MAX_FINDING_CHARS = 160
STYLES = {PASS: "green", NOT_RUN: "dim"}


def show_rows(rows: Sequence[Mapping[str, Any]], console: SafeConsole) -> None:
    """Print the rows and a summary."""
    for number, row in enumerate(rows, 1):
        console.print(row_panel(row, f"row {number} of {len(rows)}"))
    console.print_line(summary(rows))


def summary(rows: Sequence[Mapping[str, Any]]) -> str:
    """How many rows are kept, and why the others are not."""
    reasons = Counter(row["reject"] for row in rows if row["reject"])
    num_kept = len(rows) - sum(reasons.values())
    words = ", ".join(f"{number} {reason}" for reason, number in reasons.most_common())
    return f"kept {num_kept} of {len(rows)} rows{'; rejected: ' if words else ''}{words}"


def row_panel(row: Mapping[str, Any], title: str) -> Panel:
    verdict = f"rejected {row['reject']}" if row["reject"] else "kept"
    parts: list[RenderableType] = []
    for name, value in row["source"].items():
        if row["columns"].get(name) != value:  # shown once
            parts += _part(f"source: {name}", value, MAX_SOURCE_CHARS, "dim")
    for turn in row.get("turns") or ():
        tokens = f"{turn.get('tokens_in')} tokens in, {turn.get('tokens_out')} out"
        parts += _part(f"call {turn.get('turn')}: prompt", turn.get("prompt"), MAX_TURN_CHARS, "dim")
        parts += _part(f"call {turn.get('turn')}: answer ({tokens})", turn.get("text"), MAX_TURN_CHARS, "dim")
    for name, value in row["columns"].items():
        parts += _part(name, value, MAX_CHARS, "")
    facts = [f"finish {row['finish']}"] if row["finish"] else []
    facts += [f"{row[key]:,} {key.replace('_', ' ')}" for key in ("tokens_in", "tokens_out") if row[key]]
    if facts:
        parts.append(Text(", ".join(facts), style="dim"))
    parts.append(stages_table(row["stages"]))
    style = "red" if row["reject"] else "green"
    return Panel(Group(*parts), title=Text(f"{title}: {verdict}"), title_align="left", border_style=style)


def _part(name: str, value: Any, most: int, style: str) -> list[RenderableType]:
    """A column with its name: short values on the line of the name, messages a line each, long texts below it."""
    if value is None:
        return []
    label = Text(printable(name), style="bold")
    if _is_talk(value):
        return [label, *(Text(f"{message['role']}: {_cut(_words(message), most)}", style) for message in value)]
    text = _cut(_text(value), most)
    if "\n" not in text and len(text) <= 60:
        return [label.append(f"  {text}", style=style or "not bold")]
    return [label, Text(text, style=style)]


def _is_talk(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, Mapping) and "role" in v for v in value)


def _words(message: Mapping[str, Any]) -> str:
    """The content of a message, and what else it holds, such as calls of tools."""
    others = {k: v for k, v in message.items() if k not in ("role", "content") and v}
    return " ".join(_text(part) for part in (message.get("content"), others) if part)


def _text(value: Any) -> str:
    """A value as text that a terminal can show, with its lines."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return "\n".join(printable(line) for line in text.strip().splitlines())


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most].rstrip()} … ({len(text):,} characters)"


def stages_table(stages: Sequence[Mapping[str, Any]]) -> Table:
    """A line for each stage: verdict, reason and findings."""
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for stage in stages:
        verdict = stage["verdict"] if stage["reason"] is None else f"reject {stage['reason']}"
        findings = ", ".join(f"{name} = {_finding(value)}" for name, value in stage["findings"].items())
        style = STYLES.get(stage["verdict"], "red")
        table.add_row(Text(stage["stage"]), Text(verdict, style=style), Text(printable(findings), style="dim"))
    return table


def _finding(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    return _cut(" ".join(_text(value).split()), MAX_FINDING_CHARS)

"""Terminal output of a comparison: the plan, and one table of all corpora."""

from typing import Any

from rich.table import Table

from gristmill.generators.lm.student import unit_name
from gristmill.jobs.compare.inputs import CompareArgs, Comparison
from gristmill.records.printable import printable
from gristmill.records.stores.contract import Store


def plan_table(args: CompareArgs, comparison: Comparison, store: Store) -> Table:
    """What would be trained."""
    table = Table(title="compare (dry run)", title_justify="left", show_header=False, box=None, padding=(0, 2))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    task, units = comparison.task, comparison.units(args.num_seeds)
    for corpus in comparison.corpora:
        table.add_row(printable(corpus.name), f"{corpus.num_texts:,} texts of {printable(corpus.path)}")
    num_done = sum(store.exists(unit_name(unit.key)) for unit in units)
    table.add_row(
        "students", f"{len(units)} ({len(comparison.corpora)} corpora x {args.num_seeds} seeds), {num_done} done"
    )
    table.add_row("tokens of a student", f"{task.num_tokens:,}, {task.model['epochs']:g} times")
    table.add_row("held-out blocks", f"{len(task.holdout):,} of {task.model['length']} tokens")
    table.add_row("probes", ", ".join(f"{name}: {len(items)} items" for name, items in task.probes.items()) or "none")
    for note in comparison.notes:
        table.add_row("note", printable(note))
    return table


def compare_table(compare_file: dict[str, Any]) -> Table:
    """A row for each corpus, the best first, with 95 % intervals over seeds; those of probes are on the page."""
    table = Table(title="students, judged on held-out real text", title_justify="left", box=None, padding=(0, 1))
    rows = compare_file["summary"]
    names = list(rows[0]["probes"]) if rows else []
    table.add_column("corpus", overflow="fold")
    for name in ("bits per byte", "to real", "perplexity"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in names:
        table.add_column(name.replace("_", " "), justify="right")
    for row in rows:
        cells = [between(row["bits_per_byte"], 4), between(row["to_real"], 4, sign="+"), between(row["perplexity"], 1)]
        cells += [f"{row['probes'][name]['mean']:.3f}" for name in names]
        table.add_row(printable(row["corpus"]), *cells)
    return table


def between(interval: dict[str, Any] | None, digits: int, sign: str = "") -> str:
    """ "1.234 ± 0.005"; the mean alone where there is one seed; "" for None."""
    if interval is None:
        return ""
    mean = f"{interval['mean']:{sign}.{digits}f}"
    return mean if interval["half"] is None else f"{mean} ± {interval['half']:.{digits}f}"

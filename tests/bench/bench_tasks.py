"""Rows a second of sources that compute their rows, on one core. Times are CPU seconds of this process."""

from typing import Any

from gristmill.records.readers.sources import SourceSpec, open_source
from gristmill.records.tasks.registry import ANSWERS, PROGRAMS
from tests.bench.bench_decontaminate import cpu_s

NUM_ROWS = 2000


def bench() -> list[dict[str, Any]]:
    table = {"table": "package:adult/train", "attributes": ["age", "sex", "education"], "persona": "A {age}-year-old."}
    sources: dict[str, tuple[str, dict[str, Any]]] = {
        f"tasks with text answers, level {level}": ("tasks", {"families": ANSWERS, "levels": [level]})
        for level in (1, 5, 10)
    }
    sources["tasks with programs, levels 1 to 5"] = "tasks", {"families": PROGRAMS}
    sources |= {"personas by shipped shares": ("personas", {}), "personas by a table": ("personas", table)}
    rows = []
    for what, (kind, keys) in sources.items():
        source = open_source(SourceSpec(kind=kind, keys=keys))
        rate = NUM_ROWS / cpu_s(lambda source=source: source.rows(0, NUM_ROWS), 1)  # type: ignore[misc]
        rows.append({"what": f"{what}, rows/s on one core", "value": f"{rate:,.0f}"})
    return rows

"""Which rows were met as a benchmark's, and which were rejected for it."""

from types import SimpleNamespace
from typing import Any

import pyarrow as pa

from gristmill.jobs.report.overlaps import WAYS, Overlaps, count
from gristmill.jobs.report.tallies import item_notes
from gristmill.stages.decontaminate.stage import ITEMS

EMBEDDING = next(way for way in WAYS if way.kind == "decontaminate_embedding")
STAGES = [{"kind": "decontaminate_embedding", "name": "meaning", "threshold": 0.7}, {"kind": "novelty", "name": "new"}]


def met(*rows: tuple[float, str | None]) -> Overlaps:
    table = pa.table(
        {
            "similar_benchmark": ["humaneval"] * len(rows),
            "similar_item": [f"HumanEval/{n}" for n in range(len(rows))],
            "similarity": pa.array([score for score, _ in rows], pa.float32()),
            "similar_start": pa.array([0] * len(rows), pa.int32()),
            "similar_end": pa.array([5] * len(rows), pa.int32()),
            "reject": pa.array([reason for _, reason in rows], pa.string()),
        }
    )
    found: Overlaps = {}
    count(found, EMBEDDING, STAGES, table, "rejected/part-00000000.parquet")
    return found


def test_only_the_stage_itself_rejects_for_it() -> None:
    found = met((0.9, "meaning:similar"), (0.2, "new:similar"), (0.69, "new:similar"), (0.9, "rules:x"))
    told = {item: (overlap.num_rejected, overlap.num_below) for (_, _, item), overlap in found.items()}
    assert told == {"HumanEval/0": (1, 0), "HumanEval/2": (0, 1), "HumanEval/3": (0, 1)}


def test_items_that_are_looked_for_are_on_the_page() -> None:
    stages = [{"kind": "dedup", "name": "dedup"}, {"kind": "decontaminate", "name": "clean", "min_words": 8}]
    literals = [{"name": "dedup"}, {"name": "clean", ITEMS: {"geo": [1, 3], "human-eval": [164, 164]}}]
    manifest: Any = SimpleNamespace(recipe={"stages": stages}, identity={"stages": literals})
    assert item_notes(manifest, WAYS[0]) == [
        "geo: 1 of 3 items is looked for; 2 are shorter than 8 words",
        "human-eval: 164 of 164 items are looked for",
    ]
    assert item_notes(manifest, WAYS[1]) == []
    del literals[1][ITEMS]  # an older manifest
    assert item_notes(manifest, WAYS[0]) == []

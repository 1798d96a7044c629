"""Flows of canned steps that tests write."""

from copy import deepcopy
from pathlib import Path
from typing import Any

from tests.recipes import write

TOPICS: dict[str, Any] = {
    "name": "topics",
    "lot_size": 16,
    "source": {"items": [{"field": "rivers"}, {"field": "glass"}], "cycle": True, "carry": ["field"]},
    "generator": {"kind": "canned", "num_words": 12},
    "method": {"kind": "prompt", "template": "Name a topic about {field}."},
    "limits": {"asks": 96},
}
TEXTS: dict[str, Any] = {
    "name": "texts",
    "lot_size": 32,
    "source": {"path": "step:topics", "samples": 2, "together": True, "carry": ["field"], "id_column": "id"},
    "generator": {"kind": "canned", "num_words": 60, "duplicates": 0.2},
    "method": {"kind": "prompt", "template": "Write about {text}."},
    "stages": [{"kind": "dedup"}],
}
JUDGED: dict[str, Any] = {
    "name": "judged",
    "lot_size": 16,
    "source": {"path": "step:texts", "carry": ["field"]},
    "generator": {"kind": "passthrough", "origin": "synthetic"},
    "stages": [{"kind": "rules"}],
}


def step(name: str, verb: str = "produce", **keys: Any) -> dict[str, Any]:
    return {"name": name, "verb": verb, **keys}


def chain(**changes: dict[str, Any]) -> list[dict[str, Any]]:
    """Three produce steps, each reading the one before; `changes` are further keys of a step, by its name."""
    recipes = {"topics": TOPICS, "texts": TEXTS, "judged": JUDGED}
    return [step(name, recipe=deepcopy(recipe), **changes.get(name, {})) for name, recipe in recipes.items()]


def flow_file(folder: Path, steps: list[dict[str, Any]], **keys: Any) -> str:
    """The path of a flow file with these steps."""
    return write(folder / "flow.toml", {"name": "flow-test", **keys, "steps": steps})

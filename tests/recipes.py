"""Recipes that tests write."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

from gristmill.jobs.first_use import RECIPE

STAGES: list[dict[str, Any]] = RECIPE["stages"]


# Runs that are to be disturbed are paced, so that they are not over before they are; others need not wait.
AT_ONCE = ("--set", "generator.seconds_per_ask=0")


def canned(folder: Path, num_asks: int = 640, lot_size: int = 32, **changes: Any) -> str:
    """The path of a recipe for the canned generator that has rows for every verdict.

    A table in `changes` is merged into the default's; None takes a key out.
    """
    recipe: dict[str, Any] = {
        **deepcopy(RECIPE),
        "name": "canned-test",
        "lot_size": lot_size,
        "limits": {"asks": num_asks},
        "cluster": {"num_cpus": 2},
    }
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(recipe.get(key), dict):
            recipe[key] = {k: v for k, v in {**recipe[key], **value}.items() if v is not None}
        else:
            recipe[key] = value
    return write(folder / "recipe.toml", recipe)


def teacher(folder: Path, num_asks: int = 24, lot_size: int = 8, **changes: Any) -> str:
    """The path of a recipe for the real engine with the small model."""
    recipe: dict[str, Any] = {
        "name": "teacher-test",
        "lot_size": lot_size,
        "source": {"items": ["a river", "a bridge", "the harvest", "glass"], "cycle": True},
        "generator": {"kind": "teacher", "model": "package:smollm2", "sampling": {"max_tokens": 40}},
        "method": {"kind": "prompt", "template": "Write two sentences about {text}."},
        "stages": [{"kind": "language"}, {"kind": "dedup"}],
        "limits": {"asks": num_asks},
        "cluster": {"num_cpus": 2},
        **changes,
    }
    return write(folder / "teacher.toml", recipe)


def write(path: Path, recipe: dict[str, Any]) -> str:
    """TOML by way of inline tables: JSON values are TOML values but for the colon and null, whose keys are left out."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{key} = {_inline(value)}\n" for key, value in recipe.items() if value is not None))
    return str(path)


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {_inline(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_inline(v) for v in value) + "]"
    return json.dumps(value)

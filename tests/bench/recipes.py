"""Recipes of the benchmarks."""

from pathlib import Path
from typing import Any

from tests.recipes import STAGES, canned, write

TOPICS = [
    "the water cycle",
    "simple machines",
    "how bread is baked",
    "the history of maps",
    "bird migration",
    "prime numbers",
]


def whole_cpu_side(folder: Path, num_asks: int, lot_size: int) -> str:
    """Canned rows of 500 tokens (some 375 words of English) through every stage, none left out."""
    generator = {"num_words": 375, "duplicates": 0.02, "contaminated": 0.005, "bad": 0.02}
    return canned(folder, num_asks, lot_size, generator=generator, stages=STAGES)


def teacher(folder: Path, num_asks: int, lot_size: int, engine: dict, max_tokens: int, **changes: Any) -> str:
    recipe = {
        "name": "bench-teacher",
        "lot_size": lot_size,
        "source": {"items": TOPICS, "cycle": True},
        "generator": {
            "kind": "teacher",
            "model": "package:smollm2",
            "engine": engine,
            "sampling": {"max_tokens": max_tokens, "temperature": 0.8},
        },
        "method": {"kind": "prompt", "template": "Write a short lesson about {text}."},
        "stages": STAGES,
        "limits": {"asks": num_asks},
        **changes,
    }
    return write(folder / "teacher.toml", recipe)

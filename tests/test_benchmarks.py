"""Every benchmark can be started: what it imports is still there."""

import importlib
from pathlib import Path

import pytest

NAMES = sorted(path.stem for path in Path(__file__).parent.glob("bench/bench_*.py"))


@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_has_all_that_it_imports(name: str) -> None:
    assert callable(importlib.import_module(f"tests.bench.{name}").bench)

"""Whole runs of every method: other replicas and other numbers of lots in flight write the same bytes."""

from pathlib import Path

import pytest

from gristmill.generators.text.registry import KINDS
from gristmill.jobs.produce.command import produce
from tests.generators.text.test_every_method import TABLES, fields
from tests.outputs import kept_hashes
from tests.recipes import write

QUICK = ("annotate", "dialogue")  # gathered calls, and calls one after another; the others are nightly
NUM_LOTS = 5
WIDE = {"window": 4, "replicas": 2, "lots_per_replica": 2}


@pytest.mark.parametrize("kind", [k if k in QUICK else pytest.param(k, marks=pytest.mark.nightly) for k in KINDS])
def test_the_same_bytes_whatever_the_cluster(kind: str, ray_session: None, tmp_path: Path) -> None:
    def run(name: str, pooled: bool, cluster: dict) -> dict[str, str]:
        recipe = {
            "name": "every-method",
            "lot_size": 6,
            "source": {"items": [fields(n) for n in range(10)], "samples": 3},
            "generator": {"kind": "canned", "num_words": 40, "bad": 0.2, "duplicates": 0.1, "pooled": pooled},
            "method": {"kind": kind, **TABLES.get(kind, {})},
            "stages": [{"kind": "finish"}, {"kind": "dedup"}],
            "cluster": cluster,
        }
        recipe["generator"]["seconds_per_ask"] = 1e-4 if pooled else 0.0  # the pooled one waits, the other never does
        assert produce(write(tmp_path / f"{name}.toml", recipe), str(tmp_path / name)).exit_code == 0
        return kept_hashes(str(tmp_path / name))

    narrow = run("narrow", False, {"window": 1})
    assert len([n for n in narrow if n.startswith("kept/")]) == NUM_LOTS
    assert run("wide", True, WIDE) == narrow

"""The stage `best_of`: of the living samples of each source row, the best are kept."""

import math
from collections import defaultdict
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.jobs.recipes.compile import compile_recipe
from gristmill.jobs.recipes.recipe import load
from gristmill.records.errors import UserError
from gristmill.records.readers.sources import SourceSpec, open_source
from gristmill.stages.contract import RunContext
from gristmill.stages.judging.best_of import BestOf, BestOfSpec

SCHEMA = pa.schema(
    [
        ("lot", pa.int64()),
        ("row", pa.int32()),
        ("source_id", pa.string()),
        ("score", pa.float32()),
        ("reject", pa.string()),
    ]
)
SCORES = st.one_of(st.none(), st.just(math.nan), st.integers(-3, 3).map(float))


def best_of(scores: list[tuple[float | None, str | None]], samples: int, **settings: Any) -> list[dict[str, Any]]:
    stage = BestOf(BestOfSpec(score="score", **settings))
    source = open_source(SourceSpec(items=("a",), samples=samples, together=True))
    stage.bind(RunContext(source, "0" * 32, 0, samples * 100))
    rows = [
        {"lot": 3, "row": n, "source_id": "one", "score": score, "reject": reject}
        for n, (score, reject) in enumerate(scores)
    ]
    found: list[dict[str, Any]] = stage.run(pa.RecordBatch.from_pylist(rows, SCHEMA)).to_pylist()
    return found


def test_the_best_is_kept_and_the_earlier_of_equals() -> None:
    rows = best_of([(2.0, None), (5.0, None), (5.0, None), (9.0, "judge:score"), (None, None), (1.0, None)], 3)
    assert [row["reject"] for row in rows] == [
        *("best_of:worse", None, "best_of:worse"),
        *("judge:score", "best_of:no_score", None),
    ]
    assert [row["best_of_rank"] for row in rows] == [3, 1, 2, None, None, 1]
    assert [row["best_of_size"] for row in rows] == [3, 3, 3, None, None, 1]
    lowest = best_of([(2.0, None), (5.0, None), (1.0, None)], 3, lowest=True, keep=2)
    assert [row["reject"] for row in lowest] == [None, "best_of:worse", None]


@given(
    st.lists(st.tuples(SCORES, st.sampled_from([None, None, "x:y"])), max_size=40), st.integers(2, 5), st.integers(1, 3)
)
def test_as_sorting_each_group_would_say(
    scores: list[tuple[float | None, str | None]], samples: int, keep: int
) -> None:
    rows = best_of(scores, samples, keep=keep)
    groups: dict[int, list[tuple[float, int]]] = defaultdict(list)
    for number, (score, reject) in enumerate(scores):
        if reject is None and score is not None and not math.isnan(score):
            groups[number // samples].append((-score, number))
    expected = {number: rank for group in groups.values() for rank, (_, number) in enumerate(sorted(group), 1)}
    for number, row in enumerate(rows):
        assert row["best_of_rank"] == expected.get(number)
        assert row["best_of_size"] == (len(groups[number // samples]) if number in expected else None)
        if number in expected:
            assert row["reject"] == (None if expected[number] <= keep else "best_of:worse")
        else:
            assert row["reject"] == (scores[number][1] or "best_of:no_score")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": {"items": ["a"], "samples": 4}}, r"set source.samples, and source.together = true"),
        ({"lot_size": 10}, r"lot_size = 10 must be a multiple of source.samples = 4"),
        ({"stages": [{"kind": "best_of"}]}, r"reads column 'judge_score', which is not there"),
        ({"stages": [{"kind": "best_of", "score": "text"}]}, r"reads column 'text', which holds no number"),
        ({"stages": [{"kind": "best_of", "score": "tokens_out", "keep": 0}]}, r"keep must be at least 1"),
        ({"cluster": {"pools": {"best_of": {}}}}, r"cluster.pools.best_of: best_of has no engine; it compares rows"),
    ],
)
def test_refuses_in_one_line(changes: dict[str, Any], message: str) -> None:
    recipe = {
        "name": "best",
        "lot_size": 8,
        "source": {"items": ["a", "b"], "samples": 4, "together": True},
        "generator": {"kind": "canned"},
        "stages": [{"kind": "best_of", "score": "tokens_out"}],
    }
    compile_recipe(load(recipe))
    with pytest.raises(UserError, match=message) as caught:
        compile_recipe(load({**recipe, **changes}))
    assert "\n" not in str(caught.value)

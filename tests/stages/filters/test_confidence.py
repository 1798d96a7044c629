"""The stage `confidence`: thresholds of logprobs, and rows without them."""

from typing import Any

import pyarrow as pa
import pytest

from gristmill.records.errors import UserError
from gristmill.records.schema import REJECT
from gristmill.records.spec import build
from gristmill.stages.filters.confidence import Confidence, ConfidenceSpec

ROWS = [(-0.1, -2.0, 0.2), (-2.0, -2.0, 0.2), (-0.1, -9.0, 0.2), (-0.1, -2.0, 3.0), (None, None, None)]
NAMES = ("logprob_mean", "logprob_min", "entropy")


def rejects(**table: Any) -> list[str | None]:
    stage = Confidence(build(ConfidenceSpec, table, "stage"))
    columns = [pa.array(values, pa.float32()) for values in zip(*ROWS)]
    batch = pa.RecordBatch.from_arrays([*columns, pa.nulls(len(ROWS), pa.string())], names=[*NAMES, REJECT.name])
    found: list[str | None] = stage.run(batch).column(REJECT.name).to_pylist()
    return found


def test_each_threshold_rejects_by_its_name() -> None:
    missing = "confidence:no_logprobs"
    assert rejects(min_mean=-1.0) == [None, "confidence:mean", None, None, missing]
    assert rejects(min_min=-5.0) == [None, None, "confidence:min", None, missing]
    assert rejects(max_entropy=1.0) == [None, None, None, "confidence:entropy", missing]
    assert rejects(min_mean=-1.0, min_min=-5.0, max_entropy=1.0) == [
        *(None, "confidence:mean", "confidence:min", "confidence:entropy", missing)
    ]
    assert rejects(min_mean=-2.0, min_min=-9.0, max_entropy=3.0)[:4] == [None] * 4  # a threshold itself passes


@pytest.mark.parametrize("table", [{}, {"min_mean": 0.5}, {"min_min": 1.0}, {"max_entropy": -0.1}])
def test_thresholds_that_cannot_be_are_refused(table: dict[str, float]) -> None:
    with pytest.raises(UserError, match="stage: "):
        build(ConfidenceSpec, table, "stage")


def test_it_reads_only_the_columns_of_its_thresholds() -> None:
    assert Confidence(ConfidenceSpec(max_entropy=1.0)).reads() == ["entropy"]
    assert Confidence(ConfidenceSpec(min_mean=-1.0)).refuses(pa.field("logprob_mean", pa.string())) is not None

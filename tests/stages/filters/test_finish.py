"""Truncated rows and rows without a finish are refused."""

import pyarrow as pa
import pytest

from gristmill.records.errors import UserError
from gristmill.records.spec import build
from gristmill.stages.filters.finish import Finish, FinishSpec


def reject(table: dict[str, object], finishes: list[str | None]) -> list[str | None]:
    columns = {"finish": pa.array(finishes, pa.string()), "reject": pa.nulls(len(finishes), pa.string())}
    made = Finish(build(FinishSpec, table, "stages[0]"))
    return made.run(pa.RecordBatch.from_pydict(columns)).column("reject").to_pylist()


def test_only_a_stop_passes() -> None:
    assert reject({}, ["stop", "length", None, "abort"]) == [None, "finish:length", "finish:unknown", "finish:abort"]


def test_others_can_be_allowed() -> None:
    assert reject({"allow": ["stop", "length"]}, ["stop", "length", None]) == [None, None, "finish:unknown"]


def test_allowing_nothing_is_refused() -> None:
    with pytest.raises(UserError, match="at least one"):
        build(FinishSpec, {"allow": []}, "stages[0]")

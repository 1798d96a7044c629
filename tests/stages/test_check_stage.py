"""The law checker catches a stage that breaks a law, for each law, and names the law."""

from collections.abc import Callable
from typing import Any, ClassVar

import pyarrow as pa
import pytest

from gristmill.stages.contract import Findings, Stage
from gristmill.testing import check_stage, random_batches

COLUMN = pa.field("length", pa.int32())


class Length(Stage):
    """Adds the length of a text and rejects empty texts. Keeps all laws."""

    kind: ClassVar[str] = "length"

    def __init__(self) -> None:
        super().__init__(None)
        self.calls = 0

    def columns(self) -> list[pa.Field]:
        return [COLUMN]

    def find(self, rows: pa.RecordBatch) -> Findings:
        self.calls += 1
        lengths = [len(text or "") for text in rows.column("text").to_pylist()]
        reasons = pa.array([None if length else "empty" for length in lengths], pa.string())
        return Findings({COLUMN.name: pa.array(lengths, COLUMN.type)}, reasons)


def with_column(batch: pa.RecordBatch, name: str, values: list[Any]) -> pa.RecordBatch:
    place = batch.schema.get_field_index(name)
    return batch.set_column(place, batch.schema.field(place), pa.array(values, batch.schema.field(place).type))


def constant(batch: pa.RecordBatch, name: str, value: Any) -> pa.RecordBatch:
    return with_column(batch, name, [value] * batch.num_rows)


def rejects(batch: pa.RecordBatch, change: Callable[[str], str | None]) -> pa.RecordBatch:
    values = batch.column("reject").to_pylist()
    return with_column(batch, "reject", [None if value is None else change(value) for value in values])


def counts(stage: Length, batch: pa.RecordBatch) -> pa.RecordBatch:
    alive = batch.column(COLUMN.name).is_valid().to_pylist()
    return with_column(batch, COLUMN.name, [stage.calls if is_alive else None for is_alive in alive])


# What becomes of the answer of `Length`, and the law that this breaks.
CHANGES: dict[str, tuple[int, Callable[[Length, pa.RecordBatch], pa.RecordBatch]]] = {
    "drops a row": (1, lambda stage, batch: batch.slice(0, max(0, batch.num_rows - 1))),
    "doubles the rows": (1, lambda stage, batch: pa.concat_batches([batch, batch])),
    "reverses the rows": (2, lambda stage, batch: batch.take(pa.array(range(batch.num_rows)[::-1], pa.int64()))),
    "changes an id": (3, lambda stage, batch: constant(batch, "id", "x")),
    "changes a seed": (3, lambda stage, batch: constant(batch, "seed", 1)),
    "changes the text": (3, lambda stage, batch: constant(batch, "text", "x")),
    "adds an undeclared column": (4, lambda stage, batch: batch.append_column("more", pa.nulls(batch.num_rows))),
    "leaves a declared column out": (4, lambda stage, batch: batch.drop_columns([COLUMN.name])),
    "leaves the id out": (4, lambda stage, batch: batch.drop_columns(["id"])),
    "revives a row": (5, lambda stage, batch: rejects(batch, lambda reason: None)),
    "changes a reason": (5, lambda stage, batch: rejects(batch, lambda reason: "length:other")),
    "rejects without its name": (5, lambda stage, batch: rejects(batch, lambda reason: reason[len("length:") :])),
    "gives dead rows findings": (6, lambda stage, batch: constant(batch, COLUMN.name, 1)),
    "counts its calls": (7, counts),
}


class Changed(Length):
    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what

    def run(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        return CHANGES[self.what][1](self, super().run(batch))


class Unpicklable(Length):
    def __init__(self) -> None:
        super().__init__()
        self.handle = lambda: None


class Forgetful(Length):
    """Loses, when it is pickled, what decides its answers."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = 2

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "factor": 1}

    def run(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        lengths = super().run(batch).column(COLUMN.name).to_pylist()
        values = [None if length is None else self.factor * length for length in lengths]
        return with_column(super().run(batch), COLUMN.name, values)


class NeedsRows(Length):
    def run(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        if not batch.num_rows:
            raise IndexError("no row")
        return super().run(batch)


def test_a_sound_stage_passes() -> None:
    check_stage(Length)
    check_stage(Length(), list(random_batches(Length(), seed=3)))


@pytest.mark.parametrize("what", CHANGES)
def test_a_broken_law_is_named(what: str) -> None:
    with pytest.raises(AssertionError) as error:
        check_stage(lambda: Changed(what))
    message = str(error.value)
    assert message.startswith(f"length breaks law {CHANGES[what][0]}: ") and "\n" not in message


@pytest.mark.parametrize("cls", [Unpicklable, Forgetful, NeedsRows])
def test_the_law_of_pickles_and_empty_batches(cls: type[Stage]) -> None:
    with pytest.raises(AssertionError, match=r"^length breaks law 8: [^\n]+$"):
        check_stage(cls)

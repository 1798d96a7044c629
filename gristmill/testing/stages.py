"""Checks the eight laws of a stage (see gristmill.stages.contract) on random batches or on yours."""

import asyncio
import pickle
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa

from gristmill.records.readers.datasets import png
from gristmill.records.schema import IDENTITY, IMAGE, PROVENANCE, REJECT
from gristmill.stages.contract import Stage
from gristmill.stages.trajectory.messages import MESSAGES

NUM_BATCHES, MAX_ROWS = 6, 12
DEAD = "generator:context_length"
WORDS = "the mill of grain wheel river ünd 漢字 😀 don't a,b {x} ... - # 14 3/4 stop https://example.org".split()
TEXTS = ("", " \n", '{"a": 1}', '```json\n{"a": 2}\n```', "```python\nx = 1\n```", "The answer is \\boxed{2}.", "NaN")
ROLES = ("system", "user", "assistant", "tool")
# Types that a column is given, in this order, until the stage accepts one.
TYPES = (pa.string(), IMAGE, pa.list_(pa.string()), pa.float64(), pa.int64(), pa.bool_(), MESSAGES.type)


def check_stage(stage_or_factory: Stage | Callable[[], Stage], batches: Iterable[pa.RecordBatch] | None = None) -> None:
    """Raise AssertionError, with the law in one line, if a stage breaks one of its eight laws.

    `stage_or_factory` is a stage that is not open yet, or a function that makes one. The check opens the stage and a
    pickled copy of it, and closes both. `batches` must hold the columns in `reads()`, unique ids and `reject`; without
    them `random_batches` makes some. A stage that reads columns of particular values needs your batches.
    """
    stage = stage_or_factory if isinstance(stage_or_factory, Stage) else stage_or_factory()
    chosen = list(batches) if batches is not None else list(random_batches(stage))
    copy = _pickled(stage)
    try:
        stage.open()
        copy.open()
        for batch in [*chosen, *([chosen[0].slice(0, 0)] if chosen else [])]:
            after = check_batch(stage, batch)
            if not _equal(_run(copy, batch), after):
                _broken(stage, 8, "a pickled copy gives another answer")
    finally:
        stage.close()
        copy.close()


def check_batch(stage: Stage, batch: pa.RecordBatch) -> pa.RecordBatch:
    """Check the laws that one batch can show, on a stage that is open; return what the stage makes of the batch."""
    before, text = batch.to_pylist(), repr(batch.to_pylist())
    try:
        after = _run(stage, batch)
    except Exception as error:
        if batch.num_rows:
            raise
        raise AssertionError(f"{stage.name} breaks law 8: it fails on an empty batch: {error!r}") from error
    after.validate(full=True)
    _check_rows(stage, batch, after)
    _check_columns(stage, batch, after)
    _check_rejects(stage, before, after.to_pylist())
    if repr(batch.to_pylist()) != text:
        _broken(stage, 3, "it changes the batch that it is given")
    if not _equal(_run(stage, batch), after):
        _broken(stage, 7, "the same batch gives another answer the second time")
    moved = pa.RecordBatch.from_pylist(before, batch.schema)  # the same rows in other buffers
    if not _equal(_run(stage, moved), after):
        _broken(stage, 7, "the same rows in other buffers give another answer")
    return after


def random_batches(stage: Stage, seed: int = 0) -> Iterator[pa.RecordBatch]:
    """Batches with the columns that `stage` reads: living and dead rows, nulls, odd texts; one with dead rows only."""
    draw = random.Random(seed)
    base = pa.schema([*IDENTITY, *PROVENANCE])
    names = [name for name in dict.fromkeys(["text", *stage.reads()]) if name not in base.names]
    schema = pa.schema([*base, *(_fitting(stage, name) for name in names), REJECT])
    for number in range(NUM_BATCHES):
        rejects: list[str | None] = [DEAD] if number == 1 else [None, None, DEAD]
        rows = [_row(draw, schema, place, rejects) for place in range(draw.randint(1, MAX_ROWS))]
        yield pa.RecordBatch.from_pylist(rows, schema)


def _fitting(stage: Stage, name: str) -> pa.Field:
    """Column `name` with the first type that the stage accepts."""
    fields = [pa.field(name, kind) for kind in TYPES]
    return next((field for field in fields if name not in stage.reads() or stage.refuses(field) is None), fields[0])


def _row(draw: random.Random, schema: pa.Schema, place: int, rejects: list[str | None]) -> dict[str, Any]:
    row = {field.name: _value(draw, field.type, field.nullable) for field in schema}
    identity = {"id": f"{draw.getrandbits(128):032x}", "lot": 7, "row": place, "seed": draw.getrandbits(62)}
    provenance = {"origin": "synthetic", "generation": 0, "finish": draw.choice(["stop", "length", None])}
    return {**row, **identity, **provenance, "reject": draw.choice(rejects)}


def _value(draw: random.Random, kind: pa.DataType, nullable: bool) -> Any:
    if nullable and draw.random() < 0.1:
        return None
    if kind == IMAGE:
        pixels = np.frombuffer(draw.randbytes(64), np.uint8).reshape(8, 8)
        return {"bytes": draw.choice([png(pixels), b"no image"]), "path": None}
    if pa.types.is_struct(kind):
        return {f.name: draw.choice(ROLES) if f.name == "role" else _value(draw, f.type, f.nullable) for f in kind}
    if pa.types.is_list(kind) and not pa.types.is_string(kind.value_type):
        return [_value(draw, kind.value_type, False) for _ in range(draw.randint(0, 5))]
    if pa.types.is_list(kind):
        return [_text(draw) for _ in range(draw.randint(0, 5))]
    if pa.types.is_integer(kind):
        return draw.randint(0, 100)
    if pa.types.is_floating(kind):
        return draw.choice([0.0, -0.0, 0.5, 1e9, float("nan"), draw.random()])
    return draw.random() < 0.5 if pa.types.is_boolean(kind) else _text(draw)


def _text(draw: random.Random) -> str:
    if draw.random() < 0.3:
        return draw.choice(TEXTS)
    words = [draw.choice(WORDS) for _ in range(draw.randint(0, 80))]
    return "".join(word + draw.choice([" ", " ", ". ", "\n", "\n\n"]) for word in words)


def _pickled(stage: Stage) -> Stage:
    try:
        copy: Stage = pickle.loads(pickle.dumps(stage))
    except Exception as error:
        raise AssertionError(f"{stage.name} breaks law 8: it does not pickle before open(): {error!r}") from error
    return copy


def _run(stage: Stage, batch: pa.RecordBatch) -> pa.RecordBatch:
    return asyncio.run(stage.run_pooled(batch)) if stage.needs else stage.run(batch)


def _equal(one: Any, other: Any) -> bool:
    """Whether two batches or columns hold the same values; NaN equals NaN."""
    return bool(one.equals(other)) or repr(one.to_pylist()) == repr(other.to_pylist())


def _broken(stage: Stage, law: int, what: str) -> NoReturn:
    raise AssertionError(f"{stage.name} breaks law {law}: {what}")


def _check_rows(stage: Stage, batch: pa.RecordBatch, after: pa.RecordBatch) -> None:
    if "id" not in after.schema.names:
        _broken(stage, 4, "the column 'id' is missing")
    ids, answers = batch.column("id").to_pylist(), after.column("id").to_pylist()
    if len(ids) != len(answers):
        _broken(stage, 1, f"{len(ids)} rows go in and {len(answers)} come out")
    if Counter(ids) != Counter(answers):
        changed = next(row for row, (one, other) in enumerate(zip(ids, answers)) if one != other)
        _broken(stage, 3, f"the id of row {changed} changes")
    if ids != answers:
        _broken(stage, 2, "the rows come out in another order")


def _check_columns(stage: Stage, batch: pa.RecordBatch, after: pa.RecordBatch) -> None:
    declared = [field for field in batch.schema if field.name != REJECT.name] + stage.columns() + [REJECT]
    expected, names = pa.schema(declared), after.schema.names
    if names != expected.names:
        odd = sorted({*names} ^ {*expected.names})
        _broken(stage, 4, f"missing or undeclared: {', '.join(odd)}" if odd else "the columns are in another order")
    if not after.schema.equals(expected):
        field = next(field for field in expected if not after.schema.field(field.name).equals(field))
        _broken(stage, 4, f"the column is {after.schema.field(field.name)}, not {field} as declared")
    for name in batch.schema.names:
        if name != REJECT.name and not _equal(after.column(name), batch.column(name)):
            _broken(stage, 3, f"the column '{name}' changes")


def _check_rejects(stage: Stage, before: list[dict[str, Any]], after: list[dict[str, Any]]) -> None:
    for row, (old, new) in enumerate(zip(before, after)):
        reject, now = old[REJECT.name], new[REJECT.name]
        if reject is None:
            name, _, reason = (now or f"{stage.name}:-").partition(":")
            if name != stage.name or not reason:
                _broken(stage, 5, f"row {row} has the reason '{now}', not '{stage.name}:REASON'")
        elif now != reject:
            _broken(stage, 5, f"row {row} is dead for '{reject}', and this changes to {now!r}")
        elif any(new[field.name] is not None for field in stage.columns()):
            _broken(stage, 6, f"row {row} is dead, and gets findings")

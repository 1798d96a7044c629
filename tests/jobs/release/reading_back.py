"""Reads a release through mlcroissant, and compares its records with the rows of the shards."""

import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import mlcroissant
import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import DatasetCard, metadata_load
from PIL import Image

from gristmill.jobs.release.facts import TASKS
from gristmill.records.licenses import HUB
from gristmill.records.schema import IMAGE


def assert_card(folder: Path) -> dict[str, Any]:
    """README.md has front matter that the Hub takes, and an example row; returns the front matter."""
    front = metadata_load(folder / "README.md")
    card = DatasetCard.load(folder / "README.md")
    assert front and card.data.to_dict() == front
    licenses = front["license"] if isinstance(front["license"], list) else [front["license"]]
    assert set(licenses) <= HUB and ("license_name" in front) == ("other" in licenses)
    assert set(front.get("task_categories", [])) <= TASKS and len(front["size_categories"]) == 1
    assert all(len(code) in (2, 3) for code in front.get("language", []))
    files = [{"split": "train", "path": "train-*.parquet"}]
    assert front["configs"] == [{"config_name": "default", "data_files": files}]
    example = card.text.partition("## Example row\n\n```json\n")[2].partition("\n```")[0]
    assert json.loads(example).keys() == set(pq.read_schema(next(folder.glob("train-*.parquet"))).names)
    return dict(front)


def records(folder: Path, caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """The records of a release by names of columns, after a validation without a warning."""
    caplog.clear()
    dataset = mlcroissant.Dataset(str(folder / "croissant.json"))
    issues = dataset.metadata.ctx.issues
    assert not issues.errors and not issues.warnings, issues.report()
    rows = [_record(record) for record in dataset.records("rows")]
    assert not [entry for entry in caplog.records if entry.levelname in ("WARNING", "ERROR")], caplog.text
    return rows


def assert_read_back(folder: Path, caplog: pytest.LogCaptureFixture, missing: tuple[str, ...] = ()) -> pa.Table:
    """The records of all shards equal their rows, but for columns that Croissant cannot express; returns the rows."""
    table = pa.concat_tables([pq.read_table(path) for path in sorted(folder.glob("train-*.parquet"))])
    found = records(folder, caplog)
    assert len(found) == table.num_rows > 0
    kept = [name for name in table.column_names if name not in missing]
    for row, record in zip(table.to_pylist(), found):
        assert set(record) == set(kept)
        for name in kept:
            assert _is_same(row[name], record[name], table.schema.field(name).type), (name, row[name], record[name])
    return table


def _record(record: Mapping[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for identifier in sorted(record, key=lambda key: key.count("/")):
        *parents, last = map(unquote, identifier.split("/")[1:])
        _put(row, parents, last, _plain(record[identifier]))
    return row


def _put(place: Any, parents: Sequence[str], last: str, value: Any) -> None:
    """mlcroissant gives a struct in a struct beside it, and one in a list of structs as a struct of lists."""
    if isinstance(place, list):
        for at, item in enumerate(place):
            _put(item, parents, last, {name: inner and inner[at] for name, inner in value.items()})
    elif parents:
        _put(place.setdefault(parents[0], {}), parents[1:], last, value)
    else:
        place[last] = value


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {unquote(key.rpartition("/")[2]): _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list) else value


def _is_same(value: Any, read: Any, kind: pa.DataType) -> bool:
    if kind == IMAGE and value is not None:
        return bool(Image.open(io.BytesIO(value["bytes"])).tobytes() == read.tobytes())
    if pa.types.is_list(kind) and value is not None:
        same_length = isinstance(read, list) and len(value) == len(read)
        return same_length and all(_is_same(a, b, kind.value_type) for a, b in zip(value, read))
    if pa.types.is_struct(kind) and value is not None:
        return set(value) == set(read) and all(_is_same(value[f.name], read[f.name], f.type) for f in kind)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return _is_null(read)
    if isinstance(value, str | bytes):
        return bool(read == (value.encode() if isinstance(value, str) else value))
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        return bool(read == pandas.Timestamp(value))
    return bool(read == value) and isinstance(read, type(value))


def _is_null(read: Any) -> bool:
    """How mlcroissant shows a null: as None or NaN, and as nulls inside for a null struct."""
    if isinstance(read, Mapping):
        return all(map(_is_null, read.values()))
    if isinstance(read, list):
        return len(read) == 1 and _is_null(read[0]) and isinstance(read[0], Mapping)
    return read is None or read != read

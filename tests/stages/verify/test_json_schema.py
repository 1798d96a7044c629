"""JSON that parses and JSON that keeps to its schema."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from gristmill.records.errors import UserError
from gristmill.records.spec import build
from gristmill.stages.verify.json_schema import JsonSchema, JsonSchemaSpec

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "parts": {"type": "array", "items": {"type": "integer"}}},
    "required": ["name"],
}


def stage(**table: Any) -> JsonSchema:
    made = JsonSchema(build(JsonSchemaSpec, table, "stages[0]"))
    made.check()
    made.open()
    return made


def run(made: JsonSchema, *texts: str | None) -> list[tuple[str | None, str | None]]:
    columns = {"text": pa.array(texts, pa.string()), "reject": pa.nulls(len(texts), pa.string())}
    rows = made.run(pa.RecordBatch.from_pydict(columns)).to_pylist()
    return [(row["reject"], row["schema_error"]) for row in rows]


def test_the_first_error_is_named_with_its_place() -> None:
    good, wrong, missing = run(stage(schema=SCHEMA), '{"name": "a"}', '{"name": "a", "parts": [1, "x"]}', "{}")
    assert good == (None, None)
    assert wrong == ("json_schema:schema", "$.parts[1]: 'x' is not of type 'integer'")
    assert missing == ("json_schema:schema", "$: 'name' is a required property")


@pytest.mark.parametrize("text", [None, "", "name: a", "{", '{"a": NaN}', "[" * 100_000])
def test_what_is_not_json_is_not_json(text: str | None) -> None:
    ((reject, error),) = run(stage(), text)
    assert reject == "json_schema:not_json" and error


@pytest.mark.parametrize("text", ['```json\n{"name": "a"}\n```', 'Here it is:\n```\n{"name":\n "a"}```\nEnjoy.'])
def test_fenced_json_is_taken_out_only_when_asked_for(text: str) -> None:
    assert run(stage(schema=SCHEMA), text) == [(None, None)]
    assert run(stage(schema=SCHEMA, extract=False), text)[0][0] == "json_schema:not_json"


def test_a_schema_file_is_read_and_bears_identity(tmp_path: Path) -> None:
    file = tmp_path / "schema.json"
    file.write_text(json.dumps(SCHEMA))
    made = stage(file=str(file))
    assert run(made, "1")[0][0] == "json_schema:schema"
    before = made.identity()
    file.write_text("{}")
    assert made.identity() != before


def test_what_is_wrong_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("{")
    for table, message in (
        ({"schema": {"type": "strnig"}}, "not a JSON Schema"),
        ({"file": str(tmp_path / "none.json")}, "no such file"),
        ({"file": str(tmp_path / "bad.json")}, "is not JSON"),
        ({"schema": {}, "file": "x"}, "not both"),
    ):
        with pytest.raises(UserError, match=message) as error:
            stage(**table)
        assert "\n" not in str(error.value)

"""Rejects rows that are not JSON or break a JSON Schema."""

import json
import re
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from gristmill.records.errors import UserError
from gristmill.records.literals import json_value
from gristmill.records.spec import plain
from gristmill.stages.contract import Findings, Stage

MAX_ERROR_CHARS = 300  # a message quotes the offending value, which may be the whole row
# Chat models often answer in a fenced block; the first block is the answer.
FENCE = re.compile(r"```(?:json|JSON)?[ \t]*\r?\n(.*?)\r?\n?[ \t]*```", re.DOTALL)


@dataclass(frozen=True)
class JsonSchemaSpec:
    """Keys of the stage `json_schema`. Without `schema` and `file`, a row must only be JSON."""

    column: str = "text"  # Column with the JSON text.
    schema: dict[str, Any] | None = None  # The JSON Schema, inline.
    file: str | None = None  # File with the JSON Schema, a local path or s3://; instead of `schema`.
    extract: bool = True  # Whether the JSON is the first fenced code block of a text that has one.

    def __post_init__(self) -> None:
        if self.schema is not None and self.file is not None:
            raise ValueError("give either 'schema' or 'file', not both")


class JsonSchema(Stage):
    """Adds `schema_error`, "path: message" of the first error. Reasons: "not_json" and "schema"."""

    kind: ClassVar[str] = "json_schema"
    Spec: ClassVar[type] = JsonSchemaSpec
    spec: JsonSchemaSpec

    def __init__(self, spec: JsonSchemaSpec, name: str | None = None) -> None:
        super().__init__(spec, name)
        self._validator: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_validator": None}  # open() makes it

    def columns(self) -> list[pa.Field]:
        return [pa.field("schema_error", pa.string())]

    def reads(self) -> list[str]:
        return [self.spec.column]

    def identity(self) -> dict[str, Any]:
        return {**super().identity(), "schema": self._schema()}

    def check(self) -> None:
        import jsonschema

        schema = self._schema()
        try:
            jsonschema.validators.validator_for(schema).check_schema(schema)
        except jsonschema.SchemaError as error:
            raise UserError(f"{self.name}: the schema is not a JSON Schema: {_line(error)}") from None

    def open(self) -> None:
        import jsonschema

        schema = self._schema()
        # Formats are not checked: those that jsonschema supports depend on other installed packages.
        self._validator = jsonschema.validators.validator_for(schema)(schema)

    def find(self, rows: pa.RecordBatch) -> Findings:
        answers = [self._judge(text) for text in rows.column(self.spec.column).to_pylist()]
        reasons = pa.array([reason for reason, _ in answers], pa.string())
        errors = pa.array([error for _, error in answers], pa.string())
        return Findings({"schema_error": errors}, reasons)

    def _judge(self, text: str | None) -> tuple[str | None, str | None]:
        if text is None:
            return "not_json", "no text"
        if self.spec.extract and (fenced := FENCE.search(text)) is not None:
            text = fenced.group(1)
        try:
            value = json.loads(text, parse_constant=_refuse)
        except (ValueError, RecursionError) as error:
            return "not_json", str(error)[:MAX_ERROR_CHARS] or "nested too deeply"
        try:
            # The first by path and message, so that the same row has the same evidence.
            first = min(self._validator.iter_errors(value), key=lambda e: (e.json_path, e.message), default=None)
        except RecursionError:
            return "schema", "nested too deeply"
        return (None, None) if first is None else ("schema", _line(first))

    def _schema(self) -> Any:
        if self.spec.file is None:
            return self.spec.schema if self.spec.schema is not None else {}
        from gristmill.records.stores.opening import read_bytes

        try:
            schema = plain(json_value(read_bytes(self.spec.file)), self.spec.file)
        except ValueError as error:
            raise UserError(f"{self.name}: {self.spec.file} is not JSON: {error}") from None
        if not isinstance(schema, dict | bool):
            raise UserError(f"{self.name}: {self.spec.file} is no JSON schema: it holds no table")
        return schema


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")  # Python's parser accepts NaN and Infinity, RFC 8259 does not


def _line(error: Any) -> str:
    return " ".join(f"{error.json_path}: {error.message}".split())[:MAX_ERROR_CHARS]

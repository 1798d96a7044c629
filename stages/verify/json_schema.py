"""Rejects rows that are not JSON or break a JSON Schema."""

import json
import re
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from gristmill.records.errors import UserError
from gristmill.stages.contract import Findings, Stage

MAX_ERROR_CHARS = 300  # evidence, not a dump: a message quotes the offending value, which may be the whole row
# Chat models answer in a fenced block however they are asked; the first block is the answer.
FENCE = re.compile(r"```(?:json|JSON)?[ \t]*\r?\n(.*?)\r?\n?[ \t]*```", re.DOTALL)


@dataclass(frozen=True)
class JsonSchemaSpec:
    """What the JSON in `column` must look like. `schema` inline or `file` (a local path or s3://), not both.

    Without either, a row has only to be JSON. `extract` takes the first fenced code block where there is one.
    """

    column: str = "text"
    schema: dict[str, Any] | None = None
    file: str | None = None
    extract: bool = True

    def __post_init__(self) -> None:
        if self.schema is not None and self.file is not None:
            raise ValueError("give either 'schema' or 'file', not both")


class JsonSchema(Stage):
    """Adds `schema_error`, "path: message" of the first error; the reasons are "not_json" and "schema"."""

    kind: ClassVar[str] = "json_schema"
    Spec: ClassVar[type] = JsonSchemaSpec
    spec: JsonSchemaSpec

    def __init__(self, spec: JsonSchemaSpec, name: str | None = None) -> None:
        super().__init__(spec, name)
        self._validator: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_validator": None}  # made by open, once per process

    def columns(self) -> list[pa.Field]:
        return [pa.field("schema_error", pa.string())]

    def reads(self) -> list[str]:
        return [self.spec.column]

    def identity(self) -> dict[str, Any]:
        return {"schema": self._schema()}

    def check(self) -> None:
        import jsonschema

        schema = self._schema()
        try:
            jsonschema.validators.validator_for(schema).check_schema(schema)
        except jsonschema.SchemaError as error:
            raise UserError(f"{self.name}: the schema is no JSON Schema: {_line(error)}") from None

    def open(self) -> None:
        import jsonschema

        schema = self._schema()
        # Formats are left unchecked: which of them jsonschema knows depends on what else is installed.
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
            # By path and message, not in the order of the validator's dictionaries: the same row, the same evidence.
            first = min(self._validator.iter_errors(value), key=lambda e: (e.json_path, e.message), default=None)
        except RecursionError:
            return "schema", "nested too deeply"
        return (None, None) if first is None else ("schema", _line(first))

    def _schema(self) -> Any:
        if self.spec.file is None:
            return self.spec.schema if self.spec.schema is not None else {}
        from gristmill.records.stores.opening import read_bytes

        try:
            return json.loads(read_bytes(self.spec.file))
        except ValueError as error:
            raise UserError(f"{self.name}: {self.spec.file} is not JSON: {error}") from None


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")  # Python's parser takes NaN and Infinity, RFC 8259 does not


def _line(error: Any) -> str:
    return " ".join(f"{error.json_path}: {error.message}".split())[:MAX_ERROR_CHARS]

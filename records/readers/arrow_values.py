"""Values of Arrow as rows of JSON: text in columns of bytes, and times that Python cannot hold."""

import re
from typing import Any

import pyarrow as pa

from gristmill.records.readers.json_rows import dumped

DEEPEST = 32  # types within types; Arrow's streams take 64
ARROW_TIME = re.compile(r"(-?\d{4,6}-\d\d-\d\d \d\d:\d\d:\d\d)(?:\.(\d+))?(Z)?")


def json_texts(table: pa.Table) -> list[str]:
    """The rows as JSON texts; NaN and infinities as Python writes them, see `values_of` for the rest."""
    return [dumped(row) for row in values_of(table)]


def values_of(table: pa.Table) -> list[dict[str, Any]]:
    """The rows as Python values. Times beyond Python's range, and those finer than a microsecond, become texts."""
    try:
        rows: list[dict[str, Any]] = table.to_pylist()
        return rows
    except (OverflowError, ValueError, pa.ArrowException):
        pass
    columns = {name: _values(table.column(name)) for name in table.column_names}
    return [dict(zip(columns, values)) for values in zip(*columns.values())]


def _values(column: pa.ChunkedArray) -> list[Any]:
    try:
        values: list[Any] = column.to_pylist()
    except (OverflowError, ValueError, pa.ArrowException):
        values = [_value(scalar) for scalar in column]
    return values


def _value(scalar: pa.Scalar) -> Any:
    try:
        return scalar.as_py()
    except (OverflowError, ValueError, pa.ArrowException):
        return _as_written(scalar.cast(without_times(scalar.type)).as_py())


def _as_written(value: Any) -> Any:
    """The times that Arrow has written, in the way of Python: `2023-11-14 22:13:20+00:00`."""
    if isinstance(value, str) and (match := ARROW_TIME.fullmatch(value)):
        whole, fraction, zone = match.groups()
        fraction = (fraction or "").rstrip("0")
        fraction = f".{fraction.ljust(9 if len(fraction) > 6 else 6, '0')}" if fraction else ""
        return whole + fraction + ("+00:00" if zone else "")
    if isinstance(value, dict):
        return {name: _as_written(each) for name, each in value.items()}
    return [_as_written(each) for each in value] if isinstance(value, list | tuple) else value


def without_times(kind: pa.DataType) -> pa.DataType:
    """The type with texts in place of all times, also inside lists, structs and maps."""
    if pa.types.is_temporal(kind):
        return pa.string()
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(without_times(field.type)) for field in kind])
    if pa.types.is_map(kind):
        return pa.map_(without_times(kind.key_type), without_times(kind.item_type))
    if pa.types.is_large_list(kind):
        return pa.large_list(without_times(kind.value_type))
    if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        return pa.list_(without_times(kind.value_type))
    return kind


def is_bytes(kind: pa.DataType) -> bool:
    """Whether values are bytes of any length."""
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def texts_of_bytes(column: pa.ChunkedArray) -> pa.ChunkedArray | None:
    """A column of bytes as texts; None where a value is not UTF-8."""
    try:
        return column.cast(pa.binary()).cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None


def is_storable(kind: pa.DataType, depth: int = 0) -> bool:
    """Whether Parquet and Arrow's streams can store the type: no struct without fields, no deep nesting."""
    if depth > DEEPEST:
        return False
    if pa.types.is_struct(kind):
        return kind.num_fields > 0 and all(is_storable(field.type, depth + 1) for field in kind)
    if pa.types.is_map(kind):
        return is_storable(kind.item_type, depth + 1)
    return not (pa.types.is_nested(kind) and hasattr(kind, "value_type")) or is_storable(kind.value_type, depth + 1)


def plain_type(kind: pa.DataType) -> pa.DataType:
    """One type for the equivalent types of texts and bytes, without dictionaries."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    return pa.binary() if is_bytes(kind) else kind

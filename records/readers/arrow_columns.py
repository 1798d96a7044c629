"""Columns of Arrow from the values of rows, in types that lose nothing.

A column takes the type that holds all its values: null, bool, int64, double, text, or lists and structs of these. Where
no such type does, the column is text, and a value that is no text is its JSON: numbers beside texts, whole numbers
beyond 64 bits, structs without fields, deep nesting. The cells of CSV are texts; a column of them becomes numbers only
where each cell is written as a program would write that number: `02100` and ids of 20 digits stay texts.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from gristmill.records.readers.arrow_values import is_storable, plain_type
from gristmill.records.readers.json_rows import dumped
from gristmill.records.schema import clean

FAULTS = (pa.ArrowException, OverflowError, UnicodeEncodeError, ValueError, TypeError, RecursionError)
# As in pyarrow.csv: the cells of a column of numbers that stand for a missing one.
MISSING = pa.array(
    ["", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "N/A", "NA", "NULL"]
    + ["NaN", "n/a", "nan", "null"]
)
INTEGER = r"^(?:0|-?[1-9][0-9]{0,18})$"
NUMBER = (
    r"^-?(?:0|[1-9][0-9]{0,14}|(?:0|[1-9][0-9]*)?(?:\.[0-9]+(?:[eE][-+]?[0-9]+)?|\.?[eE][-+]?[0-9]+)|[1-9][0-9]*\.)$"
)
BOOLS = pa.array(["true", "false", "True", "False", "TRUE", "FALSE"])
WORDS = {*MISSING.to_pylist(), *BOOLS.to_pylist()}  # that begin with a letter and are no text


def array_of(values: Sequence[Any], is_typed: bool = True) -> pa.Array:
    """The column of values that JSON can hold; unless `is_typed`, of the cells of CSV (null: the row has none)."""
    if not is_typed:
        return _cells(_strings(values))
    if isinstance(values, pa.ChunkedArray):
        return values.combine_chunks()
    try:
        array = pa.array(values)
        if is_storable(array.type):
            return array
    except FAULTS:
        pass
    return _texts(values)


def array_as(values: Sequence[Any], kind: pa.DataType, is_typed: bool = True) -> pa.Array:
    """The column in a type of `unified`. Raises ValueError where a value does not fit."""
    if isinstance(values, pa.ChunkedArray) and pa.types.is_string(kind):
        return values.combine_chunks()
    if pa.types.is_string(kind):
        return _texts(values)
    try:
        return pa.array(values, kind) if is_typed else _cast_cells(_strings(values), kind)
    except FAULTS as error:
        raise ValueError(str(error).splitlines()[0]) from None


def text_column(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column as text: texts as they are, other values as JSON."""
    kind = plain_type(column.type)
    if pa.types.is_string(kind):
        return column.cast(kind)
    return pa.chunked_array([_texts(column.to_pylist())])


def unified(kinds: Iterable[pa.DataType]) -> pa.DataType:
    """The type that holds the values of all these types; text where there is no other."""
    kind = pa.null()
    for other in kinds:
        kind = _both(kind, plain_type(other))
    return kind


def _both(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    if one == other or pa.types.is_null(other):
        return one
    if pa.types.is_null(one):
        return other
    if pa.types.is_boolean(one) or pa.types.is_boolean(other):
        return pa.string()
    try:
        schema = pa.unify_schemas([pa.schema([("", one)]), pa.schema([("", other)])], promote_options="permissive")
    except FAULTS:
        return pa.string()
    kind = schema.field(0).type
    return pa.string() if pa.types.is_binary(kind) else kind


def unified_schema(schemas: Sequence[pa.Schema]) -> pa.Schema:
    """All columns of the schemas, in the order in which they appear, in types that hold all their values."""
    kinds: dict[str, list[pa.DataType]] = {}
    for schema in schemas:
        for field in schema:
            kinds.setdefault(field.name, []).append(field.type)
    return pa.schema([(name, unified(types)) for name, types in kinds.items()])


def _texts(values: Sequence[Any]) -> pa.Array:
    texts = [v if v is None or isinstance(v, str) else dumped(v) for v in values]
    try:
        return pa.array(texts, pa.string())
    except UnicodeEncodeError:  # halves of characters, of broken escapes
        return pa.array([None if text is None else clean(text) for text in texts], pa.string())


def _strings(cells: Any) -> pa.Array:
    return cells.combine_chunks() if isinstance(cells, pa.ChunkedArray) else pa.array(cells, pa.string())


def _cells(cells: pa.Array) -> pa.Array:
    first = cells[0].as_py() if len(cells) else ""
    is_word = first and first[0].isalpha() and first not in WORDS
    for kind in () if is_word else (pa.null(), pa.int64(), pa.float64(), pa.bool_()):
        try:
            return _cast_cells(cells, kind)
        except ValueError:
            continue
    return cells


def _cast_cells(cells: pa.Array, kind: pa.DataType) -> pa.Array:
    """Cells as values of a type. Raises ValueError where a cell is written in another way than a value of that type."""
    missing = pa.array([""]) if pa.types.is_null(kind) else MISSING  # a column of NA only may mean Namibia
    values = pc.if_else(pc.is_in(cells, missing), pa.scalar(None, pa.string()), cells)
    if pa.types.is_null(kind):
        is_fit = values.null_count == len(values)
    elif pa.types.is_boolean(kind):
        is_fit = bool(pc.all(pc.or_kleene(pc.is_in(values, BOOLS), pc.is_null(values))).as_py())
    else:
        pattern = INTEGER if pa.types.is_integer(kind) else NUMBER
        is_fit = pc.all(pc.match_substring_regex(values, pattern)).as_py() is not False
    if not is_fit:
        raise ValueError("a cell is written in another way")
    try:
        if pa.types.is_null(kind):
            return pa.nulls(len(cells))
        return (pc.utf8_lower(values) if pa.types.is_boolean(kind) else values).cast(kind)
    except pa.ArrowException as error:
        raise ValueError(str(error)) from None

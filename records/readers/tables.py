"""The public schema of a table: its columns, known before a row is read.

A declared schema reveals nothing about the rows. An inferred schema takes its bounds and categories from the rows and
can reveal them, so a private fit refuses it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.records.errors import UserError
from gristmill.records.schema import IMAGE, RESERVED
from gristmill.records.spec import nearest

Kind = Literal["numeric", "integer", "category", "image", "series", "text"]
MAX_INFERRED = 1000  # distinct texts of a category; a column with more is an identifier
NUM_SHOWN = 3


@dataclass(frozen=True)
class Column:
    """A column. `low` and `high` bound numbers (inclusive); `categories` are all values of a category."""

    name: str  # Name of the column.
    kind: Kind  # Type of its values.
    low: float | None = None  # Smallest number, inclusive.
    high: float | None = None  # Largest number, inclusive.
    decimals: int | None = None  # Decimals that numeric values are rounded to.
    categories: tuple[str, ...] = ()  # All values of a category.
    nullable: bool = False  # Whether values may be missing.
    height: int | None = None  # Height of an image in pixels.
    width: int | None = None  # Width of an image in pixels.
    channels: int | None = None  # Channels of an image: 1 grey, 3 colour.

    def __post_init__(self) -> None:
        if not self.name or self.name in RESERVED:
            raise ValueError(f"{self.name!r} is not allowed as the name of a column")
        if self.is_number:
            if self.low is not None and self.high is not None and self.low > self.high:
                raise ValueError(f"column '{self.name}': low {self.low} is above high {self.high}")
            if self.categories:
                raise ValueError(f"column '{self.name}': categories go with kind = \"category\"")
        if self.kind == "category":
            if not self.categories:
                raise ValueError(f"column '{self.name}': list its categories")
            if len(set(self.categories)) != len(self.categories):
                raise ValueError(f"column '{self.name}': a category is listed twice")
        if self.kind == "image" and not (self.height and self.width and self.channels in (1, 3)):
            raise ValueError(f"column '{self.name}': an image needs height, width and channels (1 or 3)")

    @property
    def is_number(self) -> bool:
        return self.kind in ("numeric", "integer")

    @property
    def field(self) -> pa.Field:
        """The field in shards: float64, int64, string (categories, texts), Image struct of `datasets`, float32 list."""
        types = {"numeric": pa.float64(), "integer": pa.int64(), "category": pa.string()}
        types |= {"image": IMAGE, "series": pa.list_(pa.float32()), "text": pa.string()}
        return pa.field(self.name, types[self.kind])


@dataclass(frozen=True)
class TableSchema:
    """The columns in order; `inferred`: derived from the rows."""

    columns: tuple[Column, ...]
    inferred: bool = field(default=False)

    def __post_init__(self) -> None:
        names = [c.name for c in self.columns]
        if not names:
            raise ValueError("a schema needs at least one column")
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"column '{name}' is declared twice")

    @property
    def names(self) -> list[str]:
        return [c.name for c in self.columns]

    @property
    def payload(self) -> list[pa.Field]:
        return [c.field for c in self.columns]

    def column(self, name: str) -> Column:
        """The column of that name. Raises UserError with the nearest name."""
        for column in self.columns:
            if column.name == name:
                return column
        raise UserError(f"the schema has no column '{name}'{nearest(name, self.names)}")

    def of_kind(self, *kinds: str) -> list[Column]:
        return [c for c in self.columns if c.kind in kinds]

    def conform(self, table: pa.Table, what: str = "the table", is_strict: bool = True) -> pa.Table:
        """`table` with exactly these columns, in this order and with these types.

        NaN counts as missing. Raises UserError for an absent column, a missing value in a column that is not nullable,
        a column without values, a number out of bounds or infinite, and an unlisted category. Unless `is_strict`,
        missing, out-of-bounds and unlisted values are accepted, as in a table that is evaluated.
        """
        columns = []
        for column in self.columns:
            if column.name not in table.column_names:
                raise UserError(f"{what} has no column '{column.name}'{nearest(column.name, table.column_names)}")
            values, where = table.column(column.name).combine_chunks(), f"{what}: '{column.name}'"
            columns.append(_conform(column, values, where, is_strict))
        return pa.Table.from_arrays(columns, schema=pa.schema(self.payload))


def _conform(column: Column, values: Any, where: str, is_strict: bool) -> pa.Array:
    if isinstance(values, pa.ChunkedArray):
        values = pa.concat_arrays(values.chunks) if values.num_chunks else pa.array([], values.type)
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    try:
        if column.kind == "category":
            values = _texts(values)
        elif column.kind == "integer" and pa.types.is_floating(values.type):
            values = pc.if_else(pc.is_nan(values), None, values).cast(pa.int64())
        else:
            values = values.cast(column.field.type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
        raise UserError(f"{where} is no {column.kind} column ({str(error).splitlines()[0]})") from None
    if column.kind == "numeric":
        values = pc.if_else(pc.is_nan(values), None, values)
        if pc.any(pc.is_inf(values)).as_py():
            raise UserError(f"{where} has infinite values; remove those rows or set the values to missing")
    if len(values) and values.null_count == len(values):
        raise UserError(f"{where} has only missing values; remove the column")
    if not is_strict:
        return values
    if values.null_count and not column.nullable:
        raise UserError(f"{where} has {values.null_count:,} missing values; set nullable = true or fill them")
    if column.is_number:
        _check_bounds(column, values, where)
    elif column.kind == "category":
        unlisted = pc.unique(values.filter(pc.invert(pc.is_in(values, pa.array(column.categories)))).drop_null())
        if len(unlisted):
            some = ", ".join(repr(v) for v in unlisted[:NUM_SHOWN].to_pylist())
            raise UserError(f"{where} has {len(unlisted):,} categories that are not in the schema: {some}")
    return values


def _check_bounds(column: Column, values: pa.Array, where: str) -> None:
    if values.null_count == len(values):
        return
    extremes = pc.min_max(values).as_py()
    for name, bound, is_out in (
        ("low", column.low, column.low is not None and extremes["min"] < column.low),
        ("high", column.high, column.high is not None and extremes["max"] > column.high),
    ):
        if is_out:
            value = extremes["min"] if name == "low" else extremes["max"]
            raise UserError(f"{where} holds {value}, beyond {name} = {bound}; extend the schema or clip the rows")


def _texts(values: pa.Array) -> pa.Array:
    if pa.types.is_boolean(values.type):
        return pc.if_else(values, "true", "false")
    if (
        pa.types.is_floating(values.type)
        and not values.null_count
        and pc.all(pc.equal(pc.floor(values), values)).as_py()
    ):
        values = values.cast(pa.int64())
    return values.cast(pa.string())


def infer(table: pa.Table) -> tuple[TableSchema, list[str]]:
    """The schema that the rows suggest, and its doubtful points, a line each.

    Raises UserError for a column that has no values, or has texts that are probably identifiers.
    """
    columns, doubts = [], ["bounds and categories were read from the rows; declare a schema to publish none of them"]
    for name in table.column_names:
        values = table.column(name)
        nullable = values.null_count > 0
        if values.null_count == len(values):
            raise UserError(f"column '{name}' has only missing values; remove it")
        if pa.types.is_floating(values.type) or pa.types.is_decimal(values.type):
            numbers = values.cast(pa.float64()).drop_null().to_numpy()
            nullable |= bool(np.isnan(numbers).any())
            finite = numbers[np.isfinite(numbers)]
            if not len(finite):
                raise UserError(f"column '{name}' has no finite number; remove it")
            low, high = float(finite.min()), float(finite.max())
            columns.append(Column(name, "numeric", low, high, _decimals(finite), nullable=nullable))
        elif pa.types.is_integer(values.type):
            extremes = pc.min_max(values).as_py()
            columns.append(Column(name, "integer", extremes["min"], extremes["max"], nullable=nullable))
        elif values.type == IMAGE:
            raise UserError(f"column '{name}' holds images: declare its height, width and channels")
        elif pa.types.is_list(values.type):
            raise UserError(f"column '{name}' holds lists: declare it with kind = \"series\", or remove it")
        else:
            try:
                distinct = sorted(v for v in pc.unique(_texts(values.combine_chunks())).to_pylist() if v is not None)
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError) as error:
                why = str(error).splitlines()[0]
                raise UserError(f"column '{name}' is {values.type}, which is no category ({why}); remove it") from None
            if len(distinct) > MAX_INFERRED and len(distinct) > len(values) / 2:
                raise UserError(
                    f"column '{name}' has {len(distinct):,} distinct values in {len(values):,} rows: an identifier? "
                    f"Remove it, or declare its categories"
                )
            columns.append(Column(name, "category", categories=tuple(distinct), nullable=nullable))
    return TableSchema(tuple(columns), inferred=True), doubts


def _decimals(numbers: np.ndarray) -> int | None:
    """Decimals of the numbers; None when they have more than 6."""
    for decimals in range(7):
        if np.array_equal(np.round(numbers, decimals), numbers):
            return decimals
    return None


def round_off(column: Column, numbers: np.ndarray) -> np.ndarray:
    """Sampled numbers as values of the column: float64, within bounds, rounded. Raises ValueError for NaN."""
    if np.isnan(numbers).any():
        raise ValueError(f"column '{column.name}': the model made a NaN")
    low = -math.inf if column.low is None else column.low
    high = math.inf if column.high is None else column.high
    decimals = 0 if column.kind == "integer" else column.decimals
    return np.clip(numbers if decimals is None else np.round(numbers, decimals), low, high)


def from_rows(schema: TableSchema, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """A table of these columns from dictionaries; absent keys become null."""
    return pa.Table.from_pylist([{n: r.get(n) for n in schema.names} for r in rows], schema=pa.schema(schema.payload))

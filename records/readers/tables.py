"""The public schema of a table: what its columns are, known before a row is read.

A schema that is declared says nothing about anybody. One that is inferred has its bounds and categories from the rows,
so it can give them away: a private fit refuses it.
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
MAX_INFERRED = 1000  # distinct texts beyond which a column is rather an identifier than a category
NUM_SHOWN = 3


@dataclass(frozen=True)
class Column:
    """One column. `low` and `high` bound numbers (inclusive); `categories` are all the values of a category."""

    name: str
    kind: Kind
    low: float | None = None
    high: float | None = None
    decimals: int | None = None  # numeric: values are rounded to so many
    categories: tuple[str, ...] = ()
    nullable: bool = False
    height: int | None = None  # image, in pixels
    width: int | None = None
    channels: int | None = None  # 1 grey, 3 colour

    def __post_init__(self) -> None:
        if not self.name or self.name in RESERVED:
            raise ValueError(f"a column cannot be called {self.name!r}")
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
        """As in shards: float64, int64, string (categories, texts), the Image struct of `datasets`, list of float32."""
        types = {"numeric": pa.float64(), "integer": pa.int64(), "category": pa.string()}
        types |= {"image": IMAGE, "series": pa.list_(pa.float32()), "text": pa.string()}
        return pa.field(self.name, types[self.kind])


@dataclass(frozen=True)
class TableSchema:
    """The columns in their order; `inferred` where the rows themselves have told them."""

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
        """Raises UserError naming the nearest column."""
        for column in self.columns:
            if column.name == name:
                return column
        raise UserError(f"the schema has no column '{name}'{nearest(name, self.names)}")

    def of_kind(self, *kinds: str) -> list[Column]:
        return [c for c in self.columns if c.kind in kinds]

    def conform(self, table: pa.Table, what: str = "the table", is_strict: bool = True) -> pa.Table:
        """`table` with just these columns in this order and these types.

        NaN counts as missing. Raises UserError for an absent column, a missing value where none may be, a column with
        nothing in it, a number out of bounds or infinite, and a category that is not listed. Unless `is_strict`, values
        that are missing, out of bounds or not listed may be there: a table that is judged is taken as it is.
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
            raise UserError(f"{where} holds infinities; remove those rows or make them missing")
    if len(values) and values.null_count == len(values):
        raise UserError(f"{where} holds nothing but missing values; leave the column out")
    if not is_strict:
        return values
    if values.null_count and not column.nullable:
        raise UserError(f"{where} has {values.null_count:,} missing values; set nullable = true or fill them")
    if column.is_number:
        _check_bounds(column, values, where)
    elif column.kind == "category":
        strange = pc.unique(values.filter(pc.invert(pc.is_in(values, pa.array(column.categories)))).drop_null())
        if len(strange):
            some = ", ".join(repr(v) for v in strange[:NUM_SHOWN].to_pylist())
            raise UserError(f"{where} holds {len(strange):,} categories that the schema does not list: {some}")
    return values


def _check_bounds(column: Column, values: pa.Array, where: str) -> None:
    if values.null_count == len(values):
        return
    found = pc.min_max(values).as_py()
    for name, bound, is_out in (
        ("low", column.low, column.low is not None and found["min"] < column.low),
        ("high", column.high, column.high is not None and found["max"] > column.high),
    ):
        if is_out:
            value = found["min"] if name == "low" else found["max"]
            raise UserError(f"{where} holds {value}, beyond {name} = {bound}; widen the schema or clip the rows")


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
    """The schema that the rows suggest, and what is doubtful about it, a line each.

    Raises UserError for a column that cannot be told: nothing in it, or texts that are rather identifiers.
    """
    columns, doubts = [], ["bounds and categories were read from the rows; declare a schema to publish none of them"]
    for name in table.column_names:
        values = table.column(name)
        nullable = values.null_count > 0
        if values.null_count == len(values):
            raise UserError(f"column '{name}' holds nothing but missing values; leave it out")
        if pa.types.is_floating(values.type) or pa.types.is_decimal(values.type):
            numbers = values.cast(pa.float64()).drop_null().to_numpy()
            nullable |= bool(np.isnan(numbers).any())
            finite = numbers[np.isfinite(numbers)]
            if not len(finite):
                raise UserError(f"column '{name}' holds no finite number; leave it out")
            low, high = float(finite.min()), float(finite.max())
            columns.append(Column(name, "numeric", low, high, _decimals(finite), nullable=nullable))
        elif pa.types.is_integer(values.type):
            found = pc.min_max(values).as_py()
            columns.append(Column(name, "integer", found["min"], found["max"], nullable=nullable))
        elif values.type == IMAGE:
            raise UserError(f"column '{name}' holds images: declare its height, width and channels")
        elif pa.types.is_list(values.type):
            raise UserError(f"column '{name}' holds lists: declare it with kind = \"series\", or leave it out")
        else:
            distinct = sorted(v for v in pc.unique(_texts(values.combine_chunks())).to_pylist() if v is not None)
            if len(distinct) > MAX_INFERRED and len(distinct) > len(values) / 2:
                raise UserError(
                    f"column '{name}' has {len(distinct):,} distinct values in {len(values):,} rows: an identifier? "
                    f"Leave it out, or declare its categories"
                )
            columns.append(Column(name, "category", categories=tuple(distinct), nullable=nullable))
    return TableSchema(tuple(columns), inferred=True), doubts


def _decimals(numbers: np.ndarray) -> int | None:
    """Decimals that hold every number; None when they need more than 6."""
    for decimals in range(7):
        if np.array_equal(np.round(numbers, decimals), numbers):
            return decimals
    return None


def round_off(column: Column, numbers: np.ndarray) -> np.ndarray:
    """Sampled numbers as the column holds them: float64, within bounds, rounded. Raises ValueError for NaN."""
    if np.isnan(numbers).any():
        raise ValueError(f"column '{column.name}': the model made a NaN")
    low = -math.inf if column.low is None else column.low
    high = math.inf if column.high is None else column.high
    decimals = 0 if column.kind == "integer" else column.decimals
    return np.clip(numbers if decimals is None else np.round(numbers, decimals), low, high)


def from_rows(schema: TableSchema, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """A table of these columns from dictionaries; what is absent is null."""
    return pa.Table.from_pylist([{n: r.get(n) for n in schema.names} for r in rows], schema=pa.schema(schema.payload))

"""Rejects rows that break declared constraints: ranges, comparisons of columns, functional dependencies.

Nothing is learnt from the rows themselves: constraints inferred from them would accept their errors. A stage sees one
batch at a time, so it cannot check that keys are unique; `dedup` sees all lots.
"""

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.records.errors import UserError
from gristmill.records.readers.datasets import DataSpec, digest_table, read_table
from gristmill.stages.contract import Findings, Stage

COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
}
RULE = re.compile(r"""^\s*(\S+|"[^"]*")\s+(<=|>=|==|!=|<|>)\s+(\S+|"[^"]*")\s*$""")
MAX_VALUE_CHARS = 80


@dataclass(frozen=True)
class Dependency:
    """A functional dependency: the columns `determinants` determine `column`."""

    determinants: tuple[str, ...]  # Columns that determine `column`.
    column: str  # Column that they determine.
    pairs: dict[str, Any] = field(default_factory=dict)  # Value of `column` by the value of a single determinant.
    data: DataSpec | None = None  # Table whose rows hold the allowed combinations; instead of `pairs`.
    others: bool = False  # Whether combinations that are not listed pass.

    def __post_init__(self) -> None:
        if not self.determinants:
            raise ValueError("a dependency needs 'determinants'")
        if bool(self.pairs) == (self.data is not None):
            raise ValueError(f"dependency on '{self.column}': give either 'pairs' or 'data'")
        if self.pairs and len(self.determinants) > 1:
            raise ValueError(f"dependency on '{self.column}': 'pairs' go with one determinant; use 'data' for more")


@dataclass(frozen=True)
class ConstraintsSpec:
    """Keys of the stage `constraints`. A missing value breaks no rule and no dependency."""

    # Comparisons of two columns, or of a column and a literal, with spaces: "age >= 17", "start <= end", 'sex !=
    # "unknown"'; NaN and infinities break them.
    rules: tuple[str, ...] = ()
    dependencies: tuple[Dependency, ...] = ()  # Functional dependencies between columns.
    required: tuple[str, ...] = ()  # Columns that must have a value.

    def __post_init__(self) -> None:
        if not (self.rules or self.dependencies or self.required):
            raise ValueError("give rules, dependencies or required columns")
        for rule in self.rules:
            parse(rule)


@dataclass(frozen=True)
class Side:
    """A side of a rule: a column or a literal."""

    column: str | None
    literal: float | str | None = None


def parse(rule: str) -> tuple[Side, str, Side]:
    """(left, comparison, right). Raises ValueError if the text is not a rule."""
    match = RULE.match(rule)
    if match is None:
        raise ValueError(f"'{rule}' is not a rule; write it as 'column <= column' or 'column >= 17', with spaces")
    left, sign, right = _side(match[1]), match[2], _side(match[3])
    if left.column is None and right.column is None:
        raise ValueError(f"the rule '{rule}' names no column")
    return left, sign, right


def _side(text: str) -> Side:
    if text.startswith('"'):
        return Side(None, text.strip('"'))
    try:
        return Side(None, float(text))
    except ValueError:
        return Side(text)


class Constraints(Stage):
    """Adds `constraint`, the first one that a row breaks, in words. Reasons: required, rule and dependency."""

    kind: ClassVar[str] = "constraints"
    Spec: ClassVar[type] = ConstraintsSpec
    reads_text: ClassVar[bool] = False
    spec: ConstraintsSpec

    def __init__(self, spec: ConstraintsSpec, name: str | None = None) -> None:
        super().__init__(spec, name)
        self._tables: list[dict[tuple[str, ...], Any]] = []

    def columns(self) -> list[pa.Field]:
        return [pa.field("constraint", pa.string())]

    def reads(self) -> list[str]:
        names = list(self.spec.required)
        for rule in self.spec.rules:
            left, _, right = parse(rule)
            names += [side.column for side in (left, right) if side.column is not None]
        for dependency in self.spec.dependencies:
            names += [*dependency.determinants, dependency.column]
        return list(dict.fromkeys(names))

    def identity(self) -> dict[str, Any]:
        tables = [digest_table(read_table(d.data)) for d in self.spec.dependencies if d.data is not None]
        return {**super().identity(), "tables": tables}

    def check(self) -> None:
        for dependency in self.spec.dependencies:
            _table(dependency, self.name)

    def open(self) -> None:
        self._tables = [_table(d, self.name) for d in self.spec.dependencies]

    def find(self, rows: pa.RecordBatch) -> Findings:
        reasons: list[str | None] = [None] * rows.num_rows
        texts: list[str | None] = [None] * rows.num_rows

        def refuse(breaks: np.ndarray, reason: str, text: Callable[[int], str]) -> None:
            for row in np.flatnonzero(breaks):
                if reasons[row] is None:
                    reasons[row], texts[row] = reason, text(int(row))

        for name in self.spec.required:
            missing = rows.column(name).is_null().to_numpy(zero_copy_only=False)
            refuse(missing, "required", lambda row, name=name: f"{name} is missing")  # type: ignore[misc]
        for rule in self.spec.rules:
            refuse(self._breaks(rows, rule), "rule", lambda row, rule=rule: rule)  # type: ignore[misc]
        for dependency, table in zip(self.spec.dependencies, self._tables):
            self._depend(rows, dependency, table, refuse)
        return Findings({"constraint": pa.array(texts, pa.string())}, pa.array(reasons, pa.string()))

    def _breaks(self, rows: pa.RecordBatch, rule: str) -> np.ndarray:
        """The rows that break a rule, bool (rows,)."""
        left, sign, right = parse(rule)
        sides, missing = [], np.zeros(rows.num_rows, bool)
        is_text = any(isinstance(s.literal, str) or _holds_text(rows, s) for s in (left, right))
        for side in (left, right):
            if is_text != (isinstance(side.literal, str) or _holds_text(rows, side)):
                raise UserError(f"stage '{self.name}': the rule '{rule}' compares text with a number")
            if side.column is None:
                sides.append(np.full(rows.num_rows, side.literal, object if is_text else np.float64))
                continue
            values = rows.column(side.column)
            missing |= values.is_null().to_numpy(zero_copy_only=False)
            sides.append(_comparable(values, is_text))
        holds = COMPARISONS[sign](*sides).astype(bool)
        if not is_text:
            holds &= np.isfinite(sides[0]) & np.isfinite(sides[1])
        return ~holds & ~missing

    def _depend(self, rows: pa.RecordBatch, dependency: Dependency, table: dict, refuse: Callable[..., None]) -> None:
        keys = list(zip(*(rows.column(name).to_pylist() for name in dependency.determinants)))
        values = rows.column(dependency.column).to_pylist()
        is_broken = np.zeros(rows.num_rows, bool)
        for row, (key, value) in enumerate(zip(keys, values)):
            if value is None or any(part is None for part in key):
                continue
            texts = tuple(_text(part) for part in key)
            is_broken[row] = table[texts] != _text(value) if texts in table else not dependency.others

        def text(row: int) -> str:
            key = ", ".join(f"{n} {_text(v)[:MAX_VALUE_CHARS]}" for n, v in zip(dependency.determinants, keys[row]))
            return f"{key} has {dependency.column} {_text(values[row])[:MAX_VALUE_CHARS]}"

        refuse(is_broken, "dependency", text)


def _holds_text(rows: pa.RecordBatch, side: Side) -> bool:
    return side.column is not None and pa.types.is_string(rows.column(side.column).type)


def _comparable(values: pa.Array, is_text: bool) -> np.ndarray:
    """Values as numpy compares them; the placeholders of nulls are never used."""
    if is_text:
        return np.array(values.fill_null("").to_pylist(), object)
    numbers: np.ndarray = pc.fill_null(values.cast(pa.float64()), 0.0).to_numpy(zero_copy_only=False)
    return numbers


def _text(value: Any) -> str:
    """The same text for 13, 13.0 and "13", because keys of TOML tables and CSV files have different types."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value)


def _table(dependency: Dependency, stage_name: str) -> dict[tuple[str, ...], str]:
    """Allowed value of `column` by the values of the determinants.

    Raises UserError if rows of `data` contradict each other.
    """
    if dependency.data is None:
        return {(key,): _text(value) for key, value in dependency.pairs.items()}
    rows = read_table(dependency.data)
    for name in (*dependency.determinants, dependency.column):
        if name not in rows.column_names:
            raise UserError(f"stage '{stage_name}': {dependency.data.path} has no column '{name}'")
    table: dict[tuple[str, ...], str] = {}
    for *key, value in zip(*(rows.column(n).to_pylist() for n in (*dependency.determinants, dependency.column))):
        texts, value_text = tuple(_text(part) for part in key), _text(value)
        if table.setdefault(texts, value_text) != value_text:
            raise UserError(
                f"stage '{stage_name}': {dependency.data.path} is not a dependency: {', '.join(texts)} has "
                f"{dependency.column} {table[texts]} and {value_text}"
            )
    return table

"""The contract of a source that computes its rows by number, and its place among the parts of a source."""

import json
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from functools import lru_cache
from typing import Any, ClassVar, Protocol, overload

from gristmill.records.functions.draws import Draws
from gristmill.records.ids import fingerprint
from gristmill.records.plugins import kind_of, source_identity
from gristmill.records.readers.parts import Part
from gristmill.records.spec import literals

WITHOUT_END = 1 << 62  # rows of a source without `num_rows`
NUM_CACHED = 8  # spans of rows that a process holds: each engine asks for its part of a lot in several calls


class RowFunction(ABC):
    """A function from a row number to a row: `[source]` with `kind`.

    Workers compute the rows, so the object is pickled with every lot: keep it small, and load tables in the
    constructor. `row` must not depend on earlier calls, on time or on the machine.
    """

    kind: ClassVar[str]
    Spec: ClassVar[type]
    revision: ClassVar[int] = 1  # raised when rows change

    def __init__(self, spec: Any) -> None:
        """`spec` is an instance of `Spec`. Raises UserError for keys that do not fit together."""
        self.spec = spec

    @property
    @abstractmethod
    def columns(self) -> tuple[str, ...]:
        """The columns of every row."""

    @abstractmethod
    def row(self, number: int, draws: Draws) -> dict[str, Any]:
        """Row `number`, from 0: values that JSON can express, one for each column."""

    @property
    def words(self) -> str:
        """What the rows are, for a plan."""
        return f"rows of {kind_of(self)}"

    def identity(self) -> dict[str, Any]:
        """Everything that decides the rows but for the seed, as literals; places of files are not in it."""
        return {
            "kind": kind_of(self),
            "revision": self.revision,
            **literals(self.spec, identity=True),
            **source_identity(self),
        }


class FunctionRows(Part):
    """The rows of a function under a seed, `num_rows` of them or without end."""

    def __init__(self, function: RowFunction, seed: int, num_rows: int | None) -> None:
        self.function, self.seed = function, seed
        self.is_endless = num_rows is None
        self.num_rows = WITHOUT_END if num_rows is None else num_rows
        self.name = function.kind
        self.literals = {"function": function.identity(), "seed": seed, "num_rows": num_rows}
        self.digest = fingerprint(self.literals)
        self.names = function.columns  # of the columns that are read

    def rows(self, start: int, stop: int) -> list[str]:
        texts = []
        for number in range(start, stop):
            row = self.function.row(number, Draws(self.seed, number))
            texts.append(json.dumps({name: row[name] for name in self.names}, ensure_ascii=False))
        return texts

    def select(self, names: Collection[str]) -> None:
        self.names = tuple(name for name in self.function.columns if name in names)

    @property
    def words(self) -> str:
        """What the rows are and how many, for a plan."""
        return f"{self.function.words}; " + ("without end" if self.is_endless else f"{self.num_rows:,} rows")


class _Rows(Protocol):
    """A source that computes its rows."""

    def compute(self, start: int, stop: int, num_rows: int) -> list[tuple[str, str]]: ...


class AskRows(Sequence[tuple[str, str]]):
    """(source id, JSON text) of asks [start, stop), computed where they are first read: in a worker."""

    def __init__(self, source: _Rows, key: str, nbytes: int, span: tuple[int, int, int]) -> None:
        """`key`: identity of the source, for the rows that this process holds already; `nbytes`: its size as a message;
        `span`: (start, stop, number of rows of the source that the asks cycle through).
        """
        self.source, self.key, self.nbytes, self.span = source, key, nbytes, span

    def __len__(self) -> int:
        return self.span[1] - self.span[0]

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(_computed(self))

    @overload
    def __getitem__(self, place: int) -> tuple[str, str]: ...
    @overload
    def __getitem__(self, place: slice) -> list[tuple[str, str]]: ...
    def __getitem__(self, place: int | slice) -> tuple[str, str] | list[tuple[str, str]]:
        return _computed(self)[place]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AskRows) and (self.key, self.span) == (other.key, other.span)

    def __hash__(self) -> int:
        return hash((self.key, self.span))


@lru_cache(maxsize=NUM_CACHED)
def _computed(rows: AskRows) -> list[tuple[str, str]]:
    return rows.source.compute(*rows.span)

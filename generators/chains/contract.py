"""The contract of chain families: models that are fitted to rows and make rows, generation after generation.

A block holds many chains of a cell: the first axis of arrays is the chain, and one call handles all chains. A family
with heavy models has blocks of one chain. All families run in the same loop (loop.py).

Laws of a family: its random numbers come from its `random` argument only; it never changes the rows of its arguments; a
chain that degenerates (variance 0, a category without rows) goes on, and its measures report it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

import numpy as np
import pyarrow as pa

from gristmill.generators.chains.model_store import ModelStore
from gristmill.records.errors import UserError

if TYPE_CHECKING:
    from gristmill.evaluation.collapse.chains import ChainMetrics

Rows = Any  # float64 (chains, rows, columns) unless the family documents another type
Measures = dict[str, np.ndarray]  # float64 (chains,) each


class Piece(NamedTuple):
    """Training rows: of some batches as `hold` returns them, all rows or those at `rows`."""

    batches: tuple[Any, ...]
    num: int
    rows: np.ndarray | None  # int64 (chains, num); None: all rows
    weight: float  # of each row


class TextEngines(Protocol):
    """Engines that write the rows of language models (cluster/fits/engines.py)."""

    def texts(
        self,
        files: Mapping[str, bytes],
        args: Mapping[str, Any],
        prompts: Sequence[str],
        seeds: Sequence[int],
        sampling: Mapping[str, Any],
    ) -> list[str]:
        """One text for each prompt, by the model of `files`."""


@dataclass(frozen=True)
class ChainContext:
    """Services that a unit of work gives to its family. A field is None where the family does not need it."""

    metrics: "ChainMetrics | None" = None  # measures of tables and texts
    engines: TextEngines | None = None  # for families with `is_served`
    model_store: ModelStore | None = None  # models of the chain's generations


NO_CONTEXT = ChainContext()


class ChainFamily(ABC):
    """Base class of every family. The constructor imports nothing heavy and reads no data; `open` does."""

    kind: ClassVar[str]
    Spec: ClassVar[type]
    revision: ClassVar[int] = 1  # raise it when the same spec gives other rows: it is part of every unit's key
    block: ClassVar[int] = 256  # chains in a block, unless gates are set: then 1
    is_light: ClassVar[bool] = True  # false: each generation is a task and a commit of its own
    is_served: ClassVar[bool] = False  # whether an engine writes its rows

    def __init__(self, spec: Any, context: ChainContext = NO_CONTEXT) -> None:
        self.spec = spec
        self.context = context

    def least_rows(self) -> int:
        """The smallest number of rows that a model can be fitted to."""
        return 2

    def check(self, n: int) -> None:
        """Raise UserError when `n` rows are too few or too many, or when something that `open` needs is missing."""
        if n < self.least_rows():
            raise UserError(f"family '{self.kind}' needs at least {self.least_rows()} rows a generation, n is {n}")

    def identity(self) -> Any:
        """Literals of what the spec refers to: digests of rows and models."""
        return None

    def open(self) -> None:  # noqa: B027
        """Read data and import heavy packages."""

    @abstractmethod
    def real(self, chains: int, num: int, random: np.random.Generator) -> Rows:
        """New real rows for each chain."""

    def hold(self, rows: Rows) -> Any:
        """Rows as the pool keeps them, with sums that every fit to all of them can use again."""
        return rows

    # Operations on rows. The defaults are for arrays with the rows on the second axis.

    def count(self, rows: Rows) -> int:
        """The number of rows of each chain."""
        return int(rows.shape[1])

    def head(self, rows: Rows, num: int) -> Rows:
        """The first `num` rows."""
        return rows[:, :num]

    def select(self, rows: Rows, keep: np.ndarray) -> Rows:
        """The rows where `keep`, bool (rows,), is true."""
        return rows[:, keep]

    def concat(self, parts: Sequence[Rows]) -> Rows:
        """The rows of all parts in their order."""
        return np.concatenate(parts, axis=1)

    # What gates and their measures read of the rows of one chain.

    def columns(self) -> pa.Schema | None:
        """The columns of `table`; None for rows that are no table: no dedup or stage gate can read them."""
        return None

    def table(self, rows: Rows) -> pa.Table:
        """Rows as a table for the stages of a recipe."""
        raise AssertionError(f"{self.kind}: rows are not a table")

    def every_real(self) -> Rows:
        """All real rows, for a family with `columns`."""
        raise AssertionError(f"{self.kind}: the number of real rows is unlimited")

    def numbers(self, rows: Rows) -> np.ndarray | None:
        """Rows as float64 (rows, columns), whose means measure the drift of accepted rows; None without numbers."""
        is_plain = isinstance(rows, np.ndarray) and rows.ndim == 3 and rows.dtype.kind == "f"
        return rows[0] if is_plain else None

    def is_right(self, rows: Rows) -> np.ndarray | None:
        """Whether each label is right, bool (rows,); None where the truth is unknown."""
        return None

    def to_bytes(self, rows: Rows) -> bytes:
        """Rows as a file. Families with `is_light` false need it."""
        raise AssertionError(f"{self.kind} stores no rows")

    def from_bytes(self, data: bytes) -> Rows:
        """Rows from the file that `to_bytes` made."""
        raise AssertionError(f"{self.kind} stores no rows")

    @abstractmethod
    def fit(self, pieces: Sequence[Piece], random: np.random.Generator) -> Any:
        """A model for each chain, fitted to the weighted rows of all pieces."""

    @abstractmethod
    def sample(self, model: Any, num: int, random: np.random.Generator) -> Rows:
        """`num` rows of each chain's model, with the sampling bias of the family."""

    @abstractmethod
    def measure(self, model: Any, rows: Rows, random: np.random.Generator) -> Measures:
        """Measures of the models and of the rows that they have made, by name."""

    def exhibit(self, rows: Rows) -> Mapping[str, Any]:
        """Some rows for the page: {"texts": [...]} or {"images": [...]} (PNG in base64); empty for plain numbers."""
        return {}

    def close(self) -> None:  # noqa: B027
        """Called when the unit is committed: removes models that are no longer needed."""

    def facts(self) -> Mapping[str, Any]:
        """What closed-form laws depend on (dims, estimator, bias, noise), by the names of evaluation/laws."""
        return {}


EarlierRows = Callable[[], Iterable[Rows]]  # synthetic rows of the pool that the gated rows would join


class Gate(Protocol):
    """A verifier inside the loop, for blocks of one chain."""

    name: str

    def keep(self, rows: Rows, random: np.random.Generator, earlier: EarlierRows) -> np.ndarray:
        """Which of the new rows to keep: bool (rows,)."""


def rows_of(piece: Piece) -> np.ndarray:
    """The rows of a piece whose batches are plain arrays: (chains, num, columns)."""
    whole = piece.batches[0] if len(piece.batches) == 1 else np.concatenate(piece.batches, axis=1)
    if piece.rows is None:
        return whole
    return np.take_along_axis(whole, piece.rows[:, :, None], axis=1)


def shrink(mean: np.ndarray, rows: np.ndarray, bias: float) -> np.ndarray:
    """Rows (chains, rows, columns) moved towards each chain's mean until the share `bias` of their variance is left."""
    centre = mean[:, None]
    return rows if bias == 1 else centre + np.sqrt(bias) * (rows - centre)


def weights_of(pieces: Sequence[Piece]) -> np.ndarray:
    """The weight of each row, of all pieces in their order: float64 (rows,)."""
    return np.repeat([p.weight for p in pieces], [p.num for p in pieces])

"""What a chain is made of: a family that is fitted to rows and makes rows, generation after generation.

Many chains of one cell stand beside each other in a block: arrays have the chains as their first axis, and one call
serves them all. A family whose models are heavy has blocks of one chain. The loop (loop.py) is the same for all.

Laws of a family: it draws random numbers from the generator that it is given and from nothing else; it changes no rows
that it was given; a chain that degenerates (variance 0, no rows of a kind) goes on and is told by its measures.
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

Rows = Any  # float64 (chains, rows, columns) unless the family says otherwise
Measures = dict[str, np.ndarray]  # float64 (chains,) each


class Piece(NamedTuple):
    """Rows to be fitted to: of some sources as `hold` gave them, all or those at `rows`, int64 (chains, num)."""

    held: tuple[Any, ...]
    num: int
    rows: np.ndarray | None
    weight: float


class TextEngines(Protocol):
    """Engines that write the rows of language models (cluster/engines.py)."""

    def texts(
        self,
        files: Mapping[str, bytes],
        args: Mapping[str, Any],
        prompts: Sequence[str],
        seeds: Sequence[int],
        sampling: Mapping[str, Any],
    ) -> list[str]:
        """What the model of `files` writes after each prompt."""


@dataclass(frozen=True)
class ChainContext:
    """Services that the unit of work hands to its family. A field is None where the family needs no such service."""

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
        """The fewest rows that can be fitted to."""
        return 2

    def check(self, n: int) -> None:
        """Raise UserError when `n` rows are too few, or something that `open` needs is missing."""
        if n < self.least_rows():
            raise UserError(f"family '{self.kind}' needs at least {self.least_rows()} rows a generation, n is {n}")

    def identity(self) -> Any:
        """Literals of what the spec only names: digests of rows and models."""
        return None

    def open(self) -> None:  # noqa: B027
        """Read data, import what is heavy."""

    @abstractmethod
    def real(self, chains: int, num: int, random: np.random.Generator) -> Rows:
        """New real rows for each chain."""

    def hold(self, rows: Rows) -> Any:
        """Rows as the pool keeps them, with what fitting to all of them can use again (sums)."""
        return rows

    # Rows as such: written for arrays with the rows on the second axis.

    def count(self, rows: Rows) -> int:
        return int(rows.shape[1])

    def cut(self, rows: Rows, num: int) -> Rows:
        """The first `num` rows."""
        return rows[:, :num]

    def kept(self, rows: Rows, keep: np.ndarray) -> Rows:
        """The rows that a gate keeps, bool (rows,)."""
        return rows[:, keep]

    def joined(self, parts: Sequence[Rows]) -> Rows:
        return np.concatenate(parts, axis=1)

    # What gates and their audit read of the rows of one chain.

    def columns(self) -> pa.Schema | None:
        """The columns of `table`; None where rows are no table, and so can have no copies and pass no stage."""
        return None

    def table(self, rows: Rows) -> pa.Table:
        """Rows as the stages of a recipe read them."""
        raise AssertionError(f"{self.kind}: rows are no table")

    def every_real(self) -> Rows:
        """All real rows that there are, of a family with `columns`."""
        raise AssertionError(f"{self.kind}: real rows have no end")

    def numbers(self, rows: Rows) -> np.ndarray | None:
        """Rows as float64 (rows, columns), whose means say where accepted rows drift to; None where nothing does."""
        is_plain = isinstance(rows, np.ndarray) and rows.ndim == 3 and rows.dtype.kind == "f"
        return rows[0] if is_plain else None

    def right(self, rows: Rows) -> np.ndarray | None:
        """Which labels are right, bool (rows,), where the truth is known."""
        return None

    def packed(self, rows: Rows) -> bytes:
        """Rows as a file; a family whose generations are units of their own needs it."""
        raise AssertionError(f"{self.kind} keeps no rows")

    def unpacked(self, data: bytes) -> Rows:
        raise AssertionError(f"{self.kind} keeps no rows")

    @abstractmethod
    def fit(self, pieces: Sequence[Piece], random: np.random.Generator) -> Any:
        """A model for each chain, fitted to the weighted rows of all pieces."""

    @abstractmethod
    def sample(self, model: Any, num: int, random: np.random.Generator) -> Rows:
        """Rows that each chain's model makes, with the family's sampling bias."""

    @abstractmethod
    def measure(self, model: Any, made: Rows, random: np.random.Generator) -> Measures:
        """What there is to say of the models, and of the rows that they have made."""

    def exhibit(self, made: Rows) -> Mapping[str, Any]:
        """Some rows to look at: {"texts": [...]} or {"png": [...]} in base64; nothing where numbers say it all."""
        return {}

    def close(self) -> None:  # noqa: B027
        """The unit is committed: what it needed on the shelf may go."""

    def facts(self) -> Mapping[str, Any]:
        """What a closed-form law needs to know: dims, estimator, bias, noise; by the names of evaluation/laws."""
        return {}


Past = Callable[[], Iterable[Rows]]  # rows that models made before and that stay, for gates that look at them


class Gate(Protocol):
    """A verifier inside the loop: which of the rows just made stay, bool (rows,), in a block of one chain."""

    name: str

    def keep(self, rows: Rows, random: np.random.Generator, past: Past) -> np.ndarray: ...


def gathered(piece: Piece) -> np.ndarray:
    """The rows of a piece whose sources hold plain arrays: (chains, num, columns)."""
    line = piece.held[0] if len(piece.held) == 1 else np.concatenate(piece.held, axis=1)
    if piece.rows is None:
        return line
    return np.take_along_axis(line, piece.rows[:, :, None], axis=1)


def towards(mean: np.ndarray, rows: np.ndarray, bias: float) -> np.ndarray:
    """Rows (chains, rows, columns) drawn towards each chain's mean until `bias` of their variance is left."""
    centre = mean[:, None]
    return rows if bias == 1 else centre + np.sqrt(bias) * (rows - centre)


def weights_of(pieces: Sequence[Piece]) -> np.ndarray:
    """The weight of each row of all pieces in their order: float64 (rows,)."""
    return np.repeat([p.weight for p in pieces], [p.num for p in pieces])

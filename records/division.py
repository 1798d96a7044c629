"""How the asks of a run are divided among several generators: a pure function of the ask, never of its lot or batch."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from gristmill.records.ids import GOLDEN, MASK_64, mix_bits

SALT = 211  # of the draw; the seeds of calls have salts of their own
NOBODY = "none"  # value of the column `generator` of an ask that no generator takes
REASON = "generator:no_teacher"  # reject reason of such an ask


@dataclass(frozen=True)
class DivisionSpec:
    """`[division]`: how asks are divided among [[generators]]."""

    # `shares`: drawn from the seed of the ask by `share`; `samples`: sample i of a source row goes to generator i
    # modulo their number, so that each answers every row.
    by: Literal["shares", "samples"] = "shares"
    # Column of the source whose value `when` of a generator names; one without `when` takes the values left over.
    column: str | None = None


@dataclass(frozen=True)
class Author:
    """A generator as its rows name it, and which asks it takes."""

    generator: str  # value of the column `generator`
    model: str | None
    method: str | None
    origin: str
    share: float = 1.0  # weight of the draw
    when: tuple[str, ...] = ()  # values of the column of the division


@dataclass(frozen=True)
class Division:
    """The generators of a run in the recipe's order, and the rule by which each ask goes to one of them."""

    authors: tuple[Author, ...]
    by: Literal["shares", "samples"] = "shares"
    column: str | None = None
    num_together: int = 1  # asks about one source row that follow one another

    @property
    def weights(self) -> list[float]:
        """Largest share of the asks that each generator can get; with a column it may be all of them."""
        if self.column is not None:
            return [1.0] * len(self.authors)
        shares = [1.0 if self.by == "samples" else author.share for author in self.authors]
        return [share / sum(shares) for share in shares]

    def choices(self, start: int, num_source_rows: int, seeds: np.ndarray, texts: Sequence[str]) -> np.ndarray:
        """int64 (num_asks,): the place in `authors` of each ask, -1 where none takes it.

        start: number of the first ask. seeds: int64 (num_asks,). texts: JSON of the source rows.
        """
        groups = self._groups(texts)
        places = np.full(len(texts), -1, np.int64)
        numbers = np.arange(start, start + len(texts))
        samples = numbers % self.num_together if self.num_together > 1 else numbers // max(1, num_source_rows)
        draws = mix_bits(seeds.astype(np.uint64) + np.uint64((SALT + 1) * GOLDEN & MASK_64)) >> np.uint64(11)
        for members in {group for group in groups if group}:
            rows = np.flatnonzero([group == members for group in groups])
            if self.by == "samples":
                chosen = samples[rows] % len(members)
            else:
                edges = np.cumsum([self.authors[member].share for member in members])
                at = draws[rows].astype(np.float64) * 2.0**-53 * edges[-1]
                chosen = np.minimum(np.searchsorted(edges, at, side="right"), len(members) - 1)
            places[rows] = np.array(members)[chosen]
        return places

    def columns(self, places: np.ndarray) -> dict[str, pa.Array]:
        """The provenance of asks that go to the authors at `places`, and their rejects."""
        authors = [self.authors[place] if place >= 0 else None for place in places.tolist()]
        values: dict[str, list[str | None]] = {
            "generator": [author.generator if author else NOBODY for author in authors],
            "model": [author.model if author else None for author in authors],
            "method": [author.method if author else None for author in authors],
            "origin": [author.origin if author else self.authors[0].origin for author in authors],
            "reject": [None if author else REASON for author in authors],
        }
        return {name: pa.array(column, pa.string()) for name, column in values.items()}

    def _groups(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """For each ask the places of the authors that may take it."""
        everyone = tuple(range(len(self.authors)))
        if self.column is None:
            return [everyone] * len(texts)
        rest = tuple(place for place in everyone if not self.authors[place].when)
        by_value = {
            value: tuple(place for place in everyone if value in self.authors[place].when)
            for author in self.authors
            for value in author.when
        }
        return [by_value.get(value, rest) for value in self._values(texts)]

    def _values(self, texts: Sequence[str]) -> Iterator[str]:
        for text in texts:
            try:
                row = json.loads(text)
            except (ValueError, RecursionError):
                row = None  # the generator rejects this row
            yield value_text(row.get(self.column)) if isinstance(row, dict) else ""


def value_text(value: Any) -> str:
    """A value as `when` names it: a text as it is, null as "", any other as JSON."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

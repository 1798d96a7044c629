"""What the two stages share that compare rows with benchmark items: the evidence, and an index open in the worker."""

import logging
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.records.errors import UserError
from gristmill.records.words import num_words
from gristmill.stages.contract import Findings, Stage
from gristmill.stages.decontaminate.benchmarks import Benchmark, digest, load

logger = logging.getLogger(__name__)
ITEMS = "searchable_items"  # in the identity, by benchmark: [items that are looked for, items]


class ItemCounts(NamedTuple):
    """Items of a benchmark, and how many of them are long enough to be looked for."""

    searchable: int
    total: int
    longest: float = 0.0  # length in words of the longest text

    def line(self, benchmark: str, min_words: int, with_encoder: bool) -> str:
        """One sentence for people."""
        num_short = self.total - self.searchable
        more = f"; {num_short:,} {'is' if num_short == 1 else 'are'} shorter than {min_words} words"
        more += " or of signs that the encoder does not know" if with_encoder else ""
        are = "is" if self.searchable == 1 else "are"
        return f"{benchmark}: {self.searchable:,} of {self.total:,} items {are} looked for{more if num_short else ''}"


def count_items(benchmark: Benchmark, min_words: int, is_readable: Callable[[str], bool]) -> ItemCounts:
    """Read a benchmark once. An item is looked for if one of its readable texts has `min_words` words."""
    lengths: dict[str, float] = {}
    for item, text in load(benchmark):
        length = num_words(text)
        length = length if length < min_words or is_readable(text) else 0.0
        lengths[item] = max(lengths.get(item, 0.0), length)
    return ItemCounts(sum(n >= min_words for n in lengths.values()), len(lengths), max(lengths.values()))


class ItemIndex(Protocol):
    """The texts of all benchmarks, with the name of its benchmark and the id of its item for each."""

    benchmarks: pa.Array
    items: pa.Array


class BenchmarkStage(Stage):
    """Adds the benchmark item nearest to each row, even one too far to reject: benchmark, item, score and place."""

    spec: Any
    prefix: ClassVar[str]  # of the columns of the evidence
    score: ClassVar[str]  # the column of the score
    reason: ClassVar[str]  # of a reject
    has_encoder: ClassVar[bool] = False  # whether it compares what an encoder makes of the texts

    def __init__(self, spec: Any, name: str | None = None) -> None:
        super().__init__(spec, name)
        self._index: Any = None
        self._counts: dict[str, ItemCounts] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_index": None}

    def build_index(self) -> ItemIndex:
        raise NotImplementedError

    def columns(self) -> list[pa.Field]:
        return [
            pa.field(f"{self.prefix}_benchmark", pa.string()),
            pa.field(f"{self.prefix}_item", pa.string()),
            pa.field(self.score, pa.float32()),
            pa.field(f"{self.prefix}_start", pa.int32()),
            pa.field(f"{self.prefix}_end", pa.int32()),
        ]

    def reads(self) -> list[str]:
        return [self.spec.column]

    def identity(self) -> dict[str, Any]:
        benchmarks = self.spec.benchmarks
        # A function of the content and `min_words`; here so that the manifest and the page of a run have it.
        items = {name: [counts.searchable, counts.total] for name, counts in self.item_counts().items()}
        return {**super().identity(), "benchmarks": [digest(benchmark) for benchmark in benchmarks], ITEMS: items}

    def reader(self) -> Callable[[str], bool]:
        """A function that tells whether this stage can read a text."""
        return lambda text: True

    def item_counts(self) -> dict[str, ItemCounts]:
        """Counts by the name of the benchmark. Reads the benchmarks at the first call."""
        if self._counts is None:
            least, is_readable = self.spec.min_words, self.reader()
            self._counts = {b.name: count_items(b, least, is_readable) for b in self.spec.benchmarks}
        return self._counts

    def check(self) -> None:
        for name, counts in self.item_counts().items():
            if not counts.searchable:
                or_unknown = " or of signs that the encoder does not know" if self.has_encoder else ""
                raise UserError(
                    f"benchmark '{name}': every text is shorter than min_words = {self.spec.min_words}{or_unknown}, so "
                    f"none of its {counts.total:,} items can be looked for; the longest has {counts.longest:.3g} words"
                )
        for name, counts in self.item_counts().items():
            if counts.searchable < counts.total:
                logger.info(f"{self.name}: {counts.line(name, self.spec.min_words, self.has_encoder)}")

    def open(self) -> None:
        if self._index is None:
            self._index = self.build_index()

    def close(self) -> None:
        self._index = None

    def findings(self, scan: tuple[np.ndarray, np.ndarray, np.ndarray], threshold: float) -> Findings:
        """Evidence and verdicts from a scan of the index, an entry a row: the number of the nearest text or -1, the
        score, and (start, end) in characters of the row. A score of at least `threshold` rejects the row.
        """
        unit, score, span = scan
        is_null = unit < 0
        units = pa.array(unit, mask=is_null)
        columns = {
            f"{self.prefix}_benchmark": self._index.benchmarks.take(units),
            f"{self.prefix}_item": self._index.items.take(units),
            self.score: pa.array(score.astype(np.float32), mask=is_null),
            f"{self.prefix}_start": pa.array(span[:, 0], mask=is_null),
            f"{self.prefix}_end": pa.array(span[:, 1], mask=is_null),
        }
        is_rejected = pa.array(score >= threshold)
        return Findings(columns, pc.if_else(is_rejected, pa.scalar(self.reason), pa.scalar(None, pa.string())))

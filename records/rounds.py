"""Rounds: groups of lots whose asks read the kept rows of earlier rounds.

The asks of a round are made when every earlier lot is committed, and the committed rows do not depend on time. So asks
from kept rows are literals as those from a file are, and a resumed run makes the same asks.

There are two feeds. "row": a kept row replaces the row of the source (generations of evolution). "examples": some rows
of the source and some kept rows stand beside the row of the source (in-context examples of self-instruct).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from gristmill.records.errors import UserError
from gristmill.records.ordered_map import read_ahead
from gristmill.records.output.shard_names import KEPT, shard_name
from gristmill.records.output.shard_reading import read_columns
from gristmill.records.readers.sources import Source
from gristmill.records.stores.contract import Store

EXAMPLES = 1  # of the spawn keys of a run's draws; lots and generations take others


@dataclass(frozen=True)
class RoundsSpec:
    """`[rounds]` of a recipe: `num` rounds of `lots` lots each.

    For methods that take examples, each ask gets `seed_examples` and `own_examples`. While fewer rows are kept than
    that, rows of the source replace them (Wang et al. 2022, Self-Instruct, section 2.2: six human-written tasks and two
    of the model's own).
    """

    num: int  # Rounds of the run.
    lots: int = 1  # Lots in a round.
    seed_examples: int = 6  # Rows of the source that an ask shows as examples.
    own_examples: int = 2  # Kept rows that an ask shows as examples.

    def __post_init__(self) -> None:
        if self.num < 1 or self.lots < 1:
            raise ValueError("num and lots must be at least 1")
        if min(self.seed_examples, self.own_examples) < 0 or not self.seed_examples + self.own_examples:
            raise ValueError("seed_examples and own_examples must not be negative, nor both 0")


@dataclass
class _Row:
    source_id: str
    text: str  # JSON


class RoundSource:
    """A source that draws from the committed rows of a run. It holds the fed columns of all kept rows in memory."""

    def __init__(
        self,
        source: Source,
        store: Store,
        spec: RoundsSpec,
        feed: str,
        columns: Sequence[str],
        fingerprint: str,
        lot_size: int,
    ) -> None:
        """`columns`: those read from kept rows; `fingerprint`: of the run, the seed of the draws."""
        if feed not in ("row", "examples"):
            raise ValueError(f"feed must be 'row' or 'examples', not {feed!r}")
        self.source, self.store, self.spec, self.feed, self.columns = source, store, spec, feed, tuple(columns)
        self.fingerprint, self.lot_size = fingerprint, lot_size
        self._num_read = 0  # rounds whose kept rows have been read
        self._seeds = [_Row(*row) for row in source.rows(0, source.num_rows)]
        if feed == "row" and len({row.source_id for row in self._seeds}) < len(self._seeds):
            raise UserError("source.id_column: [rounds] needs distinct ids, and some rows have the same id")
        self._kept: list[_Row] = []
        self._frontier = self._seeds  # of feed "row": the latest row of every lineage

    def ask_rows(self, start: int, stop: int, num_rows: int) -> list[tuple[str, str]]:
        """(source id, JSON text) of asks [start, stop) of a round; all earlier rounds are committed."""
        number = start // (self.spec.lots * self.lot_size)
        while self._num_read < number:
            self._read(self._num_read)
            self._num_read += 1
        first = number * self.spec.lots * self.lot_size
        if self.feed == "row":
            rows = [self._frontier[(ask - first) % len(self._frontier)] for ask in range(start, stop)]
            return [(row.source_id, row.text) for row in rows]
        return [self._with_examples(ask) for ask in range(start, stop)]

    def _read(self, number: int) -> None:
        """Read the kept rows of a round."""
        kept: list[_Row] = []
        parents: set[str] = set()
        columns = ["id", "source_id", *self.columns]

        def read(lot: int) -> pa.Table:
            return read_columns(self.store, shard_name(KEPT, lot), columns, self.lot_size)

        lots = range(number * self.spec.lots, (number + 1) * self.spec.lots)
        for table in read_ahead(self.store, read, lots):
            for row in table.to_pylist():
                parents.add(row.pop("source_id"))
                row_id = row.pop("id")
                kept.append(_Row(row_id, json.dumps(row, ensure_ascii=False)))
        if self.feed == "examples":
            self._kept += kept
            return
        # A lineage whose asks were all rejected keeps its row, and comes first in the next round.
        self._frontier = [row for row in self._frontier if row.source_id not in parents] + kept

    def _with_examples(self, ask: int) -> tuple[str, str]:
        spec, seed = self.spec, self._seeds[ask % len(self._seeds)]
        random = np.random.Generator(
            np.random.PCG64(np.random.SeedSequence(int(self.fingerprint, 16), spawn_key=(2**31, EXAMPLES, ask)))
        )
        num_kept = min(spec.own_examples, len(self._kept))
        num_seeds = min(spec.seed_examples + spec.own_examples - num_kept, len(self._seeds))
        drawn = [self._seeds[i] for i in random.choice(len(self._seeds), num_seeds, replace=False)]
        drawn += [self._kept[i] for i in random.choice(len(self._kept), num_kept, replace=False)] if num_kept else []
        shown = [drawn[i] for i in random.permutation(len(drawn)) if _object(drawn[i].text)]
        # The ids state what a row was made from: see jobs/release/takedown.
        examples = {"examples": [_object(row.text) for row in shown], "example_ids": [row.source_id for row in shown]}
        fields = {**_object(seed.text), **examples}
        return seed.source_id, json.dumps(fields, ensure_ascii=False)


def check_rounds(spec: RoundsSpec, source: Source, samples: int, is_cycle: bool) -> None:
    """Raise UserError when rounds and source do not fit together."""
    if samples != 1 or is_cycle:
        raise UserError("[rounds] decides the number of asks: remove source.samples and source.cycle")
    if source.num_rows > 1_000_000:
        raise UserError(f"[rounds] holds the source in memory, and this is too long for that: {source.words}")


def _object(text: str) -> dict[str, Any]:
    try:
        row = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return row if isinstance(row, dict) else {}

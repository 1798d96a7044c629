"""Decides which rows of a lot are kept, in lot order: room under an exact limit, duplicates by the index, admission.

The sequencer owns the order and the admission books; the index answers keys. Both are views of the committed shards.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from gristmill.cluster.index.index import DedupIndex
from gristmill.cluster.lots.verdicts import Admitted, admitter
from gristmill.cluster.lots.work import LotPipeline, LotResult
from gristmill.cluster.spec import ClusterSpec
from gristmill.records.ordered_map import read_ahead
from gristmill.records.output.shard_names import KEPT, shard_name
from gristmill.records.output.shard_reading import read_columns
from gristmill.records.output.summary import Summary
from gristmill.records.schema import SURPLUS
from gristmill.records.stores.contract import Store
from gristmill.stages.admission.contract import AdmissionBook, LotVerdicts, is_full, resolve_admitting
from gristmill.stages.dedup.bandindex import NOBODY

Lots = Sequence[tuple[int, LotResult]]


class CommitSequencer:
    """Claims for the driver. Lots must come in their order; a rewind sets the order back."""

    def __init__(self, pipeline: LotPipeline, store: Store, spec: ClusterSpec) -> None:
        self.pipeline, self.store = pipeline, store
        self.index: DedupIndex | None = None
        if pipeline.dedup is not None:
            limits = spec.index_actors, spec.max_retries, spec.snapshot_lots
            self.index = DedupIndex(pipeline.plan, pipeline.dedup, store, *limits)
        self._admission_books: list[AdmissionBook] = [stage.new_book() for stage in pipeline.admissions]
        # Admitted and uncommitted rows by lot, in order.
        self._admitted: dict[int, Admitted] = {}
        self._exact_rows: int | None = None
        self._num_kept = 0  # rows of the committed lots
        self._claimed: dict[int, int] = {}  # kept rows of claimed and uncommitted lots

    @property
    def nbytes(self) -> int:
        """Memory of the dedup index in bytes."""
        return self.index.nbytes if self.index else 0

    def start(self, totals: Summary, should_stop: Callable[[], bool], exact_rows: int | None = None) -> None:
        """Fill index and admission books from the committed lots. Raises RunFailed when they cannot be read.

        exact_rows: the number of rows that the run keeps, where it is exact.
        """
        self._exact_rows, self._num_kept = exact_rows, totals.kept
        if self.index:
            self.index.start(totals.num_lots, should_stop)
        for stage, book in zip(self.pipeline.admissions, self._admission_books):
            stage.refill(book, totals.admitted.get(stage.name, {}), lambda c: self._kept_rows(c, totals.num_lots))

    def _kept_rows(self, columns: list[str], num_lots: int) -> Iterator[tuple[int, pa.Table]]:
        def read(lot: int) -> tuple[int, pa.Table]:
            return lot, read_columns(self.store, shard_name(KEPT, lot), columns, self.pipeline.plan.lot_size)

        return read_ahead(self.store, read, range(num_lots))

    def is_full(self, totals: Summary) -> bool:
        """Whether the admission stages can keep no further row."""
        return is_full(self.pipeline.admissions, totals.admitted)

    def claim(self, lots: Lots) -> list[LotVerdicts | None]:
        """Verdicts on the living rows of consecutive lots; None where all of them are kept. Raises RunFailed.

        Row by row: once the exact number of rows is kept, a row is surplus, and is not looked at further. Before that
        it may be a duplicate of a kept row, and then an admission stage may refuse it.

        A verdict does not depend on how many lots are claimed together. An exact index answers for all of them in one
        round trip. A Bloom filter would answer differently, and admission needs the lots before, so both take one
        lot at a time.
        """
        if self.index is None and not self._admission_books and self._exact_rows is None:
            return [None] * len(lots)
        is_exact = self.index is None or self.index.dedup.is_exact
        together = len(lots) if is_exact and not self._admission_books else 1
        return [v for at in range(0, len(lots), together or 1) for v in self._claim(lots[at : at + together])]

    def _claim(self, lots: Lots) -> list[LotVerdicts]:
        first_lot, lot_size = lots[0][0], self.pipeline.plan.lot_size
        first_ask = first_lot * lot_size
        alive = np.concatenate([result.alive for _, result in lots])
        edges = np.cumsum([0] + [len(result.alive) for _, result in lots])
        if [lot * lot_size for lot, _ in lots] != (first_ask + edges[:-1]).tolist():
            raise ValueError("lots that are claimed together must follow one another")
        nobody = np.full(len(alive), NOBODY, np.int64)
        room = None if self._exact_rows is None else self._exact_rows - self._num_kept - sum(self._claimed.values())

        def resolve(living: np.ndarray) -> np.ndarray:
            return nobody.copy()

        if self.index:
            keys = np.concatenate([result.keys for _, result in lots if result.keys is not None])
        if self.index and room != 0:
            earlier = nobody.copy()
            earlier[alive] = self.index.query(first_lot, keys[alive])
            resolve = partial(self.index.dedup.resolve, keys, earlier, first_owner=first_ask)
        refused: list[str | None] = []
        evidence: dict[str, list[Any]] = {}
        living = alive
        if self._admission_books:
            lot, result = lots[0]
            admitted = self._admitted[lot] = []
            books = list(zip(self.pipeline.admissions, self._admission_books, result.offers))
            admit, refused, evidence = admitter(books, first_ask, admitted)
            owners, living = resolve_admitting(resolve, alive, first_ask, admit, room)
        else:
            owners = resolve(alive)
        kept = np.flatnonzero(living & (owners == NOBODY))[:room]
        surplus = np.zeros(len(alive), bool)
        if room is not None and len(kept) == room:
            surplus = alive & (np.arange(len(alive)) > (kept[-1] if room else -1))
            owners[surplus] = NOBODY
        verdicts = []
        spans = zip(edges[:-1], edges[1:], *np.searchsorted(kept, [edges[:-1], edges[1:]]))
        for (lot, _), (start, stop, first, last) in zip(lots, spans):
            mine = kept[first:last]
            if self.index:
                self.index.add(lot, (keys[mine], first_ask + mine))
            reasons = refused
            if surplus[start:stop].any():
                reasons = [
                    SURPLUS if more else old
                    for more, old in zip(surplus[start:stop], refused or [None] * (stop - start))
                ]
            closes = bool(len(mine)) and len(kept) == room and mine[-1] == kept[-1]
            verdicts.append(LotVerdicts(owners[start:stop], reasons, evidence, self._exact_rows if closes else None))
            self._claimed[lot] = len(mine)
        return verdicts

    def committed(self, lot: int) -> None:
        """Note that the shard of a lot is written."""
        self._num_kept += self._claimed.pop(lot, 0)
        self._admitted.pop(lot, None)
        if self.index:
            self.index.committed(lot)

    def rewind(self, lot: int) -> None:
        """Retract the claims of `lot` and of all later lots, which are uncommitted and will claim again."""
        if self.index:
            self.index.rewind(lot, lot * self.pipeline.plan.lot_size)
        self._claimed = {number: kept for number, kept in self._claimed.items() if number < lot}
        for later in sorted((n for n in self._admitted if n >= lot), reverse=True):
            for number, offer, ask in reversed(self._admitted.pop(later)):
                self._admission_books[number].retract(offer, ask)

    def stop(self) -> None:
        if self.index:
            self.index.stop()

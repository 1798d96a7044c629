"""Decides which rows of a lot are kept, in lot order: duplicates by the dedup index, then admission.

The sequencer owns the order and the admission books; the index answers keys. Both are views of the committed shards.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from gristmill.cluster.index.index import DedupIndex
from gristmill.cluster.lots.work import LotPipeline, LotResult
from gristmill.cluster.spec import ClusterSpec
from gristmill.records.ordered_map import read_ahead
from gristmill.records.output.shard_names import KEPT, shard_name
from gristmill.records.output.shard_reading import read_columns
from gristmill.records.output.summary import Summary
from gristmill.records.stores.contract import Store
from gristmill.stages.admission.contract import AdmissionBook, AdmissionVerdict, LotVerdicts, is_full, resolve_admitting
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
        # Admitted and uncommitted rows by lot, in order: (number of the book, offer, ask number).
        self._admitted: dict[int, list[tuple[int, Any, int]]] = {}

    @property
    def nbytes(self) -> int:
        """Memory of the dedup index in bytes."""
        return self.index.nbytes if self.index else 0

    def start(self, totals: Summary, should_stop: Callable[[], bool]) -> None:
        """Fill index and admission books from the committed lots. Raises RunFailed when they cannot be read."""
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
        """Verdicts on the living rows of consecutive lots; None without dedup and admission. Raises RunFailed.

        A verdict does not depend on how many lots are claimed together. An exact index answers for all of them in one
        round trip. A Bloom filter would answer differently, and admission needs the lots before, so both take one
        lot at a time.
        """
        if self.index is None and not self._admission_books:
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

        def resolve(living: np.ndarray) -> np.ndarray:
            return nobody

        if self.index:
            keys = np.concatenate([result.keys for _, result in lots if result.keys is not None])
            earlier = nobody.copy()
            earlier[alive] = self.index.query(first_lot, keys[alive])
            resolve = partial(self.index.dedup.resolve, keys, earlier, first_owner=first_ask)
        refused: list[str | None] = []
        evidence: dict[str, list[Any]] = {}
        if self._admission_books:
            admit = self._admitter(*lots[0], first_ask, refused, evidence)
            owners, alive = resolve_admitting(resolve, alive, first_ask, admit)
        else:
            owners = resolve(alive)
        if self.index:
            kept = np.flatnonzero(alive & (owners == NOBODY))
            for (lot, _), start, stop in zip(lots, *np.searchsorted(kept, [edges[:-1], edges[1:]])):
                self.index.add(lot, (keys[kept[start:stop]], first_ask + kept[start:stop]))
        return [LotVerdicts(part, refused, evidence) for part in np.split(owners, edges[1:-1])]

    def _admitter(
        self, lot: int, result: LotResult, first_ask: int, refused: list[str | None], evidence: dict[str, list[Any]]
    ) -> Callable[[int], bool]:
        """A function that asks every admission stage about a row, by ask number, and notes reasons and evidence."""
        stages, num_rows = self.pipeline.admissions, len(result.alive)
        refused += [None] * num_rows
        evidence.update({f.name: [None] * num_rows for stage in stages for f in stage.columns()})
        admitted = self._admitted[lot] = []

        def admit(ask: int) -> bool:
            row = ask - first_ask
            for number, (stage, book) in enumerate(zip(stages, self._admission_books)):
                verdict: AdmissionVerdict = book.judge(result.offers[number][row], ask)
                for name, value in verdict.evidence.items():
                    evidence[name][row] = value
                if verdict.reason is not None:
                    refused[row] = f"{stage.name}:{verdict.reason}"
                    return False
            for number, book in enumerate(self._admission_books):
                book.admit(result.offers[number][row], ask)
                admitted.append((number, result.offers[number][row], ask))
            return True

        return admit

    def committed(self, lot: int) -> None:
        """Note that the shard of a lot is written."""
        self._admitted.pop(lot, None)
        if self.index:
            self.index.committed(lot)

    def rewind(self, lot: int) -> None:
        """Retract the claims of `lot` and of all later lots, which are uncommitted and will claim again."""
        if self.index:
            self.index.rewind(lot, lot * self.pipeline.plan.lot_size)
        for later in sorted((n for n in self._admitted if n >= lot), reverse=True):
            for number, offer, ask in reversed(self._admitted.pop(later)):
                self._admission_books[number].retract(offer, ask)

    def stop(self) -> None:
        if self.index:
            self.index.stop()

"""What every lot passes before its commit, in lot order: the dedup index, then what is admitted by the rows before."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from gristmill.cluster.index.index import DedupIndex
from gristmill.cluster.lots.work import LotPipeline, LotResult
from gristmill.cluster.spec import ClusterSpec
from gristmill.records.readers.parquet import read_parquet
from gristmill.records.shards import KEPT, Summary, shard_name
from gristmill.records.stores.contract import Store
from gristmill.stages.admission.contract import AdmissionBook, AdmissionVerdict, LotVerdicts, is_full, resolve_admitting
from gristmill.stages.dedup.bandindex import NOBODY

Lots = Sequence[tuple[int, LotResult, int]]  # (lot, its result, its first ask)


class CommitSequencer:
    """Claims in lot order, for the driver. Like the index, the books are views: made anew from what is committed."""

    def __init__(self, pipeline: LotPipeline, pipeline_ref: Any, store: Store, spec: ClusterSpec) -> None:
        self.pipeline, self.store = pipeline, store
        self.index: DedupIndex | None = None
        if pipeline.dedup is not None:
            dials = spec.index_actors, spec.max_retries, spec.snapshot_lots
            self.index = DedupIndex(pipeline_ref, store, pipeline.dedup.bands, *dials)
        self._books: list[AdmissionBook] = [stage.new_book() for stage in pipeline.admissions]
        # What was admitted and is not committed yet, by lot, in order: (place of the book, offer, ask).
        self._admitted: dict[int, list[tuple[int, Any, int]]] = {}

    @property
    def nbytes(self) -> int:
        """Bytes that the dedup index takes."""
        return self.index.nbytes if self.index else 0

    def start(self, totals: Summary, should_stop: Callable[[], bool]) -> None:
        """Bring index and books to what is committed. Raises RunFailed when that cannot be read."""
        if self.index:
            self.index.start(totals.num_lots, should_stop)
        for stage, book in zip(self.pipeline.admissions, self._books):
            stage.refill(book, totals.admitted.get(stage.name, {}), lambda c: self._kept(c, totals.num_lots))

    def _kept(self, columns: list[str], num_lots: int) -> Iterator[tuple[int, pa.Table]]:
        for lot in range(num_lots):
            with self.store.open(shard_name(KEPT, lot)) as file:
                yield lot, read_parquet(file, columns)

    def is_full(self, totals: Summary) -> bool:
        """Whether no further row can be kept."""
        return is_full(self.pipeline.admissions, totals.admitted)

    def claim_many(self, lots: Lots) -> list[LotVerdicts | None]:
        """What becomes of the living rows of lots that follow one another, in order. Raises RunFailed.

        The answer for a lot is the same whether it is claimed alone or with others.
        """
        if not self._books:
            owners = self.index.claim_many(lots) if self.index and lots else []
            return [LotVerdicts(o, []) for o in owners] if self.index else [None] * len(lots)
        found: list[LotVerdicts | None] = []
        for lot in lots:
            found.append(self._claim(*lot))
        return found

    def _claim(self, lot: int, result: LotResult, first: int) -> LotVerdicts:
        stages, num_rows = self.pipeline.admissions, len(result.alive)
        refused: list[str | None] = [None] * num_rows
        evidence: dict[str, list[Any]] = {f.name: [None] * num_rows for s in stages for f in s.columns()}
        done: list[tuple[int, Any, int]] = []
        self._admitted[lot] = done

        def admit(ask: int) -> bool:
            row = ask - first
            for place, (stage, book) in enumerate(zip(stages, self._books)):
                verdict: AdmissionVerdict = book.judge(result.offers[place][row], ask)
                for name, value in verdict.evidence.items():
                    evidence[name][row] = value
                if verdict.reason is not None:
                    refused[row] = f"{stage.name}:{verdict.reason}"
                    return False
            for place, book in enumerate(self._books):
                book.admit(result.offers[place][row], ask)
                done.append((place, result.offers[place][row], ask))
            return True

        if self.index:
            owners = self.index.claim_admitting(lot, result, first, admit)
        else:
            nobody = np.full(num_rows, NOBODY, np.int64)
            owners, _ = resolve_admitting(lambda alive: nobody, result.alive, first, admit)
        return LotVerdicts(owners, refused, evidence)

    def committed(self, lot: int) -> None:
        """A lot is in its shard now."""
        self._admitted.pop(lot, None)
        if self.index:
            self.index.committed(lot)

    def rewind(self, lot: int) -> None:
        """Take back the claims of `lot` and of every lot after it; all of them are uncommitted and claim again."""
        if self.index:
            self.index.rewind(lot, lot * self.pipeline.plan.lot_size)
        for later in sorted((n for n in self._admitted if n >= lot), reverse=True):
            for place, offer, ask in reversed(self._admitted.pop(later)):
                self._books[place].retract(offer, ask)

    def stop(self) -> None:
        if self.index:
            self.index.stop()

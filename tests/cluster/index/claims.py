"""Lots of random signatures that often collide, carried from claim to shard as a run does it, without a generator."""

import logging
import random
from typing import Any

import datasketch
import numpy as np
import pyarrow as pa
import ray

from gristmill.cluster.index.index import DedupIndex
from gristmill.cluster.lots.sequencer import CommitSequencer
from gristmill.cluster.lots.work import LotPipeline, LotResult, finish
from gristmill.cluster.spec import ClusterSpec
from gristmill.records.lots import Plan, asks
from gristmill.records.output.shards import Encoded, OutputSpec, Summary, put_kept, put_rejected
from gristmill.records.readers.sources import SourceSpec, open_source
from gristmill.records.schema import ASK, REJECT, full_schema, set_column
from gristmill.records.stores.contract import Store
from gristmill.stages.admission.contract import LotVerdicts
from gristmill.stages.dedup.contract import Duplicates
from gristmill.stages.dedup.minhash import band_keys, to_datasketch
from gristmill.stages.dedup.nearindex import keys_of
from gristmill.stages.dedup.semantic import DedupSemantic, DedupSemanticSpec
from gristmill.stages.dedup.texts import Dedup, DedupSpec
from gristmill.stages.embeddings import cosines, quantise

SPEC = DedupSpec(threshold=0.5, num_perm=16)  # five bands of three


class Lots:
    """The rows of every lot; `remake` gives a lot other rows, as an engine that is not deterministic does."""

    def __init__(
        self, seed: int, spec: DedupSpec = SPEC, lot_size: int = 24, num_values: int = 16, num_lots: int = 40
    ) -> None:
        self.dedup = self.stage(spec)
        self.plan = Plan("5eed" * 8, lot_size, num_lots * lot_size - lot_size // 2, 1, "canned")
        self.num_lots = num_lots
        self.pipeline = LotPipeline(self.plan, [self.dedup], full_schema([], self.dedup.columns()), OutputSpec())
        self._source = open_source(SourceSpec(items=("a",), cycle=True))
        self._rng, self._num_values = np.random.default_rng(seed), num_values
        self._rows: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def stage(self, spec: Any) -> Duplicates:
        return Dedup(spec)

    def draw(self, num_rows: int) -> np.ndarray:
        """Signatures of so many rows."""
        return self._rng.integers(0, self._num_values, (num_rows, self.dedup.spec.num_perm), np.uint32)

    def keys(self, signed: np.ndarray) -> np.ndarray:
        return band_keys(signed, self.dedup.bands, self.dedup.rows)

    def remake(self, lot: int) -> None:
        start, stop = self.plan.span(lot)
        self._rows[lot] = self.draw(stop - start), self._rng.random(stop - start) < 0.8

    def rows(self, lot: int) -> tuple[np.ndarray, np.ndarray]:
        """Signatures (n, d), and who is alive."""
        if lot not in self._rows:
            self.remake(lot)
        return self._rows[lot]

    def result(self, lot: int) -> LotResult:
        signed, alive = self.rows(lot)
        keys = self.keys(signed)
        keys[~alive] = 0
        return LotResult(alive, keys, {})

    def encoded(self, lot: int, owners: np.ndarray) -> Encoded:
        """The lot parted into its shards."""
        signed, alive = self.rows(lot)
        batch = asks(self.plan, self._source, lot).drop_columns([ASK.name])
        column = pa.FixedSizeListArray.from_arrays(pa.array(signed.reshape(-1)), signed.shape[1])
        fields = self.dedup.columns()
        batch = set_column(batch, fields[0], pa.array(column.to_pylist(), fields[0].type, mask=~alive))
        batch = set_column(batch, fields[1], pa.nulls(len(alive), pa.string()))
        batch = set_column(batch, REJECT, pa.array(np.where(alive, None, "rules:bad"), pa.string()))
        return finish(self.pipeline, batch, lot, LotVerdicts(owners, []))

    def plain_pass(self) -> list[int]:
        """Row by row through datasketch's own index: the smallest owner that matches, -1 when kept or dead."""
        index = datasketch.MinHashLSH(num_perm=self.dedup.spec.num_perm, params=(self.dedup.bands, self.dedup.rows))
        verdicts = []
        for lot in range(self.num_lots):
            for signature, is_alive in zip(*self.rows(lot)):
                owner, matches = len(verdicts), []
                if is_alive:
                    sketch = to_datasketch(signature)
                    matches = index.query(sketch)
                    if not matches:
                        index.insert(owner, sketch)
                verdicts.append(min(matches, default=-1))
        return verdicts


class NearLots(Lots):
    """Lots of vectors of which many say the same."""

    SPEC = DedupSemanticSpec(threshold=0.9)
    DIMENSION = 64

    def __init__(self, seed: int, num_lots: int) -> None:
        super().__init__(seed, self.SPEC, num_lots=num_lots)
        self._centres = np.random.default_rng(seed).normal(size=(300, self.DIMENSION))

    def stage(self, spec: Any) -> Duplicates:
        stage = DedupSemantic(spec)
        stage._dimension = self.DIMENSION  # of no model: no text is embedded here
        return stage

    def draw(self, num_rows: int) -> np.ndarray:
        places = self._rng.integers(0, len(self._centres), num_rows)
        return quantise(self._centres[places] + self._rng.normal(0, 0.3, (num_rows, self.DIMENSION)))

    def keys(self, signed: np.ndarray) -> np.ndarray:
        return keys_of(signed)

    def plain_pass(self) -> list[int]:
        """Row by row against all kept rows: the first that is near, -1 when kept or dead."""
        verdicts: list[int] = []
        kept, owners = np.zeros((0, self.DIMENSION), np.int8), []
        for lot in range(self.num_lots):
            for vector, is_alive in zip(*self.rows(lot)):
                near = np.flatnonzero(cosines(vector[None], kept)[0] >= self.SPEC.threshold) if is_alive else []
                if is_alive and not len(near):
                    kept, owners = np.concatenate([kept, vector[None]]), [*owners, len(verdicts)]
                verdicts.append(owners[near[0]] if len(near) else -1)
        return verdicts


class LogLines(logging.Handler):
    """The lines that the index logs."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: list[str] = []

    def listen(self) -> None:
        root = logging.getLogger("gristmill")
        root.addHandler(self)
        root.setLevel(logging.INFO)

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


class Claimer:
    """What the lot loop does with the sequencer: claim and commit in order, rewind; and the faults of its index."""

    def __init__(self, lots: Lots, store: Store) -> None:
        self.lots, self.store = lots, store
        self.owners: dict[int, np.ndarray] = {}
        self.num_claimed = self.num_committed = 0
        self.sequencer: CommitSequencer | None = None
        self.log = LogLines()

    def start(self, num_actors: int, snapshot_lots: int) -> None:
        """A driver that resumes."""
        spec = ClusterSpec(index_actors=num_actors, snapshot_lots=snapshot_lots)
        self.sequencer = CommitSequencer(self.lots.pipeline, self.store, spec)
        self.num_claimed = self.num_committed
        self.log.listen()
        self.sequencer.start(Summary(num_lots=self.num_committed), lambda: False)

    @property
    def index(self) -> DedupIndex:
        assert self.sequencer and self.sequencer.index
        return self.sequencer.index

    def claim(self, num_lots: int, together: bool) -> None:
        assert self.sequencer
        lots = range(self.num_claimed, min(self.num_claimed + num_lots, self.lots.num_lots))
        results = [(lot, self.lots.result(lot)) for lot in lots]
        for group in [results] if together else [[pair] for pair in results]:
            for (lot, _), verdicts in zip(group, self.sequencer.claim(group)):
                assert verdicts
                self.owners[lot] = verdicts.owners
        self.num_claimed = lots.stop

    def commit(self, num_lots: int) -> None:
        assert self.sequencer
        for lot in range(self.num_committed, min(self.num_committed + num_lots, self.num_claimed)):
            encoded = self.lots.encoded(lot, self.owners[lot])
            put_rejected(self.store, encoded)
            put_kept(self.store, encoded)
            self.sequencer.committed(lot)
            self.num_committed = lot + 1

    def rewind(self, lot: int) -> None:
        assert self.sequencer and self.num_committed <= lot <= self.num_claimed
        self.sequencer.rewind(lot)
        for later in range(lot, self.num_claimed):
            self.lots.remake(later)
        self.num_claimed = lot

    def kill_actor(self, rng: random.Random) -> None:
        ray.kill(rng.choice(list(self.index._shards._actors.values())))

    def crash(self) -> None:
        """The driver is gone, and its actors with it; what was not in the store is lost."""
        self.index._shards.kill(self.index._shards.numbers)

    def verdicts(self) -> list[int]:
        return np.concatenate([self.owners[lot] for lot in range(self.lots.num_lots)]).tolist()

    def num_dead(self) -> int:
        return sum(int((~self.lots.rows(lot)[1]).sum()) for lot in range(self.lots.num_lots))

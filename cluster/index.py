"""The dedup index as owned actors, sharded by band. A view, never a truth: it is rebuilt from committed shards."""

from collections.abc import Callable
from typing import Any

import numpy as np
import ray

from cluster.errors import LOST, RunFailed, short
from cluster.near import near
from cluster.work import Brief, claimed_task
from records.store import Store
from stages.bandindex import BandIndex, resolve

LOTS_PER_TASK = 64


@ray.remote(num_cpus=0)
class BandShard:
    """Some of the bands of the index. Calls come from one driver and run in order."""

    def __init__(self, first: int, stop: int) -> None:
        self.bands = slice(first, stop)
        self.index = BandIndex(stop - first)

    def load(self, claims: tuple[np.ndarray, np.ndarray]) -> None:
        keys, owners = claims
        self.index.insert(np.ascontiguousarray(keys[:, self.bands]), owners)

    def claim(self, keys: np.ndarray, owners: np.ndarray, asked: np.ndarray) -> np.ndarray:
        """Insert the rows kept of the lot before, then look up the rows of this one: one round trip a lot."""
        if len(owners):
            self.index.insert(keys, owners)
        return self.index.query(asked)

    def retract(self, first_owner: int) -> None:
        self.index.retract(first_owner)


class DedupIndex:
    """The driver's side: claims in lot order, and a rebuild when an index actor is lost."""

    def __init__(self, kit_ref: Any, store: Store, num_bands: int, num_actors: int, max_retries: int) -> None:
        self.kit_ref, self.store = kit_ref, store
        self.num_bands = num_bands
        self.max_retries = max_retries
        self.say: Any = None
        self._edges = [int(e) for e in np.linspace(0, num_bands, min(num_actors, num_bands) + 1)]
        self._actors: list[Any] = []
        # Claims that no committed shard holds yet, by lot; an index rebuilt in mid-run needs them.
        self._uncommitted: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._num_committed = 0
        self._unsent: tuple[np.ndarray, np.ndarray] = self._nothing()

    def _nothing(self) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros((0, self.num_bands), np.uint64), np.zeros(0, np.int64)

    def start(self, num_committed: int, say: Any = None, should_stop: Callable[[], bool] | None = None) -> None:
        """Make the actors and fill them from the committed shards, again when an actor is lost meanwhile.

        Raises RunFailed when they are lost again and again, or a shard cannot be read.
        """
        self._num_committed = num_committed
        self.say = say or self.say
        for attempt in range(self.max_retries + 1):
            try:
                return self._fill(should_stop)
            except LOST as error:
                self._lose(attempt, error)
            except ray.exceptions.RayTaskError as error:
                if not isinstance(error.cause, LOST):
                    raise RunFailed(f"dedup: the index cannot be read back: {short(error.cause)}") from error
                self._lose(attempt, error.cause)

    def _lose(self, attempt: int, error: BaseException) -> None:
        if attempt == self.max_retries:
            raise RunFailed(f"dedup: the index was lost {attempt + 1} times ({short(error)})") from error
        self.stop()

    def _fill(self, should_stop: Callable[[], bool] | None) -> None:
        num_committed = self._num_committed
        pairs = zip(self._edges, self._edges[1:])
        spread = BandShard.options(scheduling_strategy="SPREAD")  # type: ignore[attr-defined]
        self._actors = [spread.remote(first, stop) for first, stop in pairs]
        groups = range(0, num_committed, LOTS_PER_TASK)
        loads: list[Any] = []
        for number, first in enumerate(groups):
            if should_stop and should_stop():
                return  # no claim will be made
            lots = range(first, min(first + LOTS_PER_TASK, num_committed))
            claims = claimed_task.options(**near(self.store)).remote([self.kit_ref], self.store, lots)
            loads += [actor.load.remote(claims) for actor in self._actors]
            while len(loads) > 8 * len(self._actors):  # so that few claims lie in memory at once
                done, loads = ray.wait(loads, num_returns=1)
                ray.get(done)
            if self.say and number % 50 == 49:
                self.say(f"dedup index: {lots.stop} of {num_committed} lots read back")
        ray.get(loads)
        for claims in self._uncommitted.values():
            ray.get([actor.load.remote(claims) for actor in self._actors])
        self._unsent = self._nothing()

    def claim(self, lot: int, brief: Brief, first_owner: int) -> np.ndarray:
        """Owners int64 (num_rows,) of a lot's rows: the ask number of the kept row that each duplicates, else -1.

        Lots must come in their order. Raises RunFailed when the index is lost again and again.
        """
        assert brief.keys is not None
        alive = np.flatnonzero(brief.alive)
        asked = brief.keys[alive]
        for attempt in range(self.max_retries + 1):
            try:
                found = self._ask(asked)
                break
            except LOST as error:
                self._lose(attempt, error)
                if self.say:
                    self.say(f"lot {lot}: the dedup index was lost and is built again ({short(error)})")
                self.start(self._num_committed)
        owners = np.full(len(brief.alive), -1, np.int64)
        owners[alive] = found
        owners = resolve(brief.keys, owners, brief.alive, first_owner)
        kept = np.flatnonzero(brief.alive & (owners < 0))
        self._unsent = brief.keys[kept], first_owner + kept
        self._uncommitted[lot] = self._unsent
        return owners

    def _ask(self, asked: np.ndarray) -> np.ndarray:
        keys, owners = self._unsent
        answers = []
        for actor, first, stop in zip(self._actors, self._edges, self._edges[1:]):
            part = slice(first, stop)
            answers.append(actor.claim.remote(np.ascontiguousarray(keys[:, part]), owners, asked[:, part].copy()))
        found = np.stack(ray.get(answers))
        found = np.where(found < 0, np.iinfo(np.int64).max, found).min(axis=0)
        return np.where(found == np.iinfo(np.int64).max, -1, found)

    def committed(self, lot: int) -> None:
        """A lot is in its shard now and need not be remembered."""
        self._uncommitted.pop(lot, None)
        self._num_committed = lot + 1

    def rewind(self, lot: int, first_owner: int) -> None:
        """Take back the claims of `lot` and of every lot after it; all of them are uncommitted and claim again."""
        for later in [n for n in self._uncommitted if n >= lot]:
            del self._uncommitted[later]
        keys, owners = self._unsent
        before = owners < first_owner
        self._unsent = keys[before], owners[before]
        try:
            ray.get([actor.retract.remote(first_owner) for actor in self._actors])
        except LOST:
            pass  # the next claim finds the loss and rebuilds without them

    @property
    def nbytes(self) -> int:
        return 0

    def stop(self) -> None:
        for actor in self._actors:
            ray.kill(actor)
        self._actors = []

"""The actors of the dedup index, each with a part of it: started, filled in parallel, queried together."""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import ray

from gristmill.cluster.errors import LOSSES, one_line
from gristmill.cluster.index.parts import Part, divide
from gristmill.cluster.index.rebuild import ClaimSource, num_at_once, read_back
from gristmill.cluster.index.snapshots import Claims, Stretch
from gristmill.stages.dedup.bandindex import merge_answers
from gristmill.stages.dedup.contract import Duplicates

logger = logging.getLogger(__name__)

LOG_EVERY_S = 10.0


@ray.remote(num_cpus=0)
class BandShard:
    """A part of the index. One driver calls it, in order; answers include its memory in bytes."""

    def __init__(self, dedup: Duplicates, part: Part, num_rows: int) -> None:
        self.index = dedup.new_index(part.stop - part.first)
        self.index.reserve(num_rows // part.num_shares)

    def load(self, claims: Claims, is_settled: bool) -> int:
        """Insert claims with keys as uint64 (bands, n). Settled claims are never retracted."""
        columns, owners = claims
        self.index.insert(columns.T, owners, is_settled)
        return self.index.nbytes

    def claim(
        self, keys: np.ndarray, owners: np.ndarray, queries: np.ndarray, first_unsettled: int
    ) -> tuple[np.ndarray, int]:
        """Insert the kept rows of earlier lots, then look up the rows of the next lots, in one round trip."""
        self.index.settle(first_unsettled)
        if len(owners):
            self.index.insert(keys, owners)
        return self.index.query(queries), self.index.nbytes

    def retract(self, keys: np.ndarray, owners: np.ndarray) -> None:
        self.index.retract(keys, owners)


class IndexLost(Exception):
    """Actors of the index are lost; `numbers` lists them."""

    def __init__(self, numbers: list[int], cause: BaseException) -> None:
        super().__init__(one_line(cause))
        self.numbers = numbers


class BandShards:
    """All actors of one index, at most `num_actors`; see `gristmill.cluster.index.parts` for what each holds."""

    def __init__(self, dedup: Duplicates, num_actors: int, source: ClaimSource) -> None:
        self.dedup, self.source = dedup, source
        self._parts = divide(dedup, num_actors)
        self._actors: dict[int, Any] = {}
        self._nbytes: dict[int, int] = {}

    @property
    def numbers(self) -> list[int]:
        return list(range(len(self._parts)))

    @property
    def nbytes(self) -> int:
        """Bytes of all tables or filters, as of the last answers; sends no request."""
        return sum(self._nbytes.values())

    def fill(
        self,
        numbers: list[int],
        num_lots: int,
        uncommitted: Sequence[Claims],
        should_stop: Callable[[], bool] | None,
    ) -> int:
        """Start these actors with the claims of committed and uncommitted lots. Returns the number of committed rows.

        Tasks read while actors insert, and few stretches of lots are in memory at once. Raises the errors of Ray.
        """
        started = logged = time.monotonic()
        self.kill(numbers)
        stretches, num_rows = self.source.stretches(num_lots)
        parts = [self._parts[number] for number in numbers]
        actor_class = BandShard.options(scheduling_strategy="SPREAD")  # type: ignore[attr-defined]
        actors = [actor_class.remote(self.dedup, part, num_rows) for part in parts]
        self._actors.update(zip(numbers, actors))
        running: list[tuple[Stretch, Any, list[Any]]] = []
        rows = lots = lots_from_snapshots = 0

        def end_first() -> None:
            nonlocal rows, lots, lots_from_snapshots
            stretch, count_ref, loads = running.pop(0)
            num_rows, problem = ray.get(count_ref)
            self._nbytes.update(zip(numbers, ray.get(loads)))
            rows, lots = rows + num_rows, lots + len(stretch)
            if problem is not None:
                logger.warning(f"dedup index: {problem}")
            elif stretch.name is not None:
                lots_from_snapshots += len(stretch)

        for stretch, count_ref, slices in read_back(self.source, stretches, parts):
            if should_stop and should_stop():
                return rows  # the run stops, so no claim follows
            running.append((stretch, count_ref, [actor.load.remote(s, True) for actor, s in zip(actors, slices)]))
            if len(running) > num_at_once(self.source.store):
                end_first()
            if time.monotonic() - logged > LOG_EVERY_S:
                logged = time.monotonic()
                logger.info(f"dedup index: {lots:,} of {num_lots:,} lots read back")
        while running:
            end_first()
        for claims in uncommitted:
            sent = [actor.load.remote(part.columns(claims), False) for actor, part in zip(actors, parts)]
            self._nbytes.update(zip(numbers, ray.get(sent)))
        if num_lots:
            sources = f"{lots_from_snapshots:,} of {num_lots:,} lots from snapshots"
            logger.info(f"dedup index: {rows:,} rows read back in {time.monotonic() - started:.1f} s ({sources})")
        return rows

    def ask(self, unsent: Claims, queries: np.ndarray, first_unsettled: int) -> np.ndarray:
        """Send claims, then look up the keys `queries`, uint64 (n, bands): owners int64 (n,).

        `stages.dedup.bandindex.merge_answers` joins the answers of the actors. Sending the same claims twice
        is harmless. Raises IndexLost.
        """
        shared = None if self.dedup.is_divisible else ray.put(queries)  # once, and not for each actor
        calls = []
        for number, part in enumerate(self._parts):
            sought = part.queries(queries) if shared is None else shared
            calls.append(self._actors[number].claim.remote(*part.claims(unsent), sought, first_unsettled))
        answers = []
        for number, answer in self._collect(calls):
            answers.append(answer[0])
            self._nbytes[number] = answer[1]
        return merge_answers(answers)

    def retract(self, claims: Claims) -> None:
        """Retract the latest claims that were sent. Raises IndexLost after all living actors have retracted."""
        calls = [self._actors[number].retract.remote(*part.claims(claims)) for number, part in enumerate(self._parts)]
        self._collect(calls)

    def _collect(self, calls: list[Any]) -> list[tuple[int, Any]]:
        answers, lost = [], {}
        for number, call in enumerate(calls):
            try:
                answers.append((number, ray.get(call)))
            except LOSSES as error:
                lost[number] = error
        if lost:
            raise IndexLost(list(lost), next(iter(lost.values())))
        return answers

    def kill(self, numbers: list[int]) -> None:
        for number in numbers:
            self._nbytes.pop(number, None)
            actor = self._actors.pop(number, None)
            if actor is not None:
                ray.kill(actor)

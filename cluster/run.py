"""The lot loop: a window of lots in flight, made and processed in any order, committed in lot order.

A lot goes asked -> making (pool) -> processing (stages) -> ready -> [claim, in lot order] -> finishing -> finished
-> [commit, in lot order]. A lot whose worker is lost starts again from its asks, a bounded number of times; any other
error ends the run and names lot and stage. What is committed is never touched again.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import ray

from cluster.commit import Committer
from cluster.errors import Lost, RunFailed, fetch
from cluster.index import DedupIndex
from cluster.pool import Member, Pool
from cluster.spec import ClusterSpec, Limits
from cluster.work import Brief, Kit, finish_task, process_task, warm_task
from generators.contract import Generator
from records.lots import asks
from records.shards import Encoded, Summary
from records.sources import Source
from records.store import Store

TICK_S = 0.1
ASK_PROGRESS_S = 1.0
WINDOW_PER_CPU = 3


@dataclass
class Flight:
    """A lot between birth and commit."""

    lot: int
    tries: int = 0
    phase: str = "asked"
    ref: Any = None  # of the running task or call
    asks_ref: Any = None
    made_ref: Any = None
    batch_ref: Any = None
    member: Member | None = None
    brief: Brief | None = None
    owners: np.ndarray | None = None
    encoded: Encoded | None = None


@dataclass
class Job:
    """All that a run needs, made by the verbs of `jobs`."""

    kit: Kit
    source: Source
    store: Store
    spec: ClusterSpec
    limits: Limits
    pooled: Generator | None = None  # the generator, when it wants a pool
    totals: Summary = field(default_factory=Summary)  # of the lots committed before


@dataclass
class Beat:
    """What a display may want to know, about ten times a second."""

    totals: Summary
    in_flight: dict[str, int]  # lots by phase
    num_engines: int
    num_engines_open: int
    num_retries: int
    made_asks: int = 0  # by the engines of this start, lots in flight included; 0 without a pool
    made_tokens: int = 0


class LotLoop:
    """Runs a job to its end. `stop()` may be called from a signal handler: lots in commit are still finished."""

    def __init__(self, job: Job, on_beat: Callable[[Beat], None], say: Callable[[str], None]) -> None:
        self.job, self.on_beat, self.say = job, on_beat, say
        self.totals = job.totals
        self.num_retries = 0
        self.stopping = False
        self.busy_s: dict[str, float] = {}  # seconds of CPU workers by stage
        self._asked, self._made = 0.0, (0, 0)
        self.pool = Pool(job.pooled, job.spec) if job.pooled else None
        self.committer = Committer(job.store)
        self._kit_ref = ray.put(job.kit)
        self._flights: dict[int, Flight] = {}
        self._next = self._to_claim = self._to_hand_over = job.totals.num_lots
        self._handed = Summary()  # committed, or on the way into the store
        self._handed.add(job.totals)
        self.index: DedupIndex | None = None
        if job.kit.dedup is not None:
            self.index = DedupIndex(
                self._kit_ref,
                job.store,
                job.kit.dedup.bands,
                job.spec.index_actors,
                job.spec.max_retries,
                snapshot_lots=job.spec.snapshot_lots,
            )
        self.window = job.spec.window or self._window()

    def _window(self) -> int:
        num_cpus = max(1, int(ray.cluster_resources().get("CPU", 1)))
        if self.job.pooled is None:
            return WINDOW_PER_CPU * num_cpus
        in_engines = self.job.spec.replicas * self.job.spec.lots_per_replica
        return in_engines + min(in_engines, WINDOW_PER_CPU * num_cpus) + WINDOW_PER_CPU

    def stop(self) -> None:
        self.stopping = True

    def run(self) -> str:
        """Why the loop ended: "asks", "kept_rows", "kept_tokens" or "stopped".

        Raises RunFailed, Conflict (another driver) or UserError (the store); the committed lots stay as they are.
        """
        try:
            if self.pool:
                self.pool.start()  # engines load while the index is read back and stages are opened
                self._warm = warm_task.remote([self._kit_ref])  # if it fails, so will the first lot, with a name to it
            if self.index:
                self.index.start(self.totals.num_lots, self.say, lambda: self.stopping)
            return self._loop()
        finally:
            for _, summary in self.committer.stop():
                self.totals.add(summary)
            if self.index:
                self.index.stop()
            if self.pool:
                self.pool.stop()

    def _loop(self) -> str:
        num_lots = self.job.kit.plan.num_lots
        while True:
            reached = self.job.limits.reached(self._handed)
            is_last = num_lots is not None and self._to_hand_over >= num_lots
            if (self.stopping or reached or is_last) and not self.committer.num_running:
                return reached or ("asks" if is_last else "stopped")
            if not (self.stopping or reached):
                if self.pool:
                    self.pool.poll()
                self._launch(num_lots)
                self._wait()
                self._claim()
                self._hand_over()
            else:
                time.sleep(TICK_S / 10)
            for lot, summary in self.committer.done():
                self.totals.add(summary)
                if self.index:
                    self.index.committed(lot)
            self.on_beat(self._beat())

    def _launch(self, num_lots: int | None) -> None:
        while len(self._flights) + self.committer.num_running < self.window and (
            num_lots is None or self._next < num_lots
        ):
            self._flights[self._next] = Flight(self._next)
            self._next += 1
        for flight in self._flights.values():
            if flight.phase == "asked" and not self._start(flight):
                break

    def _start(self, flight: Flight) -> bool:
        """Whether there was room for the lot."""
        member = None
        if self.pool:
            member = self.pool.room()
            if member is None:
                return False
        if flight.asks_ref is None:
            flight.asks_ref = ray.put(asks(self.job.kit.plan, self.job.source, flight.lot))
        if self.pool and member:
            flight.member, flight.phase = member, "making"
            flight.made_ref, flight.ref = self.pool.submit(member, flight.lot, flight.asks_ref)
        else:
            self._process(flight, flight.asks_ref)
        return True

    def _process(self, flight: Flight, made_ref: Any) -> None:
        flight.batch_ref, flight.ref = process_task.remote([self._kit_ref], made_ref)
        flight.phase = "processing"

    def _wait(self) -> None:
        running = {f.ref: f for f in self._flights.values() if f.ref is not None}
        if not running:
            time.sleep(TICK_S / 10)
            return
        refs = list(running)
        # A short tick while commits run: their end opens the window for new lots.
        ready, rest = ray.wait(refs, num_returns=1, timeout=TICK_S / 10 if self.committer.num_running else TICK_S)
        if ready and rest:
            more, _ = ray.wait(rest, num_returns=len(rest), timeout=0)
            ready += more
        for ref in ready:
            if running[ref].ref is ref:  # else a rewind has just made it stale
                self._advance(running[ref])

    def _advance(self, flight: Flight) -> None:
        ref, flight.ref = flight.ref, None
        try:
            if flight.phase == "making":
                assert self.pool and flight.member
                fetch(ref, flight.lot, "make")
                self.pool.finished(flight.member, flight.lot)
                self._process(flight, flight.made_ref)
            elif flight.phase == "processing":
                flight.brief = fetch(ref, flight.lot, "process")
                for name, seconds in flight.brief.busy_s.items():
                    self.busy_s[name] = self.busy_s.get(name, 0.0) + seconds
                flight.phase, flight.made_ref = "ready", None
            else:
                flight.encoded = fetch(ref, flight.lot, "shard")
                flight.phase = "finished"
        except Lost as loss:
            self._retry(flight, loss)

    def _retry(self, flight: Flight, loss: Lost) -> None:
        why = str(loss)
        if flight.phase == "making" and self.pool and flight.member:
            self.pool.lose(flight.member, flight.lot, why)
        flight.tries += 1
        if flight.tries > self.job.spec.max_retries:
            raise RunFailed(f"lot {flight.lot}, {flight.phase}: lost its worker {flight.tries} times (last: {why})")
        self.num_retries += 1
        self.say(f"lot {flight.lot}: lost its worker while {flight.phase}; trying again ({why})")
        if flight.phase == "finishing" and not loss.is_object:
            self._finish(flight)  # the claimed rows still lie in the object store
            return
        if flight.phase == "processing" and flight.made_ref is not None and not loss.is_object:
            self._process(flight, flight.made_ref)  # nor need the engine make them again
            return
        if flight.phase == "finishing":
            self._rewind(flight.lot)
        flight.phase, flight.member = "asked", None
        flight.made_ref = flight.batch_ref = flight.brief = flight.owners = None

    def _rewind(self, lot: int) -> None:
        """A claimed lot has lost its rows. An engine that is not deterministic will make other rows, so the claims
        from this lot on are taken back, and every later lot claims again."""
        assert lot >= self._to_hand_over
        if self.index:
            self.index.rewind(lot, lot * self.job.kit.plan.lot_size)
        for later in self._flights.values():
            if later.lot > lot and later.phase in ("finishing", "finished"):
                later.phase, later.ref, later.encoded, later.owners = "ready", None, None, None
        self._to_claim = lot

    def _claim(self) -> None:
        while (flight := self._flights.get(self._to_claim)) and flight.phase == "ready":
            assert flight.brief
            if self.index:
                first_owner = flight.lot * self.job.kit.plan.lot_size
                flight.owners = self.index.claim(flight.lot, flight.brief, first_owner)
            self._finish(flight)
            self._to_claim += 1

    def _finish(self, flight: Flight) -> None:
        flight.phase = "finishing"
        flight.ref = finish_task.remote([self._kit_ref], flight.batch_ref, flight.lot, flight.owners)

    def _hand_over(self) -> None:
        while (flight := self._flights.get(self._to_hand_over)) and flight.phase == "finished":
            if self.job.limits.reached(self._handed):
                return
            assert flight.encoded
            self.committer.submit(flight.encoded)
            self._handed.add(flight.encoded.summary)
            del self._flights[self._to_hand_over]
            self._to_hand_over += 1

    def _beat(self) -> Beat:
        phases: dict[str, int] = {}
        for flight in self._flights.values():
            phases[flight.phase] = phases.get(flight.phase, 0) + 1
        members = self.pool.members if self.pool else []
        num_open = self.pool.num_open if self.pool else 0
        now = time.monotonic()
        if self.pool and now - self._asked > ASK_PROGRESS_S:
            self._asked, self._made = now, self.pool.made()
        return Beat(self.totals, phases, len(members), num_open, self.num_retries, *self._made)

"""The lot loop: a window of lots in flight, made and processed in any order, committed in lot order.

A lot goes waiting -> running (each step of its route: pools and CPU workers) -> ready -> [claim, in lot order] ->
finishing -> finished -> [commit, in lot order]. A lot whose worker is lost takes the step again, a bounded number of
times; any other error ends the run and names lot and stage. What is committed is never touched again.
"""

import logging
import queue
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import ray

from gristmill.cluster.budget import Budget
from gristmill.cluster.errors import Lost, RunFailed, fetch
from gristmill.cluster.lots.commit import Committer
from gristmill.cluster.lots.in_flight import InFlightLot, route
from gristmill.cluster.lots.job import Job, Progress, beat, build_pools, hint, window
from gristmill.cluster.lots.quarantine import SUSPECT_AFTER, Quarantine
from gristmill.cluster.lots.sequencer import CommitSequencer
from gristmill.cluster.lots.work import LotResult, finish_task, process_task, warm_task
from gristmill.cluster.pools.replica import join_task
from gristmill.records.lots import unborn
from gristmill.records.shards import Summary

logger = logging.getLogger(__name__)

TICK_S = 0.1
POLL_S = 0.1
SHOW_S = 0.5
COUNT_S = 3.0  # between two questions how wide the cluster is
INLINE_BYTES = 64 * 1024


class LotLoop:
    """Runs a job to its end. `stop()` may be called from a signal handler: lots in commit are finished."""

    def __init__(self, job: Job, on_progress: Callable[[Progress], None]) -> None:
        self.job, self.on_progress = job, on_progress
        self.totals, self.stopping, self.began = job.totals, False, time.monotonic()
        self.retries: Counter[str] = Counter()
        self.busy_s: Counter[str] = Counter()  # seconds of CPU workers by stage
        self.num_poison = 0
        self.pools = build_pools(job)
        self.generator_pool = self.pools[0] if job.pooled else None
        self.route = route(job.pipeline, self.pools, self.generator_pool)
        self.budget = Budget(job.limits, self.pools, job.device_s, job.cost)
        self.committer = Committer(job.store)
        self._pipeline_ref = ray.put(job.pipeline)
        self._done: queue.SimpleQueue[tuple[InFlightLot, Any, Future]] = queue.SimpleQueue()
        self._flights: dict[int, InFlightLot] = {}
        self._in_commit: dict[int, InFlightLot] = {}
        self._waiting: set[int] = set()  # lots that wait for room
        self._next = self._to_claim = self._to_hand_over = job.totals.num_lots
        self._window, self._num_cpus, self._handed = 0, 1, Summary()  # handed: committed, or on the way there
        self._handed.add(job.totals)
        self.sequencer = CommitSequencer(job.pipeline, self._pipeline_ref, job.store, job.spec)
        self._shown = self._polled = self._counted = 0.0

    def stop(self) -> None:
        self.stopping = True

    def run(self) -> str:
        """Why the loop ended: "asks", "kept_rows", "kept_tokens", "tokens", "quotas", "device_s", "cost" or
        "stopped".

        Raises RunFailed, Conflict (another driver) or UserError (the store); the committed lots stay as they are.
        """
        try:
            hint(self.pools)
            for pool in self.pools:
                pool.start()  # engines load while the index is read back and stages are opened
            if self.pools:
                self._warm = warm_task.remote(
                    [self._pipeline_ref]
                )  # if it fails, so will the first lot, with a name to it
            self.sequencer.start(self.totals, lambda: self.stopping)
            return self._loop()
        finally:
            self._committed(self.committer.stop())
            self.sequencer.stop()
            for pool in self.pools:
                pool.stop()
            hint(self.pools, is_over=True)

    def _loop(self) -> str:
        num_lots = self.job.pipeline.plan.num_lots
        while True:
            reached = self._reached() or self.budget.spent
            is_last = num_lots is not None and self._to_hand_over >= num_lots
            closing = None if self._flights else self.budget.closing  # the lots in flight are done, and no more begun
            ended = reached or ("asks" if is_last else closing)
            if (self.stopping or ended) and not self.committer.num_running:
                return ended or "stopped"
            if self.stopping or ended:
                time.sleep(TICK_S / 10)
            else:
                self._poll()
                self._launch(num_lots)
                self._wait()
                self._claim()
                self._hand_over()
            self._committed(self.committer.done())
            self._show()

    def _reached(self) -> str | None:
        """The limit that is reached by the lots that are committed or on the way there, "quotas" if all are full."""
        return self.job.limits.reached(self._handed) or ("quotas" if self.sequencer.is_full(self._handed) else None)

    def _poll(self) -> None:
        now = time.monotonic()
        if now - self._polled < POLL_S:
            return
        self._polled = now
        for pool in self.pools:
            pool.poll()
        if now - self._counted > COUNT_S:
            self._counted, self._num_cpus = now, int(ray.cluster_resources().get("CPU", 1))
        self._window = window(self.job.spec, self.pools, self._num_cpus)

    def _launch(self, num_lots: int | None) -> None:
        plan, window = self.job.pipeline.plan, self._window
        while len(self._flights) + self.committer.num_running < window and (num_lots is None or self._next < num_lots):
            if self.budget.closing or not plan.may_be_born(self._next, self.totals.num_lots):
                break
            start, stop = plan.span(self._next)
            self._flights[self._next] = InFlightLot(self._next, stop - start)
            self._waiting.add(self._next)
            self._next += 1
        full: set[int] = set()
        for lot in sorted(self._waiting):
            flight = self._flights[lot]
            if flight.step not in full and not self._start(flight):
                full.add(flight.step)
            if flight.phase == "running":
                self._waiting.discard(lot)

    def _start(self, flight: InFlightLot) -> bool:
        """Begin the step that the lot waits for; whether there was room for it."""
        step = self.route[flight.step]
        suspect = flight.quarantine
        member = None
        if step.pool and not (suspect and suspect.is_done):
            member = step.pool.room_alone(flight.lot) if suspect else step.pool.room()
            if member is None:
                return suspect is not None  # a suspect waits for an engine of its own, the others need not
        if flight.asks_ref is None:
            lot = unborn(self.job.pipeline.plan, self.job.source, flight.lot)
            # Ray sends a small argument along with the call, which costs less than an object in its store.
            flight.asks_ref = flight.input_ref = lot if lot.nbytes < INLINE_BYTES else ray.put(lot)
            flight.mark("born")
        flight.member, flight.phase = member, "running"
        if step.pool is None:
            output, ref = process_task.remote([self._pipeline_ref], flight.input_ref, step.segment)
        elif suspect and suspect.is_done:
            output, ref = join_task.remote([step.pool.worker_ref], flight.input_ref, suspect.parts, suspect.refused)
        else:
            assert member
            start, stop = suspect.span if suspect else (0, flight.num_rows)
            output, ref = step.pool.submit(member, flight.lot, flight.input_ref, start, stop)
            if step.pool is self.generator_pool:
                flight.replica, flight.node = member.number, member.node
        flight.output_ref = output
        self._watch(flight, ref)
        return True

    def _watch(self, flight: InFlightLot, ref: Any) -> None:
        """Have `_wait` told when the call is done; its value, which is small, is fetched meanwhile."""
        flight.ref = ref
        ref.future().add_done_callback(lambda future: self._done.put((flight, ref, future)))

    def _wait(self) -> None:
        # A short tick while commits run: their end opens the window for new lots.
        timeout = TICK_S / 10 if self.committer.num_running else TICK_S
        try:
            flight, ref, future = self._done.get(timeout=timeout)
            while True:
                if flight.ref is ref:  # else a rewind has made it stale
                    self._advance(flight, future)
                flight, ref, future = self._done.get_nowait()
        except queue.Empty:
            pass

    def _advance(self, flight: InFlightLot, future: Future) -> None:
        flight.ref, is_sharded = None, flight.phase == "finishing"
        try:
            value = fetch(future, flight.lot, "shard" if is_sharded else self.route[flight.step].name)
        except Lost as loss:
            return self._lost(flight, loss)
        if is_sharded:
            flight.encoded, flight.phase = value, "finished"
            return flight.mark("finished")
        step = self.route[flight.step]
        if flight.member:
            assert step.pool
            step.pool.finished(flight.member, flight.lot)
            flight.member = None
            if flight.quarantine:
                flight.quarantine.made(flight.output_ref)
                if flight.quarantine.is_done:
                    step.pool.release(flight.lot)
                return self._wait_for_room(flight)  # for the next span, or to be joined
        if step.pool is None:
            flight.result = value
            self.busy_s.update(value.busy_s)
        flight.mark("made" if step.pool is self.generator_pool and step.pool else "processed")
        flight.input_ref, flight.quarantine, flight.suspicion = flight.output_ref, None, 0
        flight.step += 1
        if flight.step < len(self.route):
            self._wait_for_room(flight)
        else:
            flight.phase = "ready"

    def _wait_for_room(self, flight: InFlightLot) -> None:
        flight.phase = "waiting"
        self._waiting.add(flight.lot)

    def _lost(self, flight: InFlightLot, loss: Lost) -> None:
        phase = "finishing" if flight.phase == "finishing" else self.route[flight.step].name
        member, flight.member, reason = flight.member, None, None
        if member:
            engines = self.route[flight.step].pool
            assert engines
            if loss.is_object:  # the engine lives, what it was to read is gone
                engines.let_go(member, flight.lot)
            else:
                reason = engines.lose(member, flight.lot, str(loss))
        what = "object" if loss.is_object else (reason or "node" if member else "worker")
        self.retries[what] += 1
        self.job.note("retry", lot=flight.lot, stage=phase, lost=what, why=str(loss))
        if reason and flight.quarantine:
            self._blame(flight, flight.quarantine, reason)
            return self._wait_for_room(flight)
        if reason is None:  # else the quarantine bounds it
            flight.tries += 1
        if flight.tries > self.job.spec.max_retries:
            raise RunFailed(f"lot {flight.lot}, {phase}: lost its worker {flight.tries} times (last: {loss})")
        logger.warning(f"lot {flight.lot}: lost its worker while {phase}; trying again ({loss})")
        if phase == "finishing":
            if not loss.is_object:
                return self._finish(flight)  # the claimed rows still lie in the object store
            self._rewind(flight.lot)
        self._wait_for_room(flight)  # for the same step: what it reads need not be made again
        if loss.is_object or phase == "finishing":
            for pool in self.pools:
                pool.release(flight.lot)
            return flight.begin_again()
        flight.suspicion += reason is not None
        if flight.suspicion >= SUSPECT_AFTER and not flight.quarantine:
            flight.quarantine = Quarantine(flight.num_rows)
            logger.warning(
                f"lot {flight.lot}: {flight.suspicion} engines died under it; looking for the ask that kills them"
            )

    def _blame(self, flight: InFlightLot, suspect: Quarantine, reason: str) -> None:
        tries = suspect.num_tries + 1
        row = suspect.blame(reason)
        if row is None:
            return
        self.num_poison += 1
        self.job.note("poison", lot=flight.lot, row=row, reason=reason, tries=tries)
        logger.warning(f"lot {flight.lot}, row {row}: rejected ({reason}), {tries} engines died of this ask alone")
        if self.num_poison > self.job.spec.max_poison:
            raise RunFailed(
                f"{self.num_poison} asks have killed their engines ({reason}): the engine is at fault, not they; "
                f"look at its log, or raise cluster.max_poison"
            )

    def _rewind(self, lot: int) -> None:
        """A claimed lot has lost its rows. An engine that is not deterministic will make other rows, so the claims
        from this lot on are taken back, and every later lot claims again."""
        assert lot >= self._to_hand_over
        self.sequencer.rewind(lot)
        for later in self._flights.values():
            if later.lot > lot and later.phase in ("finishing", "finished"):
                later.phase, later.ref, later.encoded, later.claimed = "ready", None, None, None
        self._to_claim = lot

    def _claim(self) -> None:
        """Claim for every lot whose turn it is, in one round trip to the index."""
        lots: list[tuple[int, LotResult, int]] = []
        while (flight := self._flights.get(self._to_claim + len(lots))) and flight.phase == "ready":
            assert flight.result
            lots.append((flight.lot, flight.result, flight.lot * self.job.pipeline.plan.lot_size))
        for (lot, _, _), claimed in zip(lots, self.sequencer.claim_many(lots)):
            self._flights[lot].claimed = claimed
            self._flights[lot].mark("claimed")
            self._finish(self._flights[lot])
        self._to_claim += len(lots)

    def _finish(self, flight: InFlightLot) -> None:
        flight.phase = "finishing"
        self._watch(flight, finish_task.remote([self._pipeline_ref], flight.output_ref, flight.lot, flight.claimed))

    def _hand_over(self) -> None:
        while (flight := self._flights.get(self._to_hand_over)) and flight.phase == "finished":
            if self._reached():
                return
            assert flight.encoded
            flight.phase = "committing"
            self.committer.submit(flight.encoded)
            self._handed.add(flight.encoded.summary)
            self._in_commit[flight.lot] = self._flights.pop(flight.lot)
            self._to_hand_over += 1

    def _committed(self, done: list[tuple[int, Summary]]) -> None:
        for lot, summary in done:
            self.totals.add(summary)
            self.sequencer.committed(lot)
            flight = self._in_commit.pop(lot)
            flight.mark("committed")
            self.job.note("commit", lot=lot, **flight.literals(self.began), **summary.literals())

    def _show(self) -> None:
        if (now := time.monotonic()) - self._shown > SHOW_S:
            self._shown = now
            flights = [*self._flights.values(), *self._in_commit.values()]
            seen = self.totals, flights, self.route, self.pools, self.budget, self.job
            self.on_progress(beat(*seen, self.retries, self.busy_s, self.sequencer.nbytes))

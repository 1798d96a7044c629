"""The lot loop: a window of lots in flight, generated and processed in any order, committed in lot order.

A lot goes waiting -> running (each step of its route: pools and CPU workers) -> ready -> [claim, in lot order] ->
finishing -> finished -> [commit, in lot order]. A lot whose worker is lost repeats a step (see recovery.py). Any other
error ends the run with the names of lot and stage. Committed lots never change.
"""

import queue
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any

import ray

from gristmill.cluster.budget import Budget
from gristmill.cluster.errors import Loss, fetch
from gristmill.cluster.lots.commit import Committer
from gristmill.cluster.lots.flow import Flow
from gristmill.cluster.lots.in_flight import InFlightLot, Step, route
from gristmill.cluster.lots.job import Events, Job, Progress, build_pools, measure_progress
from gristmill.cluster.lots.recovery import Recovery
from gristmill.cluster.lots.sequencer import CommitSequencer
from gristmill.cluster.lots.stage_cpus import StageCpus, ends_step
from gristmill.cluster.lots.stand import Stand
from gristmill.cluster.lots.waiting import WaitingLots
from gristmill.cluster.lots.work import LotResult, warm_task
from gristmill.records.lots import source_lot
from gristmill.records.output.shards import Summary
from gristmill.records.output.templates import shares

TICK_S = 0.1
POLL_S = 0.1
PROGRESS_S = 0.5  # between two progress reports
COUNT_S, COUNT_SHARE = 3.0, 200.0  # between two counts of the cluster's memory: seconds, and times what one takes
INLINE_BYTES = 64 * 1024  # smaller asks travel with the call, not through the object store


class LotLoop:
    """Runs a job to its end. A signal handler may call `stop()`: lots in commit are then finished."""

    def __init__(self, job: Job, on_progress: Callable[[Progress], None]) -> None:
        self.job, self.on_progress = job, on_progress
        self.totals, self.stopping, self.began = job.totals, False, time.monotonic()
        self.busy_s: Counter[str] = Counter()  # seconds of CPU workers by stage
        self._events: Events = queue.SimpleQueue()
        self.pools = build_pools(job, self._events)
        self.generator_pools = self.pools[: len(job.pooled)]
        self.route = route(job.pipeline, self.pools, len(job.pooled))
        spent = job.device_s, job.cost, job.paid, lambda: self.totals.paid
        self.budget = Budget(job.limits, self.pools, *spent, job.paid_per_ask, len(job.pooled))
        self.committer = Committer(job.store, job.leftovers, job.check, job.keeps_answers)
        self.sequencer = CommitSequencer(job.pipeline, job.store, job.spec)
        self.stand = Stand(job, self.pools)
        self.cpus = StageCpus(job.spec.stage_cpus, self.stand.lane)
        self.flow = Flow(job, self.route, self.budget, self.cpus)
        self.recovery = Recovery(job, self.route, self.pools, self.sequencer)
        self._pipeline_ref = ray.put(job.pipeline)
        self._in_flight: dict[int, InFlightLot] = {}
        self._in_commit: dict[int, InFlightLot] = {}
        self._waiting = WaitingLots(len(self.route))
        self._num_on_cpus = 0  # lots in the hands of CPU workers, up to the claim
        self._next = self._to_claim = self._to_commit = job.totals.num_lots
        self._submitted = Summary()  # of the lots that are committed or in commit
        self._submitted.add(job.totals)
        self._reported = self._polled = self._count_at = 0.0

    def stop(self) -> None:
        self.stopping = True

    def run(self) -> str:
        """Why the loop ended: "asks", "kept_rows", "kept_tokens", "tokens", "quotas", "template_share",
        "device_s", "cost" or "stopped".

        Raises RunFailed, Conflict (another driver) or UserError (the store). The committed lots remain.
        """
        try:
            self.stand.start(lambda: self.stopping)
            if self.stopping:  # while it waited for its cores
                return self._loop()
            for pool in self.pools:
                pool.start()  # engines load while the index is filled and stages are opened
            if self.pools:  # an error of this task recurs in the first lot, with a name
                self._warm = warm_task.options(**self.stand.options).remote([self._pipeline_ref])
            self.sequencer.start(self.totals, lambda: self.stopping, self.job.limits.exact_rows)
            return self._loop()
        finally:
            self._committed(self.committer.stop())
            self.sequencer.stop()
            for pool in self.pools:
                pool.stop()
            self.stand.stop()

    def _loop(self) -> str:
        while True:
            num_lots = self.job.plan.num_lots
            reached = self._reached() or self.budget.spent
            is_last = num_lots is not None and self._to_commit >= num_lots
            closing = None if self._in_flight else self.budget.closing  # no lot is in flight, and none may start
            ended = reached or ("asks" if is_last else closing)
            if (self.stopping or ended) and not self.committer.num_running:
                self._reported = 0.0  # the last report is of the whole run, however short it was
                self._report()
                return ended or "stopped"
            if self.stopping or ended:
                time.sleep(TICK_S / 10)
            else:
                self._poll()
                self._launch()
                self._wait()
                self._claim()
                self._commit()
            self._committed(self.committer.done())
            self._report()

    def _reached(self) -> str | None:
        """The limit that the committed lots and those in commit have reached; "quotas" if all quotas are full."""
        limits, totals = self.job.limits, self._submitted
        return limits.reached(totals) or ("quotas" if self.sequencer.is_full(totals) else None) or limits.alarm(totals)

    def _poll(self) -> None:
        now = time.monotonic()
        if now - self._polled < POLL_S:
            return
        self._polled = now
        self.stand.poll(self.totals, self.cpus)
        if self.job.growth:
            self.job.growth.look()
        for pool in self.pools:
            pool.poll()
        if now > self._count_at:
            self.flow.store_bytes = ray.cluster_resources().get("object_store_memory", 0.0)
            taken_s = time.monotonic() - now
            self._count_at = now + max(COUNT_S, COUNT_SHARE * taken_s)
        if (late := self.cpus.overdue(self._in_flight)) is not None:
            late.twin = late.ref, late.output_ref  # the first of the two to end counts
            self._start_on_cpus(late, must_reserve=True)

    def _launch(self) -> None:
        """Start the lots that wait, later steps and older lots first, then new lots."""
        self._waiting.start_suspects(self._start)
        for lot in self._waiting.pop_while(self.route, self._has_room):
            self._start(lot)
        closed = None
        while closed is None and (first := self._first_step()) is not None:
            closed = self.flow.closed(self._next, self.totals.num_lots, self._submitted, self._waiting.counts)
            if closed is None:
                self._start(self._new_lot(first))
        self.flow.count_wait(closed, self.generator_pools)

    def _first_step(self) -> int | None:
        """The step at which a new lot begins: any generator's pool with room, so that none waits for another."""
        return next((at for at in range(max(1, len(self.generator_pools))) if self._has_room(self.route[at])), None)

    def _new_lot(self, first: int) -> InFlightLot:
        start, stop = self.job.plan.span(self._next)
        lot = self._in_flight[self._next] = InFlightLot(self._next, stop - start, first, first)
        self.flow.begin(lot)
        self.budget.num_begun += lot.num_rows
        self._next += 1
        return lot

    def _has_room(self, step: Step) -> bool:
        return step.pool.room() is not None if step.pool else self._num_on_cpus < self.flow.max_on_cpus

    def _start(self, lot: InFlightLot) -> bool:
        """Start the step that the lot waits for; False if a suspect lot has no engine of its own yet."""
        step, quarantine = self.route[lot.step], lot.quarantine
        member = None
        if step.pool and not (quarantine and quarantine.is_done):
            member = step.pool.room_alone(lot.number) if quarantine else step.pool.room()
            if member is None:
                return False
        if lot.asks_ref is None:
            asks = source_lot(self.job.plan, self.job.source, lot.number)
            # Ray sends a small argument along with the call, which costs less than an object in its store.
            lot.asks_ref = lot.input_ref = asks if asks.nbytes < INLINE_BYTES else ray.put(asks)
            lot.mark("born")
        lot.member, lot.phase = member, "running"
        if member is None:
            self._num_on_cpus += step.pool is None
            self._start_on_cpus(lot)
            return True
        assert step.pool
        start, stop = quarantine.span if quarantine else (0, lot.num_rows)
        lot.output_ref, ref = step.pool.submit(member, lot.number, lot.input_ref, start, stop)
        if step.makes:
            lot.replica, lot.node = member.number, member.node
        self._watch(lot, ref)
        return True

    def _start_on_cpus(self, lot: InFlightLot, must_reserve: bool = False) -> None:
        refs = self.cpus.start(lot, self.route[min(lot.step, len(self.route) - 1)], self._pipeline_ref, must_reserve)
        if lot.phase != "finishing":
            lot.output_ref = refs[0]
        self._watch(lot, refs[-1])

    def _watch(self, lot: InFlightLot, ref: Any) -> None:
        """Advance the lot when the call ends; Ray fetches its value, which is small, in the background."""
        lot.ref = ref
        ref.future().add_done_callback(lambda future: self._events.put(partial(self._advance, lot, ref, future)))

    def _wait(self) -> None:
        """Wait for something to happen, and see to it."""
        # The tick is short while commits run: their end opens the window for new lots.
        timeout = TICK_S / 10 if self.committer.num_running else TICK_S
        try:
            event = self._events.get(timeout=timeout)
            while True:
                event()
                event = self._events.get_nowait()
        except queue.Empty:
            pass

    def _advance(self, lot: InFlightLot, ref: Any, future: Future) -> None:
        if not ends_step(lot, ref, future):
            return
        self.cpus.end(lot.number)
        lot.ref, lot.twin, is_finishing = None, None, lot.phase == "finishing"
        if not is_finishing and self.route[lot.step].pool is None:
            self._num_on_cpus -= 1
        try:
            value = fetch(future, lot.number, "shard" if is_finishing else self.route[lot.step].name)
        except Loss as loss:
            return self._recover(lot, loss)
        if is_finishing:
            lot.encoded, lot.phase = value, "finished"
            return lot.mark("finished")
        step = self.route[lot.step]
        if lot.member:
            assert step.pool
            step.pool.finished(lot.member, lot.number)
            lot.member = None
            if lot.quarantine:
                lot.quarantine.finished(lot.output_ref)
                if lot.quarantine.is_done:
                    step.pool.release(lot.number)
                return self._waiting.add(lot)  # for the next span, or for the join
        if step.pool is None:
            lot.result = value
            self.busy_s.update(value.busy_s)
        self.flow.size(lot, value if step.pool else value.nbytes)
        lot.mark("made" if step.makes else "processed")
        lot.input_ref, lot.quarantine, lot.suspicion = lot.output_ref, None, 0
        lot.advance(self.route)
        if lot.step < len(self.route):
            self._waiting.add(lot)
        else:
            lot.phase = "ready"

    def _recover(self, lot: InFlightLot, loss: Loss) -> None:
        remedy = self.recovery.remedy(lot, loss)
        if remedy == "finish":
            return self._finish(lot)
        if remedy == "rewind":
            assert lot.number >= self._to_commit
            self.recovery.rewind(lot.number, self._in_flight.values())
            self._to_claim = lot.number
        self._waiting.add(lot)

    def _claim(self) -> None:
        """Claim for every lot that is next in order and ready, in one round trip to the index."""
        lots: list[tuple[int, LotResult]] = []
        num_claimed = self._to_claim - self._to_commit + self.committer.num_running
        while (lot := self._in_flight.get(self._to_claim + len(lots))) and lot.phase == "ready":
            if num_claimed + len(lots) >= self.flow.max_in_commit:
                break
            assert lot.result
            lots.append((lot.number, lot.result))
        for (number, _), verdicts in zip(lots, self.sequencer.claim(lots)):
            self._in_flight[number].verdicts = verdicts
            self._in_flight[number].mark("claimed")
            self._finish(self._in_flight[number])
        self._to_claim += len(lots)

    def _finish(self, lot: InFlightLot) -> None:
        lot.phase = "finishing"
        self._start_on_cpus(lot)

    def _commit(self) -> None:
        """Hand finished lots to the committer, in order, until a limit is reached."""
        while (lot := self._in_flight.get(self._to_commit)) and lot.phase == "finished":
            if self._reached():
                return
            assert lot.encoded
            lot.phase = "committing"
            self.committer.submit(lot.encoded)
            self._submitted.add(lot.encoded.summary)
            self.flow.judged(lot)
            self.budget.num_judged += lot.num_rows
            self._in_commit[lot.number] = self._in_flight.pop(lot.number)
            self._to_commit += 1

    def _committed(self, done: list[tuple[int, Summary]]) -> None:
        for number, summary in done:
            self.totals.add(summary)
            self.sequencer.committed(number)
            self.flow.committed(number)
            lot = self._in_commit.pop(number)
            lot.mark("committed")
            # The marks themselves would make an event long: what the lots so far have in common is enough for a plot.
            counts = {**summary.literals(), "templates": shares(self.totals.templates)}
            self.job.note("commit", lot=number, **lot.literals(self.began), **counts)

    def _report(self) -> None:
        if (now := time.monotonic()) - self._reported > PROGRESS_S:
            self._reported = now
            lots = [*self._in_flight.values(), *self._in_commit.values()]
            rest = self.sequencer.nbytes, self.flow.waits_s, self.flow.nbytes / self.flow.max_nbytes
            run = self.totals, lots, self.route, self.pools, self.budget, self.job
            self.on_progress(measure_progress(*run, self.recovery.retries, self.busy_s, *rest))

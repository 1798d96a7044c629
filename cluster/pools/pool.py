"""A pool: long-lived actors that hold one engine each and serve many lots."""

import logging
import queue
import time
from collections.abc import Callable, Sequence
from typing import Any

import ray
from ray.util.placement_group import remove_placement_group

from gristmill.cluster.errors import LOSSES, RunFailed, one_line
from gristmill.cluster.pools.feed import Occupancy
from gristmill.cluster.pools.feeder import Feeder
from gristmill.cluster.pools.member import Member
from gristmill.cluster.pools.meters import DeviceMeter, RateMeter
from gristmill.cluster.pools.placement import draining_nodes, is_alive, live_nodes, num_fitting
from gristmill.cluster.pools.replica import Replica, Worker, placement_options
from gristmill.cluster.pools.warm import hand_over, take_over
from gristmill.cluster.spec import ClusterSpec, PoolSpec
from gristmill.engines.needs import Needs
from gristmill.records.errors import UserError

logger = logging.getLogger(__name__)

CLOSE_TIMEOUT_S = 20.0
RESIZE_S = 3.0
WATCH_S = 1.0
RATE_S = 30.0  # the period of the token rate
CRASH, HANG = "engine_crash", "engine_hang"


class Pool:
    """Keeps a number of engines, gives lots to those that soon run out of asks, and replaces lost engines.

    `events`: what replicas report is put there, as functions for the driver's loop to call.

    Raises RunFailed when an engine cannot open, or when the engines of one slot are lost repeatedly without a finished
    lot. Losses count by slot: the loss of a node with eight engines counts once for each.
    """

    def __init__(
        self,
        name: str,
        worker: Worker,
        needs: Needs,
        spec: PoolSpec,
        cluster: ClusterSpec,
        note: Callable[..., None],
        events: "queue.SimpleQueue[Callable[[], None]]",
    ) -> None:
        self.name, self.worker, self.needs = name, worker, needs
        self.spec, self.cluster, self.note = spec, cluster, note
        self.price_per_device_hour = (
            spec.price_per_device_hour if spec.price_per_device_hour is not None else cluster.price_per_device_hour
        )
        self.members: list[Member] = []
        self.others: Sequence[Pool] = ()  # the other pools of the run, which also need room
        self.worker_ref: Any = None
        self.mean_lot_s = 0.0
        self.num_open = 0
        self.facts: dict[str, Any] = {}  # of its engines, for the manifest
        self.feeder = Feeder(spec.lots_per_replica, events, lambda member, e: self._replace(member, one_line(e)))
        self.meter = DeviceMeter(needs.num_devices)
        self.token_rate = RateMeter(RATE_S)
        self._past_progress = (0, 0)  # of removed replicas
        self._past_occupancy = Occupancy()  # of removed replicas
        self._next_number = 0
        self._watched = self._resized = 0.0
        self._last_open = time.monotonic()  # when an engine was last open

    def start(self) -> None:
        self.worker_ref = ray.put(self.worker)
        self._last_open = time.monotonic()
        for _ in range(self.target()):
            self._add()

    # Width

    def target(self) -> int:
        """The number of replicas that fit now and leave one core for the stages, up to `max_replicas`."""
        taken = [(p.needs, max(p.spec.replicas, len(p.members))) for p in self.others]
        room = num_fitting(self.needs, list(live_nodes(draining_nodes()).values()), taken)
        return min(room, self.spec.max_replicas or self.spec.replicas)

    @property
    def width(self) -> int:
        """Number of replicas that accept lots, now or once they are open."""
        return sum(not m.is_leaving for m in self.members)

    def _resize(self) -> None:
        draining = draining_nodes()
        for member in list(self.members):
            if member.node in draining and not member.is_leaving:
                member.is_leaving = True
                self.feeder.see(member)
                self.note("engine", pool=self.name, replica=member.number, state="leaving", why="its node drains")
            if member.is_leaving and not member.lots:
                self._remove(member, "left")
        target = self.target()
        while self.width < target:
            self._add()
        for member in [m for m in self.members if m.node is None][::-1]:
            if self.width <= target:
                break
            self._remove(member, "left")  # the room that it waits for is gone

    def _add(self, number: int | None = None, num_lost: int = 0) -> Member:
        if number is None:
            number, self._next_number = self._next_number, self._next_number + 1
        if (handed := take_over(self)) is None:
            options, group = placement_options(self.needs)
            actor = Replica.options(**options).remote(self.worker_ref)  # type: ignore[attr-defined]
            opening = actor.open.remote()
        else:
            actor, group, opening = handed
        member = Member(number, actor, group, actor.where.remote(), opening, time.monotonic(), num_lost=num_lost)
        self.members.append(member)
        self.note("engine", pool=self.name, replica=number, state="taken over" if handed else "loading")
        return member

    def _remove(self, member: Member, state: str, why: str | None = None) -> None:
        ray.kill(member.actor)
        if member.group is not None:
            remove_placement_group(member.group)
        self.forget(member, state, why)

    def forget(self, member: Member, state: str, why: str | None = None) -> None:
        """Take an engine off the books. Its actor lives on."""
        if member.placed_at is not None:
            self.meter.remove(member.placed_at)
        self.num_open -= member.open_ref is None
        self.feeder.close(member)
        (asks, tokens), report = self._past_progress, member.report
        self._past_progress = asks + report.num_done, tokens + report.num_tokens
        self._past_occupancy += member.occupancy
        self.members.remove(member)
        self.note("engine", pool=self.name, replica=member.number, state=state, why=why)

    # Life

    def poll(self) -> None:
        """Update all engines and the width of the pool. Raises RunFailed for an engine that cannot open."""
        now = time.monotonic()
        self._poll_opening(now)
        if now - self._watched > WATCH_S:
            self._watched = now
            self._watch(now)
        if now - self._resized > RESIZE_S:
            self._resized = now
            self._resize()
        if self.num_open:
            self._last_open = now
        elif now - self._last_open > self.cluster.start_timeout_s:
            raise RunFailed(
                f"{self.name}: no engine was up for {self.cluster.start_timeout_s:.0f} s; look at the logs of its "
                f"actors, check that the cluster has room for one, or raise cluster.start_timeout_s"
            )

    def _poll_opening(self, now: float) -> None:
        self._poll_placing(now)
        opening = {m.open_ref: m for m in self.members if m.open_ref is not None}
        if not opening:
            return
        for ref in ray.wait(list(opening), num_returns=len(opening), timeout=0)[0]:
            self._opened(opening[ref], now)

    def _poll_placing(self, now: float) -> None:
        placing = {m.node_ref: m for m in self.members if m.node_ref is not None}
        done = ray.wait(list(placing), num_returns=len(placing), timeout=0)[0] if placing else []
        for ref in done:
            member = placing[ref]
            member.node_ref = None
            try:
                member.node, member.placed_at = ray.get(ref), now
                self.meter.place(now)
            except ray.exceptions.RayError:
                continue  # its open() fails with the same error

    def _know(self, facts: dict[str, Any]) -> None:
        """Keep the facts of an engine: those of the first, unless another depends on its batch."""
        is_broken = facts.get("batch_invariant") is False
        if is_broken and self.facts.get("batch_invariant") is not False:
            logger.warning(
                f"{self.name}: a probe shows that this engine computes an answer otherwise in another batch, so a lot "
                f"that is made again can have other rows"
            )
        if is_broken or not self.facts:
            self.facts = facts

    def _opened(self, member: Member, now: float) -> None:
        try:
            facts = ray.get(member.open_ref)
            member.open_ref, member.advanced_at = None, now
            self._know(facts)
            self.num_open += 1
            self.feeder.open(member)
            seconds = round(now - member.started_at, 2)
            self.note("engine", pool=self.name, replica=member.number, state="open", node=member.node, seconds=seconds)
        except ray.exceptions.RayTaskError as error:
            kind = "" if isinstance(error.cause, UserError) else f"{type(error.cause).__name__}: "
            raise RunFailed(f"{self.name}: the engine cannot start: {kind}{one_line(error.cause)}") from error
        except LOSSES as error:
            self._replace(member, f"while starting ({one_line(error)})")
        except ray.exceptions.RayError as error:
            why = f"{type(error).__name__}: {one_line(error)}"
            raise RunFailed(f"{self.name}: the engine cannot start: {why}") from error

    def _watch(self, now: float) -> None:
        for member in self.members:
            if member.open_ref is None and member.lots and now - member.advanced_at > self.cluster.stall_timeout_s:
                self._kill_hung(member)
        self.token_rate.mark(now, self.progress[1])

    def _kill_hung(self, member: Member) -> None:
        """Kill a hung engine. Its calls fail, and its lots report the loss."""
        member.blame, member.advanced_at = HANG, time.monotonic()
        self.feeder.see(member)
        ray.kill(member.actor)

    @property
    def progress(self) -> tuple[int, int]:
        """(finished asks, generated tokens) of all engines, as of their last answers."""
        asks, tokens = self._past_progress
        reports = [m.report for m in self.members]
        return asks + sum(r.num_done for r in reports), tokens + sum(r.num_tokens for r in reports)

    @property
    def occupancy(self) -> Occupancy:
        """Of all engines, as of their last reports."""
        return sum((m.occupancy for m in self.members), self._past_occupancy)

    # Lots

    def room(self) -> Member | None:
        """The engine that takes the next lot; None if no engine wants any."""
        return self.feeder.room()

    def room_alone(self, lot: int) -> Member | None:
        """An engine that is reserved for this lot and empty; None until one is."""
        usable = self._usable()
        member = next((m for m in usable if m.reserved_for == lot), None)
        if member is None:
            member = min((m for m in usable if m.reserved_for is None), key=lambda m: len(m.lots), default=None)
            if member is None:
                return None
            member.reserved_for = lot
            self.feeder.see(member)
        return None if member.lots else member

    def release(self, lot: int) -> None:
        """End the reservation of an engine for this lot, if any."""
        for member in self.members:
            if member.reserved_for == lot:
                member.reserved_for = None
                self.feeder.see(member)

    def _usable(self) -> list[Member]:
        return [m for m in self.members if m.open_ref is None and not m.is_leaving and m.blame is None]

    def submit(self, member: Member, lot: int, batch_ref: Any, start: int, stop: int) -> tuple[Any, Any]:
        """References to the generated rows [start, stop) and to their bytes, which is small and signals the end."""
        now = time.monotonic()
        if not member.lots:
            member.advanced_at = now
        member.lots[lot] = now
        member.num_handed += stop - start
        self.feeder.see(member)
        return member.actor.make.remote(batch_ref, start, stop)

    def finished(self, member: Member, lot: int) -> None:
        seconds = time.monotonic() - member.lots.pop(lot)
        self.mean_lot_s += (seconds - self.mean_lot_s) * (0.2 if self.mean_lot_s else 1.0)
        member.num_lost = 0
        member.advanced_at = time.monotonic()
        self.feeder.see(member)

    def remove_lot(self, member: Member, lot: int) -> None:
        """Remove a lot, whose input was lost, from a live engine."""
        member.lots.pop(lot, None)
        self.feeder.see(member)

    def lose(self, member: Member, lot: int, why: str) -> str | None:
        """Note that a lot was lost with its engine, and replace the engine unless another lot's loss has done so.

        Returns "engine_crash" or "engine_hang" if the asks of the lot may be at fault, None if the node is lost.
        """
        member.num_lots_at_loss = member.num_lots_at_loss or len(member.lots)
        self.remove_lot(member, lot)
        if member in self.members:
            if member.blame is None and member.node and is_alive(member.node):
                member.blame = CRASH
            self._replace(member, why, counts=member.reserved_for is None)
        return member.blame

    @staticmethod
    def had_several(member: Member) -> bool:
        """Whether an engine had several lots when it was lost."""
        return member.num_lots_at_loss > 1

    def _replace(self, member: Member, why: str, counts: bool = True) -> None:
        """`counts`: whether the loss counts against the slot. Quarantine bounds the losses under a suspect lot."""
        if counts and member.num_lost >= self.cluster.max_retries:
            raise RunFailed(
                f"{self.name}: an engine died {member.num_lost + 1} times in a row without finishing a lot; "
                f"the last: {why}"
            )
        self._remove(member, "lost", why)
        if self.width < self.target():
            new = self._add(member.number, member.num_lost + counts)
            new.reserved_for = member.reserved_for

    def stop(self) -> None:
        """Close every engine, which frees devices and the processes of vLLM, then kill the actors."""
        hand_over(self)
        closing = [m.actor.close.remote() for m in self.members]
        if closing:
            ray.wait(closing, num_returns=len(closing), timeout=CLOSE_TIMEOUT_S)
        for member in list(self.members):
            self._remove(member, "closed")

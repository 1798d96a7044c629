"""A pool: long-lived actors that hold one engine each and serve many lots."""

import logging
import queue
import time
from collections.abc import Callable
from typing import Any

import ray

from gristmill.cluster.errors import LOSSES, RunFailed, one_line
from gristmill.cluster.pools.feed import Occupancy
from gristmill.cluster.pools.feeder import Feeder
from gristmill.cluster.pools.fleet import Fleet
from gristmill.cluster.pools.member import Member
from gristmill.cluster.pools.meters import DeviceMeter, RateMeter
from gristmill.cluster.pools.replica import Worker
from gristmill.cluster.pools.warm import hand_over
from gristmill.cluster.room.nodes import alive_among
from gristmill.cluster.spec import ClusterSpec, PoolSpec
from gristmill.engines.needs import Needs
from gristmill.records.errors import UserError

logger = logging.getLogger(__name__)

CLOSE_TIMEOUT_S = 20.0
RESIZE_S = 3.0
WATCH_S = 1.0
RATE_S = 30.0  # the period of the token rate
REPORT_SHARE = 0.25  # of `stall_timeout_s`: an engine reports progress several times before it counts as hung
CRASH, HANG = "engine_crash", "engine_hang"


class Pool:
    """Keeps a number of engines, gives lots to those that soon run out of asks, and replaces lost engines.

    `events`: what replicas report is put there, as functions for the driver's loop to call. `allowed`: the number of
    engines that the cluster allows it now.

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
        allowed: Callable[[], int],
    ) -> None:
        self.name, self.worker, self.needs = name, worker, needs
        self.spec, self.cluster, self.note = spec, cluster, note
        self.price_per_device_hour = (
            spec.price_per_device_hour if spec.price_per_device_hour is not None else cluster.price_per_device_hour
        )
        self.mean_lot_s = 0.0
        self.facts: dict[str, Any] = {}  # of its engines, for the manifest
        self.feeder = Feeder(
            spec.lots_per_replica,
            events,
            lambda member, e: self._replace(member, one_line(e)),
            cluster.stall_timeout_s * REPORT_SHARE,
        )
        self.fleet = self.new_fleet(allowed)
        self.token_rate = RateMeter(RATE_S)
        self._watched = self._resized = 0.0
        self._last_open = time.monotonic()  # when an engine was last open

    def new_fleet(self, allowed: Callable[[], int]) -> Fleet:
        return Fleet(self.name, self.worker, self.needs, self.feeder, allowed, self.note)

    @property
    def members(self) -> list[Member]:
        return self.fleet.members

    @property
    def num_open(self) -> int:
        return self.fleet.num_open

    @property
    def width(self) -> int:
        """Number of replicas that accept lots, or will once they are open."""
        return self.fleet.width

    @property
    def worker_ref(self) -> Any:
        return self.fleet.worker_ref

    @property
    def meter(self) -> DeviceMeter:
        return self.fleet.meter

    def start(self) -> None:
        self._last_open = time.monotonic()
        self.fleet.start()

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
            self.fleet.resize()
        if self.num_open or not self.width:
            self._last_open = now  # without a width it waits for its turn, not for an engine
        else:
            self._check_start(now - self._last_open)

    def _check_start(self, waited_s: float) -> None:
        """Raise RunFailed when no engine has been up for too long; nodes may have to come first."""
        is_placed = any(member.node is not None for member in self.fleet.starting)
        if waited_s > self.cluster.start_timeout_s + (0.0 if is_placed else self.cluster.nodes_timeout_s):
            remedy = (
                "look at the logs of its actors, or raise cluster.start_timeout_s"
                if is_placed
                else f"no node had room for one, which takes {self.needs}; see `ray status` and `gristmill queue`, and "
                "raise cluster.nodes_timeout_s where an autoscaler adds nodes"
            )
            raise RunFailed(f"{self.name}: no engine was up for {waited_s:.0f} s; {remedy}")

    def _poll_opening(self, now: float) -> None:
        self._poll_placing(now)
        opening = {m.open_ref: m for m in self.fleet.starting if m.open_ref is not None}
        if not opening:
            return
        for ref in ray.wait(list(opening), num_returns=len(opening), timeout=0)[0]:
            self._opened(opening[ref], now)

    def _poll_placing(self, now: float) -> None:
        placing = {m.node_ref: m for m in self.fleet.starting if m.node_ref is not None}
        done = ray.wait(list(placing), num_returns=len(placing), timeout=0)[0] if placing else []
        for ref in done:
            member = placing[ref]
            member.node_ref = None
            try:
                member.node, member.placed_at = ray.get(ref), now
                self.meter.place(now)
                self.fleet.note_started(member)
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
        for note in facts.get("notes", ()) if not self.facts else ():  # the log of a replica reaches nobody
            logger.warning(f"{self.name}: {note}")
        if is_broken or not self.facts:
            self.facts = facts

    def _opened(self, member: Member, now: float) -> None:
        try:
            facts = ray.get(member.open_ref)
            member.open_ref, member.advanced_at = None, now
            self.fleet.note_started(member)
            self._know(facts)
            self.fleet.num_open += 1
            self.feeder.open(member)
            seconds = round(now - member.started_at, 2)
            self.fleet.note(member.number, state="open", node=member.node, seconds=seconds)
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
            waited_s = now - member.advanced_at
            # A remote engine bounds its own waits, which may be long: its server restarts, or its quota is used up.
            is_late = waited_s > self.cluster.stall_timeout_s and not self.needs.is_remote
            if is_late and member.open_ref is None and member.lots:
                self._kill_hung(member)
        self.token_rate.mark(now, self.progress[1])

    def _kill_hung(self, member: Member) -> None:
        """Kill a hung engine. Its calls fail, and its lots report the loss."""
        member.blame, member.advanced_at = HANG, time.monotonic()
        self.feeder.see(member)
        ray.kill(member.actor)

    @property
    def progress(self) -> tuple[int, int]:
        """(finished asks, generated tokens) of all engines, as of their last reports."""
        return self.feeder.totals.num_done, self.feeder.totals.num_tokens

    @property
    def num_done(self) -> int:
        """Asks that all engines have finished, as of their last reports."""
        return self.feeder.totals.num_done

    @property
    def paid(self) -> float:
        """Money for the calls of all engines, as of their last reports."""
        return self.feeder.totals.paid

    @property
    def occupancy(self) -> Occupancy:
        """Of all engines, as of their last reports."""
        return self.feeder.totals.occupancy

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

        Returns "engine_crash" or "engine_hang" if the asks of the lot may be at fault. None if they are not: the node
        is lost, or the engine is remote and only what sends its calls has died.
        """
        member.num_lots_at_loss = member.num_lots_at_loss or len(member.lots)
        self.remove_lot(member, lot)
        if member in self.members:
            if member.blame is None and not self.needs.is_remote and member.node and alive_among([member.node]):
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
        self.fleet.remove(member, "lost", why)
        if self.width < self.fleet.allowed():
            new = self.fleet.add(member.number, member.num_lost + counts)
            new.reserved_for = member.reserved_for

    def stop(self) -> None:
        """Close every engine, which frees devices and the processes of vLLM, then kill the actors."""
        hand_over(self.fleet)
        closing = [m.actor.close.remote() for m in self.members]
        if closing:
            ray.wait(closing, num_returns=len(closing), timeout=CLOSE_TIMEOUT_S)
        for member in list(self.members):
            self.fleet.remove(member, "closed")

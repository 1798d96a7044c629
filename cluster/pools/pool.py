"""Pools: long-lived actors that hold one engine each and outlive lots."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import ray
from ray.util.placement_group import remove_placement_group

from gristmill.cluster.errors import LOSSES, RunFailed, one_line
from gristmill.cluster.pools.member import Member, answers
from gristmill.cluster.pools.placement import draining_nodes, is_alive, live_nodes, num_fitting
from gristmill.cluster.pools.replica import Replica, Worker, placement_options
from gristmill.cluster.spec import ClusterSpec, PoolSpec
from gristmill.engines.needs import Needs

CLOSE_TIMEOUT_S = 20.0
RESIZE_S = 3.0
ASK_S = 1.0  # between two questions to a replica how far it is
ASKS_PER_S = 20.0  # of all replicas together
RATE_OVER_S = 30.0
CRASH, HANG = "engine_crash", "engine_hang"


class Pool:
    """Engines between a minimum and a maximum; hands each lot to the open engine with the fewest, replaces the dead.

    Raises RunFailed when an engine cannot be opened, or one slot's engines die again and again without finishing a lot
    (counted by slot: a node that takes eight engines with it has killed each of them once).
    """

    def __init__(
        self,
        name: str,
        worker: Worker,
        needs: Needs,
        spec: PoolSpec,
        cluster: ClusterSpec,
        note: Callable[..., None],
    ) -> None:
        self.name, self.worker, self.needs = name, worker, needs
        self.spec, self.cluster, self.note = spec, cluster, note
        self.price_per_device_hour = (
            spec.price_per_device_hour if spec.price_per_device_hour is not None else cluster.price_per_device_hour
        )
        self.members: list[Member] = []
        self.others: Sequence[Pool] = ()  # the other pools of the run, which take room too
        self.worker_ref: Any = None
        self.mean_lot_s = 0.0
        self.num_open = 0
        self._is_full = False  # nobody had room, and nothing has changed since: asked for every lot that waits
        self._device_s = 0.0  # of replicas that are gone
        self._placed = (0, 0.0)  # replicas that hold their devices: how many, and the sum of the times since when
        self._gone = (0, 0)  # made by replicas that are gone
        self._next_number = 0
        self._asked = self._resized = 0.0
        self._stood_at = time.monotonic()  # when an engine was last up
        self._marks: list[tuple[float, int]] = []

    def start(self) -> None:
        self.worker_ref = ray.put(self.worker)
        self._stood_at = time.monotonic()
        for _ in range(self.target()):
            self._add()

    # Width

    def target(self) -> int:
        """How many replicas there should be now: never so many that the stages have no core left, also when nodes are
        lost on the way."""
        taken = [(p.needs, max(p.spec.replicas, len(p.members))) for p in self.others]
        room = num_fitting(self.needs, list(live_nodes(draining_nodes()).values()), taken)
        return min(room, self.spec.max_replicas or self.spec.replicas)

    @property
    def width(self) -> int:
        """Replicas that take lots, or soon will."""
        return sum(not m.leaving for m in self.members)

    def _resize(self) -> None:
        leaving = draining_nodes()
        for member in list(self.members):
            if member.node in leaving and not member.leaving:
                member.leaving = True
                self.note("engine", pool=self.name, replica=member.number, state="leaving", why="its node drains")
            if member.leaving and not member.lots:
                self._remove(member, "left")
        target = self.target()
        while self.width < target:
            self._add()
        for member in [m for m in self.members if m.node is None][::-1]:
            if self.width <= target:
                break
            self._remove(member, "left")  # it waits for room that has gone

    def _add(self, number: int | None = None, num_lost: int = 0) -> Member:
        if number is None:
            number, self._next_number = self._next_number, self._next_number + 1
        options, group = placement_options(self.needs, self.spec.lots_per_replica + 2)
        actor = Replica.options(**options).remote(self.worker_ref)  # type: ignore[attr-defined]
        member = Member(
            number, actor, group, actor.where.remote(), actor.open.remote(), time.monotonic(), num_lost=num_lost
        )
        self.members.append(member)
        self.note("engine", pool=self.name, replica=number, state="loading")
        return member

    def _remove(self, member: Member, state: str, why: str | None = None) -> None:
        if member.placed is not None:
            self._device_s += self.needs.num_devices * (time.monotonic() - member.placed)
            self._placed = self._placed[0] - 1, self._placed[1] - member.placed
        self.num_open -= member.opening is None
        self._is_full = False
        self._gone = self._gone[0] + member.made[0], self._gone[1] + member.made[1]
        ray.kill(member.actor)
        if member.group is not None:
            remove_placement_group(member.group)
        self.members.remove(member)
        self.note("engine", pool=self.name, replica=member.number, state=state, why=why)

    # Life

    def poll(self) -> None:
        """Note engines that came up, got on, hang or must go; raise for one that cannot open."""
        now = time.monotonic()
        self._poll_opening(now)
        if now - self._asked > max(ASK_S, len(self.members) / ASKS_PER_S):
            self._asked = now
            self._poll_progress(now)
        if now - self._resized > RESIZE_S:
            self._resized = now
            self._resize()
        if self.num_open:
            self._stood_at = now
        elif now - self._stood_at > self.cluster.start_timeout_s:
            raise RunFailed(
                f"{self.name}: no engine was up for {self.cluster.start_timeout_s:.0f} s; look at the logs of its "
                f"actors, check that the cluster has room for one, or raise cluster.start_timeout_s"
            )

    def _poll_opening(self, now: float) -> None:
        self._poll_placing(now)
        opening = {m.opening: m for m in self.members if m.opening is not None}
        if not opening:
            return
        for ref in ray.wait(list(opening), num_returns=len(opening), timeout=0)[0]:
            self._opened(opening[ref], now)

    def _poll_placing(self, now: float) -> None:
        placing = {m.placing: m for m in self.members if m.placing is not None}
        done = ray.wait(list(placing), num_returns=len(placing), timeout=0)[0] if placing else []
        for ref in done:
            member = placing[ref]
            member.placing = None
            try:
                member.node, member.placed = ray.get(ref), now
                self._placed = self._placed[0] + 1, self._placed[1] + now
            except ray.exceptions.RayError:
                continue  # its open() fails too, and tells

    def _opened(self, member: Member, now: float) -> None:
        try:
            ray.get(member.opening)
            member.opening, member.moved = None, now
            self.num_open, self._is_full = self.num_open + 1, False
            seconds = round(now - member.since, 2)
            self.note("engine", pool=self.name, replica=member.number, state="open", node=member.node, seconds=seconds)
        except ray.exceptions.RayTaskError as error:
            raise RunFailed(
                f"{self.name}: the engine cannot start: {type(error.cause).__name__}: {one_line(error.cause)}"
            ) from error
        except LOSSES as error:
            self._replace(member, f"while starting ({one_line(error)})")
        except ray.exceptions.RayError as error:
            raise RunFailed(
                f"{self.name}: the engine cannot start: {type(error).__name__}: {one_line(error)}"
            ) from error

    def _poll_progress(self, now: float) -> None:
        answered = {m.asking: m for m in self.members if m.asking is not None}
        done = ray.wait(list(answered), num_returns=len(answered), timeout=0)[0] if answered else []
        for member, made in zip((answered[ref] for ref in done), answers(done)):
            member.asking = None
            if not isinstance(made, tuple):
                if not member.lots and member in self.members:  # else its lots tell of the loss
                    self._replace(member, one_line(made))
            elif made != member.made:
                member.made, member.moved = made, now
        for member in list(self.members):
            if member.opening is not None:
                continue
            if member.asking is None:
                member.asking = member.actor.progress.remote()
            if member.lots and now - member.moved > self.cluster.stall_timeout_s:
                self._hang(member)
        self._marks = [m for m in self._marks if now - m[0] < RATE_OVER_S] + [(now, self.made[1])]

    def _hang(self, member: Member) -> None:
        """Its calls fail with it, and the lots tell."""
        member.blame, member.moved = HANG, time.monotonic()
        ray.kill(member.actor)

    @property
    def made(self) -> tuple[int, int]:
        """(asks, tokens_out) made so far by all engines, as they last told."""
        asks = sum(m.made[0] for m in self.members)
        return self._gone[0] + asks, self._gone[1] + sum(m.made[1] for m in self.members)

    @property
    def tokens_per_s(self) -> float:
        """Over the last half minute."""
        if len(self._marks) < 2:
            return 0.0
        (start, before), (stop, after) = self._marks[0], self._marks[-1]
        return max(0, after - before) / max(stop - start, 1e-9)

    # Lots

    def room(self) -> Member | None:
        """The open engine with the fewest lots, None when all are full."""
        if self._is_full:
            return None
        most = self.spec.lots_per_replica
        free = [m for m in self._usable() if m.alone is None and len(m.lots) < most]
        self._is_full = not free
        return min(free, key=lambda m: len(m.lots), default=None)

    def room_alone(self, lot: int) -> Member | None:
        """An engine reserved for one lot, once it is empty; None while there is none."""
        usable = self._usable()
        mine = next((m for m in usable if m.alone == lot), None)
        if mine is None:
            mine = min((m for m in usable if m.alone is None), key=lambda m: len(m.lots), default=None)
            if mine is None:
                return None
            mine.alone = lot
        return None if mine.lots else mine

    def release(self, lot: int) -> None:
        """The engine reserved for this lot, if any, takes others again."""
        for member in self.members:
            if member.alone == lot:
                member.alone, self._is_full = None, False

    def _usable(self) -> list[Member]:
        return [m for m in self.members if m.opening is None and not m.leaving and m.blame is None]

    def submit(self, member: Member, lot: int, batch_ref: Any, start: int, stop: int) -> tuple[Any, Any]:
        """References to the made rows [start, stop), and to the small answer that says that they are there."""
        now = time.monotonic()
        if not member.lots:
            member.moved = now
        member.lots[lot] = now
        return member.actor.make.remote(batch_ref, start, stop)

    def finished(self, member: Member, lot: int) -> None:
        seconds = time.monotonic() - member.lots.pop(lot)
        self.mean_lot_s += (seconds - self.mean_lot_s) * (0.2 if self.mean_lot_s else 1.0)
        member.num_lost, self._is_full = 0, False
        member.moved = time.monotonic()

    def remove_lot(self, member: Member, lot: int) -> None:
        """A lot is gone from an engine that lives: what it was to read was lost."""
        member.lots.pop(lot, None)
        self._is_full = False

    def lose(self, member: Member, lot: int, why: str) -> str | None:
        """A lot was lost with its engine, which is replaced unless an earlier lot's loss has done so already.

        Returns "engine_crash" or "engine_hang" when the lot's asks may be at fault, None when the node is gone.
        """
        self.remove_lot(member, lot)
        if member in self.members:
            if member.blame is None and member.node and is_alive(member.node):
                member.blame = CRASH
            self._replace(member, why, counts=member.alone is None)
        return member.blame

    def _replace(self, member: Member, why: str, counts: bool = True) -> None:
        """`counts`: not when a suspect lot was alone with it, which is bounded by itself."""
        if counts and member.num_lost >= self.cluster.max_retries:
            raise RunFailed(
                f"{self.name}: an engine died {member.num_lost + 1} times in a row without finishing a lot; "
                f"the last: {why}"
            )
        self._remove(member, "lost", why)
        if self.width < self.target():
            new = self._add(member.number, member.num_lost + counts)
            new.alone = member.alone

    # Cost

    @property
    def num_devices(self) -> float:
        """Devices held now."""
        return self.needs.num_devices * self._placed[0]

    @property
    def device_s(self) -> float:
        """Device-seconds so far, from the moment that a replica has its node: loading costs as much as working."""
        count, since = self._placed
        return self._device_s + self.needs.num_devices * (count * time.monotonic() - since)

    def stop(self) -> None:
        """Close every engine (that frees the device, and vLLM's own children), then kill what is left."""
        closing = [m.actor.close.remote() for m in self.members]
        if closing:
            ray.wait(closing, num_returns=len(closing), timeout=CLOSE_TIMEOUT_S)
        for member in list(self.members):
            self._remove(member, "closed")

"""The replicas of a pool: how many there are, where they are, and which of them come and go."""

import time
from collections.abc import Callable
from typing import Any

import ray
from ray.util.placement_group import remove_placement_group

from gristmill.cluster.inputs import secrets_of
from gristmill.cluster.pools.feeder import Feeder
from gristmill.cluster.pools.member import Member
from gristmill.cluster.pools.meters import DeviceMeter
from gristmill.cluster.pools.replica import Replica, Worker, placement_options
from gristmill.cluster.pools.warm import take_over
from gristmill.cluster.room.nodes import alive_among, draining_nodes
from gristmill.engines.needs import Needs


class Fleet:
    """Adds and removes replicas until there are as many as `allowed` says. `note` writes an event."""

    def __init__(
        self,
        name: str,
        worker: Worker,
        needs: Needs,
        feeder: Feeder,
        allowed: Callable[[], int],
        note: Callable[..., None],
    ) -> None:
        self.name, self.worker, self.needs = name, worker, needs
        self.feeder, self.allowed, self._note_event = feeder, allowed, note
        self.members: list[Member] = []
        self.starting: dict[Member, None] = {}  # members that have no node or are not open yet
        self.meter = DeviceMeter(needs.num_devices)
        self.worker_ref: Any = None
        self.width = 0  # replicas that accept lots, or will once they are open
        self.num_open = 0
        self._next_number = 0

    def start(self) -> None:
        self.worker_ref = ray.put(self.worker)
        for _ in range(self.allowed()):
            self.add()

    def nodes(self) -> tuple[str, ...]:
        """Ids of the nodes of its placed engines."""
        return tuple(m.node for m in self.members if m.node is not None)

    def resize(self) -> None:
        """Leave nodes that drain, and follow the width that is allowed."""
        draining = draining_nodes()
        for member in [m for m in self.members if m.is_leaving or m.node in draining]:
            if member.node in draining and not member.is_draining:
                member.is_draining = True
                self._leave(member, "its node drains")
            if member.is_leaving and not member.lots:
                self.remove(member, "left")
        target = self.allowed()
        if self.width > target:
            self._shrink(self.width - target)
        for member in [m for m in self.members if m.is_leaving and not m.is_draining] if self.width < target else ():
            if self.width < target:
                self._stay(member)
        for _ in range(target - self.width):
            self.add()

    def _shrink(self, number: int) -> None:
        """Let engines go, at the ends of their lots: first those that are lost, wait for room or load; then the
        emptiest."""
        staying = [m for m in self.members if not m.is_leaving]
        alive = alive_among({m.node for m in staying if m.node is not None})
        staying.sort(key=lambda m: (m.node in alive, m.open_ref is None, len(m.lots), -m.number))
        for member in staying[:number]:
            self._leave(member, "another run takes its room, or the room is gone")
            if not member.lots:
                self.remove(member, "left")

    def _leave(self, member: Member, why: str) -> None:
        """Give an engine no more lots."""
        if not member.is_leaving:
            member.is_leaving = True
            self.width -= 1
            self.feeder.see(member)
        self.note(member.number, state="leaving", why=why)

    def _stay(self, member: Member) -> None:
        member.is_leaving = False
        self.width += 1
        self.feeder.see(member)
        self.note(member.number, state="open", node=member.node)

    def add(self, number: int | None = None, num_lost: int = 0) -> Member:
        if number is None:
            number, self._next_number = self._next_number, self._next_number + 1
        if (handed := take_over(self)) is None:
            options, group = placement_options(self.needs)
            actor = Replica.options(**options).remote(self.worker_ref)  # type: ignore[attr-defined]
            opening = actor.open.remote(secrets_of(self.needs))
        else:
            actor, group, opening = handed
        member = Member(number, actor, group, actor.where.remote(), opening, time.monotonic(), num_lost=num_lost)
        self.members.append(member)
        self.starting[member] = None
        self.width += 1
        self.note(number, state="taken over" if handed else "loading")
        return member

    def remove(self, member: Member, state: str, why: str | None = None) -> None:
        ray.kill(member.actor)
        if member.group is not None:
            remove_placement_group(member.group)
        self.forget(member, state, why)

    def forget(self, member: Member, state: str, why: str | None = None) -> None:
        """Take an engine off the books. Its actor lives on."""
        if member.placed_at is not None:
            self.meter.remove(member.placed_at)
        self.num_open -= member.open_ref is None
        self.width -= not member.is_leaving
        self.starting.pop(member, None)
        self.feeder.close(member)
        self.members.remove(member)
        self.note(member.number, state=state, why=why)

    def note_started(self, member: Member) -> None:
        """Note that a member has got a node, or is open."""
        if member.node_ref is None and member.open_ref is None:
            self.starting.pop(member, None)

    def note(self, replica: int, **values: Any) -> None:
        self._note_event("engine", pool=self.name, replica=replica, **values)

"""Open engines that go from one run of a process to the next, so that the next does not wait for a load.

Inside `warm_engines()`, a pool that ends leaves its engines here where a later pool wants them: its worker has the same
engine and needs the same resources. That pool then takes them over, and its own worker opens in the same actor.
"""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol

import ray
from ray.util.placement_group import remove_placement_group

from gristmill.cluster.inputs import secrets_of
from gristmill.cluster.pools.member import Member
from gristmill.cluster.pools.replica import Worker
from gristmill.engines.needs import Needs

CLOSE_TIMEOUT_S = 20.0


class Pooling(Protocol):
    """A pool, as far as its engines go on to another one."""

    needs: Needs
    worker: Worker
    worker_ref: Any
    members: list[Member]

    def forget(self, member: Member, state: str) -> None: ...


@dataclass(frozen=True)
class WarmEngine:
    """The actor of an open engine, and its placement group, if any."""

    key: str  # see Needs.key
    actor: Any
    group: Any
    node: str | None
    bundle: Mapping[str, float]  # what it holds on its node


class WarmEngines:
    """The engines between two runs. Pools of several threads may use it."""

    def __init__(self) -> None:
        self._wanted: dict[str, int] = {}
        self._engines: list[WarmEngine] = []
        self._lock = threading.Lock()

    def want(self, widths: Mapping[str, int]) -> None:
        """From now on keep that many engines of each key when a pool ends."""
        self._wanted = dict(widths)

    def wants(self, key: str) -> bool:
        with self._lock:
            return sum(engine.key == key for engine in self._engines) < self._wanted.get(key, 0)

    def close_others(self, widths: Mapping[str, int]) -> None:
        """Close the engines with other keys: the next step needs their room."""
        with self._lock:
            others = [engine for engine in self._engines if engine.key not in widths]
            self._engines = [engine for engine in self._engines if engine.key in widths]
        _close(others)

    def put(self, engine: WarmEngine) -> None:
        with self._lock:
            self._engines.append(engine)

    def held(self) -> list[tuple[str, Mapping[str, float]]]:
        """(node id, resources) of each engine."""
        with self._lock:
            return [(engine.node, engine.bundle) for engine in self._engines if engine.node is not None]

    def take(self, key: str | None) -> WarmEngine | None:
        """An engine with this key, which then belongs to the caller; None if there is none."""
        with self._lock:
            engine = next((e for e in self._engines if e.key == key), None)
            if engine is not None:
                self._engines.remove(engine)
            return engine


_ROOM: ContextVar[WarmEngines | None] = ContextVar("warm_engines", default=None)


@contextmanager
def warm_engines() -> Iterator[WarmEngines]:
    """Pools of the block hand their engines on. What is left at its end is closed."""
    room = WarmEngines()
    token = _ROOM.set(room)
    try:
        yield room
    finally:
        _ROOM.reset(token)
        room.close_others({})


def held_warm() -> list[tuple[str, Mapping[str, float]]]:
    """(node id, resources) of the engines between two runs of this process."""
    room = _ROOM.get()
    return [] if room is None else room.held()


def hand_over(pool: Pooling) -> None:
    """Leave the open engines of a pool that ends to a later pool that wants them."""
    room = _ROOM.get()
    key = pool.needs.key(pool.worker.engine_key) if room is not None else None
    if room is None or key is None:
        return
    for member in list(pool.members):
        if room.wants(key) and member.open_ref is None and not member.is_leaving and member.blame is None:
            pool.forget(member, "handed on")
            room.put(WarmEngine(key, member.actor, member.group, member.node, pool.needs.bundles[0]))


def take_over(pool: Pooling) -> tuple[Any, Any, Any] | None:
    """(actor, placement group, running call that opens it) of an engine that an earlier pool has left; else None."""
    room = _ROOM.get()
    engine = room.take(pool.needs.key(pool.worker.engine_key)) if room is not None else None
    return (
        None
        if engine is None
        else (engine.actor, engine.group, engine.actor.adopt.remote(pool.worker_ref, secrets_of(pool.needs)))
    )


def _close(engines: list[WarmEngine]) -> None:
    closing = [engine.actor.close.remote() for engine in engines]
    if closing:
        ray.wait(closing, num_returns=len(closing), timeout=CLOSE_TIMEOUT_S)
    for engine in engines:
        ray.kill(engine.actor)
        if engine.group is not None:
            remove_placement_group(engine.group)

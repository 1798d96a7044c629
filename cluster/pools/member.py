"""The driver's record of a replica, and the answers of replicas."""

from dataclasses import dataclass, field
from typing import Any

import ray

from gristmill.cluster.errors import LOSSES


@dataclass
class Member:
    """The driver's record of a replica. Times are monotonic seconds."""

    number: int  # of its slot in the pool
    actor: Any
    group: Any  # its placement group, if any
    node_ref: Any  # running call of where(), None once the replica has a node
    open_ref: Any  # running call of open(), None once the replica is open
    started_at: float
    node: str | None = None
    placed_at: float | None = None  # when it got its node; device-seconds count from here
    lots: dict[int, float] = field(default_factory=dict)  # lots in flight, with their start times
    num_lost: int = 0  # engines of this slot that were lost since one of them finished a lot
    progress_ref: Any = None  # running call of progress(), if any
    progress: tuple[int, int] = (0, 0)  # finished asks and generated tokens, as of its last answer
    advanced_at: float = 0.0  # when it last made progress, or got its first lot
    reserved_for: int | None = None  # the only lot that it accepts
    is_leaving: bool = False  # its node drains: it gets no more lots
    blame: str | None = None  # why its loss counts against its asks; None: its node is lost


def answers(refs: list[Any]) -> list[tuple[int, int] | BaseException]:
    """The value of every finished call, or the error of a lost replica. Without losses, one fetch is enough."""
    try:
        return ray.get(refs)
    except LOSSES:
        return [_answer(ref) for ref in refs]


def _answer(ref: Any) -> tuple[int, int] | BaseException:
    try:
        return ray.get(ref)
    except LOSSES as error:
        return error

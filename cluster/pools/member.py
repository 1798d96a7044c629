"""A replica as the driver sees it, and what replicas answer."""

from dataclasses import dataclass, field
from typing import Any

import ray

from gristmill.cluster.errors import LOSSES


@dataclass
class Member:
    """A replica as the driver sees it."""

    number: int  # of its slot
    actor: Any
    group: Any  # its placement group, if any
    placing: Any  # reference to the running where(), None once it has a node
    opening: Any  # reference to the running open(), None once it is open
    since: float
    node: str | None = None
    placed: float | None = None  # when it got its node, and began to cost
    lots: dict[int, float] = field(default_factory=dict)  # in flight, and since when
    num_lost: int = 0  # engines of this slot that were lost since one of them finished a lot
    asking: Any = None  # reference to the running progress(), if any
    made: tuple[int, int] = (0, 0)  # asks and tokens when it last told
    moved: float = 0.0  # when it was last seen to get on, or got its first lot
    alone: int | None = None  # the one lot that it is reserved for
    leaving: bool = False  # its node drains: it gets no more lots
    blame: str | None = None  # why its loss counts against the asks that it held; None: its node is gone


def answers(refs: list[Any]) -> list[tuple[int, int] | BaseException]:
    """The value of every finished call, or how its replica was lost; one fetch for all where none was."""
    try:
        return ray.get(refs)
    except LOSSES:
        return [_answer(ref) for ref in refs]


def _answer(ref: Any) -> tuple[int, int] | BaseException:
    try:
        return ray.get(ref)
    except LOSSES as error:
        return error

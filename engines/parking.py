"""Engines of this process that change hands: one that a part closes is kept for the next part that opens the same.

An engine takes minutes to load. Where an actor that holds an engine goes from one run to the next, the old part closes
inside `parking()`, and the new part finds its engine here.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Parkable(Protocol):
    """An engine. `parking_key` names its settings: equal keys, equal engines."""

    parking_key: str | None

    def close(self) -> None: ...


_parked: dict[str, Parkable] = {}
_is_parking = False


@contextmanager
def parking() -> Iterator[None]:
    """Within the block, engines that are closed are kept. Call `clear` after the next part is open."""
    global _is_parking
    _is_parking = True
    try:
        yield
    finally:
        _is_parking = False


def park(engine: Parkable) -> bool:
    """Keep an open engine that is about to close, inside `parking()`; returns whether it was kept."""
    if not _is_parking or engine.parking_key is None:
        return False
    _parked[engine.parking_key] = engine
    return True


def take(key: str) -> Parkable | None:
    """The engine with this key, if one is kept; it then belongs to the caller."""
    return _parked.pop(key, None)


def clear() -> None:
    """Close the engines that nobody has taken."""
    while _parked:
        _parked.popitem()[1].close()

"""Counts how many engines fit on nodes, by first fit."""

import math
from collections.abc import Mapping, Sequence

from gristmill.engines.needs import Needs

Resources = Mapping[str, float]
Bundle = dict[str, float]

TOLERANCE = 1e-6  # of sums of fractions of a GPU or a CPU


class Capacity:
    """The free resources of nodes, from which engines are taken and never given back. Nodes without GPUs come first.

    A type of engine that a node cannot hold now will not fit there later. So the search for each type starts where the
    last one ended, and taking all engines of a cluster takes time in proportion to its nodes and its engines.
    """

    def __init__(self, nodes: Mapping[str, Resources]) -> None:
        self.names = sorted(nodes, key=lambda name: nodes[name].get("GPU", 0.0))
        self.free = [dict(nodes[name]) for name in self.names]
        self._number = {name: at for at, name in enumerate(self.names)}
        self._first: dict[tuple[tuple[str, float], ...], int] = {}  # by bundle: nodes before it have no room for it

    def take(self, bundles: Sequence[Bundle], node: str | None = None) -> bool:
        """Take the bundles of one engine, all or none; returns whether they fit. `node` is tried first."""
        taken: list[tuple[int, Bundle]] = []
        for bundle in bundles:
            at = self._number.get(node) if node is not None else None
            if at is None or not self._holds(at, bundle):
                at = self._find(bundle)
            if at is None:
                for before, part in taken:
                    self._add(before, part, 1.0)
                    # The node has room again for what was not found after this.
                    self._first = {key: min(first, before) for key, first in self._first.items()}
                return False
            self._add(at, bundle, -1.0)
            taken.append((at, bundle))
        return True

    def place(self, bundle: Bundle) -> str | None:
        """Take one bundle; returns the id of its node, None if it fits nowhere."""
        at = self._find(bundle)
        if at is None:
            return None
        self._add(at, bundle, -1.0)
        return self.names[at]

    def take_many(self, needs: Needs, most: int, nodes: Sequence[str] = ()) -> int:
        """Take up to `most` engines, first on `nodes`, where some are already; returns their number."""
        bundles, number = needs.bundles, 0
        while number < most and self.take(bundles, nodes[number] if number < len(nodes) else None):
            number += 1
        return number

    def total(self, resource: str) -> float:
        """The free amount of a resource on all nodes."""
        return math.fsum(free.get(resource, 0.0) for free in self.free)

    def copy(self) -> "Capacity":
        other = Capacity({})
        other.names, other._number = self.names, self._number
        other.free, other._first = [dict(free) for free in self.free], dict(self._first)
        return other

    def _find(self, bundle: Bundle) -> int | None:
        key = tuple(sorted(bundle.items()))
        for at in range(self._first.get(key, 0), len(self.free)):
            if self._holds(at, bundle):
                self._first[key] = at
                return at
        self._first[key] = len(self.free)
        return None

    def _holds(self, at: int, bundle: Bundle) -> bool:
        free = self.free[at]
        return all(free.get(name, 0.0) >= amount - TOLERANCE for name, amount in bundle.items())

    def _add(self, at: int, bundle: Bundle, sign: float) -> None:
        free = self.free[at]
        for name, amount in bundle.items():
            free[name] = free.get(name, 0.0) + sign * amount

"""What each actor of the dedup index holds: some bands of all rows, or all bands of some rows.

Keys that are looked up one by one are divided by band. Keys that only make sense together, such as those that carry a
vector, stay together, and rows are divided by ask number. Either way each actor answers for its part, and
`stages.dedup.bandindex.merge_answers` joins the answers to those of one index.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from gristmill.cluster.index.snapshots import Claims
from gristmill.stages.dedup.contract import Duplicates


@dataclass(frozen=True)
class Part:
    """Bands [first, stop) of the rows whose ask number is `number` modulo `num_shares`."""

    first: int
    stop: int
    number: int = 0
    num_shares: int = 1

    def claims(self, claims: Claims) -> Claims:
        """This part of claims: keys uint64 (n, bands) and owners int64 (n,)."""
        keys, owners = self._view(claims)
        return keys.copy(), owners

    def columns(self, claims: Claims) -> Claims:
        """This part of claims, with keys as contiguous uint64 (bands, n)."""
        keys, owners = self._view(claims)
        return np.ascontiguousarray(keys.T), owners

    def _view(self, claims: Claims) -> Claims:
        keys, owners = claims
        if self.num_shares > 1:
            rows = np.flatnonzero(owners % self.num_shares == self.number)
            keys, owners = keys[rows], owners[rows]
        return keys[:, self.first : self.stop], owners

    def queries(self, keys: np.ndarray) -> np.ndarray:
        """Keys uint64 (n, bands) to look up in this part: of all rows, because any part may own them."""
        return keys if self.stop - self.first == keys.shape[1] else keys[:, self.first : self.stop].copy()


def divide(dedup: Duplicates, num_actors: int) -> list[Part]:
    """The parts of at most `num_actors` actors, one if an index is divided by band and has only one."""
    if not dedup.is_divisible:
        return [Part(0, dedup.bands, number, num_actors) for number in range(num_actors)]
    edges = np.linspace(0, dedup.bands, min(num_actors, dedup.bands) + 1).astype(int).tolist()
    return [Part(*edge) for edge in pairwise(edges)]

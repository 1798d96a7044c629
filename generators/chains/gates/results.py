"""What gates did in a generation: how much each kept, where accepted rows lie, and what became of wrong labels."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from gristmill.generators.chains.contract import ChainFamily, Gate, Measures, Past

NUM_FRESH = 1000  # real rows that accepted ones are held against


def names(gates: Sequence[Gate]) -> list[str]:
    """The gates' names; the second of a name is NAME_2."""
    found = [gate.name for gate in gates]
    return [n if found[:i].count(n) == 0 else f"{n}_{found[:i].count(n) + 1}" for i, n in enumerate(found)]


class Tally:
    """Passes rows through gates, one after another, and counts."""

    def __init__(self, family: ChainFamily, gates: Sequence[Gate]) -> None:
        self.family, self.gates = family, gates
        self._seen = dict.fromkeys(names(gates), 0)
        self._kept = dict.fromkeys(self._seen, 0)
        self._labels = np.zeros((2, 2), np.int64)  # (made, kept) x (wrong, right)

    def through(self, made: Any, random: np.random.Generator, past: Past) -> Any:
        """The rows that every gate keeps."""
        rows = made
        self._count_labels(0, rows)
        for name, gate in zip(self._seen, self.gates):
            self._seen[name] += self.family.count(rows)
            rows = self.family.kept(rows, gate.keep(rows, random, past))
            self._kept[name] += self.family.count(rows)
        self._count_labels(1, rows)
        return rows

    def _count_labels(self, at: int, rows: Any) -> None:
        right = self.family.right(rows)
        if right is not None:
            self._labels[at] += np.bincount(right.astype(np.int64), minlength=2)

    def told(self, accepted: Any, fresh: Any) -> Measures:
        """kept_share_GATE: of the rows that came to that gate. drift: from the mean of fresh real rows to that of the
        accepted ones, root mean square over columns, in standard deviations of the real rows. Where labels are known:
        share_wrong of what was made and share_wrong_kept; keep_right and keep_wrong, the phi and psi of Feng et al.
        (2025, section 4), and breakdown_share 1 / (1 + psi/phi) (theorem 4.2). NaN where no row was there to tell.
        """
        found = {f"kept_share_{name}": _share(self._kept[name], seen) for name, seen in self._seen.items()}
        found["drift"] = drift(self.family.numbers(accepted), self.family.numbers(fresh))
        if self._labels.any():
            (wrong, right), (wrong_kept, right_kept) = self._labels.tolist()
            phi, psi = _share(right_kept, right), _share(wrong_kept, wrong)
            found |= {
                "share_wrong": _share(wrong, wrong + right),
                "share_wrong_kept": _share(wrong_kept, wrong_kept + right_kept),
                "keep_right": phi,
                "keep_wrong": psi,
                "breakdown_share": _share(phi, phi + psi),
            }
        return {name: np.array([value], np.float64) for name, value in found.items()}


def _share(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")


def drift(accepted: np.ndarray | None, real: np.ndarray | None) -> float:
    """Between the means of float64 (rows, columns) each; columns that do not vary among real rows are left out."""
    if accepted is None or real is None or not len(accepted) or not len(real):
        return float("nan")
    spread = real.std(axis=0)
    apart = (accepted.mean(axis=0) - real.mean(axis=0))[spread > 0] / spread[spread > 0]
    return float(np.sqrt((apart**2).mean())) if len(apart) else float("nan")

"""Measures of gates in a generation: shares kept, drift of accepted rows, and shares of wrong labels."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from gristmill.generators.chains.contract import ChainFamily, EarlierRows, Gate, Measures

NUM_FRESH = 1000  # real rows that accepted rows are compared with


def names(gates: Sequence[Gate]) -> list[str]:
    """The names of the gates; the second gate of a name is NAME_2."""
    every = [gate.name for gate in gates]
    return [n if every[:i].count(n) == 0 else f"{n}_{every[:i].count(n) + 1}" for i, n in enumerate(every)]


class Tally:
    """Passes rows through the gates in their order, and counts."""

    def __init__(self, family: ChainFamily, gates: Sequence[Gate]) -> None:
        self.family, self.gates = family, gates
        self._num_in = dict.fromkeys(names(gates), 0)
        self._num_out = dict.fromkeys(self._num_in, 0)
        self._labels = np.zeros((2, 2), np.int64)  # (made, kept) x (wrong, right)

    def through(self, sample: Any, random: np.random.Generator, earlier: EarlierRows) -> Any:
        """The rows that every gate keeps."""
        rows = sample
        self._count_labels(0, rows)
        for name, gate in zip(self._num_in, self.gates):
            self._num_in[name] += self.family.count(rows)
            rows = self.family.select(rows, gate.keep(rows, random, earlier))
            self._num_out[name] += self.family.count(rows)
        self._count_labels(1, rows)
        return rows

    def _count_labels(self, at: int, rows: Any) -> None:
        is_right = self.family.is_right(rows)
        if is_right is not None:
            self._labels[at] += np.bincount(is_right.astype(np.int64), minlength=2)

    def measures(self, pool_rows: Any, fresh: Any) -> Measures:
        """Measures by name, NaN where there is no row to measure.

        kept_share_GATE: share of the rows that the gate keeps. drift: distance between the means of accepted rows and
        of fresh real rows, the root mean square over columns, in standard deviations of the real rows. Where labels
        are known: share_wrong of the rows made, share_wrong_kept; keep_right and keep_wrong, the phi and psi of Feng et
        al. (2025, section 4), and breakdown_share 1 / (1 + psi/phi) (theorem 4.2).
        """
        values = {f"kept_share_{name}": _share(self._num_out[name], num) for name, num in self._num_in.items()}
        values["drift"] = drift(self.family.numbers(pool_rows), self.family.numbers(fresh))
        if self._labels.any():
            (wrong, right), (num_wrong_out, num_right_out) = self._labels.tolist()
            phi, psi = _share(num_right_out, right), _share(num_wrong_out, wrong)
            values |= {
                "share_wrong": _share(wrong, wrong + right),
                "share_wrong_kept": _share(num_wrong_out, num_wrong_out + num_right_out),
                "keep_right": phi,
                "keep_wrong": psi,
                "breakdown_share": _share(phi, phi + psi),
            }
        return {name: np.array([value], np.float64) for name, value in values.items()}


def _share(part: float, total: float) -> float:
    return part / total if total else float("nan")


def drift(pool_rows: np.ndarray | None, real: np.ndarray | None) -> float:
    """Distance between the means of two tables, float64 (rows, columns), without columns that are constant in the
    real rows."""
    if pool_rows is None or real is None or not len(pool_rows) or not len(real):
        return float("nan")
    spread = real.std(axis=0)
    apart = (pool_rows.mean(axis=0) - real.mean(axis=0))[spread > 0] / spread[spread > 0]
    return float(np.sqrt((apart**2).mean())) if len(apart) else float("nan")

"""Draws the rows of a mixture: which rows, how often, and at what weight, so that the synthetic cap holds.

A hash of (seed, id) orders the rows, so the same rows and seed give the same mixture in any reading order. Memory is
about 60 bytes per row, independent of the length of the texts.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from gristmill.jobs.release.mixture.spec import MixtureSpec
from gristmill.records.errors import UserError
from gristmill.records.mixing.caps import TOLERANCE, cover_shortfall, effective_size, keep_cap
from gristmill.records.words import NO_KEY

MAX_TIMES = 100  # a row may be taken this often
NO_REAL = "no part has real rows; add one, or set synthetic_max = 1"


@dataclass
class Candidates:
    """All rows of all parts, in the order of parts, chunks and rows; arrays of shape (n,)."""

    ids: np.ndarray  # S16
    contents: np.ndarray  # S16 hash, equal for rows that read the same; zeros: equal to no other row
    keys: np.ndarray  # uint64, the order of the draw
    tokens: np.ndarray  # int64
    is_real: np.ndarray  # bool
    generation: np.ndarray  # int32
    part: np.ndarray  # int32
    chunk: np.ndarray  # int32
    row: np.ndarray  # int32, index in the chunk

    def __len__(self) -> int:
        return len(self.ids)


@dataclass
class Draw:
    """The drawn rows, as arrays over all candidates."""

    times: np.ndarray  # int32 (n,), how often each row is taken
    weights: np.ndarray  # float64 (n,), weight of each copy
    is_twin: np.ndarray  # bool (n,), left out as a duplicate
    short_parts: list[int] = field(default_factory=list)  # numbers of the parts with too few rows
    share_before: float | None = None  # synthetic share before the policy, if it was above the cap

    def effective_rows(self) -> float:
        """Kish's effective sample size. A row taken twice counts as one row of twice the weight."""
        weights, counts = np.unique((self.times * self.weights)[self.times > 0], return_counts=True)
        return effective_size(zip(counts.tolist(), weights.tolist()))


def draw(rows: Candidates, spec: MixtureSpec, titles: Sequence[str]) -> Draw:
    """Draw the mixture.

    Raises UserError when the policy is `fail` or cannot keep the cap, for a repeated id, and for an empty mixture.
    """
    _check_ids(rows, titles)
    is_twin = twins(rows, whole=spec.dedup == "all")
    units = np.ones(len(rows), np.int64) if spec.by == "rows" else rows.tokens
    state = _DrawState(rows, spec, titles, units, ~is_twin)
    drawn = Draw(state.times, state.weights, is_twin)
    available = [int(units[state.alive & (rows.part == p)].sum()) for p in range(len(titles))]
    for part, amount in enumerate(state.amounts(available)):
        if amount > available[part]:
            drawn.short_parts.append(part)
        state.take_part(part, amount, available[part])
    state.fill_gap()
    drawn.share_before = state.keep_cap()
    if (most := int(drawn.times.max(initial=0))) > MAX_TIMES:
        raise UserError(f"a row would be taken {most} times, the limit is {MAX_TIMES}; add rows, or reduce the size")
    if not drawn.times.any():
        raise UserError("the mixture is empty: raise its size, or add parts")
    share = synthetic_share(rows, drawn, units)
    if share > spec.synthetic_max + (TOLERANCE if spec.shortfall == "reweight" else 0):
        raise AssertionError(f"a synthetic share of {share} is above the cap {spec.synthetic_max}")
    return drawn


def synthetic_share(rows: Candidates, drawn: Draw, units: np.ndarray) -> float:
    """Synthetic share of the mixture, by weight if it has weights. Sums of integers are exact."""
    is_unweighted = (drawn.weights == 1).all()
    amounts = units * drawn.times if is_unweighted else units * drawn.times * drawn.weights
    total = amounts.sum()
    return float(amounts[~rows.is_real].sum() / total) if total else 0.0


def twins(rows: Candidates, whole: bool) -> np.ndarray:
    """Duplicates to leave out, bool (n,): synthetic rows equal to a real row.

    With `whole`, all equal rows but one: the first real row, else the first row.
    """
    keyed = np.flatnonzero(rows.contents != NO_KEY)
    is_twin = np.zeros(len(rows), bool)
    if whole:
        order = keyed[np.lexsort((keyed, ~rows.is_real[keyed], rows.contents[keyed]))]
        is_repeat = rows.contents[order[1:]] == rows.contents[order[:-1]]
        is_twin[order[1:][is_repeat]] = True
        return is_twin
    real = np.unique(rows.contents[keyed[rows.is_real[keyed]]])
    synthetic = keyed[~rows.is_real[keyed]]
    if len(real) and len(synthetic):
        at = np.minimum(np.searchsorted(real, rows.contents[synthetic]), len(real) - 1)
        is_twin[synthetic[real[at] == rows.contents[synthetic]]] = True
    return is_twin


def _check_ids(rows: Candidates, titles: Sequence[str]) -> None:
    order = np.argsort(rows.ids, kind="stable")
    same = np.flatnonzero(rows.ids[order[1:]] == rows.ids[order[:-1]])
    if len(same):
        part, other = (titles[rows.part[order[at]]] for at in (same[0], same[0] + 1))
        where = f"parts '{part}' and '{other}' share" if part != other else f"part '{part}' holds twice"
        raise UserError(f"{where} {len(same):,} rows of the same id; a row may enter a mixture through one part only")


class _DrawState:
    """The state of one draw. A `line` is a sequence of row numbers. Amounts have the unit of `MixtureSpec.by`."""

    def __init__(
        self, rows: Candidates, spec: MixtureSpec, titles: Sequence[str], units: np.ndarray, alive: np.ndarray
    ) -> None:
        self.rows, self.spec, self.titles, self.units, self.alive = rows, spec, titles, units, alive
        order = np.lexsort((rows.ids, rows.keys))
        self.order = order[alive[order]]
        self.times = np.zeros(len(rows), np.int32)
        self.weights = np.ones(len(rows))
        self.gap = 0  # amount still to fill with real rows

    def amounts(self, available: Sequence[int]) -> list[int]:
        """The amount to take from each part. The amounts add up to the size; real parts get what rounding leaves."""
        spec, total = self.spec, sum(available)
        if spec.shares is None:
            if spec.size is None or not total:
                return list(available)
            amounts = [num * spec.size // total for num in available]
            size, may_grow = spec.size, [num > 0 for num in available]
        else:
            size = spec.size or int(min(num / share for num, share in zip(available, spec.shares) if share) + 1e-9)
            if not size:
                empty = next(p for p, share in enumerate(spec.shares) if share and not int(available[p] / share + 1e-9))
                raise UserError(f"part '{self.titles[empty]}': no {spec.by} are left of it; set its share to 0")
            amounts = [int(share * size + 1e-9) for share in spec.shares]
            may_grow = [share > 0 for share in spec.shares]
            if spec.size is None:
                return amounts
        has_synthetic = np.bincount(self.rows.part[~self.rows.is_real], minlength=len(available)) > 0
        growing = [p for p in range(len(available)) if may_grow[p]]
        turns = [p for p in growing if not has_synthetic[p]] or growing
        for turn in range(size - sum(amounts)):
            amounts[turns[turn % len(turns)]] += 1
        return amounts

    def take_part(self, part: int, amount: int, available: int) -> None:
        """Take `amount` from a part, by the shortfall policy if less is available."""
        line = self.order[self.rows.part[self.order] == part]
        where = f"part '{self.titles[part]}'"
        if amount <= available:
            self._take(line, amount, up=not len(line) or bool(self.rows.is_real[line].all()))
            return
        policy = self.spec.shortfall
        if available == 0 and policy in ("resample", "reweight"):
            raise UserError(f"{where}: no row is left of it; set shortfall to shrink or real, or remove the part")
        remedy = cover_shortfall(amount, available, policy, where, self.spec.by, "it")
        self._take(line, remedy.take, again=remedy.with_replacement)
        self.weights[line] *= remedy.weight
        self.gap += remedy.from_real

    def fill_gap(self) -> None:
        if self.gap:
            self._add_real(self.gap)

    def keep_cap(self) -> float | None:
        """Apply the policy if the synthetic share exceeds the cap; returns the share before, or None."""
        is_real, spec = self.rows.is_real, self.spec
        is_unweighted = bool((self.weights == 1).all())
        amounts = self.units * self.times if is_unweighted else self.units * self.times * self.weights
        real, synthetic = amounts[is_real].sum().item(), amounts[~is_real].sum().item()
        remedy = keep_cap(
            real, synthetic, spec.synthetic_max, spec.shortfall, "the mixture", unit=spec.by, no_real=NO_REAL
        )
        if remedy is None:
            return None
        if spec.shortfall == "reweight":
            self.weights[~is_real] *= remedy.weight
        elif spec.shortfall == "real":
            if not remedy.num_synthetic:
                self.times[~is_real] = 0
            self._add_real(int(remedy.num_real) - real)
        else:
            self._shrink(int(remedy.num_synthetic))
        return synthetic / (synthetic + real)

    def _take(self, line: np.ndarray, amount: int, up: bool = False, again: bool = False) -> None:
        """Take the first rows of a line that add up to the amount: at most, or with `up` at least.

        With `again`, rows may be taken repeatedly.
        """
        ends = np.cumsum(self.units[line])
        total = int(ends[-1]) if len(line) else 0
        if again and total:
            turns = amount // total
            if turns >= MAX_TIMES:
                raise UserError(
                    f"each row would be taken more than {MAX_TIMES} times, {amount:,} {self.spec.by} of {total:,}; "
                    f"reduce the size, or set shortfall to shrink or reweight"
                )
            self.times[line] += turns
            amount -= turns * total
        num = int(np.searchsorted(ends, amount, "left" if up else "right"))
        if up and amount > 0:
            num = min(num + 1, len(line))
        self.times[line[:num]] += 1

    def _add_real(self, amount: int) -> None:
        """Add at least `amount` of real rows: unused rows first, then all real rows repeatedly."""
        line = self.order[self.rows.is_real[self.order]]
        total = int(self.units[line].sum())
        if not total:
            raise UserError(f"shortfall = 'real' needs {amount:,} {self.spec.by} of real rows, and {NO_REAL}")
        unused = line[self.times[line] == 0]
        left = amount - int(self.units[unused].sum())
        if left <= 0:
            self._take(unused, amount, up=True)
            return
        self.times[unused] += 1
        if left // total >= MAX_TIMES:
            raise UserError(
                f"each real row would be taken more than {MAX_TIMES} times; add real rows, or set shortfall to shrink "
                f"or reweight"
            )
        self.times[line] += left // total
        self._take(line, left % total, up=True)

    def _shrink(self, limit: int) -> None:
        """Remove synthetic rows, repeats first, until they fit the limit."""
        line = self.order[~self.rows.is_real[self.order]]
        before = self.times[line]
        self.times[line] = 0
        for level in range(int(before.max(initial=0))):
            layer = line[before > level]
            amount = int(self.units[layer].sum())
            self._take(layer, min(limit, amount))
            if limit < amount:
                return
            limit -= amount

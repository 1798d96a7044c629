"""Which rows of its parts a mixture takes, how often, and at what weight: counted, and held against the cap.

Rows are chosen by a hash of (seed, id): the same rows and seed give the same mixture, in whatever order they were read.
Some 60 bytes a row are held here, whatever the length of the texts.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from gristmill.jobs.release.mixture.spec import MixSpec
from gristmill.records.errors import UserError
from gristmill.records.mixing.caps import TOLERANCE, effective, hold, short
from gristmill.records.words import NO_KEY

MAX_AGAIN = 100  # times that a row may be taken
NO_REAL = "no part has real rows; add one, or set synthetic_max = 1"


@dataclass
class Candidates:
    """All rows of all parts, one entry each, in the order of parts, chunks and rows."""

    ids: np.ndarray  # S16
    twins: np.ndarray  # S16, equal for rows that are the same to a reader; zeros: equal to none
    keys: np.ndarray  # uint64: the order in which rows are drawn
    tokens: np.ndarray  # int64
    is_real: np.ndarray  # bool
    generation: np.ndarray  # int32
    part: np.ndarray  # int32
    chunk: np.ndarray  # int32
    row: np.ndarray  # int32, inside the chunk

    def __len__(self) -> int:
        return len(self.ids)


@dataclass
class Drawn:
    """The mixture."""

    times: np.ndarray  # int32 (n,): how often each row is taken
    weights: np.ndarray  # float64 (n,): of each copy
    is_twin: np.ndarray  # bool (n,): left out because another row equals it
    short_parts: list[int] = field(default_factory=list)
    over_cap: float | None = None  # the share before the policy, when that was above the cap

    def effective_rows(self) -> float:
        """Kish's, a row taken twice being one row of twice the weight."""
        weights, counts = np.unique((self.times * self.weights)[self.times > 0], return_counts=True)
        return effective(zip(counts.tolist(), weights.tolist()))


def draw(rows: Candidates, spec: MixSpec, titles: Sequence[str]) -> Drawn:
    """The mixture of those rows. Raises UserError when the policy is to fail or no policy can keep the cap, when a row
    is there twice under the same id, and when nothing is left."""
    _check_ids(rows, titles)
    is_twin = twins(rows, whole=spec.dedup == "all")
    units = np.ones(len(rows), np.int64) if spec.by == "rows" else rows.tokens
    work = _Work(rows, spec, titles, units, ~is_twin)
    drawn = Drawn(work.times, work.weights, is_twin)
    there = [int(units[work.alive & (rows.part == p)].sum()) for p in range(len(titles))]
    for part, wanted in enumerate(work.wanted(there)):
        if wanted > there[part]:
            drawn.short_parts.append(part)
        work.take_part(part, wanted, there[part])
    work.top_up_gap()
    drawn.over_cap = work.keep_cap()
    if (most := int(drawn.times.max(initial=0))) > MAX_AGAIN:
        raise UserError(f"a row would be taken {most} times, and {MAX_AGAIN} are the most; add rows, or ask for less")
    if not drawn.times.any():
        raise UserError("nothing is left for the mixture: ask for more rows, or for more parts")
    share = synthetic_share(rows, drawn, units)
    if share > spec.synthetic_max + (TOLERANCE if spec.shortfall == "reweight" else 0):
        raise AssertionError(f"a synthetic share of {share} is above the cap {spec.synthetic_max}")
    return drawn


def synthetic_share(rows: Candidates, drawn: Drawn, units: np.ndarray) -> float:
    """Of the mixture, by weight where it has weights; whole numbers are added up exactly."""
    is_plain = (drawn.weights == 1).all()
    amounts = units * drawn.times if is_plain else units * drawn.times * drawn.weights
    total = amounts.sum()
    return float(amounts[~rows.is_real].sum() / total) if total else 0.0


def twins(rows: Candidates, whole: bool) -> np.ndarray:
    """bool (n,): synthetic rows that equal a real one; with `whole` all rows but one of those that are equal, the one
    that stays being real if one of them is, and the first then."""
    known = np.flatnonzero(rows.twins != NO_KEY)
    found = np.zeros(len(rows), bool)
    if whole:
        order = known[np.lexsort((known, ~rows.is_real[known], rows.twins[known]))]
        again = rows.twins[order[1:]] == rows.twins[order[:-1]]
        found[order[1:][again]] = True
        return found
    real = np.unique(rows.twins[known[rows.is_real[known]]])
    made = known[~rows.is_real[known]]
    if len(real) and len(made):
        at = np.minimum(np.searchsorted(real, rows.twins[made]), len(real) - 1)
        found[made[real[at] == rows.twins[made]]] = True
    return found


def _check_ids(rows: Candidates, titles: Sequence[str]) -> None:
    order = np.argsort(rows.ids, kind="stable")
    same = np.flatnonzero(rows.ids[order[1:]] == rows.ids[order[:-1]])
    if len(same):
        one, other = (titles[rows.part[order[at]]] for at in (same[0], same[0] + 1))
        where = f"parts '{one}' and '{other}' share" if one != other else f"part '{one}' holds twice"
        raise UserError(f"{where} {len(same):,} rows of the same id; a row may come into a mixture by one part only")


class _Work:
    """The state of one draw. An order is a line of row numbers; amounts are in the unit that the mixture counts."""

    def __init__(
        self, rows: Candidates, spec: MixSpec, titles: Sequence[str], units: np.ndarray, alive: np.ndarray
    ) -> None:
        self.rows, self.spec, self.titles, self.units, self.alive = rows, spec, titles, units, alive
        order = np.lexsort((rows.ids, rows.keys))
        self.order = order[alive[order]]
        self.times = np.zeros(len(rows), np.int32)
        self.weights = np.ones(len(rows))
        self.gap = 0  # what lacks and is to be made up for with real rows

    def wanted(self, there: Sequence[int]) -> list[int]:
        """What is asked of each part: whole units that add up to the size; what rounding leaves goes to real rows."""
        spec, total = self.spec, sum(there)
        if spec.shares is None:
            if spec.size is None or not total:
                return list(there)
            wanted = [num * spec.size // total for num in there]
            size, may = spec.size, [num > 0 for num in there]
        else:
            size = spec.size or int(min(num / share for num, share in zip(there, spec.shares) if share) + 1e-9)
            if not size:
                gone = next(p for p, share in enumerate(spec.shares) if share and not int(there[p] / share + 1e-9))
                raise UserError(f"part '{self.titles[gone]}': no {spec.by} are left of it; set its share to 0")
            wanted = [int(share * size + 1e-9) for share in spec.shares]
            may = [share > 0 for share in spec.shares]
            if spec.size is None:
                return wanted
        made = np.bincount(self.rows.part[~self.rows.is_real], minlength=len(there)) > 0
        turns = [p for p in range(len(there)) if may[p] and not made[p]] or [p for p in range(len(there)) if may[p]]
        for turn in range(size - sum(wanted)):
            wanted[turns[turn % len(turns)]] += 1
        return wanted

    def take_part(self, part: int, wanted: int, there: int) -> None:
        line = self.order[self.rows.part[self.order] == part]
        where = f"part '{self.titles[part]}'"
        if wanted <= there:
            self._take(line, wanted, up=not len(line) or bool(self.rows.is_real[line].all()))
            return
        policy = self.spec.shortfall
        if there == 0 and policy in ("resample", "reweight"):
            raise UserError(f"{where}: no row is left of it; set shortfall to shrink or real, or leave the part out")
        lack = short(wanted, there, policy, where, self.spec.by, "it")
        self._take(line, lack.take, again=lack.again)
        self.weights[line] *= lack.weight
        self.gap += lack.from_real

    def top_up_gap(self) -> None:
        if self.gap:
            self._add_real(self.gap)

    def keep_cap(self) -> float | None:
        """Put the policy on, if the cap is exceeded; returns the share that there was."""
        is_real, spec = self.rows.is_real, self.spec
        is_plain = bool((self.weights == 1).all())
        heavy = self.units * self.times if is_plain else self.units * self.times * self.weights
        real, made = heavy[is_real].sum().item(), heavy[~is_real].sum().item()
        held = hold(real, made, spec.synthetic_max, spec.shortfall, "the mixture", unit=spec.by, no_real=NO_REAL)
        if held is None:
            return None
        if spec.shortfall == "reweight":
            self.weights[~is_real] *= held.weight
        elif spec.shortfall == "real":
            if not held.num_synthetic:
                self.times[~is_real] = 0
            self._add_real(int(held.num_real) - real)
        else:
            self._shrink(int(held.num_synthetic))
        return made / (made + real)

    def _take(self, line: np.ndarray, amount: int, up: bool = False, again: bool = False) -> None:
        """The first rows of a line that come to the amount: at most that much, or with `up` at least."""
        ends = np.cumsum(self.units[line])
        whole = int(ends[-1]) if len(line) else 0
        if again and whole:
            turns = amount // whole
            if turns >= MAX_AGAIN:
                raise UserError(
                    f"each row would be taken more than {MAX_AGAIN} times, {amount:,} {self.spec.by} of {whole:,}; "
                    f"ask for less, or set shortfall to shrink or reweight"
                )
            self.times[line] += turns
            amount -= turns * whole
        num = int(np.searchsorted(ends, amount, "left" if up else "right"))
        if up and amount > 0:
            num = min(num + 1, len(line))
        self.times[line[:num]] += 1

    def _add_real(self, amount: int) -> None:
        """So much more of real rows, at least: those that are not there yet, and then all of them again."""
        line = self.order[self.rows.is_real[self.order]]
        whole = int(self.units[line].sum())
        if not whole:
            raise UserError(f"shortfall = 'real' asks for {amount:,} {self.spec.by} of real rows, and {NO_REAL}")
        fresh = line[self.times[line] == 0]
        left = amount - int(self.units[fresh].sum())
        if left <= 0:
            self._take(fresh, amount, up=True)
            return
        self.times[fresh] += 1
        if left // whole >= MAX_AGAIN:
            raise UserError(
                f"each real row would be taken more than {MAX_AGAIN} times; add real rows, or set shortfall to shrink "
                f"or reweight"
            )
        self.times[line] += left // whole
        self._take(line, left % whole, up=True)

    def _shrink(self, limit: int) -> None:
        """Take away synthetic rows, repeats first, until they come to the limit."""
        line = self.order[~self.rows.is_real[self.order]]
        had = self.times[line]
        self.times[line] = 0
        for level in range(int(had.max(initial=0))):
            layer = line[had > level]
            amount = int(self.units[layer].sum())
            self._take(layer, min(limit, amount))
            if limit < amount:
                return
            limit -= amount

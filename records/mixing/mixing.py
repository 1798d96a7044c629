"""What a generation is trained on, counted: parts of sources, real and synthetic, and the share that came of them.

The cap on synthetic rows is held against the rows that are there after gates and dedup, never against those that were
asked for. What is done when they do not fit is a stated policy, and the mixture says that it was used.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from gristmill.records.errors import UserError
from gristmill.records.mixing.caps import TOLERANCE, cover_shortfall, effective_size, keep_cap, most_synthetic
from gristmill.records.mixing.draws import draw_places
from gristmill.records.mixing.regimes import FIRST, REAL, SYNTHETIC, Regime, Source


class Part(NamedTuple):
    """Rows of some sources: all of them in their order, or `rows`, int64 (chains, num), places in their line."""

    sources: tuple[Source, ...]
    num: int
    rows: np.ndarray | None = None
    weight: float = 1.0  # of each row


@dataclass(frozen=True)
class Mixture:
    """What one generation is trained on. Numbers hold for every chain (with `bernoulli` for their mean)."""

    generation: int
    parts: tuple[Part, ...]
    num_real: float
    num_synthetic: float
    synthetic_share: float  # by weight; the cap is held against it
    shortfall: str | None = None  # the policy that was used, if one was

    @property
    def num_rows(self) -> int:
        return sum(part.num for part in self.parts)

    @property
    def effective_rows(self) -> float:
        """Kish's effective sample size."""
        return effective_size((part.num, part.weight) for part in self.parts)

    def facts(self) -> dict[str, Any]:
        return {
            "num_rows": self.num_rows,
            "num_real": self.num_real,
            "num_synthetic": self.num_synthetic,
            "synthetic_share": self.synthetic_share,
            "effective_rows": self.effective_rows,
            "shortfall": self.shortfall,
        }


def golden_weight(ratio: float) -> float:
    """The best weight of the real estimate when `ratio` is real over synthetic rows (He, Xu, Cheng 2025, theorem 1):
    the root of w^2 = r (1 - w)."""
    return (math.sqrt(ratio * ratio + 4 * ratio) - ratio) / 2


def plan(
    regime: Regime, generation: int, n: int, counts: Mapping[Source, int], chains: int, random: np.random.Generator
) -> Mixture:
    """The mixture of a generation for `chains` chains alike, of sources that hold `counts` rows after all gates.

    Real rows of Source(REAL, generation) are new: the caller draws as many as the parts name. Raises UserError when
    the policy is to fail, or when no policy could keep the cap.
    """
    own = Source(REAL, generation)
    if generation == 1:
        num = regime.num_rows(1, n)
        return Mixture(1, (Part((own,), num),), num, 0, 0.0)
    asked = regime.num_rows(generation, n)
    num_real = regime.num_real(generation, n)
    batches = regime.batches(generation)
    if regime.bernoulli:
        if sum(counts.get(source, 0) for source in batches) < asked:
            raise UserError(f"generation {generation}: bernoulli has a slot for every row, and rows were rejected")
        return _bernoulli(regime, generation, asked, batches, chains, random)
    in_pool = sum(counts.get(source, 0) for source in batches)
    wanted = in_pool if regime.pool in ("accumulate", "window") else asked - num_real
    real_in_pool = [s for s in batches if s.origin == REAL]
    draw = _Draw(regime, generation, counts, batches, num_real, wanted, in_pool, bool(real_in_pool))
    return _settled(draw, chains, random)


@dataclass(frozen=True)
class _Draw:
    """What is asked for, and what there is to take it from."""

    regime: Regime
    generation: int
    counts: Mapping[Source, int]
    batches: list[Source]
    num_real: int  # beside the pool
    wanted: int  # from the pool
    in_pool: int
    is_mixed: bool  # whether the pool holds real rows too


def _settled(draw: _Draw, chains: int, random: np.random.Generator) -> Mixture:
    regime, used = draw.regime, None
    num_real, wanted, policy, weight = draw.num_real, draw.wanted, regime.shortfall, 1.0
    again = regime.with_replacement
    where = f"generation {draw.generation}"
    if draw.in_pool == 0 and wanted + num_real == 0:
        raise UserError(f"{where}: there is nothing to train on; ask for more rows")
    if draw.in_pool == 0 and wanted:
        raise UserError(f"{where}: no row is left to train on; every one was rejected")
    if draw.in_pool < wanted and not again:
        used = policy
        wanted, again, more_real, weight = cover_shortfall(wanted, draw.in_pool, policy, where)
        num_real += more_real
    parts, num_synthetic, real_rows = _from_pool(draw, wanted, again, chains, random)
    held = keep_cap(real_rows + num_real, num_synthetic, regime.synthetic_max, policy, where, weight=weight)
    if held is not None:
        used, weight = policy, held.weight
        if policy == "real":
            num_real = int(held.num_real) - real_rows
            if not held.num_synthetic:
                parts = [p for p in parts if p.sources[0].origin == REAL]
            num_synthetic = int(held.num_synthetic)
        elif policy != "reweight":
            # Beside the pool's real rows as they are: resampling may have counted some of them twice.
            own = sum(draw.counts.get(s, 0) for s in draw.batches if s.origin == REAL)
            least = most_synthetic(own + num_real, regime.synthetic_max) or 0
            parts, num_synthetic, real_rows = _shrunk(draw, min(int(held.num_synthetic), least), chains, random)
    if num_real:
        parts.append(_own_real(draw, num_real, chains, random))
    return _mixture(draw, parts, num_synthetic, real_rows + num_real, weight, used)


def _from_pool(
    draw: _Draw, wanted: int, again: bool, chains: int, random: np.random.Generator
) -> tuple[list[Part], int, int]:
    """(parts, synthetic rows, real rows) taken from the pool."""
    if not wanted:
        return [], 0, 0
    whole = {s: draw.counts.get(s, 0) for s in draw.batches}
    if wanted == draw.in_pool and not again:
        parts = [Part((s,), num) for s, num in whole.items() if num]
    elif not draw.is_mixed or draw.regime.synthetic_max >= 1:
        sources = tuple(draw.batches)
        rows = draw_places(chains, draw.in_pool, wanted, random, again)
        parts = [Part(sources, wanted, rows)]
    else:  # the cap is kept by counting, so real and synthetic rows are drawn apart, in the pool's own proportion
        in_real = sum(num for s, num in whole.items() if s.origin == REAL)
        num_real = max(min(round(wanted * in_real / draw.in_pool), in_real), wanted - (draw.in_pool - in_real))
        parts = []
        for origin, num in ((REAL, num_real), (SYNTHETIC, wanted - num_real)):
            sources = tuple(s for s in draw.batches if s.origin == origin)
            if num:
                rows = draw_places(chains, sum(whole[s] for s in sources), num, random, again)
                parts.append(Part(sources, num, rows))
    num_real = sum(_real_rows(part, whole) for part in parts)
    return parts, wanted - num_real, num_real


def _real_rows(part: Part, whole: Mapping[Source, int]) -> int:
    """Real rows of a part; of one drawn across origins the mean over chains, rounded down."""
    if all(s.origin == REAL for s in part.sources):
        return part.num
    if part.rows is None or all(s.origin == SYNTHETIC for s in part.sources):
        return 0
    ends = np.cumsum([whole[s] for s in part.sources])
    spans = [(end - whole[s], end) for s, end in zip(part.sources, ends) if s.origin == REAL]
    found = sum(np.count_nonzero((part.rows >= start) & (part.rows < end)) for start, end in spans)
    return int(found) // len(part.rows)


def _shrunk(draw: _Draw, limit: int, chains: int, random: np.random.Generator) -> tuple[list[Part], int, int]:
    """All real rows of the pool and `limit` of its synthetic rows."""
    real = [Part((s,), draw.counts[s]) for s in draw.batches if s.origin == REAL and draw.counts.get(s)]
    sources = tuple(s for s in draw.batches if s.origin == SYNTHETIC)
    there = sum(draw.counts.get(s, 0) for s in sources)
    limit = min(limit, there)
    rows = draw_places(chains, there, limit, random, False)
    made = [Part(sources, limit, rows)] if limit else []
    return [*real, *made], limit, sum(part.num for part in real)


def _own_real(draw: _Draw, num: int, chains: int, random: np.random.Generator) -> Part:
    """Real rows beside the pool: new ones, or of the first set; that one again from its start when it is too small."""
    if draw.regime.real != "fixed":
        return Part((Source(REAL, draw.generation),), num)
    there = draw.counts.get(FIRST, 0)
    if num > there and draw.regime.shortfall == "fail":
        raise UserError(
            f"generation {draw.generation}: {num:,} real rows are asked for and the fixed set holds {there:,}; "
            f"lower real_fraction, or set shortfall = 'resample' to take rows more than once"
        )
    if num == there:
        return Part((FIRST,), num)
    rows = np.broadcast_to(np.arange(num, dtype=np.int64) % there, (chains, num))
    return Part((FIRST,), num, rows)


def _bernoulli(
    regime: Regime, generation: int, asked: int, batches: list[Source], chains: int, random: np.random.Generator
) -> Mixture:
    """Slot i of a chain is its i-th new real row or the i-th that the last model made."""
    is_real = random.random((chains, asked)) < regime.real_fraction
    rows = np.where(is_real, 0, asked) + np.arange(asked)
    sources = (Source(REAL, generation), *batches)
    num_real = float(is_real.sum(axis=1).mean())
    part = Part(sources, asked, rows)
    return Mixture(generation, (part,), num_real, asked - num_real, 1 - num_real / asked)


def _mixture(
    draw: _Draw, parts: list[Part], num_synthetic: int, num_real: int, weight: float, used: str | None
) -> Mixture:
    """With weights put on, and the cap held against what came of it."""
    regime = draw.regime
    if not parts:
        raise UserError(
            f"generation {draw.generation}: synthetic_max = {regime.synthetic_max} leaves nothing to train on"
        )
    if regime.weights == "golden" and num_synthetic and num_real:
        best = golden_weight(num_real / num_synthetic)
        weight = min(weight, (1 - best) / best * num_real / num_synthetic)
    if weight != 1.0:
        parts = [p._replace(weight=weight) if p.sources[0].origin == SYNTHETIC else p for p in parts]
    heavy = num_synthetic * weight
    share = heavy / (heavy + num_real) if heavy else 0.0
    if share > regime.synthetic_max + TOLERANCE:
        raise AssertionError(f"generation {draw.generation}: share {share} above the cap {regime.synthetic_max}")
    return Mixture(draw.generation, tuple(parts), num_real, num_synthetic, share, used)


def check(regime: Regime, n: int, generations: int) -> None:
    """Raise UserError when the regime's own numbers break its cap and its policy refuses to bend."""
    counts = {FIRST: regime.num_rows(1, n)}
    for generation in range(2, generations + 1):
        before = generation - 1
        counts[Source(SYNTHETIC, before)] = regime.num_made(before, n)
        if regime.real == "fresh":
            counts[Source(REAL, before)] = regime.num_real(before, n)
        plan(regime, generation, n, counts, 1, np.random.default_rng(0))

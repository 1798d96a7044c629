"""The mixture that a generation is trained on: counted parts of real and synthetic sources, and the synthetic share.

The cap is checked on the rows that remain after gates and dedup, never on the rows that were requested. A policy states
the remedy when they do not fit, and the mixture records that the policy was used.
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
    """Rows of some sources: all in their order, or `rows`, int64 (chains, num), indices into their concatenation."""

    sources: tuple[Source, ...]
    num: int
    rows: np.ndarray | None = None
    weight: float = 1.0  # of each row


@dataclass(frozen=True)
class Mixture:
    """The training rows of a generation. Numbers hold for each chain (with `bernoulli` for the mean of the chains)."""

    generation: int
    parts: tuple[Part, ...]
    num_real: float
    num_synthetic: float
    synthetic_share: float  # by weight; the cap limits it
    shortfall: str | None = None  # the policy, if it was used

    @property
    def num_rows(self) -> int:
        return sum(part.num for part in self.parts)

    @property
    def effective_rows(self) -> float:
        """Kish's effective sample size."""
        return effective_size((part.num, part.weight) for part in self.parts)

    def facts(self) -> dict[str, Any]:
        """The numbers for a record of the study."""
        return {
            "num_rows": self.num_rows,
            "num_real": self.num_real,
            "num_synthetic": self.num_synthetic,
            "synthetic_share": self.synthetic_share,
            "effective_rows": self.effective_rows,
            "shortfall": self.shortfall,
        }


def golden_weight(ratio: float) -> float:
    """The optimal weight of the real estimate for the ratio of real to synthetic rows: the root of w^2 = r (1 - w).

    He, Xu, Cheng 2025, theorem 1.
    """
    return (math.sqrt(ratio * ratio + 4 * ratio) - ratio) / 2


def plan(
    regime: Regime, generation: int, n: int, counts: Mapping[Source, int], chains: int, random: np.random.Generator
) -> Mixture:
    """The mixture of a generation, the same for all chains, of sources with `counts` rows after all gates.

    Real rows of Source(REAL, generation) are new: the caller draws as many as the parts state. Raises UserError for
    policy "fail", and when no policy can keep the cap.
    """
    new_real = Source(REAL, generation)
    if generation == 1:
        num = regime.num_rows(1, n)
        return Mixture(1, (Part((new_real,), num),), num, 0, 0.0)
    num_rows = regime.num_rows(generation, n)
    num_real = regime.num_real(generation, n)
    batches = regime.batches(generation)
    if regime.bernoulli:
        if sum(counts.get(source, 0) for source in batches) < num_rows:
            raise UserError(f"generation {generation}: bernoulli needs every row, and rows were rejected")
        return _bernoulli(regime, generation, num_rows, batches, chains, random)
    in_pool = sum(counts.get(source, 0) for source in batches)
    wanted = in_pool if regime.pool in ("accumulate", "window") else num_rows - num_real
    real_in_pool = [s for s in batches if s.origin == REAL]
    draw = _Draw(regime, generation, counts, batches, num_real, wanted, in_pool, bool(real_in_pool))
    return _settled(draw, chains, random)


@dataclass(frozen=True)
class _Draw:
    """The wanted rows and the sources to take them from."""

    regime: Regime
    generation: int
    counts: Mapping[Source, int]
    batches: list[Source]
    num_real: int  # wanted beside the pool
    wanted: int  # wanted from the pool
    in_pool: int
    is_mixed: bool  # whether the pool has real rows too


def _settled(draw: _Draw, chains: int, random: np.random.Generator) -> Mixture:
    regime, used = draw.regime, None
    num_real, wanted, policy, weight = draw.num_real, draw.wanted, regime.shortfall, 1.0
    with_replacement = regime.with_replacement
    where = f"generation {draw.generation}"
    if draw.in_pool == 0 and wanted + num_real == 0:
        raise UserError(f"{where}: there are no training rows; request more rows")
    if draw.in_pool == 0 and wanted:
        raise UserError(f"{where}: there are no training rows left, because all were rejected")
    if draw.in_pool < wanted and not with_replacement:
        used = policy
        wanted, with_replacement, more_real, weight = cover_shortfall(wanted, draw.in_pool, policy, where)
        num_real += more_real
    parts, num_synthetic, real_rows = _from_pool(draw, wanted, with_replacement, chains, random)
    capped = keep_cap(real_rows + num_real, num_synthetic, regime.synthetic_max, policy, where, weight=weight)
    if capped is not None:
        used, weight = policy, capped.weight
        if policy == "real":
            num_real = int(capped.num_real) - real_rows
            if not capped.num_synthetic:
                parts = [p for p in parts if p.sources[0].origin == REAL]
            num_synthetic = int(capped.num_synthetic)
        elif policy != "reweight":
            # Beside the real rows of the pool, each counted once: resampling may have counted some of them twice.
            pool_real = sum(draw.counts.get(s, 0) for s in draw.batches if s.origin == REAL)
            least = most_synthetic(pool_real + num_real, regime.synthetic_max) or 0
            parts, num_synthetic, real_rows = _shrunk(draw, min(int(capped.num_synthetic), least), chains, random)
    if num_real:
        parts.append(_own_real(draw, num_real, chains, random))
    return _mixture(draw, parts, num_synthetic, real_rows + num_real, weight, used)


def _from_pool(
    draw: _Draw, wanted: int, with_replacement: bool, chains: int, random: np.random.Generator
) -> tuple[list[Part], int, int]:
    """(parts, synthetic rows, real rows) taken from the pool."""
    if not wanted:
        return [], 0, 0
    whole = {s: draw.counts.get(s, 0) for s in draw.batches}
    if wanted == draw.in_pool and not with_replacement:
        parts = [Part((s,), num) for s, num in whole.items() if num]
    elif not draw.is_mixed or draw.regime.synthetic_max >= 1:
        sources = tuple(draw.batches)
        rows = draw_places(chains, draw.in_pool, wanted, random, with_replacement)
        parts = [Part(sources, wanted, rows)]
    else:  # to count the synthetic share, real and synthetic rows are drawn separately, in the proportion of the pool
        in_real = sum(num for s, num in whole.items() if s.origin == REAL)
        num_real = max(min(round(wanted * in_real / draw.in_pool), in_real), wanted - (draw.in_pool - in_real))
        parts = []
        for origin, num in ((REAL, num_real), (SYNTHETIC, wanted - num_real)):
            sources = tuple(s for s in draw.batches if s.origin == origin)
            if num:
                rows = draw_places(chains, sum(whole[s] for s in sources), num, random, with_replacement)
                parts.append(Part(sources, num, rows))
    num_real = sum(_real_rows(part, whole) for part in parts)
    return parts, wanted - num_real, num_real


def _real_rows(part: Part, whole: Mapping[Source, int]) -> int:
    """Real rows of a part; for a draw across origins the mean over chains, rounded down."""
    if all(s.origin == REAL for s in part.sources):
        return part.num
    if part.rows is None or all(s.origin == SYNTHETIC for s in part.sources):
        return 0
    ends = np.cumsum([whole[s] for s in part.sources])
    spans = [(end - whole[s], end) for s, end in zip(part.sources, ends) if s.origin == REAL]
    num_real = sum(np.count_nonzero((part.rows >= start) & (part.rows < end)) for start, end in spans)
    return int(num_real) // len(part.rows)


def _shrunk(draw: _Draw, limit: int, chains: int, random: np.random.Generator) -> tuple[list[Part], int, int]:
    """All real rows of the pool and `limit` of its synthetic rows."""
    real = [Part((s,), draw.counts[s]) for s in draw.batches if s.origin == REAL and draw.counts.get(s)]
    sources = tuple(s for s in draw.batches if s.origin == SYNTHETIC)
    available = sum(draw.counts.get(s, 0) for s in sources)
    limit = min(limit, available)
    rows = draw_places(chains, available, limit, random, False)
    synthetic = [Part(sources, limit, rows)] if limit else []
    return [*real, *synthetic], limit, sum(part.num for part in real)


def _own_real(draw: _Draw, num: int, chains: int, random: np.random.Generator) -> Part:
    """Real rows beside the pool: new rows, or rows of the first set, which is repeated when it is too small."""
    if draw.regime.real != "fixed":
        return Part((Source(REAL, draw.generation),), num)
    available = draw.counts.get(FIRST, 0)
    if num > available and draw.regime.shortfall == "fail":
        raise UserError(
            f"generation {draw.generation}: {num:,} real rows are wanted and the fixed set has {available:,}; "
            f"lower real_fraction, or set shortfall = 'resample' to repeat rows"
        )
    if num == available:
        return Part((FIRST,), num)
    rows = np.broadcast_to(np.arange(num, dtype=np.int64) % available, (chains, num))
    return Part((FIRST,), num, rows)


def _bernoulli(
    regime: Regime, generation: int, num_rows: int, batches: list[Source], chains: int, random: np.random.Generator
) -> Mixture:
    """Row i of a chain is its i-th new real row or the i-th row of the last model."""
    is_real = random.random((chains, num_rows)) < regime.real_fraction
    rows = np.where(is_real, 0, num_rows) + np.arange(num_rows)
    sources = (Source(REAL, generation), *batches)
    num_real = float(is_real.sum(axis=1).mean())
    part = Part(sources, num_rows, rows)
    return Mixture(generation, (part,), num_real, num_rows - num_real, 1 - num_real / num_rows)


def _mixture(
    draw: _Draw, parts: list[Part], num_synthetic: int, num_real: int, weight: float, used: str | None
) -> Mixture:
    """The mixture with its weights; the cap is checked on the result."""
    regime = draw.regime
    if not parts:
        raise UserError(f"generation {draw.generation}: synthetic_max = {regime.synthetic_max} leaves no training rows")
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
    """Raise UserError when a regime breaks its cap already by its own numbers and its policy is to fail."""
    counts = {FIRST: regime.num_rows(1, n)}
    for generation in range(2, generations + 1):
        before = generation - 1
        counts[Source(SYNTHETIC, before)] = regime.num_made(before, n)
        if regime.real == "fresh":
            counts[Source(REAL, before)] = regime.num_real(before, n)
        plan(regime, generation, n, counts, 1, np.random.default_rng(0))

"""Regimes come to the rows that the papers train on, and no mixture is ever above its cap."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gristmill.records.errors import UserError
from gristmill.records.mixing.draws import draw_places
from gristmill.records.mixing.mixing import Mixture, check, golden_weight, plan
from gristmill.records.mixing.regimes import FIRST, PRESETS, REAL, SYNTHETIC, Regime, Source, preset
from tests.profiles import scaled

N, CHAINS = 40, 3


def counts_of(regime: Regime, generation: int, n: int = N, kept: float = 1.0) -> dict[Source, int]:
    """What is there before a generation, when gates keep that share of what models make."""
    counts = {FIRST: n}
    for k in range(1, generation):
        counts[Source(SYNTHETIC, k)] = int(kept * regime.num_made(k, n))
        if k > 1:
            counts[Source(REAL, k)] = regime.num_real(k, n)
    return counts


def mixed(regime: Regime, generation: int = 4, kept: float = 1.0, counts: Any = None) -> Mixture:
    counts = counts_of(regime, generation, kept=kept) if counts is None else counts
    return plan(regime, generation, N, counts, CHAINS, np.random.default_rng(0))


def by_source(mixture: Mixture) -> dict[str, int]:
    return {"+".join(map(str, part.sources)): part.num for part in mixture.parts}


def test_the_first_generation_is_real() -> None:
    for regime in PRESETS.values():
        mixture = mixed(regime, 1)
        assert by_source(mixture) == {"real-1": N} and mixture.synthetic_share == 0


@pytest.mark.parametrize(
    ("name", "expected", "share"),
    [
        ("replace", {"synthetic-3": 40}, 1.0),
        ("accumulate", {"real-1": 40, "synthetic-1": 40, "synthetic-2": 40, "synthetic-3": 40}, 0.75),
        ("accumulate-subsample", {"real-1+synthetic-1+synthetic-2+synthetic-3": 40}, None),
        ("synthetic-augmentation", {"synthetic-3": 20, "real-1": 20}, 0.5),
        ("fresh-data", {"synthetic-3": 20, "real-4": 20}, 0.5),
    ],
)
def test_presets(name: str, expected: dict[str, int], share: float | None) -> None:
    mixture = mixed(preset(name))
    assert by_source(mixture) == expected
    assert share is None or mixture.synthetic_share == pytest.approx(share)
    assert mixture.num_real + mixture.num_synthetic == mixture.num_rows


def test_accumulating_fresh_rows_keeps_them_all() -> None:
    mixture = mixed(Regime(pool="accumulate", real="fresh", real_fraction=0.25))
    assert by_source(mixture) == {
        "real-1": 40, "real-2": 10, "real-3": 10, "real-4": 10, "synthetic-1": 30, "synthetic-2": 30, "synthetic-3": 30
    }  # fmt: skip


def test_a_window_forgets() -> None:
    window = Regime(pool="window", window=2)
    assert by_source(mixed(window, 2)) == {"real-1": 40, "synthetic-1": 40}
    assert by_source(mixed(window, 4)) == {"synthetic-2": 40, "synthetic-3": 40}
    assert not window.needed_later(FIRST, 3) and window.needed_later(Source(SYNTHETIC, 3), 3)


def test_growth_counts() -> None:
    growing = Regime(growth=1.5)
    assert [growing.num_rows(k, 10) for k in (1, 2, 3)] == [10, 15, 22]
    assert growing.num_made(2, 10) == 22


def test_bernoulli_takes_each_slot_once() -> None:
    regime = Regime(real="fresh", real_fraction=0.3, bernoulli=True)
    mixture = mixed(regime)
    rows = mixture.parts[0].rows
    assert rows is not None and rows.shape == (CHAINS, N) and (rows % N == np.arange(N)).all()
    assert mixture.num_real == pytest.approx((rows < N).sum(axis=1).mean())


regimes = st.builds(
    lambda pool, real, share, cap, short, golden, growth, again: Regime(
        pool=pool,
        window=3 if pool == "window" else 0,
        with_replacement=again and pool == "subsample",
        real="none" if pool == "accumulate" and real == "fixed" else real,
        real_fraction=0.0 if real == "none" or (pool == "accumulate" and real == "fixed") else share,
        weights="golden" if golden and real != "none" and not (pool == "accumulate" and real == "fixed") else "pooled",
        growth=growth,
        synthetic_max=cap,
        shortfall=short,
    ),
    st.sampled_from(["replace", "accumulate", "subsample", "window"]),
    st.sampled_from(["none", "fixed", "fresh"]),
    st.floats(0.01, 1.0),
    st.floats(0.0, 1.0),
    st.sampled_from(["fail", "shrink", "resample", "real", "reweight"]),
    st.booleans(),
    st.sampled_from([1.0, 0.8, 1.3]),
    st.booleans(),
)


@settings(max_examples=scaled(300), deadline=None)
@example(Regime(pool="subsample", growth=1.3, synthetic_max=0.25, shortfall="resample"), 5, 2, 0.25)
@given(regimes, st.integers(2, 7), st.integers(1, 60), st.floats(0, 1))
def test_no_mixture_is_above_its_cap(regime: Regime, generation: int, n: int, kept: float) -> None:
    counts = counts_of(regime, generation, n, kept)
    try:
        mixture = plan(regime, generation, n, counts, CHAINS, np.random.default_rng(1))
    except UserError:
        return
    taken = {REAL: 0.0, SYNTHETIC: 0.0}
    counts = {**counts, Source(REAL, generation): 10**6}
    for part in mixture.parts:
        line = [s for s in part.sources for _ in range(min(counts[s], 2000))]
        if part.rows is None:
            assert part.num <= sum(counts[s] for s in part.sources)
            taken[part.sources[0].origin] += part.num * part.weight
            continue
        assert part.rows.shape == (CHAINS, part.num) and part.rows.min() >= 0 and part.rows.max() < len(line)
        for place in part.rows[0]:
            taken[line[place].origin] += part.weight
    total = sum(taken.values())
    if regime.synthetic_max < 1:
        assert total == 0 or taken[SYNTHETIC] / total <= regime.synthetic_max + 1e-9
    assert mixture.num_rows > 0 and mixture.effective_rows <= mixture.num_rows + 1e-6


def test_shortfalls() -> None:
    def shares(policy: Any, **more: Any) -> Mixture:
        return mixed(Regime(real="fresh", real_fraction=0.5, shortfall=policy, **more), kept=0.5)

    with pytest.raises(UserError, match="20 rows are wanted from the pool, which has 10"):
        shares("fail")
    assert by_source(shares("shrink")) == {"synthetic-3": 10, "real-4": 20}
    assert by_source(shares("resample")) == {"synthetic-3": 20, "real-4": 20}
    assert by_source(shares("real")) == {"synthetic-3": 10, "real-4": 30}
    heavy = shares("reweight")
    assert by_source(heavy) == {"synthetic-3": 10, "real-4": 20} and heavy.synthetic_share == pytest.approx(0.5)
    assert heavy.shortfall == "reweight" and heavy.effective_rows < 30
    assert mixed(Regime(real="fresh", real_fraction=0.5)).shortfall is None


def test_a_cap_that_is_not_met() -> None:
    capped = Regime(pool="accumulate", synthetic_max=0.5)
    with pytest.raises(UserError, match=r"0\.667, above synthetic_max = 0\.5"):
        mixed(capped, 3)
    assert mixed(replace(capped, shortfall="shrink")).num_synthetic == 40
    assert mixed(replace(capped, shortfall="real")).num_real == 120
    heavy = mixed(replace(capped, shortfall="reweight"))
    assert heavy.num_synthetic == 120 and heavy.synthetic_share == pytest.approx(0.5)


def test_impossible_regimes_are_refused_before_anything_runs() -> None:
    with pytest.raises(UserError, match="the regime has no real rows"):
        check(Regime(synthetic_max=0.5), N, 3)
    with pytest.raises(UserError, match="above synthetic_max"):
        check(Regime(pool="accumulate", synthetic_max=0.9), N, 12)
    check(Regime(pool="accumulate", synthetic_max=0.9), N, 10)
    for bad in (
        {"real_fraction": 1.5},
        {"synthetic_max": -0.1},
        {"pool": "window"},
        {"real": "fresh"},
        {"growth": 0.0},
    ):
        with pytest.raises(ValueError):
            Regime(**bad)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="unknown regime"):
        preset("discard")


def test_golden_weights() -> None:
    """n = m gives the golden ratio (He, Xu, Cheng 2025)."""
    assert golden_weight(1.0) == pytest.approx(0.6180339887)
    mixture = mixed(Regime(real="fresh", real_fraction=0.5, weights="golden"))
    assert mixture.synthetic_share == pytest.approx(1 - 0.6180339887)


@given(st.integers(1, 300), st.data())
def test_draws_are_distinct(num: int, data: st.DataObject) -> None:
    take = data.draw(st.integers(0, num))
    drawn = draw_places(4, num, take, np.random.default_rng(0))
    assert all(len(set(row)) == take for row in drawn.tolist()) and (take == 0 or drawn.max() < num)


def test_draws_are_even() -> None:
    drawn = draw_places(40_000, 50, 3, np.random.default_rng(0))
    counts = np.bincount(drawn.ravel(), minlength=50)
    assert abs(counts - 2400).max() < 5 * 2400**0.5

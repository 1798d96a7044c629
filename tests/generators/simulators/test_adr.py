"""ADR: ranges widen while the policy copes and narrow while it fails; the five laws of its family; sim to real."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.generators.families.fit import Fit
from gristmill.generators.families.folder import load_model, read_card
from gristmill.generators.simulators import cartpole
from gristmill.generators.simulators.adr import Adr, AdrSpec
from gristmill.generators.simulators.contract import Parameter
from gristmill.generators.simulators.family import AdrFamily, AdrFamilySpec
from gristmill.jobs.fit.plan import load_plan
from gristmill.records.errors import UserError
from gristmill.records.readers.datasets import digest_table
from gristmill.records.spec import build
from gristmill.records.stores.local import LocalStore
from gristmill.testing.families import check_family
from tests.profiles import scaled
from tests.recipes import write

PARAMETERS = (Parameter("a", 0.0, -1.0, 2.0), Parameter("b", 5.0, 5.0, 9.0), Parameter("fixed", 3.0, 3.0, 3.0))
SMALL = {"steps": 8, "population": 8, "episodes": 2, "measured": 24, "max_steps": 40, "adr": {"buffer": 3}}


def rounds(adr: Adr, num: int, performance: Any, seed: int = 0) -> list[float]:
    """Entropies after each of `num` rounds of 16 episodes whose performance is a function of the worlds."""
    told = []
    for n in range(num):
        worlds, ends = adr.draw(16, np.random.default_rng([seed, n]))
        adr.record(ends, performance(worlds))
        told.append(adr.entropy)
    return told


@given(st.integers(0, 2**31), st.floats(0.9, 1.0), st.integers(1, 4), st.floats(0.05, 0.4))
@settings(max_examples=scaled(15))
def test_on_an_easy_task_ranges_grow_to_all_that_is_allowed(seed: int, score: float, m: int, delta: float) -> None:
    adr = Adr(PARAMETERS, AdrSpec(buffer=m, delta=delta))
    told = rounds(adr, 60, lambda worlds: np.full(len(worlds), score), seed)
    assert (np.diff([Adr(PARAMETERS, adr.spec).entropy, *told]) >= 0).all()
    assert (adr.ranges[:, 0] >= adr.limits[:, 0]).all() and (adr.ranges[:, 1] <= adr.limits[:, 1]).all()
    rounds(adr, 200, lambda worlds: np.ones(len(worlds)), seed)
    np.testing.assert_allclose(adr.ranges, adr.limits)
    assert adr.entropy == pytest.approx(0.0, abs=1e-12)


@given(st.integers(0, 2**31))
@settings(max_examples=scaled(10))
def test_on_a_hopeless_task_they_shrink_to_where_they_began(seed: int) -> None:
    adr = Adr(PARAMETERS, AdrSpec(buffer=2, delta=0.1))
    start = adr.ranges.copy()
    rounds(adr, 100, lambda worlds: np.ones(len(worlds)), seed)
    told = rounds(adr, 200, lambda worlds: np.zeros(len(worlds)), seed)
    assert (np.diff(told) <= 0).all()
    np.testing.assert_allclose(adr.ranges, start)
    assert np.isfinite(adr.entropy)


def test_between_the_thresholds_nothing_moves() -> None:
    adr = Adr(PARAMETERS, AdrSpec(buffer=2))
    start = adr.ranges.copy()
    rounds(adr, 50, lambda worlds: np.full(len(worlds), 0.7))
    np.testing.assert_array_equal(adr.ranges, start)
    assert adr.num_moves == 0


def test_an_end_stops_where_the_task_becomes_hard() -> None:
    """Worlds with a > 1 fail: the upper end of a comes to rest about there, all other ends reach their limits."""
    adr = Adr(PARAMETERS, AdrSpec(buffer=4, delta=0.05))
    rounds(adr, 600, lambda worlds: (worlds[:, 0] <= 1.0).astype(float))
    ranges = adr.ranges_by_name()
    assert ranges["a"][0] == -1.0 and 0.8 < ranges["a"][1] < 1.3
    assert ranges["b"] == (5.0, 9.0) and ranges["fixed"] == (3.0, 3.0)


def test_draws_pin_one_parameter_to_one_end() -> None:
    adr = Adr(PARAMETERS, AdrSpec(boundary_share=0.5))
    worlds, ends = adr.draw(4000, np.random.default_rng(0))
    pinned = ends[:, 0] >= 0
    assert pinned.mean() == pytest.approx(0.5, abs=0.04) and set(ends[pinned, 0]) == {0, 1}
    at = worlds[pinned, ends[pinned, 0]]
    np.testing.assert_array_equal(at, adr.ranges[ends[pinned, 0], ends[pinned, 1]])
    assert (worlds >= adr.ranges[:, 0]).all() and (worlds <= adr.ranges[:, 1]).all()


def test_the_state_goes_on_where_it_was() -> None:
    whole, part = (Adr(PARAMETERS, AdrSpec(buffer=5)) for _ in range(2))
    rounds(whole, 20, lambda worlds: np.ones(len(worlds)))
    rounds(part, 7, lambda worlds: np.ones(len(worlds)))
    other = Adr(PARAMETERS, AdrSpec(buffer=5))
    other.restore(part.state())
    for n in range(7, 20):
        worlds, ends = other.draw(16, np.random.default_rng([0, n]))
        other.record(ends, np.ones(len(worlds)))
    assert all(np.array_equal(whole.state()[k], other.state()[k]) for k in whole.state())


@pytest.mark.parametrize("table", [{"low": 0.9, "high": 0.9}, {"delta": 0.0}, {"boundary_share": 0.0}, {"buffer": 0}])
def test_refusals(table: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        build(AdrSpec, table, "model.adr")
    with pytest.raises(UserError, match="ranges.delay: must lie in 0 to 6"):
        AdrFamily.own_schema(AdrFamilySpec(ranges={"delay": (0, 7)}))


LARGE = {"population": 24, "episodes": 8, "measured": 48, "max_steps": 200}


def fit(folder: Path, seed: int = 3, **spec: Any) -> Fit:
    made = build(AdrFamilySpec, {**SMALL, **spec}, "model")
    schema = AdrFamily.own_schema(made)
    table = pa.schema(schema.payload).empty_table()
    trained_on = {"path": "", "num_rows": 0, "digest": digest_table(table)}
    return Fit(AdrFamily(made, schema), table, trained_on, LocalStore(folder), seed, span_s=0.001)


def test_the_five_laws() -> None:
    spec = build(AdrFamilySpec, SMALL, "model")
    schema = AdrFamily.own_schema(spec)
    check_family(lambda: AdrFamily(spec, schema), pa.schema(schema.payload).empty_table())


def test_rows_lie_in_the_ranges_and_outcomes_are_met_or_refused(tmp_path: Path) -> None:
    card = fit(tmp_path).run()
    model = load_model(str(tmp_path), read_card(str(tmp_path)))
    seeds = np.arange(64) * 7919
    table = pa.table(model.sample([{}] * 64, seeds).columns)
    for name, (low, high) in card.facts["ranges"].items():
        values = table.column(name).to_numpy()
        assert values.min() >= np.floor(low) and values.max() <= np.ceil(high)
    lengths = [len(v) for v in table.column("push").to_pylist()]
    assert lengths == table.column("num_steps").to_pylist() and card.privacy["text"].startswith("none is needed")
    met = model.sample([{"half_length": 0.9, "end": "balanced"}] * 64, seeds)
    ends = met.columns["end"].to_pylist()
    assert met.reasons == [None if end == "balanced" else "outcome_not_met" for end in ends]
    assert met.columns["half_length"].to_pylist() == [0.9] * 64


def test_a_recipe_without_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "adr.toml", {"name": "x", "model": {"kind": "adr", **SMALL}})
    plan = load_plan(path)
    assert plan.table.num_rows == 0 and "push" in plan.family.schema.names
    with pytest.raises(UserError, match=r"model 'adr' learns from no rows; leave \[data\]"):
        load_plan(path, ["data.path='package:digits'"])
    with pytest.raises(UserError, match="key 'data' is missing: model 'vae' learns from rows"):
        load_plan(path, ["model={kind = 'vae'}"])


def lived(policy: tuple[float, ...], world: dict[str, float], num: int = 64) -> float:
    """Share of 200 steps that a policy survives in one world."""
    starts = np.random.default_rng(5).uniform(-cartpole.START, cartpole.START, (4, num))
    worlds = {name: np.full(num, value) for name, value in world.items()}
    return float(cartpole.survival_steps(np.tile(policy, (num, 1)), worlds, starts, 200).mean() / 200)


# A "real" world that no simulator was centred on: a shorter and heavier pole, sticky joints, a delay of four steps.
REAL = {
    "mass_cart": 1.6,
    "mass_pole": 0.5,
    "half_length": 0.4,
    "cart_friction": 0.6,
    "hinge_friction": 0.01,
    "delay": 4.0,
}


@pytest.mark.nightly
def test_sim_to_real(tmp_path: Path) -> None:
    """Policies from randomized worlds live longer in the real one than those from the centre, mean of three seeds."""
    told: dict[str, list[float]] = {}
    ranges = {"delay": (0, 4), "half_length": (0.2, 1.5), "mass_pole": (0.05, 1.0)}
    for randomize, steps in (("adr", 120), ("static", 60), ("none", 60)):
        for seed in range(3):
            spec = {"randomize": randomize, "steps": steps, "ranges": ranges, "adr": {}}
            job = fit(tmp_path / f"{randomize}-{seed}", seed, **{**LARGE, **spec})
            job.run()
            assert isinstance(job.family, AdrFamily)
            told.setdefault(randomize, []).append(lived(job.family.policy, REAL))
    means = {name: float(np.mean(values)) for name, values in told.items()}
    print(told)
    assert means["adr"] > means["none"] + 0.1 and means["static"] > means["none"] + 0.1, told

"""The one-run audit: its bound against numbers worked out by hand; honest and broken generators."""

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.evaluation.privacy.audit_dp import audit, epsilon_lower, p_value, toss
from gristmill.generators.private.account import Account, PrivacySpec
from gristmill.generators.tabular.mst import Mst, MstSpec
from gristmill.records.readers.tables import Column, TableSchema
from tests.profiles import scaled

NUM_CANARIES = 200


def test_all_right_guesses_without_delta_by_hand():
    # (e^eps / (1 + e^eps))^100 = 0.05
    share = 0.05 ** (1 / 100)
    assert epsilon_lower(100, 100, 100, 0.0, 0.95) == pytest.approx(math.log(share / (1 - share)), abs=1e-3)


def test_delta_weakens_the_bound_by_hand():
    # one canary, guessed right: f(1) = e^eps/(1+e^eps), f(0) - f(1) = 1/(1+e^eps); p = f(1) + 2 delta (1 - f(1))
    assert p_value(1, 1, 1, 1.0, 0.01) == pytest.approx(0.7310586 + 0.02 * 0.2689414, abs=1e-6)
    assert epsilon_lower(1000, 100, 100, 1e-5, 0.95) < epsilon_lower(1000, 100, 100, 0.0, 0.95)


@given(st.integers(2, 400), st.integers(0, 400), st.floats(0, 5), st.sampled_from([0.0, 1e-6, 1e-3]))
@settings(max_examples=scaled(50), deadline=None)
def test_the_chance_grows_with_epsilon_and_falls_with_right_guesses(guesses, correct, epsilon, delta):
    correct = min(correct, guesses - 1)
    here = p_value(guesses, guesses, correct, epsilon, 0.0)
    assert 0 <= here <= p_value(guesses, guesses, correct, epsilon + 0.5, 0.0) + 1e-12
    assert p_value(guesses, guesses, correct + 1, epsilon, 0.0) <= here + 1e-12
    assert here <= p_value(guesses, guesses, correct, epsilon, delta) <= 1


def test_coins_that_nobody_can_see_show_nothing():
    bounds = [audit(np.random.default_rng(s).random(500), toss(500, s + 1000), 1e-6).epsilon_lower for s in range(40)]
    assert sum(b > 0 for b in bounds) <= 6  # 5% of them may


def test_an_honest_mechanism_is_not_accused():
    """Randomised response with epsilon 1 on each coin: the bound comes near 1, and above it in 5% of runs at most."""
    bounds = []
    for seed in range(40):
        bits = toss(2000, seed)
        is_kept = np.random.default_rng(seed + 1000).random(2000) < math.e / (1 + math.e)
        bounds.append(audit(np.where(is_kept, bits, ~bits).astype(float), bits, 0.0, shares=(1.0,)).epsilon_lower)
    assert sum(b > 1 for b in bounds) <= 6
    assert np.median(bounds) > 0.75


def test_bad_scores_are_refused():
    with pytest.raises(ValueError, match="NaN"):
        audit(np.array([0.0, np.nan]), np.array([True, False]), 0.0)
    with pytest.raises(ValueError, match="canaries"):
        audit(np.zeros(3), np.zeros(2, bool), 0.0)


SCHEMA = TableSchema((Column("code", "integer", 0, NUM_CANARIES), Column("group", "category", categories=("a", "b"))))


def rows_with(bits):
    """2,000 rows alike, and each canary alone at a value of its own where its coin fell so."""
    codes = np.concatenate([np.full(2000, NUM_CANARIES), np.nonzero(bits)[0]])
    groups = np.where(codes == NUM_CANARIES, "a", "b")
    return SCHEMA.conform(pa.table({"code": codes, "group": groups}))


def test_a_memorising_generator_audits_above_its_claim():
    bits = toss(NUM_CANARIES, 3)
    synthetic = rows_with(bits)  # a generator that gives its rows back
    made = np.bincount(synthetic.column("code").to_numpy(), minlength=NUM_CANARIES + 1)
    found = audit((made[:NUM_CANARIES] > 0).astype(float), bits, 1e-5)
    assert found.epsilon_lower > 3 > 1.0
    assert found.num_correct == found.num_guesses


@pytest.mark.parametrize(("is_private", "seed"), [(True, 1), (True, 2), (True, 3), (False, 1)])
def test_mst_keeps_its_claim_and_would_not_without_noise(is_private, seed):
    """The strongest look at the model: its noisy counts of the cell that only the canary lies in."""
    bits = toss(NUM_CANARIES, seed)
    table = rows_with(bits)
    family = Mst(MstSpec(), SCHEMA)
    family.begin(table, seed, Account(PrivacySpec(1.0, 1e-5), table.num_rows) if is_private else None)
    result = audit(family.model_state().tensors["counts/0"][:NUM_CANARIES], bits, 1e-5)
    assert (result.epsilon_lower <= 1.0) == is_private

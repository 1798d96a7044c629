"""The account: published and measured test vectors by four accountants, laws of epsilon, exact room, refusals."""

import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.generators.private.account import (
    Account,
    BudgetExceeded,
    PrivacySpec,
    least_noise,
)
from gristmill.generators.private.accountants import (
    PRV_ERROR,
    Event,
    epsilon_pld,
    epsilon_prv,
    epsilon_rdp,
    epsilon_rdp_opacus,
)
from gristmill.records.errors import UserError
from gristmill.records.spec import literals
from tests.profiles import scaled

DELTA = 1e-5
VECTORS = [  # rows, expected batch, noise multiplier, steps, epsilon by RDP, by PLD; None: not known to three digits
    (100_000, 256, 1.1, 1000, 0.692, 0.343),
    (32_561, 500, 1.1, 651, 2.200, 1.957),
    (26_048, 256, 1.1, 2035, 2.357, 2.138),
    (100_968, 256, 1.1, 1000, 0.688, 0.339),
    (4_981, 128, 1.1, 778, 4.164, 3.771),
    (5_000, 256, 1.1, 391, 6.273, 5.679),
    (1_797, 64, 1.1, 842, 6.217, 5.666),
]
PRV = [  # sampling rate, noise multiplier, steps, RDP, PRV (its upper bound at eps_error 0.01)
    (256 / 100_000, 1.1, 1000, 0.692, 0.353),
    (256 / 60_000, 1.1, 3515, 1.281, 1.144),
    (0.01, 4.0, 10_000, 1.035, 0.957),
]


@pytest.mark.parametrize(("rows", "batch", "noise", "steps", "rdp", "pld"), VECTORS)
def test_vectors_by_dp_accounting(rows, batch, noise, steps, rdp, pld):
    events = [Event("step", noise, batch / rows, steps)]
    assert epsilon_pld(events, DELTA) == pytest.approx(pld, abs=1e-3)
    assert epsilon_rdp(events, DELTA) == pytest.approx(rdp, abs=1e-3)


@pytest.mark.parametrize(("rows", "batch", "noise", "steps", "rdp", "pld"), VECTORS)
def test_vectors_by_opacus_rdp(rows, batch, noise, steps, rdp, pld):
    from opacus.accountants import RDPAccountant

    accountant = RDPAccountant()
    accountant.history = [(noise, batch / rows, steps)]
    assert accountant.get_epsilon(DELTA) == pytest.approx(rdp, abs=1e-3)


@pytest.mark.parametrize(("rate", "noise", "steps", "rdp", "prv"), PRV)
def test_vectors_by_opacus_prv(rate, noise, steps, rdp, prv):
    from opacus.accountants import PRVAccountant, RDPAccountant

    accountants = RDPAccountant(), PRVAccountant()
    for accountant in accountants:
        accountant.history = [(noise, rate, steps)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert accountants[0].get_epsilon(DELTA) == pytest.approx(rdp, abs=1e-3)
        assert accountants[1].get_epsilon(DELTA) == pytest.approx(prv, abs=1e-3)
    ours = epsilon_pld([Event("step", noise, rate, steps)], DELTA)
    assert prv - 0.025 <= ours <= prv  # theirs is an upper bound with that error


@pytest.mark.parametrize(
    "events",
    [
        [Event("counts", 3.0)],
        [Event("counts", 40.0, 1.0, 12), Event("step", 1.5, 0.05, 100)],
        [Event("counts", 12.0), Event("step", 4.0, 0.1, 8)],
    ],
)
def test_the_accountants_of_both_engines_agree_within_the_stated_error(events):
    assert 0 <= epsilon_prv(events, DELTA) - epsilon_pld(events, DELTA) <= 2 * PRV_ERROR
    assert epsilon_rdp_opacus(events, DELTA) == pytest.approx(epsilon_rdp(events, DELTA), abs=1e-2)


def test_the_budget_is_held_by_the_accountant_of_the_engine():
    account = Account(PrivacySpec(1.0, 1e-6, engine="opacus"), 10_000)
    noise = account.noise_for("step", 0.02, 50)
    assert account.room(Event("step", noise, 0.02), 60) < 60
    account.charge(Event("step", noise, 0.02, 50))
    said = account.statement()
    assert said["engine"] == "opacus" and said["epsilon_accountant"] == "PRV (engine opacus)"
    assert said["epsilon"] == pytest.approx(epsilon_prv(account.events, 1e-6), abs=1e-4)
    assert 0.99 < said["epsilon"] <= 1.0


def test_the_engine_is_identity_only_where_it_is_chosen():
    assert "engine" not in literals(PrivacySpec(1.0, 1e-6))
    assert literals(PrivacySpec(1.0, 1e-6, engine="opacus"))["engine"] == "opacus"
    with pytest.raises(ValueError, match="add-remove"):
        PrivacySpec(1.0, 1e-6, adjacency="replace", engine="opacus")


def test_replacing_a_row_costs_more():
    assert epsilon_pld([Event("step", 1.1, 256 / 100_000, 1000)], DELTA, "replace") == pytest.approx(0.555, abs=1e-3)


def test_gaussians_on_all_rows_are_one_by_hand():
    """Precisions add: sigma = 3 and 4 together are 12 / 5."""
    both = epsilon_pld([Event("a", 3.0), Event("b", 4.0)], DELTA)
    assert both == pytest.approx(epsilon_pld([Event("c", 2.4)], DELTA), abs=1e-9)
    assert epsilon_pld([Event("a", 6.0, 1.0, 4)], DELTA) == pytest.approx(epsilon_pld([Event("a", 3.0)], DELTA))


@given(st.floats(1.5, 4.0), st.floats(0.001, 0.05), st.integers(1, 300))
@settings(max_examples=scaled(5), deadline=None)
def test_epsilon_grows_with_count_and_rate_and_falls_with_noise(noise, rate, count):
    for epsilon in (epsilon_pld, epsilon_rdp):
        here = epsilon([Event("x", noise, rate, count)], DELTA)
        assert epsilon([Event("x", noise, rate, 2 * count)], DELTA) >= here
        assert epsilon([Event("x", noise, 1.5 * rate, count)], DELTA) >= here
        assert epsilon([Event("x", 1.25 * noise, rate, count)], DELTA) <= here
    assert (
        epsilon_pld([Event("x", noise, rate, count)], DELTA)
        <= epsilon_rdp([Event("x", noise, rate, count)], DELTA) + 1e-3
    )


@given(st.floats(0.3, 1.0), st.floats(1.5, 5.0), st.sampled_from([0.01, 0.05, 1.0]), st.booleans())
@settings(max_examples=scaled(5), deadline=None)
def test_room_is_exact(epsilon, noise, rate, has_spent):
    account = Account(PrivacySpec(epsilon, 1e-6), 10_000)
    if has_spent:
        account.charge(Event("counts", 30.0 / epsilon))
    event = Event("x", noise, rate)
    room = account.room(event, 500)
    assert account.epsilon(Event("x", noise, rate, room)) <= epsilon
    if room < 500:
        assert account.epsilon(Event("x", noise, rate, room + 1)) > epsilon
    if room:
        account.charge(Event("x", noise, rate, room))
    if room < 500:
        before = account.literals()
        with pytest.raises(BudgetExceeded):
            account.charge(event)
        assert account.literals() == before


@given(st.floats(0.2, 1.0), st.sampled_from([0.005, 0.05, 1.0]), st.integers(1, 100), st.floats(0.3, 1.0))
@settings(max_examples=scaled(5), deadline=None)
def test_noise_spends_its_share_and_not_more(epsilon, rate, count, share):
    account = Account(PrivacySpec(epsilon, 1e-6), 10_000)
    noise = account.noise_for("x", rate, count, share)
    spent = account.epsilon(Event("x", noise, rate, count))
    assert 0.99 * share * epsilon < spent <= share * epsilon


def test_nothing_left_is_said():
    account = Account(PrivacySpec(1.0, 1e-6), 10_000)
    account.charge(Event("a", account.noise_for("a", 1.0, 1)))
    with pytest.raises(UserError, match="nothing is left"):
        account.noise_for("b", 1.0, 100, share=0.5)
    assert least_noise(lambda sigma: 5.0, 1.0) is None


def test_charging_one_by_one_is_quick_once_room_is_known():
    account = Account(PrivacySpec(1.0, 1e-6), 30_000)
    event = Event("x", account.noise_for("x", 0.01, 500), 0.01)
    assert account.room(event, 500) == 500
    for _ in range(500):
        account.charge(event)
    restored = Account(account.spec, 30_000)
    restored.restore(account.literals())
    assert restored.statement() == account.statement()
    assert restored.statement()["events"] == [{**event.__dict__, "count": 500}]


def test_statement_is_whole():
    account = Account(PrivacySpec(2.0, 1e-6, unit="patient"), 32_561)
    account.charge(Event("step", 1.5, 0.01, 100))
    said = account.statement()
    assert 0 < said["epsilon"] <= said["epsilon_rdp"] + 1e-3
    assert said["epsilon"] >= account.epsilon()
    assert (said["unit"], said["adjacency"], said["num_units"], said["delta"]) == (
        "patient",
        "add-remove",
        32_561,
        1e-6,
    )
    replaced = Account(PrivacySpec(2.0, 1e-6, adjacency="replace"), 32_561)
    replaced.charge(Event("step", 1.5, 0.01, 100))
    assert replaced.statement()["epsilon_rdp"] is None
    assert replaced.statement()["epsilon"] > said["epsilon"]


@pytest.mark.parametrize("delta", [1e-3, 1 / 500])
def test_a_delta_that_gives_rows_away_is_refused(delta):
    with pytest.raises(UserError, match="not below 1/N"):
        Account(PrivacySpec(1.0, delta), 1000 if delta == 1e-3 else 500)
    Account(PrivacySpec(1.0, delta / 10), 1000 if delta == 1e-3 else 500)


@pytest.mark.parametrize(
    "wrong",
    [
        {"epsilon": 0.0},
        {"epsilon": -1.0},
        {"epsilon": float("inf")},
        {"epsilon": float("nan")},
        {"delta": 0.0},
        {"delta": 1.0},
        {"max_grad_norm": 0.0},
        {"noise_multiplier": 0.0},
        {"noise_multiplier": float("nan")},
    ],
)
def test_budgets_that_mean_nothing_are_refused(wrong):
    with pytest.raises(ValueError):
        PrivacySpec(**{"epsilon": 1.0, "delta": 1e-6, **wrong})


@pytest.mark.parametrize("wrong", [(0.0, 0.5, 1), (1.0, 0.0, 1), (1.0, 1.5, 1), (float("nan"), 0.5, 1), (1.0, 0.5, -1)])
def test_events_that_mean_nothing_are_refused(wrong):
    with pytest.raises(ValueError):
        Event("x", *wrong)

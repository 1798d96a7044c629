"""Distances and attacks: a memorising generator is found out, fresh rows are not accused."""

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import roc_auc_score

from gristmill.evaluation.intervals import auc_by_chance, clopper_pearson
from gristmill.evaluation.privacy.attacks import attack_all, attack_of, domias
from gristmill.evaluation.privacy.distances import closeness, copies, nndr, twin_share
from gristmill.records.readers.tables import Column, TableSchema


def people(num: int, seed: int) -> np.ndarray:
    draws = np.random.default_rng(seed)
    made = draws.normal(size=(num, 6))
    made[:, 1] += made[:, 0]
    return made.astype(np.float32)


TRAIN, HOLDOUT = people(800, 0), people(600, 1)


def test_clopper_pearson_is_what_tables_say() -> None:
    assert clopper_pearson(0, 10) == (0, pytest.approx(0.3085, abs=1e-4))
    assert clopper_pearson(5, 10) == (pytest.approx(0.1871, abs=1e-4), pytest.approx(0.8129, abs=1e-4))
    assert clopper_pearson(10, 10) == (pytest.approx(0.6915, abs=1e-4), 1)
    with pytest.raises(ValueError):
        clopper_pearson(3, 2)


def test_auc_of_a_score_that_knows_nothing_stays_in_its_band() -> None:
    draws, truth = np.random.default_rng(0), np.repeat([0, 1], [40, 60])
    low, high = auc_by_chance(60, 40)
    inside = [low <= roc_auc_score(truth, draws.random(100)) <= high for _ in range(400)]
    assert 0.92 < np.mean(inside) < 0.98


def test_a_generator_that_returns_its_rows_is_found_out() -> None:
    distance, *others = attack_all(TRAIN, HOLDOUT, TRAIN, 0)
    assert distance.summary["auc"] == 1 and distance.summary["tpr_at_fpr_0.01"]["rate"] == 1
    assert distance.summary["members"] == distance.summary["non_members"] == 600
    assert others[0].summary["auc"] > others[0].summary["auc_by_chance"][1]
    close = closeness(TRAIN, HOLDOUT, TRAIN)
    assert close.summary["dcr"]["train"] == {"q05": 0, "median": 0} and close.summary["nndr"]["train"]["median"] == 0
    assert close.summary["closer_to_train"]["share"] == 1
    assert "no guarantee" in close.summary["note"]


def test_fresh_rows_are_not_accused() -> None:
    fresh = people(900, 2)
    for attack in attack_all(TRAIN, HOLDOUT, fresh, 0):
        assert attack.summary["auc"] == pytest.approx(0.5, abs=0.06), attack.name
        assert attack.summary["tpr_at_fpr_0.1"]["rate"] < 0.2
    told = closeness(TRAIN, HOLDOUT, fresh).summary
    closer = told["closer_to_train"]
    assert closer["expected"] == 800 / 1400 and closer["low"] <= closer["expected"] <= closer["high"]
    assert told["dcr"]["train"]["median"] == pytest.approx(told["fresh_real_rows"]["dcr"]["median"], rel=0.1)


def test_ties_count_as_expected() -> None:
    grid = np.tile(np.eye(4, dtype=np.float32), (50, 1))  # every row is everywhere
    closer = closeness(grid, grid[:100], grid).summary["closer_to_train"]
    assert closer["share"] == pytest.approx(200 / 300) == closer["expected"]


def test_true_positive_rates_and_roc_by_hand() -> None:
    others = np.arange(100.0)  # 1 % of false alarms: one, the row that scores 99
    members = np.array([98.5, 99.5, 50.0, 10.0, 98.0])
    attack = attack_of("x", members, others)
    assert attack.summary["tpr_at_fpr_0.01"]["rate"] == 2 / 5  # 98.5 and 99.5 lie above 98
    assert attack.summary["tpr_at_fpr_0.1"]["rate"] == 3 / 5
    false, true = attack.roc()
    assert (false[0], true[0], false[-1], true[-1]) == (0, 0, 1, 1)
    assert (np.diff(false) >= 0).all() and (np.diff(true) >= 0).all()
    assert np.trapezoid(true, false) == pytest.approx(attack.summary["auc"])
    few = attack_of("x", np.array([1.0, 3.0]), np.array([2.0, 0.0]))
    assert few.summary["tpr_at_fpr_0.01"]["rate"] == 0.5  # without any false alarm


def test_domias_knows_where_the_generator_is_denser_than_the_population() -> None:
    draws = np.random.default_rng(3)
    crowd = draws.normal(2, 0.1, (400, 2)).astype(np.float32)  # the generator puts half of its rows there
    population, members, others, reference = (draws.normal(0, 1.5, (400, 2)).astype(np.float32) for _ in range(4))
    members[:200] = draws.normal(2, 0.1, (200, 2))
    for density in ("kde", "gaussian"):
        attack = domias(members, others, np.vstack([crowd, population]), reference, density, 0)
        assert attack.summary["auc"] > 0.6, density
    flat = domias(members, others, np.ones((50, 2), np.float32), reference, "kde", 0)
    assert np.isfinite(flat.members).all() and np.isfinite(flat.others).all()


def test_copies_nndr_and_twins_by_hand() -> None:
    found = copies(np.array([1, 2, 3]), np.array([3, 9]), np.array([1, 1, 7, 8]))
    assert found["rows"] == 2 and found["share"] == 0.5 and found["share_of_holdout"] == 0.5
    assert nndr(np.array([[1.0, 2.0], [0.0, 3.0], [0.0, 0.0]])).tolist() == [0.5, 0, 0]
    assert twin_share(np.array([1, 1, 2, 3])) == 0.5


SCHEMA = TableSchema(tuple(Column(f"x{i}", "numeric") for i in range(3)))


def table(rows: np.ndarray) -> pa.Table:
    return pa.table({f"x{i}": rows[:, i].astype(np.float64) for i in range(3)})

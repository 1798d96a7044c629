"""Utility: copies are worth what the real rows are, noise nothing."""

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import roc_auc_score

from gristmill.evaluation.utility import Task, score, task_of, utility
from gristmill.records.errors import UserError
from gristmill.records.readers.tables import Column, TableSchema

SCHEMA = TableSchema(
    (
        Column("x", "numeric"),
        Column("c", "category", categories=("a", "b")),
        Column("price", "numeric"),
        Column("sold", "category", categories=("no", "yes")),
    )
)


def rows(num: int, seed: int) -> pa.Table:
    draws = np.random.default_rng(seed)
    x, c = draws.normal(size=num), draws.choice(["a", "b"], num)
    price = 3 * x + 2 * (c == "a") + draws.normal(0, 0.3, num)
    sold = np.where(price + draws.normal(0, 0.5, num) > 3, "yes", "no")
    return pa.table({"x": x, "c": c, "price": price, "sold": sold})


def shuffled(table: pa.Table, name: str) -> pa.Table:
    mixed = table.column(name).take(pa.array(np.random.default_rng(9).permutation(table.num_rows)))
    return table.set_column(table.column_names.index(name), name, mixed)


def test_copies_are_worth_what_they_copy_and_noise_is_worth_nothing() -> None:
    train, holdout = rows(400, 0), rows(300, 1)
    task = task_of(SCHEMA, "sold", train)
    assert task.positive == "yes" and task.main == "auc"
    found = utility(task, train, holdout, train, 0)
    assert found["ratio"] == 1 and found["learner"] == "gradient boosting"
    assert found["scores"]["random forest"]["TSTR"] == found["scores"]["random forest"]["TRTR"]
    assert found["scores"]["logistic regression"]["TRTR"]["auc"] > 0.95
    assert set(found["scores"]["random forest"]["TSTR"]) == {"auc", "macro_f1", "positive_f1"}
    noise = utility(task, train, holdout, shuffled(train, "sold"), 0)
    assert noise["ratio"] < 0.7 and noise["scores"]["random forest"]["TRTS"]["auc"] < 0.65
    assert noise["augmentation_gain"]["gradient boosting"] < 0
    assert utility(task, train, holdout, train, 0) == found


def test_numbers_are_foretold_by_r2() -> None:
    train, holdout = rows(400, 0), rows(300, 1)
    found = utility(task_of(SCHEMA, "price", train), train, holdout, rows(900, 2), 0)
    assert found["metric"] == "r2" and found["positive"] is None
    assert found["rows"] == {"train": 400, "synthetic": 400, "holdout": 300}  # no more than there are real ones
    assert found["scores"]["ridge regression"]["TSTR"]["r2"] > 0.9 and 0.9 < found["ratio"] < 1.1


def test_a_generator_that_lost_a_class_scores_as_chance() -> None:
    train, holdout = rows(200, 0), rows(200, 1)
    lost = train.set_column(3, "sold", pa.array(["no"] * 200))
    scores = utility(task_of(SCHEMA, "sold", train), train, holdout, lost, 0)["scores"]["random forest"]
    assert scores["TSTR"]["auc"] == 0.5 and scores["TSTR"]["positive_f1"] == 0
    assert scores["TRTS"]["auc"] is None  # nothing to tell apart there


def test_scores_of_three_classes_by_hand() -> None:
    task = Task(SCHEMA, "sold", ("a", "b", "c"))
    truth = np.array(["a", "b", "c", "c"])
    told = np.array([[0.8, 0.1, 0.1], [0.5, 0.4, 0.1], [0.1, 0.2, 0.7], [0.3, 0.3, 0.4]])
    found = score(task, truth, told)
    each = [roc_auc_score(truth == c, told[:, i]) for i, c in enumerate("abc")]
    assert found["auc"] == pytest.approx(np.mean(each))
    # Guessed: a, a, c, c. F1 of a: 2/3, of b: 0, of c: 1
    assert found["macro_f1"] == pytest.approx((2 / 3 + 0 + 1) / 3) and "positive_f1" not in found


def test_what_cannot_be_a_target_is_refused() -> None:
    with pytest.raises(UserError, match="did you mean 'sold'"):
        task_of(SCHEMA, "solt", rows(5, 0))
    with pytest.raises(UserError, match="is constant in the real train rows"):
        task_of(SCHEMA, "c", rows(5, 0).set_column(1, "c", pa.array(["a"] * 5)))
    images = TableSchema((Column("image", "image", height=8, width=8, channels=1),))
    with pytest.raises(UserError, match="cannot be a target"):
        task_of(images, "image", pa.table({"image": pa.nulls(2)}))

"""Utility of synthetic rows: models are trained on synthetic or real rows and tested on the other.

TSTR and TRTS (Esteban, Hyland and Ratsch 2017): train on synthetic and test on real rows, and the reverse. TRTR is the
reference. The real test rows are the holdout, which no generator learns from.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import f1_score, r2_score, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from gristmill.evaluation.draws import whole_number
from gristmill.evaluation.features import Encoder, numbers, texts
from gristmill.records.errors import UserError
from gristmill.records.readers.tables import TableSchema

FOREST = {"n_estimators": 100, "max_depth": 28}
MAX_BOOSTED = 300  # features above which boosting over many classes takes minutes
REGIMES = ("TRTR", "TSTR", "TRTS", "augmented")


@dataclass(frozen=True)
class Task:
    """The column to predict from the others: a class or a number."""

    schema: TableSchema
    target: str
    classes: tuple[str, ...] = ()  # classes of the real train rows; empty for a number
    positive: str | None = None  # the rarer one of two classes

    @property
    def main(self) -> str:
        """The name of the main score."""
        return "auc" if self.classes else "r2"


def task_of(schema: TableSchema, target: str, train: pa.Table) -> Task:
    """The task of a target column. Raises UserError for an unknown column, an image, or a constant target."""
    column = schema.column(target)
    if column.kind == "image":
        raise UserError(f"column '{target}' holds images and cannot be a target")
    if column.is_number:
        if np.nanstd(numbers(column, train)) == 0:
            raise UserError(f"column '{target}' is constant in the real train rows: nothing to predict")
        return Task(schema, target)
    counts = texts(column, train).value_counts().to_pylist()
    order = sorted(counts, key=lambda c: (c["counts"], c["values"]))
    if len(order) < 2:
        raise UserError(f"column '{target}' is constant in the real train rows: nothing to predict")
    positive = order[0]["values"] if len(order) == 2 else None
    return Task(schema, target, tuple(sorted(c["values"] for c in order)), positive)


@dataclass(frozen=True)
class _Rows:
    """A table in the two encodings of the learners, and its target."""

    wide: np.ndarray  # Encoder.encode, for all learners but boosting
    ranks: np.ndarray  # Encoder.ranks, for boosting
    target: np.ndarray

    def take(self, rows: np.ndarray | slice) -> "_Rows":
        return _Rows(self.wide[rows], self.ranks[rows], self.target[rows])

    def with_more(self, other: "_Rows") -> "_Rows":
        pairs = ((self.wide, other.wide), (self.ranks, other.ranks), (self.target, other.target))
        return _Rows(*(np.concatenate(pair) for pair in pairs))


@dataclass(frozen=True)
class Learner:
    """A learner of scikit-learn with default settings."""

    make: Callable[[], Any]
    takes_ranks: bool = False

    def features(self, rows: _Rows) -> np.ndarray:
        return rows.ranks if self.takes_ranks else rows.wide


def learners(task: Task, encoder: Encoder, seed: int) -> dict[str, Learner]:
    """Learners by name. The last one gives the main score."""
    state = whole_number(seed, "learners")
    categories = encoder.are_categories
    by_name: dict[str, Learner]
    if task.classes:
        by_name = {
            "logistic regression": Learner(lambda: make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))),
            "random forest": Learner(lambda: RandomForestClassifier(**FOREST, random_state=state)),
            "gradient boosting": Learner(
                lambda: HistGradientBoostingClassifier(categorical_features=categories, random_state=state), True
            ),
        }
    else:
        by_name = {
            "ridge regression": Learner(lambda: make_pipeline(StandardScaler(), Ridge())),
            "random forest": Learner(lambda: RandomForestRegressor(**FOREST, random_state=state)),
            "gradient boosting": Learner(
                lambda: HistGradientBoostingRegressor(categorical_features=categories, random_state=state), True
            ),
        }
    if encoder.width > MAX_BOOSTED and len(task.classes) > 2:
        del by_name["gradient boosting"]
    return by_name


def utility(
    task: Task,
    train: pa.Table,
    holdout: pa.Table,
    synthetic: pa.Table,
    seed: int,
    log_step: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Scores by learner and regime, with the main ratio TSTR / TRTR of the last learner's AUC or R2.

    TRTR, TSTR and `augmented` (real and synthetic rows together) are tested on the holdout, TRTS on the synthetic rows.
    At most as many synthetic rows as train rows are used for training. Rows without a target are left out.
    """
    encoder = Encoder.fit(task.schema, train, without=task.target)
    real, fresh = _encode_rows(task, encoder, train), _encode_rows(task, encoder, holdout)
    generated = _encode_rows(task, encoder, synthetic)
    taught = generated.take(slice(len(real.wide)))
    both = real.with_more(taught)
    sides = {"TRTR": (real, fresh), "TSTR": (taught, fresh), "TRTS": (real, generated), "augmented": (both, fresh)}
    scores: dict[str, dict[str, dict[str, float | None]]] = {}
    for name, learner in learners(task, encoder, seed).items():
        log_step(f"utility: {name}")
        scores[name] = {}
        predictors: dict[int, Callable[[np.ndarray], np.ndarray]] = {}
        for regime, (learn, test) in sides.items():
            if id(learn) not in predictors:  # TRTR and TRTS share a fit
                predictors[id(learn)] = _fit_predictor(task, learner, learn)
            scores[name][regime] = score(task, test.target, predictors[id(learn)](learner.features(test)))
    last = list(scores)[-1]
    ceiling, tstr_score = scores[last]["TRTR"][task.main], scores[last]["TSTR"][task.main]
    is_fit = ceiling is not None and tstr_score is not None and ceiling > 0
    gains = {n: _gain(s["augmented"][task.main], s["TRTR"][task.main]) for n, s in scores.items()}
    return {
        "target": task.target,
        "positive": task.positive,
        "metric": task.main,
        "learner": last,
        "ratio": tstr_score / ceiling if is_fit and tstr_score is not None and ceiling is not None else None,
        "scores": scores,
        "augmentation_gain": gains,
        "rows": {"train": len(real.wide), "synthetic": len(taught.wide), "holdout": len(fresh.wide)},
    }


def tstr(task: Task, encoder: Encoder, synthetic: pa.Table, holdout: pa.Table, seed: int) -> float | None:
    """The main score on the holdout of the last learner, trained on the synthetic rows alone."""
    learner = list(learners(task, encoder, seed).values())[-1]
    rows, real = _encode_rows(task, encoder, synthetic), _encode_rows(task, encoder, holdout)
    return score(task, real.target, _fit_predictor(task, learner, rows)(learner.features(real)))[task.main]


def _gain(value: float | None, base: float | None) -> float | None:
    return None if value is None or base is None else value - base


def _encode_rows(task: Task, encoder: Encoder, table: pa.Table) -> _Rows:
    column = task.schema.column(task.target)
    if task.classes:
        return _Rows(encoder.encode(table), encoder.ranks(table), texts(column, table).to_numpy(False).astype(str))
    target = numbers(column, table)
    return _Rows(encoder.encode(table), encoder.ranks(table), target).take(~np.isnan(target))


def _fit_predictor(task: Task, learner: Learner, rows: _Rows) -> Callable[[np.ndarray], np.ndarray]:
    """A function from features to predictions: numbers (rows,), or probabilities (rows, classes)."""
    if not task.classes:
        regressor = learner.make().fit(learner.features(rows), rows.target)
        return lambda features: np.asarray(regressor.predict(features))
    rows = rows.take(np.isin(rows.target, task.classes))  # without classes that the real rows do not have
    present = sorted(set(rows.target))
    if len(present) < 2:  # the generator has lost all classes but one
        constant = np.array([float(c in present) for c in task.classes])
        return lambda features: np.tile(constant, (len(features), 1))
    classifier = learner.make().fit(learner.features(rows), rows.target)
    at = [list(task.classes).index(c) for c in classifier.classes_]

    def predict(features: np.ndarray) -> np.ndarray:
        probabilities = np.zeros((len(features), len(task.classes)))
        probabilities[:, at] = classifier.predict_proba(features)
        return probabilities

    return predict


def score(task: Task, truth: np.ndarray, predictions: np.ndarray) -> dict[str, float | None]:
    """AUC (mean over classes against the rest), macro-F1 and, for two classes, positive_f1; R2 for numbers.

    Classes without a test row are left out of the means.
    """
    if not task.classes:
        return {"r2": float(r2_score(truth, predictions)) if len(truth) > 1 else None}
    tested = [c for c in task.classes if 0 < (truth == c).sum() < len(truth)]
    classes = np.array(task.classes)
    aucs = [roc_auc_score(truth == c, predictions[:, task.classes.index(c)]) for c in tested]
    guess = classes[predictions.argmax(axis=1)]
    scores: dict[str, float | None] = {"auc": float(np.mean(aucs)) if aucs else None}
    scores["macro_f1"] = float(f1_score(truth, guess, average="macro", labels=sorted(set(truth)), zero_division=0))
    if task.positive is not None:
        scores["positive_f1"] = float(f1_score(truth == task.positive, guess == task.positive, zero_division=0))
    return scores

"""The shadow-model attack on single outliers (Stadler, Oprisanu and Troncoso 2022, "Groundhog Day").

It asks whether synthetic data made with a target among the train rows can be told from data made without. That takes
many fits, so it is offered as a function and is no part of the report: give it a callable that fits a generator anew.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import roc_auc_score

from gristmill.evaluation.distances import nearest
from gristmill.evaluation.draws import stream, whole_number
from gristmill.evaluation.features import Encoder
from gristmill.evaluation.intervals import clopper_pearson
from gristmill.records.readers.tables import TableSchema

MAX_TARGETS = 10
NUM_LEVELS = 5  # quantiles of each feature that describe a synthetic table
Refit = Callable[[pa.Table, int], pa.Table]  # (train rows, seed) -> synthetic rows


@dataclass(frozen=True)
class ShadowSpec:
    """What the attack costs: targets * 2 * (num_shadows + num_trials) fits."""

    num_targets: int = 3
    num_shadows: int = 10  # pairs of fits, with and without the target, that the attacker learns from
    num_trials: int = 10  # pairs that it is tried on
    num_rows: int = 1000  # train rows of each fit

    def __post_init__(self) -> None:
        if not 1 <= self.num_targets <= MAX_TARGETS:
            raise ValueError(f"num_targets must lie between 1 and {MAX_TARGETS}")
        if self.num_shadows < 2 or self.num_trials < 1 or self.num_rows < 10:
            raise ValueError("num_shadows must be at least 2, num_trials at least 1, num_rows at least 10")


def outliers(rows: np.ndarray, num: int) -> np.ndarray:
    """The numbers of the `num` rows whose fifth neighbour is farthest: the people that a generator gives away first."""
    if len(rows) <= 5:
        raise ValueError("outliers are looked for among more than 5 rows")
    reach = nearest(rows, rows, 5, is_self=True)[0][:, -1]
    return np.argsort(-reach, kind="stable")[:num]


def shadow_attack(
    schema: TableSchema, train: pa.Table, population: pa.Table, refit: Refit, spec: ShadowSpec, seed: int
) -> list[dict[str, Any]]:
    """For each target its row number in `train` and the attacker's accuracy (with interval) and AUC over the trials.

    `population`: real rows without the targets, that shadow tables are drawn from; the attacker has other ones than
    those that the trials are drawn from, as far as there are twice `num_rows`. Raises ValueError with fewer rows than
    a fit takes.
    """
    if population.num_rows < spec.num_rows:
        raise ValueError(f"a shadow fit takes {spec.num_rows} rows; the population has {population.num_rows}")
    encoder = Encoder.fit(schema, population)
    order = stream(seed, "shadow rows").permutation(population.num_rows)
    half = max(spec.num_rows, population.num_rows // 2)
    sides = {"shadow": order[:half], "trial": order[-half:]}
    found = []
    for target in outliers(encoder.encode(train), spec.num_targets):
        one = train.slice(int(target), 1)
        described = {}
        for name, num in (("shadow", spec.num_shadows), ("trial", spec.num_trials)):
            features, truth = [], []
            for number in range(num):
                draws = stream(seed, f"{name} {target} {number}")
                taken = population.take(np.sort(draws.choice(sides[name], spec.num_rows, replace=False)))
                for is_in in (0, 1):
                    rows = pa.concat_tables([taken.slice(is_in), one] if is_in else [taken])
                    made = refit(rows, int(draws.integers(2**31)))
                    features.append(describe(encoder.encode(made)))
                    truth.append(is_in)
            described[name] = np.array(features), np.array(truth)
        learner = RandomForestClassifier(200, random_state=whole_number(seed, f"shadow {target}"))
        learner.fit(*described["shadow"])
        scores, truth_of = learner.predict_proba(described["trial"][0])[:, 1], described["trial"][1]
        num_right = int(((scores > 0.5) == truth_of).sum())
        low, high = clopper_pearson(num_right, len(scores))
        accuracy = {"rate": num_right / len(scores), "low": low, "high": high}
        found.append({"row": int(target), "auc": float(roc_auc_score(truth_of, scores)), "accuracy": accuracy})
    return found


def describe(rows: np.ndarray) -> np.ndarray:
    """A table as one vector, as the paper's naive and histogram features: mean, spread, quantiles of each."""
    levels = np.quantile(rows, np.linspace(0, 1, NUM_LEVELS), axis=0)
    return np.concatenate([rows.mean(0), rows.std(0), levels.ravel()])

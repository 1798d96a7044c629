"""All metrics of tables, over one synthetic table, one real train table and one real holdout.

Metrics of whole tables compare with the holdout, so copies of train rows do not raise the score. Their reference is the
score of the real train rows. Metrics of columns and pairs compare with the train rows, which are more; their reference
is the score of the holdout against the train rows.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from gristmill.evaluation import diversity, fidelity, joint
from gristmill.evaluation.draws import some
from gristmill.evaluation.features import Encoder, FeatureNet, pixels, row_numbers, texts
from gristmill.evaluation.privacy import attacks
from gristmill.evaluation.privacy import distances as privacy
from gristmill.evaluation.utility import Task, task_of, utility
from gristmill.records.readers.tables import TableSchema

LogStep = Callable[[str], None]  # receives the name of each step
MIN_ROWS = 20


@dataclass(frozen=True)
class Sides:
    """Three tables with the columns and types of `schema`. Values may be outside its bounds and categories."""

    schema: TableSchema
    train: pa.Table
    holdout: pa.Table
    synthetic: pa.Table

    @property
    def all(self) -> tuple[pa.Table, pa.Table, pa.Table]:
        return self.train, self.holdout, self.synthetic

    def subsample(self, most: int, seed: int) -> "Sides":
        """At most `most` random rows of each table."""
        train, holdout, synthetic = (
            table.take(pa.array(some(table.num_rows, most, seed, f"cut {name}"))) if table.num_rows > most else table
            for name, table in (("train", self.train), ("holdout", self.holdout), ("synthetic", self.synthetic))
        )
        return Sides(self.schema, train, holdout, synthetic)


@dataclass(frozen=True)
class TableReport:
    """Metrics ready for JSON, and the data behind the figures."""

    metrics: dict[str, Any]
    sides: Sides  # the rows that were used
    attacks: list[attacks.Attack]
    closeness: privacy.Closeness
    associations: tuple[list[str], np.ndarray, np.ndarray]  # names; of the real train rows; of the synthetic rows


def judge(full_sides: Sides, target: str | None, seed: int, most: int, log_step: LogStep) -> TableReport:
    """All metrics of at most `most` rows of each table. Duplicates and copies are counted over all rows.

    Each table has MIN_ROWS rows or more. The same tables and seed give the same numbers. Raises UserError for a column
    that cannot be a target.
    """
    sides = full_sides.subsample(most, seed)
    task = task_of(sides.schema, target, sides.train) if target is not None else None
    log_step("fidelity: columns and pairs")
    metrics: dict[str, Any] = {"fidelity": _by_column(sides, seed)}
    associations = [fidelity.association(sides.schema, table) for table in (sides.train, sides.synthetic)]
    encoder = Encoder.fit(sides.schema, sides.train)
    train, holdout, synthetic = (encoder.encode(table) for table in sides.all)
    features = _features(sides, task, seed, log_step)
    metrics["features"] = "a network trained on the target" if features else "encoded columns"
    ranks = features or [encoder.ranks(table) for table in sides.all]
    features = features or [train, holdout, synthetic]
    metrics["fidelity"] |= _as_wholes(features, ranks, metrics, seed, log_step)
    log_step("diversity: duplicates and coverage")
    keys = row_numbers(full_sides.schema, full_sides.all)
    metrics["diversity"] |= {
        "duplicates": {"synthetic": diversity.duplicate_share(keys[2]), "real": diversity.duplicate_share(keys[0])},
        "columns": diversity.coverage(sides.schema, sides.train, sides.synthetic),
    }
    metrics["utility"] = utility(task, *sides.all, seed, log_step) if task else None
    log_step("privacy: attacks")
    attack_list = attacks.attack_all(train, holdout, synthetic, seed)
    log_step("privacy: distances to closest records")
    close = privacy.closeness(train, holdout, synthetic)
    metrics["privacy"] = {
        "attacks": [attack.summary for attack in attack_list],
        "copies": privacy.copies(*keys),
        "distances": close.summary,
    }
    names = associations[0][0]
    return TableReport(metrics, sides, attack_list, close, (names, associations[0][1], associations[1][1]))


def _by_column(sides: Sides, seed: int) -> dict[str, Any]:
    columns, pairs = (
        [fidelity.columns(sides.schema, sides.train, other) for other in (sides.synthetic, sides.holdout)],
        [fidelity.pairs(sides.schema, sides.train, other, seed) for other in (sides.synthetic, sides.holdout)],
    )
    return {
        "column_shapes": {"value": fidelity.mean_score(columns[0]), "real": fidelity.mean_score(columns[1])},
        "column_pair_trends": {"value": fidelity.mean_score(pairs[0]), "real": fidelity.mean_score(pairs[1])},
        "columns": columns[0],
        "pairs": pairs[0],
    }


def _features(sides: Sides, task: Task | None, seed: int, log_step: LogStep) -> list[np.ndarray] | None:
    """Features of images from a network trained on the target; None without images or a class target."""
    images = sides.schema.of_kind("image")
    if not images or task is None or not task.classes:
        return None
    log_step("features: training a small network on the real train images")
    labels = texts(sides.schema.column(task.target), sides.train).to_numpy(False).astype(str)
    by_side: list[list[np.ndarray]] = [[], [], []]
    for column in images:
        net = FeatureNet(pixels(column, sides.train), labels, seed)
        for side, table in zip(by_side, sides.all):
            side.append(net(pixels(column, table)))
    return [np.hstack(side) for side in by_side]


def _as_wholes(
    features: list[np.ndarray], ranks: list[np.ndarray], metrics: dict[str, Any], seed: int, log_step: LogStep
) -> dict[str, Any]:
    """Metrics of whole tables, with equal numbers of synthetic and train rows."""
    train, holdout, synthetic = features
    num = min(len(train), len(synthetic))
    places = [some(len(rows), num, seed, "wholes") for rows in (train, synthetic)]
    train, synthetic = train[places[0]], synthetic[places[1]]
    fidelity_metrics: dict[str, Any] = {}
    log_step("fidelity: classifier two-sample test")
    value, ideal = (joint.c2st(ranks[1], rows[at], seed) for rows, at in ((ranks[2], places[1]), (ranks[0], places[0])))
    fidelity_metrics["c2st_auc"] = {"value": value, "real": ideal}
    log_step("fidelity: MMD and Frechet distance")
    fidelity_metrics["mmd"] = {"value": joint.mmd(holdout, synthetic, seed), "real": joint.mmd(holdout, train, seed)}
    fidelity_metrics["frechet"] = {"value": joint.frechet(holdout, synthetic), "real": joint.frechet(holdout, train)}
    log_step("diversity: precision, recall, density, coverage, Vendi score")
    most = diversity.PRDC_ROWS
    real = holdout[some(len(holdout), most, seed, "prdc holdout")]
    values, ideals = (diversity.prdc(real, rows[some(num, most, seed, "prdc rows")]) for rows in (synthetic, train))
    bandwidth = joint.median_distance(train[some(num, diversity.VENDI_ROWS, seed, "bandwidth")])
    metrics["diversity"] = {
        name: {"value": values[name] if values else None, "real": ideals[name] if ideals else None}
        for name in ("precision", "recall", "density", "coverage")
    }
    metrics["diversity"]["vendi"] = {
        "value": diversity.vendi(synthetic, bandwidth, seed),
        "real": diversity.vendi(train, bandwidth, seed),
        "rows": min(num, diversity.VENDI_ROWS),
    }
    return fidelity_metrics

"""Tabular models on Adult: utility of their rows over real ones, distance from the training rows.

Every model is fitted to the 32,561 training rows with the spec of its recipe and makes as many. A gradient-boosted
classifier of income is trained on those and judged on the 16,281 rows of the test part; the ratio is to the same
classifier trained on the real rows. Speeds are measured beside the ctgan package by `make oracles`.

python -m tests.bench tabular      all (40 minutes on one core); GRISTMILL_BENCH_KINDS=smote,tvae picks some
"""

import os
import time
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.generators.families.contract import Family
from gristmill.jobs.fit.plan import load_plan
from gristmill.records.readers.datasets import DataSpec, read_table
from gristmill.records.readers.tables import TableSchema
from gristmill.stages.verify.copies import Index

KINDS = ("independent", "copula", "smote", "tabddpm", "tvae", "ctgan")
AUC_TARGETS = {"smote": 0.97, "tabddpm": 0.97, "tvae": 0.955, "ctgan": 0.945}
NUM_MEASURED = 4000  # rows whose distance to the nearest training row is measured
TARGET, POSITIVE = "income", ">50K"


def _features(table: pa.Table, schema: TableSchema) -> tuple[np.ndarray, np.ndarray]:
    """Numbers and category codes, float64 (rows, columns but the target), and whether the target is positive."""
    columns = []
    for column in schema.columns:
        values = table.column(column.name).combine_chunks()
        if column.kind == "category":
            values = pc.index_in(values, value_set=pa.array(column.categories))
        if column.name != TARGET:
            columns.append(values.to_numpy(zero_copy_only=False).astype(np.float64))
    return np.stack(columns, 1), pc.equal(table.column(TARGET), POSITIVE).to_numpy()


def auc(rows: pa.Table, test: pa.Table, schema: TableSchema) -> float:
    """Area under the ROC curve on `test` of a classifier that learnt from `rows`."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.metrics import roc_auc_score

    is_category = [c.kind == "category" for c in schema.columns if c.name != TARGET]
    learner = HistGradientBoostingClassifier(random_state=0, categorical_features=is_category)
    learner.fit(*_features(rows, schema))
    features, labels = _features(test, schema)
    return float(roc_auc_score(labels, learner.predict_proba(features)[:, 1]))


def make(family: Family, num: int) -> pa.Table:
    """`num` rows without conditions."""
    parts, block = [], family.block
    for first in range(0, num, block):
        seeds = np.random.default_rng([7, first]).integers(0, 2**63 - 1, block)
        parts.append(pa.table(family.sample([{}] * block, seeds).columns))
    return pa.concat_tables(parts).slice(0, num)


def bench() -> list[dict[str, Any]]:
    import torch

    kinds = os.environ.get("GRISTMILL_BENCH_KINDS", ",".join(KINDS)).split(",")
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    plan = load_plan("recipes/fit/adult-independent.toml")
    schema, train = plan.family.schema, plan.table
    test = schema.conform(read_table(DataSpec("package:adult/test")))
    real = auc(train, test, schema)
    index, medians = Index(train, "bench"), {}
    rows: list[dict[str, Any]] = [
        {"what": "Adult, AUC of HistGradientBoosting trained on real rows", "value": f"{real:.4f}"}
    ]
    for kind in kinds:
        family = _begun(kind)
        started, num_steps = time.perf_counter(), family.num_steps
        for step in range(0, num_steps, 500):
            family.train(step, min(step + 500, num_steps))
        train_s = time.perf_counter() - started
        started = time.perf_counter()
        made = make(family, train.num_rows)
        sample_s = time.perf_counter() - started
        found = auc(made, test, schema)
        rows.append(
            {
                "what": f"{kind}, AUC over real (trained in {train_s:,.0f} s, sampled in {sample_s:,.0f} s)",
                "value": f"{found:.4f}",
                "peer": f"{real:.4f}",
                "ratio": found / real,
                "target": f">= {AUC_TARGETS[kind]:g}" if kind in AUC_TARGETS else "",
            }
        )
        distances, _ = index.nearest(made.slice(0, NUM_MEASURED).combine_chunks().to_batches()[0])
        medians[kind] = float(np.median(distances))
        copied = f"{(distances < 1e-6).mean():.2%} exact copies"
        rows.append({"what": f"{kind}, median DCR of {NUM_MEASURED:,} rows; {copied}", "value": f"{medians[kind]:.4f}"})
    if {"smote", "tabddpm"} <= set(medians):
        ratio = medians["tabddpm"] / medians["smote"]
        rows.append(
            {"what": "tabddpm, median DCR over smote's", "value": f"{ratio:.2f}", "ratio": ratio, "target": ">= 3"}
        )
    return rows


def _begun(kind: str) -> Family:
    """The family of a recipe with its transforms fitted."""
    plan = load_plan(f"recipes/fit/adult-{kind}.toml")
    plan.family.begin(plan.table, plan.recipe.seed, None)
    return plan.family


if __name__ == "__main__":
    for line in bench():
        print(line)

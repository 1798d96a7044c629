"""Largest difference of each metric of ours from the oracle's, on Adult's two parts and on drawn features."""

from typing import Any

import numpy as np

from gristmill.evaluation import diversity, fidelity
from tests.oracles.adult import parts


def difference(ours: dict[Any, float | None], theirs: dict[Any, float]) -> float:
    assert ours.keys() == theirs.keys() and ours, (ours.keys(), theirs.keys())
    return max(abs(float(ours[k] if ours[k] is not None else np.nan) - theirs[k]) for k in ours)


def bench() -> list[dict[str, Any]]:
    import prdc
    from sdmetrics import column_pairs, single_column

    schema, train, test = parts()
    real, made = train.to_pandas(), test.to_pandas()
    found: dict[str, tuple[dict[Any, float | None], dict[Any, float]]] = {}
    rows = [*fidelity.columns(schema, train, test), *diversity.coverage(schema, train, test)]
    for row in rows:
        ours, theirs = found.setdefault(row["metric"], ({}, {}))
        name = row["column"]
        ours[name] = row["score"]
        theirs[name] = getattr(single_column, row["metric"]).compute(real[name], made[name])
    for row in fidelity.pairs(schema, train, test, 0):
        pair = row["columns"]
        metric = getattr(column_pairs, row["metric"])
        settings: dict[str, Any] = {}
        if row["metric"] == "ContingencySimilarity":
            numeric = [n for n in pair if schema.column(n).is_number]
            settings = {"continuous_column_names": numeric or None, "num_discrete_bins": fidelity.NUM_BINS}
        ours, theirs = found.setdefault(row["metric"], ({}, {}))
        ours[tuple(pair)] = row["score"]
        theirs[tuple(pair)] = metric.compute(real[pair], made[pair], **settings)
    random = np.random.default_rng(0)
    features = random.normal(size=(1500, 16)), random.normal(0.3, 1.1, size=(1300, 16))
    left, right = (f.astype(np.float32) for f in features)
    told = prdc.compute_prdc(left, right, nearest_k=diversity.NEIGHBOURS)
    found["precision, recall, density, coverage (prdc)"] = (
        dict(diversity.prdc(left, right) or {}),
        {k: float(v) for k, v in told.items()},
    )
    return [
        {
            "what": f"{metric}: largest difference over {len(ours)} values",
            "value": f"{difference(ours, theirs):.1e}",
            "target": "<= 1e-3" if "prdc" in metric else "<= 1e-9",
        }
        for metric, (ours, theirs) in found.items()
    ]

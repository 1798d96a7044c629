"""Our ctgan and tvae and the ctgan package's, each trained by its own defaults and judged alike: AUC on Adult's test
part of gradient boosting that learnt from as many generated rows, and the seconds that training took. Some 40 minutes.
"""

import time
from typing import Any

import pyarrow as pa

from tests.bench.bench_tabular import auc, make
from tests.oracles.adult import discrete, parts
from tests.oracles.speed import TARGETS, peer


def bench() -> list[dict[str, Any]]:
    from gristmill.jobs.fit.plan import load_plan

    schema, train, test = parts()
    real = auc(train, test, schema)
    told = []
    for kind, target in TARGETS.items():
        plan = load_plan(f"recipes/fit/adult-{kind}.toml")
        plan.family.begin(train, plan.recipe.seed, None)
        started = time.perf_counter()
        plan.family.train(0, plan.family.num_steps)
        our_s = time.perf_counter() - started
        ours = auc(make(plan.family, train.num_rows), test, schema)
        model, times = peer(kind, train.to_pandas(), discrete(schema), None)
        rows = pa.Table.from_pandas(model.sample(train.num_rows), preserve_index=False)
        made = schema.conform(rows, "the peer's rows", False)  # it knows no bounds, and some rows are beyond them
        theirs = auc(made, test, schema)
        told.append(
            {
                "what": f"{kind} by its defaults: seconds of training, AUC over real rows' {real:.4f}",
                "value": f"{our_s:.0f} s, {ours / real:.3f}",
                "peer": f"ctgan package: {sum(times):.0f} s ({len(times)} epochs), {theirs / real:.3f}",
                "ratio": sum(times) / our_s,
                "target": f">= {target:g}",
            }
        )
    return told

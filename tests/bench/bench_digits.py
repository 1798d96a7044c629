"""Digits by diffusion from scratch: seconds to train the recipe's model and to sample 1,500 rows, and what they are
like beside held-out digits (nearest neighbours on pixels, k = 5).
"""

import time
from typing import Any

import numpy as np

NUM_ROWS = 1500


def bench() -> list[dict[str, Any]]:
    import torch

    from gristmill.evaluation.diversity import prdc
    from gristmill.evaluation.features import Encoder
    from gristmill.generators.families.contract import draw_rows
    from gristmill.jobs.fit.plan import load_plan
    from gristmill.records.readers.datasets import DataSpec, read_table

    plan = load_plan("recipes/fit/digits-ddpm.toml")
    family = plan.family
    started = time.perf_counter()
    family.begin(plan.table, plan.recipe.seed, None)
    family.train(0, family.num_steps)
    train_s = time.perf_counter() - started
    started = time.perf_counter()
    made = draw_rows(family, np.random.default_rng(0).integers(0, 2**62, NUM_ROWS))
    sample_s = time.perf_counter() - started
    holdout = family.schema.conform(read_table(DataSpec("package:digits", part="holdout")))
    encoder = Encoder.fit(family.schema, plan.table, "label")
    found = prdc(encoder.encode(holdout), encoder.encode(made))
    assert found is not None
    return [
        {
            "what": f"digits by DDPM, trained and {NUM_ROWS:,} rows sampled, {torch.get_num_threads()} threads",
            "value": f"{train_s + sample_s:.1f} s ({train_s:.1f} + {sample_s:.1f})",
            "target": "< 60 s",
        },
        {
            "what": f"the same: recall and precision against {holdout.num_rows} held-out digits",
            "value": f"{found['recall']:.2f} and {found['precision']:.2f}",
            "target": "recall >= .6",
        },
    ]

"""Seconds an epoch of Adult's 32,561 rows, batches of 500: our models and the ctgan package's, in turns, best of all.

The peers' epochs come after their transforms are fitted, as ours do; both have the threads that torch takes.
"""

import time
from collections.abc import Iterable, Iterator
from typing import Any

import pandas as pd

from tests.oracles.adult import discrete, parts, trainer

ROUNDS = 3
EPOCHS_A_ROUND = 2
TARGETS = {"ctgan": 2.0, "tvae": 1.5}


class Watch:
    """Stands where the peer has tqdm, and takes the time of each epoch."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def __call__(self, epochs: Iterable[int], **settings: Any) -> Iterator[int]:
        for number in epochs:
            started = time.perf_counter()
            yield number
            self.times.append(time.perf_counter() - started)


def peer(kind: str, frame: pd.DataFrame, columns: list[str], epochs: int | None) -> tuple[Any, list[float]]:
    """The peer's model trained for so many epochs (None: its default), and seconds of each epoch."""
    import ctgan
    from ctgan.synthesizers import ctgan as ctgan_module
    from ctgan.synthesizers import tvae as tvae_module

    module = {"ctgan": ctgan_module, "tvae": tvae_module}[kind]
    model = {"ctgan": ctgan.CTGAN, "tvae": ctgan.TVAE}[kind](**({"epochs": epochs} if epochs else {}))
    watch, real = Watch(), module.tqdm
    module.tqdm = watch
    try:
        model.fit(frame, columns)
    finally:
        module.tqdm = real
    return model, watch.times


def bench() -> list[dict[str, Any]]:
    import torch

    schema, train, _ = parts()
    frame, columns = train.to_pandas(), discrete(schema)
    rows = []
    for kind, target in TARGETS.items():
        epoch = trainer(kind)
        ours, theirs = [], []
        for number in range(ROUNDS * EPOCHS_A_ROUND):
            started = time.perf_counter()
            epoch(number)
            ours.append(time.perf_counter() - started)
            if (number + 1) % EPOCHS_A_ROUND == 0:
                theirs += peer(kind, frame, columns, EPOCHS_A_ROUND)[1]
        rows.append(
            {
                "what": f"{kind}, seconds an epoch, {torch.get_num_threads()} threads",
                "value": f"{min(ours):.3f}",
                "peer": f"ctgan package: {min(theirs):.3f}",
                "ratio": min(theirs) / min(ours),
                "target": f">= {target:g}",
            }
        )
    return rows

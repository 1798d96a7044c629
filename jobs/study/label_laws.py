"""What is known of a cell of linear classifiers under a verifier (evaluation/laws/labels.py)."""

from typing import Any

import numpy as np

from gristmill.generators.chains.cells import Cell

SOURCE = "Feng et al. 2025, theorem 4.2, and its mean over kept rows, derived here (evaluation/laws/labels.py)"


def label_series(cell: Cell) -> dict[str, tuple[np.ndarray, np.ndarray | None]]:
    """{measure: (expectation by generation, deviation across chains of an exact one)}; none beyond the laws."""
    from gristmill.evaluation.laws.labels import series, verified

    regime, gates = cell.regime, [dict(gate) for gate in cell.gates]
    kinds = [gate.pop("kind") for gate in gates]
    is_plain = regime.pool == "replace" and regime.real in ("none", "fresh") and regime.weights == "pooled"
    is_plain &= not regime.bernoulli and regime.growth == 1 and regime.synthetic_max == 1 and not cell.forks
    if not is_plain or kinds not in ([], ["labels"], ["verifier"]):
        return {}
    rates: dict[str, Any] = {"keep_right": 1.0, "keep_wrong": 1.0}
    if kinds == ["labels"]:
        rates = {"keep_right": gates[0].get("keep_right", 1.0), "keep_wrong": gates[0].get("keep_wrong", 0.0)}
    facts = dict(cell.family().facts())
    found = series(
        cell.n,
        facts["dims"],
        cell.generations,
        rates["keep_right"],
        rates["keep_wrong"],
        facts["noise"],
        facts["made_noise"],
        regime.real_fraction,
        regime.shortfall == "resample",
    )
    if kinds == ["verifier"]:
        if facts["made_noise"] or regime.real_fraction:
            return {}
        return {"accuracy": (verified(found["accuracy"][0], gates[0]["accuracy"], cell.generations), None)}
    if not kinds:
        return {"accuracy": (found["accuracy"], None)}
    spread = {name: found.pop(f"{name}_deviation") for name in rates}
    told: dict[str, tuple[np.ndarray, np.ndarray | None]] = {name: (values, None) for name, values in found.items()}
    return told | {name: (np.full(cell.generations, rate), spread[name]) for name, rate in rates.items()}

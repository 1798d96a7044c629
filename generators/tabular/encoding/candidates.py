"""Conditional sampling for models that map noise to rows: importance resampling of the noise.

Given noise z, such a model has a distribution for each column. So rows with given values follow from Bayes' rule: draw
many z, weigh each by the likelihood of the given values, choose one by its weight (sampling importance resampling;
Rubin 1988), and draw the other columns given this z. No row is rejected after sampling.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gristmill.generators.families.contract import normals, uniforms
from gristmill.generators.tabular.encoding.modes import SPAN, Modes
from gristmill.generators.tabular.encoding.transforms import CodedConditions, TableCoder

NUM_CANDIDATES = 64
LEAST_LIKELIHOOD = 1e-6  # of the given values, on average over the candidates
LEAST_DEVIATION = 0.05  # of a number within its mode, because the likelihood of a point needs a width
CHOICE_KEY = 11
UNLIKELY = "unlikely_condition"


@dataclass
class Outlook:
    """The distributions of each row of a block, given its noise."""

    shares: np.ndarray  # float32 (rows, D): probabilities within each segment
    alphas: np.ndarray  # float32 (rows, M): expected place of each number within its mode


def resample(
    coder: TableCoder,
    conditions: CodedConditions,
    deviations: np.ndarray,
    seeds: np.ndarray,
    propose: Callable[[int, np.ndarray], Outlook],
) -> Outlook:
    """The outlook of each row for its chosen noise. Sets a reason in `conditions` for impossible rows.

    `propose(number, is_needed)` returns a candidate for every row of the block, so that all products keep their shape.
    Candidates of rows without `is_needed`, bool (rows,), are ignored. A row without conditions uses candidate 0.
    """
    choice = propose(0, np.ones(len(seeds), bool))
    has_conditions = conditions.is_any
    if not has_conditions.any():
        return choice
    totals = np.where(has_conditions, likelihoods(coder, conditions, deviations, choice), 1.0)
    levels = uniforms(seeds, NUM_CANDIDATES, CHOICE_KEY)
    for number in range(1, NUM_CANDIDATES):
        candidate = propose(number, has_conditions)
        weights = np.where(has_conditions, likelihoods(coder, conditions, deviations, candidate), 0.0)
        totals += weights
        is_taken = levels[:, number] * totals < weights
        choice.shares[is_taken], choice.alphas[is_taken] = candidate.shares[is_taken], candidate.alphas[is_taken]
    for row in np.flatnonzero(has_conditions & (totals / NUM_CANDIDATES < LEAST_LIKELIHOOD)):
        conditions.reasons[row] = conditions.reasons[row] or UNLIKELY
    return choice


def some_normals(seeds: np.ndarray, is_needed: np.ndarray, count: int, key: int) -> np.ndarray:
    """`normals` for the rows with `is_needed`, zeros for the others."""
    numbers = np.zeros((len(seeds), count), np.float32)
    if is_needed.any():
        numbers[is_needed] = normals(seeds[is_needed], count, key)
    return numbers


def some_uniforms(seeds: np.ndarray, is_needed: np.ndarray, count: int, key: int) -> np.ndarray:
    """`uniforms` for the rows with `is_needed`, zeros for the others."""
    numbers = np.zeros((len(seeds), count))
    if is_needed.any():
        numbers[is_needed] = uniforms(seeds[is_needed], count, key)
    return numbers


def likelihoods(coder: TableCoder, conditions: CodedConditions, deviations: np.ndarray, outlook: Outlook) -> np.ndarray:
    """Likelihoods of the given values, float64 (rows,), scaled to 1 at the middle of a number's narrowest mode."""
    products = np.ones(len(conditions.codes))
    first, number = 0, 0
    for place, segment in enumerate(coder.segments):
        shares = outlook.shares[:, first : first + segment.size].astype(np.float64)
        first += segment.size
        codes = conditions.codes[:, place]
        rows = np.flatnonzero(codes >= 0)
        products[rows] *= shares[rows, codes[rows]]
        if segment.is_category:
            continue
        modes = coder.shapes[coder.schema.columns[segment.column].name]
        assert isinstance(modes, Modes)
        rows = np.flatnonzero(~np.isnan(conditions.values[:, number]))
        if len(rows):
            places = (conditions.values[rows, number, None] - modes.table[1]) / (SPAN * modes.table[2])
            width = max(float(deviations[number]), LEAST_DEVIATION)
            near = np.exp(-0.5 * ((places - outlook.alphas[rows, number, None]) / width) ** 2)
            products[rows] *= (shares[rows, : modes.size] * near * modes.table[2].min() / modes.table[2]).sum(1)
        number += 1
    return products

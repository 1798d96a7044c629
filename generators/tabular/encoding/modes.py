"""Mode-specific normalisation of numbers (CTGAN; Xu et al. 2019, section 4.2).

A variational Bayesian mixture of Gaussians finds the modes of a column. A number becomes a mode, drawn by its
probability, and the place within it: alpha = (number - mean) / (4 deviations), in [-1, 1].
"""

import warnings

import numpy as np

MAX_MODES = 10
MAX_FIT_ROWS = 10_000  # rows for the mixture; more rows take seconds and change little
MIN_WEIGHT = 0.005  # of a mode
CONCENTRATION = 0.001  # of the Dirichlet process; a low value leaves superfluous modes empty
SPAN = 4.0
MAX_ALPHA = 0.99  # so that the inverse of tanh stays finite
MAX_ITERATIONS = 100


class Modes:
    """`table`, float64 (3, k): weights, means and standard deviations of the modes."""

    def __init__(self, table: np.ndarray) -> None:
        self.table = table

    @property
    def size(self) -> int:
        return int(self.table.shape[1])

    @classmethod
    def of(cls, values: np.ndarray, random: np.random.Generator) -> "Modes":
        """From float64 values without NaN, at least one. Runs on one thread: rounding depends on threads."""
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.mixture import BayesianGaussianMixture
        from threadpoolctl import threadpool_limits

        if len(values) > MAX_FIT_ROWS:
            values = values[np.sort(random.choice(len(values), MAX_FIT_ROWS, replace=False))]
        num_distinct = len(np.unique(values))
        centre, scale = float(values.mean()), float(values.std())
        if num_distinct == 1 or scale == 0 or not np.isfinite(scale):
            return cls(np.array([[1.0], [centre], [max(scale, abs(centre) * 1e-6, 1e-6)]]))
        mixture = BayesianGaussianMixture(
            n_components=min(MAX_MODES, num_distinct, len(values)),
            weight_concentration_prior_type="dirichlet_process",
            weight_concentration_prior=CONCENTRATION,
            max_iter=MAX_ITERATIONS,
            random_state=int(random.integers(2**31)),
        )
        with threadpool_limits(1), warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            mixture.fit(((values - centre) / scale)[:, None])
        is_kept = mixture.weights_ > MIN_WEIGHT
        means = mixture.means_[is_kept, 0] * scale + centre
        deviations = np.sqrt(mixture.covariances_[is_kept, 0, 0]) * scale
        return cls(np.stack([mixture.weights_[is_kept], means, deviations]))

    def encode(self, values: np.ndarray, levels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(alpha float32, mode int32) of each value; `levels`, in [0, 1), draw the mode by its probability."""
        weights, means, deviations = self.table
        alphas = (values[:, None] - means) / (SPAN * deviations)
        logs = np.log(weights / deviations) - 0.5 * (SPAN * alphas) ** 2
        shares = np.exp(logs - logs.max(1, keepdims=True)).cumsum(1)
        modes = (shares <= levels[:, None] * shares[:, -1:]).sum(1)
        chosen = np.take_along_axis(alphas, modes[:, None], 1)[:, 0]
        return np.clip(chosen, -MAX_ALPHA, MAX_ALPHA).astype(np.float32), modes.astype(np.int32)

    def decode(self, alphas: np.ndarray, modes: np.ndarray) -> np.ndarray:
        """float64 values."""
        values: np.ndarray = np.asarray(alphas, np.float64) * SPAN * self.table[2, modes] + self.table[1, modes]
        return values

    def alphas(self, value: float) -> np.ndarray:
        """The place of one value within each mode, unclipped; float64 (k,)."""
        alphas: np.ndarray = (value - self.table[1]) / (SPAN * self.table[2])
        return alphas

"""Shares of categories: the Wright-Fisher model of population genetics, and a unigram language model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from gristmill.generators.chains.contract import ChainFamily, Measures, Piece
from gristmill.records.errors import UserError


@dataclass(frozen=True)
class MultinomialSpec:
    """`[family]` of kind "multinomial". The truth is `shares`, or a Zipf law: shares proportional to
    1 / rank^exponent."""

    categories: int = 50  # Number of categories of the Zipf law.
    exponent: float = 1.0  # Exponent of the Zipf law.
    shares: tuple[float, ...] = ()  # True shares of the categories, in place of the Zipf law.
    temperature: float = 1.0  # Sampling temperature: shares proportional to p^(1 / temperature).

    def __post_init__(self) -> None:
        if self.categories < 2 or self.exponent < 0 or not self.temperature > 0:
            raise ValueError("categories must be at least 2, exponent at least 0 and temperature above 0")
        if self.shares and (len(self.shares) < 2 or min(self.shares) < 0 or sum(self.shares) <= 0):
            raise ValueError("shares must be two or more numbers of at least 0, not all 0")

    @property
    def truth(self) -> np.ndarray:
        """float64 (categories,), sums to 1."""
        shares = np.array(self.shares) if self.shares else np.arange(1, self.categories + 1) ** -self.exponent
        return shares / shares.sum()


class Multinomial(ChainFamily):
    """Rows are codes of categories, int64 (chains, rows)."""

    kind: ClassVar[str] = "multinomial"
    Spec: ClassVar[type] = MultinomialSpec
    spec: MultinomialSpec

    def least_rows(self) -> int:
        return 1

    def check(self, n: int) -> None:
        super().check(n)
        if len(self.spec.truth) > 100_000:
            raise UserError("family 'multinomial' allows at most 100,000 categories")

    def real(self, chains: int, num: int, random: np.random.Generator) -> np.ndarray:
        return draw_codes(np.broadcast_to(self.spec.truth, (chains, len(self.spec.truth))), num, random)

    def hold(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The codes, and the number of rows of each code: (chains, categories)."""
        return rows, count_codes(rows, len(self.spec.truth))

    def fit(self, pieces: Sequence[Piece], random: np.random.Generator) -> np.ndarray:
        """Shares, float64 (chains, categories)."""
        total: Any = 0.0
        for piece in pieces:
            if piece.rows is None:
                counts = sum(counts for _, counts in piece.batches)
            else:
                line = np.concatenate([rows for rows, _ in piece.batches], axis=1)
                counts = count_codes(np.take_along_axis(line, piece.rows, axis=1), len(self.spec.truth))
            total = total + piece.weight * counts
        return total / total.sum(axis=1, keepdims=True)

    def sample(self, model: np.ndarray, num: int, random: np.random.Generator) -> np.ndarray:
        if self.spec.temperature != 1:
            model = model ** (1 / self.spec.temperature)
            model = model / model.sum(axis=1, keepdims=True)
        return draw_codes(model, num, random)

    def measure(self, model: np.ndarray, rows: np.ndarray, random: np.random.Generator) -> Measures:
        """gini_simpson 1 - sum p^2, mean_error |p - truth|^2, total_variance (their sum), entropy in nats, support
        (number of categories left), unseen (true share of the lost categories), total_variation to the truth,
        rare_mass (share of the rarer half of the categories)."""
        truth = self.spec.truth
        rare = np.argsort(-truth, kind="stable")[len(truth) // 2 :]
        with np.errstate(divide="ignore", invalid="ignore"):
            logs = np.where(model > 0, np.log(model), 0.0)
        gini, error = 1 - (model**2).sum(axis=1), ((model - truth) ** 2).sum(axis=1)
        return {
            "gini_simpson": gini,
            "mean_error": error,
            "total_variance": gini + error,
            "entropy": -(model * logs).sum(axis=1),
            "support": (model > 0).sum(axis=1).astype(float),
            "unseen": np.where(model > 0, 0.0, truth).sum(axis=1),
            "total_variation": np.abs(model - truth).sum(axis=1) / 2,
            "rare_mass": model[:, rare].sum(axis=1),
        }

    def facts(self) -> Mapping[str, Any]:
        return {"shares": self.spec.truth.tolist(), "temperature": self.spec.temperature}


def count_codes(codes: np.ndarray, num: int) -> np.ndarray:
    """The number of rows of each code, int64 (chains, num)."""
    chains = len(codes)
    flat = codes + np.arange(chains)[:, None] * num
    return np.bincount(flat.ravel(), minlength=chains * num).reshape(chains, num)


def draw_codes(shares: np.ndarray, num: int, random: np.random.Generator) -> np.ndarray:
    """Random codes with each chain's shares, int64 (chains, num)."""
    chains, width = shares.shape
    ends = np.cumsum(shares, axis=1)
    ends = ends / ends[:, -1:] + np.arange(chains)[:, None]  # one ascending array for all chains
    levels = random.random((chains, num)) + np.arange(chains)[:, None]
    codes = np.searchsorted(ends.ravel(), levels.ravel(), side="right").reshape(chains, num)
    return np.clip(codes - np.arange(chains)[:, None] * width, 0, width - 1)

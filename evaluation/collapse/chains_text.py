"""What a study measures of the texts of a generation, against the real texts that the first one learnt from."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from gristmill.evaluation.collapse.text import BUCKETS, RealWords, histogram, of_texts, perplexity
from gristmill.evaluation.text import Tokens

LogProbabilities = Iterable[Sequence[float] | np.ndarray]


def recall_name(low: int, high: int | None) -> str:
    """The measure of a bucket of counts: recall_1, recall_2_5, ..., recall_101_up."""
    return f"recall_{low}" if low == high else f"recall_{low}_{'up' if high is None else high}"


class TextMetrics:
    """Prepared once for a study's real texts; called with each generation's.

    Texts are sequences of tokens: words, or ids as text. Gives the scalars of `collapse_text.of_texts` (entropy in
    bits, distinct_n, types_kept, rare_kept, repetition, loops, ...), the recall of words by their count in the real
    texts (`recall_name`; buckets that the real text has no words for are left out), and with `log_probabilities` the
    texts' own perplexity under a frozen model of the real text: made_perplexity, its 5th and 95th percentile, median.
    """

    def __init__(self, real: Sequence[Tokens]) -> None:
        """Raises ValueError when they have no tokens."""
        self.real = RealWords.of(real)

    def __call__(
        self,
        texts: Sequence[Tokens],
        log_probabilities: LogProbabilities | None = None,
        generation: int | None = None,
    ) -> dict[str, float]:
        """`log_probabilities`: natural, of each token of each text, all at or below 0. With `generation` also
        expected_*: the recall that sampling alone leaves where everything is replaced (`collapse_text.rare_recall`).
        NaN for what cannot be said; nothing at all of texts without a token."""
        if not any(len(words) for words in texts):
            return {}
        found = dict(of_texts(texts, self.real, generation))
        for row in found.pop("rare_recall"):
            name = recall_name(row["low"], row["high"])
            if row["num_types"]:
                found[name] = row["recall"]
                if generation is not None:
                    found[name.replace("recall", "expected")] = row["expected"]
        if log_probabilities is not None:
            values = self.perplexities(log_probabilities)
            low, middle, high = np.quantile(values, [0.05, 0.5, 0.95]) if len(values) else [math.nan] * 3
            found["made_perplexity"] = float(values.mean()) if len(values) else math.nan
            found["made_perplexity_q05"], found["made_perplexity_q95"] = low, high
            found["made_perplexity_median"] = middle
        return {name: math.nan if value is None else float(value) for name, value in found.items()}

    @staticmethod
    def perplexities(log_probabilities: LogProbabilities) -> np.ndarray:
        """Of each text that has a token: float64."""
        return np.array([perplexity(values) for values in log_probabilities if len(values)], np.float64)

    @classmethod
    def histogram(cls, log_probabilities: LogProbabilities) -> dict[str, Any]:
        """`collapse_text.histogram` of them, for a family's exhibit under the name "histogram"."""
        return histogram(cls.perplexities(log_probabilities))


RECALLS = tuple(recall_name(low, high) for low, high in BUCKETS)

"""Metrics of texts in a study, against the real texts that generation 1 learns from."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from gristmill.evaluation.collapse.text import BUCKETS, RealWords, histogram, of_texts, perplexity
from gristmill.evaluation.text import Tokens

LogProbabilities = Iterable[Sequence[float] | np.ndarray]


def recall_name(low: int, high: int | None) -> str:
    """The name of a bucket's measure: recall_1, recall_2_5, ..., recall_101_up."""
    return f"recall_{low}" if low == high else f"recall_{low}_{'up' if high is None else high}"


class TextMetrics:
    """Metrics of a generation's texts, prepared once for the real texts of a study.

    Texts are sequences of tokens: words, or ids as text. The metrics are the scalars of `of_texts` (entropy in bits,
    distinct_n, types_kept, rare_kept, repetition, loops, ...) and the recall of words by their count in the real texts
    (`recall_name`, without empty buckets). With `log_probabilities` also the perplexity of the texts under a frozen
    model of the real text: made_perplexity, its 5th and 95th percentiles and its median.
    """

    def __init__(self, real: Sequence[Tokens]) -> None:
        """Raises ValueError for texts without tokens."""
        self.real = RealWords.of(real)

    def __call__(
        self,
        texts: Sequence[Tokens],
        log_probabilities: LogProbabilities | None = None,
        generation: int | None = None,
    ) -> dict[str, float]:
        """The metrics by name, NaN where a metric is undefined; empty for texts without tokens.

        `log_probabilities` are natural, one per token of each text, at most 0. With `generation` the metrics include
        expected_*: the recall after sampling alone when all rows are replaced (`rare_recall`).
        """
        if not any(len(words) for words in texts):
            return {}
        metrics = dict(of_texts(texts, self.real, generation))
        for row in metrics.pop("rare_recall"):
            name = recall_name(row["low"], row["high"])
            if row["num_types"]:
                metrics[name] = row["recall"]
                if generation is not None:
                    metrics[name.replace("recall", "expected")] = row["expected"]
        if log_probabilities is not None:
            values = self.perplexities(log_probabilities)
            low, middle, high = np.quantile(values, [0.05, 0.5, 0.95]) if len(values) else [math.nan] * 3
            metrics["made_perplexity"] = float(values.mean()) if len(values) else math.nan
            metrics["made_perplexity_q05"], metrics["made_perplexity_q95"] = low, high
            metrics["made_perplexity_median"] = middle
        return {name: math.nan if value is None else float(value) for name, value in metrics.items()}

    @staticmethod
    def perplexities(log_probabilities: LogProbabilities) -> np.ndarray:
        """The perplexity of each text with tokens, float64 (texts,)."""
        return np.array([perplexity(values) for values in log_probabilities if len(values)], np.float64)

    @classmethod
    def histogram(cls, log_probabilities: LogProbabilities) -> dict[str, Any]:
        """The histogram of the perplexities, for the key "histogram" of an exhibit."""
        return histogram(cls.perplexities(log_probabilities))


RECALLS = tuple(recall_name(low, high) for low, high in BUCKETS)

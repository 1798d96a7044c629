"""Measures of a generation of texts: words that survive, repetition, loops, perplexity under a frozen model.

Texts are sequences of tokens (words, or ids as text). Compare generations at equal numbers of tokens, because the
number of types and distinct-n depend on it.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gristmill.evaluation.laws.discrete import survival_factor
from gristmill.evaluation.text import Tokens, distinct_share, entropy_of, ngram_counts, ngrams

BUCKETS = ((1, 1), (2, 5), (6, 20), (21, 100), (101, None))  # by count in the real training text
REPEAT_N = 4
LOOPS = 3  # repetitions in a row that count as a loop
EDGES = np.linspace(0, 5, 51)  # log10 of perplexity, ten bins per factor of ten
LogProbabilities = Callable[[Tokens], Sequence[float]]


@dataclass(frozen=True)
class RealWords:
    """Counts of the tokens in the real rows that generation 1 learns from."""

    counts: Counter[str]

    @classmethod
    def of(cls, texts: Sequence[Tokens]) -> "RealWords":
        """Raises ValueError for texts without tokens."""
        counts = Counter(word for words in texts for word in words)
        if not counts:
            raise ValueError("the real texts have no tokens")
        return cls(counts)


def types_kept(texts: Sequence[Tokens], real: RealWords) -> float:
    """The share of the types of the real texts that occur."""
    return len(real.counts.keys() & {word for words in texts for word in words}) / len(real.counts)


def rare_recall(texts: Sequence[Tokens], real: RealWords, generation: int | None = None) -> list[dict[str, Any]]:
    """For each bucket of counts in the real text: low, high (None: no limit), num_types, recall (share of the types
    that occur; None for an empty bucket).

    With `generation` also `expected`, the mean of 1 - exp(-c g_k) over the bucket: the recall after sampling alone if
    each generation replaces all rows with as many tokens (Suresh et al. 2025). k is the number of samplings since the
    real text, so texts of model k have generation k.
    """
    words_here = {word for words in texts for word in words}
    rows: list[dict[str, Any]] = []
    for low, high in BUCKETS:
        inside = [w for w, count in real.counts.items() if count >= low and (high is None or count <= high)]
        row: dict[str, Any] = {"low": low, "high": high, "num_types": len(inside)}
        row["recall"] = len(words_here.intersection(inside)) / len(inside) if inside else None
        if generation is not None:
            g = survival_factor(generation)
            alive = [-math.expm1(-real.counts[w] * g) for w in inside]
            row["expected"] = sum(alive) / len(alive) if alive else None
        rows.append(row)
    return rows


def rare_kept(texts: Sequence[Tokens], real: RealWords, most: int = 5) -> float | None:
    """The share that occurs of the types with at most `most` occurrences in the real text; None without such types."""
    rare = {word for word, count in real.counts.items() if count <= most}
    return len(rare & {word for words in texts for word in words}) / len(rare) if rare else None


def repetition(words: Tokens, n: int = REPEAT_N) -> float | None:
    """Repeated n-grams over n-grams of one text (seq-rep-n, Welleck et al. 2020); None for a text that is too short."""
    grams = ngrams(words, n)
    return 1 - len(set(grams)) / len(grams) if grams else None


def has_loop(words: Tokens, longest: int = 16, times: int = LOOPS) -> bool:
    """Whether a sequence of up to `longest` tokens occurs `times` times in a row."""
    for width in range(1, longest + 1):
        run = 0  # number of successive tokens that equal the token `width` places before
        for token, earlier in zip(words[width:], words):
            run = run + 1 if token == earlier else 0
            if run >= width * (times - 1):
                return True
    return False


def perplexity(values: Sequence[float] | np.ndarray) -> float:
    """exp of the mean negative natural log-probability of a text's tokens (at least one).

    Raises ValueError for a log-probability above 0 or NaN.
    """
    logs = np.asarray(values, np.float64)
    if not (logs <= 1e-6).all():
        raise ValueError(f"{logs[~(logs <= 1e-6)][0]} is no log-probability")
    return math.exp(min(-float(logs.mean()), 700.0))


def perplexities(texts: Sequence[Tokens], log_probabilities: LogProbabilities) -> np.ndarray:
    """The perplexity under a frozen model of each text with tokens, float64 (texts,)."""
    return np.array([perplexity(log_probabilities(words)) for words in texts if len(words)], np.float64)


def histogram(values: np.ndarray) -> dict[str, Any]:
    """Histogram of perplexities in bins of log10 (Shumailov et al. 2024, figure 1c): `edges` of the bins, `shares` of
    the texts, and the shares `below` and `above` all bins. All generations have the same bins."""
    if not len(values):
        return {"edges": EDGES.tolist(), "shares": None, "below": None, "above": None}
    logs = np.log10(values)
    counts = np.histogram(logs, EDGES)[0]
    return {
        "edges": EDGES.tolist(),
        "shares": (counts / len(logs)).tolist(),
        "below": float((logs < EDGES[0]).mean()),
        "above": float((logs > EDGES[-1]).mean()),
    }


def of_texts(
    texts: Sequence[Tokens],
    real: RealWords,
    generation: int | None = None,
    log_probabilities: LogProbabilities | None = None,
) -> dict[str, Any]:
    """All measures of one generation's texts, with unigram and bigram entropy (bits), Gini-Simpson index, distinct-1 to
    -4 and lengths.

    `log_probabilities` scores texts under a frozen model of the real text. Raises ValueError for texts without tokens.
    """
    grams = {n: ngram_counts(texts, n) for n in range(1, 5)}
    counts = np.array(list(grams[1].values()), np.float64)
    if not len(counts):
        raise ValueError("the texts have no tokens; record the generation as degenerate")
    repetitions = [r for words in texts if (r := repetition(words)) is not None]
    measures: dict[str, Any] = {
        "num_tokens": int(counts.sum()),
        "num_types": len(counts),
        "mean_length": float(counts.sum() / len(texts)),
        "entropy_1": entropy_of(grams[1]),
        "entropy_2": entropy_of(grams[2]),
        "gini_simpson": float(1 - ((counts / counts.sum()) ** 2).sum()),
        **{f"distinct_{n}": distinct_share(gram_counts) for n, gram_counts in grams.items()},
        "types_kept": types_kept(texts, real),
        "rare_kept": rare_kept(texts, real),
        "rare_recall": rare_recall(texts, real, generation),
        "repetition": float(np.mean(repetitions)) if repetitions else None,
        "loops": sum(has_loop(words) for words in texts) / len(texts),
    }
    if log_probabilities is not None:
        values = perplexities(texts, log_probabilities)
        measures["perplexity_median"] = float(np.median(values)) if len(values) else None
        measures["perplexity_histogram"] = histogram(values)
    return measures

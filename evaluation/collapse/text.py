"""What a study measures of every generation of texts: words kept and lost, loops, and how sure generation 0 is of
them.

Texts are sequences of tokens (words, or ids as text). Compare generations at equal numbers of tokens: types and
distinct-n grow with them.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gristmill.evaluation.laws.discrete import survival_factor
from gristmill.evaluation.text import Tokens, counted, distinct_share, entropy_of, ngrams

BUCKETS = ((1, 1), (2, 5), (6, 20), (21, 100), (101, None))  # by count in the real training text
REPEAT_N = 4
LOOPS = 3  # the same n-gram so many times in a row
EDGES = np.linspace(0, 5, 51)  # log10 of perplexity: ten to a factor of ten
LogProbabilities = Callable[[Tokens], Sequence[float]]


@dataclass(frozen=True)
class RealWords:
    """How often each token stands in the real rows that generation 1 learnt from."""

    counts: Counter[str]

    @classmethod
    def of(cls, texts: Sequence[Tokens]) -> "RealWords":
        counts = Counter(word for words in texts for word in words)
        if not counts:
            raise ValueError("the real texts have no tokens")
        return cls(counts)


def types_kept(texts: Sequence[Tokens], real: RealWords) -> float:
    """The share of the real types that occur."""
    return len(real.counts.keys() & {word for words in texts for word in words}) / len(real.counts)


def rare_recall(texts: Sequence[Tokens], real: RealWords, generation: int | None = None) -> list[dict[str, Any]]:
    """For each bucket of counts in the real text: low, high (None: no limit), num_types, recall (share that occur;
    None in an empty bucket).

    With `generation` also `expected`, the mean over the bucket of 1 - exp(-c g_k): what sampling alone leaves when
    each generation replaces everything with as many tokens (Suresh et al. 2025). k = generation is the number of
    samplings since the real text, so texts that model k wrote have generation k.
    """
    here = {word for words in texts for word in words}
    found: list[dict[str, Any]] = []
    for low, high in BUCKETS:
        inside = [w for w, count in real.counts.items() if count >= low and (high is None or count <= high)]
        row: dict[str, Any] = {"low": low, "high": high, "num_types": len(inside)}
        row["recall"] = len(here.intersection(inside)) / len(inside) if inside else None
        if generation is not None:
            g = survival_factor(generation)
            alive = [-math.expm1(-real.counts[w] * g) for w in inside]
            row["expected"] = sum(alive) / len(alive) if alive else None
        found.append(row)
    return found


def rare_kept(texts: Sequence[Tokens], real: RealWords, most: int = 5) -> float | None:
    """The share of the real types with at most `most` occurrences that occur; None when there are none."""
    rare = {word for word, count in real.counts.items() if count <= most}
    return len(rare & {word for words in texts for word in words}) / len(rare) if rare else None


def repetition(words: Tokens, n: int = REPEAT_N) -> float | None:
    """1 - different n-grams over n-grams of one text (seq-rep-n, Welleck et al. 2020); None when it is too short."""
    grams = ngrams(words, n)
    return 1 - len(set(grams)) / len(grams) if grams else None


def has_loop(words: Tokens, longest: int = 16, times: int = LOOPS) -> bool:
    """Whether up to `longest` tokens stand `times` times in a row somewhere."""
    for width in range(1, longest + 1):
        run = 0  # tokens in a row that equal the one `width` before
        for here, before in zip(words[width:], words):
            run = run + 1 if here == before else 0
            if run >= width * (times - 1):
                return True
    return False


def perplexity(values: Sequence[float] | np.ndarray) -> float:
    """exp of the mean negative natural log-probability of a text's tokens, of which there is one at least. Raises
    ValueError for a log-probability above 0 or NaN."""
    given = np.asarray(values, np.float64)
    if not (given <= 1e-6).all():
        raise ValueError(f"{given[~(given <= 1e-6)][0]} is no log-probability")
    return math.exp(min(-float(given.mean()), 700.0))


def perplexities(texts: Sequence[Tokens], log_probabilities: LogProbabilities) -> np.ndarray:
    """The perplexity of each text that has a token, float64, under a frozen model."""
    return np.array([perplexity(log_probabilities(words)) for words in texts if len(words)], np.float64)


def histogram(values: np.ndarray) -> dict[str, Any]:
    """Perplexities in bins of log10, so that generations can be laid over each other (Shumailov et al. 2024, figure
    1c): `edges` of the bins, `shares` of the texts, and those `below` and `above` all bins."""
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
    """All of the above for one generation's texts, with unigram and bigram entropy (bits), Gini-Simpson index,
    distinct-1 to -4, lengths. `log_probabilities`: the frozen model of generation 0 (or the first one)."""
    grams = {n: counted(texts, n) for n in range(1, 5)}
    counts = np.array(list(grams[1].values()), np.float64)
    if not len(counts):
        raise ValueError("the texts have no tokens; record this generation as degenerate")
    repeated = [r for words in texts if (r := repetition(words)) is not None]
    found: dict[str, Any] = {
        "num_tokens": int(counts.sum()),
        "num_types": len(counts),
        "mean_length": float(counts.sum() / len(texts)),
        "entropy_1": entropy_of(grams[1]),
        "entropy_2": entropy_of(grams[2]),
        "gini_simpson": float(1 - ((counts / counts.sum()) ** 2).sum()),
        **{f"distinct_{n}": distinct_share(found) for n, found in grams.items()},
        "types_kept": types_kept(texts, real),
        "rare_kept": rare_kept(texts, real),
        "rare_recall": rare_recall(texts, real, generation),
        "repetition": float(np.mean(repeated)) if repeated else None,
        "loops": sum(has_loop(words) for words in texts) / len(texts),
    }
    if log_probabilities is not None:
        values = perplexities(texts, log_probabilities)
        found["perplexity_median"] = float(np.median(values)) if len(values) else None
        found["perplexity_histogram"] = histogram(values)
    return found

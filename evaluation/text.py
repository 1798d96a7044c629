"""Metrics of texts: variety, memorised n-grams, perplexity."""

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from gristmill.evaluation.diversity import NEIGHBOURS, prdc
from gristmill.evaluation.draws import some

Tokens = Sequence[str]
MTLD_LEVEL = 0.72
SELF_BLEU_TEXTS = 500


def ngrams(words: Tokens, n: int) -> list[tuple[str, ...]]:
    """The n-grams of a text in their order."""
    return list(zip(*(words[i:] for i in range(n))))


def distinct_n(texts: Sequence[Tokens], n: int) -> float | None:
    """Different n-grams over all n-grams (Li et al. 2016). It falls with the amount of text: compare equal amounts."""
    return distinct_share(ngram_counts(texts, n))


def ngram_counts(texts: Sequence[Tokens], n: int) -> Counter[tuple[str, ...]]:
    """Counts of the n-grams of all texts."""
    return Counter(itertools.chain.from_iterable(zip(*(words[i:] for i in range(n))) for words in texts))


def distinct_share(counts: Counter[tuple[str, ...]]) -> float | None:
    """Number of keys over the sum of counts; None without counts."""
    return len(counts) / counts.total() if counts else None


def entropy(texts: Sequence[Tokens], n: int) -> float | None:
    """Shannon entropy of the n-grams, in bits (Zhang et al. 2018, Ent-n)."""
    return entropy_of(ngram_counts(texts, n))


def entropy_of(counts: Counter[tuple[str, ...]]) -> float | None:
    """Shannon entropy of counts in bits; None without counts."""
    values = np.array(list(counts.values()), float)
    if not len(values):
        return None
    shares = values / values.sum()
    return float(-(shares * np.log2(shares)).sum())


def self_bleu(texts: Sequence[Tokens], max_n: int = 4, seed: int = 0, most: int = SELF_BLEU_TEXTS) -> float | None:
    """The mean BLEU of each text against all others (Zhu et al. 2018, Texygen); high values mean repetition.

    At most `most` random texts, smoothed with a tenth of a hit. None for fewer than two texts.
    """
    sample = [texts[i] for i in some(len(texts), most, seed, "self-bleu")]
    if len(sample) < 2:
        return None
    # For each n-gram: the largest count in a text, that text, and the largest count in another text.
    best: list[dict[tuple[str, ...], tuple[int, int, int]]] = [{} for _ in range(max_n)]
    for owner, words in enumerate(sample):
        for n in range(max_n):
            for gram, count in Counter(ngrams(words, n + 1)).items():
                first, holder, second = best[n].get(gram, (0, -1, 0))
                best[n][gram] = (count, owner, first) if count > first else (first, holder, max(second, count))
    lengths = [len(words) for words in sample]

    def one(owner: int) -> float:
        def clip(n: int, gram: tuple[str, ...]) -> int:
            first, holder, second = best[n][gram]
            return second if holder == owner else first

        return _bleu(sample[owner], lengths[:owner] + lengths[owner + 1 :], clip, max_n, 0.1)

    return float(np.mean([one(owner) for owner in range(len(sample))]))


def _bleu(text: Tokens, lengths: Sequence[int], clip: "object", max_n: int, floor: float) -> float:
    assert callable(clip)
    logs = []
    for n in range(max_n):
        counts = Counter(ngrams(text, n + 1))
        hits: float = sum(min(count, clip(n, gram)) for gram, count in counts.items())
        hits = hits or floor
        if not counts or not hits:
            return 0.0
        logs.append(math.log(hits / counts.total()))
    closest = min(lengths, key=lambda length: (abs(length - len(text)), length))
    penalty = min(0.0, 1 - closest / len(text))
    return math.exp(penalty + sum(logs) / max_n)


def mtld(words: Tokens, level: float = MTLD_LEVEL) -> float | None:
    """Measure of textual lexical diversity (McCarthy and Jarvis 2010): the mean length of runs, forwards and backwards,
    whose share of different words stays above `level`. None for an empty text."""
    if not words:
        return None
    return (_runs(words, level) + _runs(list(reversed(words)), level)) / 2


def _runs(words: Tokens, level: float) -> float:
    num_factors, different, length = 0.0, set[str](), 0
    for word in words:
        different.add(word)
        length += 1
        if len(different) / length <= level:
            num_factors, different, length = num_factors + 1, set(), 0
    if length:
        num_factors += (1 - len(different) / length) / (1 - level)  # a partial run counts by its progress
    return len(words) / num_factors if num_factors else float(len(words))


def memorised_shares(synthetic: Sequence[Tokens], sources: Iterable[Tokens], n: int = 8) -> dict[str, float] | None:
    """Share of the synthetic n-grams that occur in a source, and of the texts whose n-grams all occur there.

    Memory grows with the number of different synthetic n-grams; sources are read once, as a stream. None without
    n-grams.
    """
    gram_sets = [set(ngrams(words, n)) for words in synthetic]
    wanted = set().union(*gram_sets)
    in_sources = {g for words in sources for g in ngrams(words, n) if g in wanted}
    grams = [g for words in synthetic for g in ngrams(words, n)]
    if not grams:
        return None
    whole = [g <= in_sources for g in gram_sets if g]
    return {"ngrams": sum(g in in_sources for g in grams) / len(grams), "texts": sum(whole) / len(whole)}


def perplexity(log_probabilities: Iterable[Sequence[float] | np.ndarray]) -> float | None:
    """exp of the mean negative natural log-probability of all tokens under a frozen model; None without tokens.

    Long texts weigh more. Raises ValueError for a log-probability above 0 or NaN.
    """
    total, num = 0.0, 0
    for text in log_probabilities:
        for value in text:
            if not value <= 1e-6:
                raise ValueError(f"{value} is no log-probability")
            total, num = total - value, num + 1
    return math.exp(total / num) if num else None


def embedding_coverage(real: np.ndarray, synthetic: np.ndarray, k: int = NEIGHBOURS) -> dict[str, float] | None:
    """Precision, recall, density and coverage of embeddings (rows, width), scaled to length 1."""
    both = [rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12) for rows in (real, synthetic)]
    return prdc(both[0].astype(np.float32), both[1].astype(np.float32), k)

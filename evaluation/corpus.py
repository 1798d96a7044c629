"""All metrics of texts, over one synthetic, one real train and one real holdout column.

Metrics that depend on the amount of text use equal numbers of tokens. Each number comes with the score of real texts.
Memorisation is measured in the train texts; its reference is the share of the holdout that occurs there.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gristmill.evaluation import text
from gristmill.evaluation.diversity import PRDC_ROWS
from gristmill.evaluation.draws import some, stream, whole_number
from gristmill.records.words import tokens

LogStep = Callable[[str], None]  # receives the name of each step
# Texts to the log-probability of each of their tokens.
Scorer = Callable[[Sequence[str]], Sequence[Sequence[float] | np.ndarray]]
MIN_TEXTS = 20
MAX_TOKENS = 200_000  # of each side, for metrics over equal numbers of tokens
MTLD_TEXTS, MTLD_TOKENS = 1000, 50  # largest number of texts; smallest number of tokens of a text
PERPLEXITY_TEXTS = 200
NGRAM = 8  # tokens of a memorised n-gram
WIDTH, MAX_WORDS = 64, 20_000  # dimensions and vocabulary of the embedding
GROWTH_POINTS = 60


@dataclass(frozen=True)
class Corpora:
    """The texts of one column on each side, without nulls."""

    column: str
    train: list[str]
    holdout: list[str]
    synthetic: list[str]

    @property
    def all(self) -> dict[str, list[str]]:
        return {"train": self.train, "holdout": self.holdout, "synthetic": self.synthetic}


@dataclass(frozen=True)
class TextReport:
    """Metrics ready for JSON, and the numbers behind the figure."""

    metrics: dict[str, Any]
    lengths: dict[str, np.ndarray]  # tokens of each text by side
    growth: dict[str, tuple[np.ndarray, np.ndarray]]  # by side: tokens read, and different tokens among them
    train_overlap: dict[str, np.ndarray]  # by side: share of each text's n-grams that occur in the train texts


def judge_texts(corpora: Corpora, seed: int, most: int, score: Scorer | None, log_step: LogStep) -> TextReport:
    """All metrics of at most `most` random texts of each side; perplexity only with a scorer."""
    log_step("texts: tokens")
    texts = {
        side: [column[i] for i in some(len(column), most, seed, f"texts {side}")]
        for side, column in corpora.all.items()
    }
    words = {side: [tokens(t) for t in column] for side, column in texts.items()}
    lengths = {side: np.array([len(w) for w in column]) for side, column in words.items()}
    equal, num_tokens = equal_amounts(words, seed)
    log_step("texts: variety")
    num_bleu = min(text.SELF_BLEU_TEXTS, *(len(column) for column in words.values()))
    metrics: dict[str, Any] = {
        "column": corpora.column,
        "texts": {side: len(column) for side, column in corpora.all.items()},
        "texts_used": {side: len(column) for side, column in texts.items()},
        "tokens_compared": num_tokens,
        "tokens_a_text": {side: _levels(column) for side, column in lengths.items()},
    }
    for n in (1, 2, 3):
        metrics[f"distinct_{n}"] = {side: text.distinct_n(column, n) for side, column in equal.items()}
    for n in (1, 2):
        metrics[f"entropy_{n}"] = {side: text.entropy(column, n) for side, column in equal.items()}
    metrics["self_bleu"] = {side: text.self_bleu(column, seed=seed, most=num_bleu) for side, column in words.items()}
    metrics["self_bleu_texts"] = num_bleu
    metrics["mtld"] = {side: mean_mtld(column, seed) for side, column in words.items()}
    log_step("texts: memorisation")
    train_overlap, metrics["memorised"] = _train_overlap(words)
    metrics["copies"] = {side: _copies(words["train"], words[side]) for side in ("synthetic", "holdout")}
    log_step("texts: coverage of embeddings")
    metrics["embeddings"] = _coverage(texts, seed)
    metrics["perplexity"] = None
    if score is not None:
        log_step("texts: perplexity")
        metrics["perplexity"] = {
            side: text.perplexity(score([column[i] for i in some(len(column), PERPLEXITY_TEXTS, seed, "perplexity")]))
            for side, column in texts.items()
        }
    growth = {side: vocabulary_growth(column) for side, column in equal.items()}
    return TextReport(metrics, lengths, growth, train_overlap)


def equal_amounts(words: dict[str, list[list[str]]], seed: int) -> tuple[dict[str, list[list[str]]], int]:
    """(texts of each side with equal numbers of tokens, that number).

    The order is random by the seed, and the last text is cut. The number is that of the shortest side, at most
    MAX_TOKENS.
    """
    num = min(MAX_TOKENS, *(sum(len(w) for w in column) for column in words.values()))
    parts = {}
    for side, column in words.items():
        part, num_free = [], num
        for place in stream(seed, f"equal {side}").permutation(len(column)):
            if not num_free:
                break
            part.append(column[place][:num_free])
            num_free -= len(part[-1])
        parts[side] = part
    return parts, num


def mean_mtld(words: Sequence[text.Tokens], seed: int) -> float | None:
    """Mean MTLD of texts of at least MTLD_TOKENS tokens; None with fewer than 5 such texts."""
    long = [w for w in words if len(w) >= MTLD_TOKENS]
    values = [text.mtld(long[i]) for i in some(len(long), MTLD_TEXTS, seed, "mtld")]
    return float(np.mean([v for v in values if v is not None])) if len(values) >= 5 else None


def vocabulary_growth(words: Sequence[text.Tokens]) -> tuple[np.ndarray, np.ndarray]:
    """(tokens read, different tokens among them), int64 (points,) each (Heaps 1978)."""
    all_tokens = [word for tokens in words for word in tokens]
    first = {word: place for place, word in reversed(list(enumerate(all_tokens)))}
    fresh = np.zeros(len(all_tokens) + 1, np.int64)
    fresh[[place + 1 for place in first.values()]] = 1
    at = np.unique(np.linspace(0, len(all_tokens), GROWTH_POINTS).astype(np.int64))
    return at, np.cumsum(fresh)[at]


def _train_overlap(words: dict[str, list[list[str]]]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """(share of each text's n-grams that occur in the train texts, by side; summary for JSON)."""
    sides = ("synthetic", "holdout")
    grams_of_interest = {g for side in sides for w in words[side] for g in text.ngrams(w, NGRAM)}
    in_train = {g for w in words["train"] for g in text.ngrams(w, NGRAM) if g in grams_of_interest}
    shares, totals = {}, {}
    for side in sides:
        by_text = [grams for w in words[side] if (grams := text.ngrams(w, NGRAM))]
        shares[side] = np.array([sum(g in in_train for g in grams) / len(grams) for grams in by_text])
        totals[side] = text.memorised_shares(words[side], words["train"], NGRAM)
    return shares, {"tokens": NGRAM, **totals}


def _copies(train: list[list[str]], others: list[list[str]]) -> float:
    """Share of texts that equal a train text token by token."""
    train_texts = {tuple(w) for w in train}
    return float(np.mean([tuple(w) in train_texts for w in others]))


def _coverage(texts: dict[str, list[str]], seed: int) -> dict[str, Any]:
    """Coverage of the holdout by synthetic texts and by as many train texts, in an embedding of the train texts."""
    embed = embedder(texts["train"], seed)
    if embed is None:
        return {"synthetic": None, "train": None}
    num = min(PRDC_ROWS, len(texts["train"]), len(texts["synthetic"]))
    embeddings = {
        side: embed([texts[side][i] for i in some(len(texts[side]), num, seed, f"embed {side}")])
        for side in ("synthetic", "train")
    }
    real = embed([texts["holdout"][i] for i in some(len(texts["holdout"]), PRDC_ROWS, seed, "embed holdout")])
    return {side: text.embedding_coverage(real, rows) for side, rows in embeddings.items()}


def embedder(texts: Sequence[str], seed: int) -> Callable[[Sequence[str]], np.ndarray] | None:
    """A function from texts to float32 (texts, width), by latent semantic analysis (Deerwester et al. 1990): weighted
    counts of words on the principal directions of `texts`. None when they have too few different words."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    counts = TfidfVectorizer(analyzer=tokens, sublinear_tf=True, max_features=MAX_WORDS)
    try:
        rows = counts.fit_transform(texts)
    except ValueError:  # no text has a word
        return None
    width = min(WIDTH, rows.shape[0] - 1, rows.shape[1] - 1)
    if width < 1:
        return None
    axes = TruncatedSVD(width, random_state=whole_number(seed, "embedder")).fit(rows)

    def embed(others: Sequence[str]) -> np.ndarray:
        rows: np.ndarray = axes.transform(counts.transform(others)).astype(np.float32)
        return rows

    return embed


def _levels(lengths: np.ndarray) -> dict[str, float]:
    low, middle, high = np.quantile(lengths, [0.05, 0.5, 0.95])
    return {"q05": float(low), "median": float(middle), "q95": float(high)}

"""Word trigram models with absolute discounting, over real English text that ships with Python.

Rows are blocks of `length` words, int32 (1, rows, length). Each row is sampled from the start: one long stream would
fall into loops that perplexity does not show. Discounting follows Ney, Essen and Kneser (1994), interpolated down to a
uniform distribution over the words of the real text.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import pyarrow as pa

from gristmill.generators.chains.contract import ChainFamily, Measures, Piece, rows_of, weights_of
from gristmill.records.errors import UserError
from gristmill.records.readers.python_texts import help_topics
from gristmill.records.words import tokens

if TYPE_CHECKING:
    from gristmill.evaluation.collapse.chains_text import TextMetrics

START, UNKNOWN = 0, 1
HOLDOUT_EVERY = 6  # every sixth block is held out
NUM_COMMON = 50  # most common words, whose means measure the drift of accepted rows


@dataclass(frozen=True)
class NgramSpec:
    """`[family]` of kind "ngram"."""

    length: int = 32  # Number of words of a row.
    discount: float = 0.75  # Absolute discount of counts, in (0, 1).
    temperature: float = 1.0  # Sampling temperature.
    text: str = "pydoc"  # Source of the real text: "pydoc", the topics of Python's help.

    def __post_init__(self) -> None:
        if self.length < 4 or not 0 < self.discount < 1 or not self.temperature > 0:
            raise ValueError("length must be at least 4, discount in (0, 1) and temperature above 0")
        if self.text != "pydoc":
            raise ValueError("text must be 'pydoc'")


class Level(NamedTuple):
    """Counts of words after contexts of one length, ordered by (context, word)."""

    contexts: np.ndarray  # int64, sorted keys of the contexts in the training text
    starts: np.ndarray  # first entry of each context
    words: np.ndarray  # int32
    discounted_counts: np.ndarray  # counts less the discount, at least 0
    ends: np.ndarray  # running sum of `discounted_counts`
    totals: np.ndarray  # count of each context


class Ngram(ChainFamily):
    """Models are three levels: words alone, after one word, and after two words."""

    kind: ClassVar[str] = "ngram"
    Spec: ClassVar[type] = NgramSpec
    block: ClassVar[int] = 1
    spec: NgramSpec

    def check(self, n: int) -> None:
        super().check(n)
        self.open()
        if n > len(self._train):
            raise UserError(
                f"family 'ngram' has {len(self._train):,} real rows of {self.spec.length} words, n is {n:,}"
            )

    def open(self) -> None:
        if hasattr(self, "_train"):
            return
        words = tokens("\n".join(help_topics().column("text").to_pylist()))
        num = len(words) // self.spec.length
        blocks = np.array(words[: num * self.spec.length], dtype=object).reshape(num, self.spec.length)
        is_holdout = np.arange(num) % HOLDOUT_EVERY == 0
        self.vocabulary = ["<s>", "<unk>", *sorted(set(blocks[~is_holdout].ravel()))]
        code = {word: at for at, word in enumerate(self.vocabulary)}
        codes = np.array([[code.get(w, UNKNOWN) for w in row] for row in blocks], np.int32)
        self._train, self._holdout = codes[~is_holdout], codes[is_holdout]
        self._reference = self.learn(self._train, np.ones(len(self._train)))

    def real(self, chains: int, num: int, random: np.random.Generator) -> np.ndarray:
        """Random rows of the text without repetition."""
        return self._train[random.permutation(len(self._train))[:num]][None]

    def fit(self, pieces: Sequence[Piece], random: np.random.Generator) -> list[Level]:
        rows = np.concatenate([rows_of(piece)[0] for piece in pieces])
        return self.learn(rows, weights_of(pieces))

    def learn(self, rows: np.ndarray, weights: np.ndarray) -> list[Level]:
        """The three levels from codes (rows, length) and weights (rows,)."""
        num = len(self.vocabulary)
        padded = np.concatenate([np.full((len(rows), 2), START, np.int64), rows.astype(np.int64)], axis=1)
        word, last, before = padded[:, 2:].ravel(), padded[:, 1:-1].ravel(), padded[:, :-2].ravel()
        heavy = np.repeat(weights, rows.shape[1])
        keys = (np.zeros_like(word), last, before * num + last)
        return [_level(key * num + word, heavy, num, self.spec.discount) for key in keys]

    def sample(self, model: list[Level], num: int, random: np.random.Generator) -> np.ndarray:
        size = len(self.vocabulary)
        before, last = np.full(num, START, np.int64), np.full(num, START, np.int64)
        rows = np.empty((num, self.spec.length), np.int32)
        for at in range(self.spec.length):
            if self.spec.temperature == 1:
                word = self._draw_words(model, before, last, random.random((num, 4)))
            else:
                shares = self._shares(model, before, last) ** (1 / self.spec.temperature)
                ends = np.cumsum(shares, axis=1)
                word = (ends <= random.random(num)[:, None] * ends[:, -1:]).sum(axis=1)
            rows[:, at] = word
            before, last = last, np.minimum(word, size - 1).astype(np.int64)
        return rows[None]

    def _draw_words(self, model: list[Level], before: np.ndarray, last: np.ndarray, levels: np.ndarray) -> np.ndarray:
        """A word after each context, from the longest context whose discounted counts the draw falls into."""
        size = len(self.vocabulary)
        word = np.full(len(last), -1, np.int64)
        for number, key in enumerate((before * size + last, last, np.zeros_like(last))):
            level = model[2 - number]
            at, is_seen = _places(level.contexts, key)
            mass = np.where(is_seen, levels[:, number] * level.totals[at], np.inf)
            first = level.starts[at]
            base = np.where(first > 0, level.ends[first - 1], 0.0)
            top = level.ends[level.starts[at + 1] - 1]
            is_here = (word < 0) & is_seen & (base + mass < top)
            place = np.searchsorted(level.ends, base[is_here] + mass[is_here], side="right")
            word[is_here] = level.words[np.clip(place, first[is_here], level.starts[at + 1][is_here] - 1)]
        rest = word < 0  # the mass that discounting reserves: any word of the text
        word[rest] = 1 + (levels[rest, 3] * (size - 1)).astype(np.int64)
        return word

    def chances(self, model: list[Level], rows: np.ndarray) -> np.ndarray:
        """Probability of each word of codes (rows, length) given those before it: float64 (rows, length)."""
        size = len(self.vocabulary)
        padded = np.concatenate([np.full((len(rows), 2), START, np.int64), rows.astype(np.int64)], axis=1)
        word, last, before = padded[:, 2:].ravel(), padded[:, 1:-1].ravel(), padded[:, :-2].ravel()
        chance = np.full(len(word), 1.0 / (size - 1))
        for level, key in zip(model, (np.zeros_like(last), last, before * size + last)):
            at, is_seen = _places(level.contexts, key)
            pairs = np.repeat(level.contexts, np.diff(level.starts)) * size + level.words
            place, is_pair = _places(pairs, key * size + word)
            discounted_counts = np.where(is_pair, level.discounted_counts[place], 0.0)
            top, first = level.ends[level.starts[at + 1] - 1], level.starts[at]
            mass = top - np.where(first > 0, level.ends[first - 1], 0.0)
            with_context = discounted_counts / level.totals[at] + (1 - mass / level.totals[at]) * chance
            chance = np.where(is_seen, with_context, chance)
        return chance.reshape(rows.shape)

    def _shares(self, model: list[Level], before: np.ndarray, last: np.ndarray) -> np.ndarray:
        """Probability of every word after each context: float64 (rows, words)."""
        size = len(self.vocabulary)
        shares = np.full((len(last), size), 1.0 / (size - 1))
        shares[:, START] = 0.0
        for level, key in zip(model, (np.zeros_like(last), last, before * size + last)):
            at, is_seen = _places(level.contexts, key)
            for row in np.flatnonzero(is_seen):
                span = slice(level.starts[at[row]], level.starts[at[row] + 1])
                total = level.totals[at[row]]
                shares[row] *= 1 - level.discounted_counts[span].sum() / total
                shares[row, level.words[span]] += level.discounted_counts[span] / total
        return shares

    def measure(self, model: list[Level], rows: np.ndarray, random: np.random.Generator) -> Measures:
        """perplexity of held-out text, and the text metrics of the rows made, with their perplexity under a model of
        all real text."""
        measures = {"perplexity": float(np.exp(-np.log(self.chances(model, self._holdout)).mean()))}
        if self.context.metrics is not None:
            measures |= self._text_metrics(self._words(rows[0]), self._reference_log_probabilities(rows[0]))
        return {name: np.array([value]) for name, value in measures.items()}

    @cached_property
    def _text_metrics(self) -> "TextMetrics":
        assert self.context.metrics is not None
        return self.context.metrics.text(self._words(self._train))

    def columns(self) -> pa.Schema:
        return pa.schema([pa.field("text", pa.string())])

    def table(self, rows: np.ndarray) -> pa.Table:
        texts = [" ".join(self.vocabulary[code] for code in row) for row in rows[0]]
        return pa.table({"text": pa.array(texts, pa.string())})

    def every_real(self) -> np.ndarray:
        return self._train[None]

    def numbers(self, rows: np.ndarray) -> np.ndarray:
        """Counts of the most common words of the real text in each row: float64 (rows, NUM_COMMON)."""
        commonest = np.argsort(-np.bincount(self._train.ravel()), kind="stable")[:NUM_COMMON]
        return np.stack([(rows[0] == word).sum(axis=1) for word in commonest], axis=1).astype(np.float64)

    def exhibit(self, rows: np.ndarray) -> Mapping[str, Any]:
        shown: dict[str, Any] = {"texts": [" ".join(words) for words in self._words(rows[0][:3])]}
        if self.context.metrics is not None:
            shown["histogram"] = self.context.metrics.text.histogram(self._reference_log_probabilities(rows[0]))
        return shown

    def facts(self) -> Mapping[str, Any]:
        """counts of each word in the real text, rows of that text, and the temperature."""
        self.open()
        counts = np.bincount(self._train.ravel())
        return {"counts": counts[counts > 0].tolist(), "rows": len(self._train), "temperature": self.spec.temperature}

    def _words(self, rows: np.ndarray) -> list[list[str]]:
        return [[self.vocabulary[code] for code in row] for row in rows.tolist()]

    def _reference_log_probabilities(self, rows: np.ndarray) -> np.ndarray:
        """Log-probability of each word under the model of all real text."""
        return np.log(self.chances(self._reference, rows))


def _level(keys: np.ndarray, weights: np.ndarray, num: int, discount: float) -> Level:
    pairs, place = np.unique(keys, return_inverse=True)
    counts = np.bincount(place, weights, len(pairs))
    contexts, starts = np.unique(pairs // num, return_index=True)
    totals = np.add.reduceat(counts, starts)
    discounted_counts = np.maximum(counts - discount, 0.0)
    return Level(
        contexts,
        np.append(starts, len(pairs)),
        (pairs % num).astype(np.int32),
        discounted_counts,
        np.cumsum(discounted_counts),
        totals,
    )


def _places(sorted_keys: np.ndarray, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(place in the sorted array, whether the key is present)."""
    at = np.minimum(np.searchsorted(sorted_keys, keys), len(sorted_keys) - 1)
    return at, sorted_keys[at] == keys

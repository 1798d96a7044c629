"""Rejects rows that contain benchmark items, by word n-gram overlap; item, share and place are the evidence.

Defaults and their sources. N-grams have 13 words (Brown et al. 2020, GPT-3, appendix C, which uses 13 as the largest N
for every task). A shorter item is searched as a whole, and an item of fewer than 8 words is skipped (the same appendix
uses 8 as the smallest N, because shorter n-grams collide by chance). GPT-3 cut text out around any shared 13-gram. Here
rows are kept or rejected whole, so a stock phrase must not be enough: a row is rejected if it contains at least half of
an item. (Cosmopedia's decontamination, Hugging Face 2024, drops a sample if the matched text is more than half of the
benchmark item.) The share is of the distinct n-grams of the item.

Words and their normal form are those of records/words.py, so case, typographic signs, full width and composition make
no difference. In scripts without spaces a word is a single character, and 13 characters of Chinese are a phrase, not a
sentence. So an item whose words are mostly such characters has n-grams of as much text as 13 words: 20 ideographs or 39
letters of Thai. It is looked for from 12 ideographs or 24 letters on. Running Chinese has 1.5 to 1.7 characters a word
(the corpora of the SIGHAN bakeoffs), running Thai or Khmer about 3 letters with their marks.
"""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
import pyarrow as pa

from gristmill.records.normal_form import tables
from gristmill.records.spec import later
from gristmill.records.words import SIXTHS
from gristmill.stages.buffers import text_buffers
from gristmill.stages.contract import Findings
from gristmill.stages.decontaminate.benchmarks import Benchmark, check_names, load
from gristmill.stages.decontaminate.stage import BenchmarkStage
from gristmill.stages.further import further_columns, with_further

BLOOM_BITS_PER_KEY = 12  # rounded up to a power of two, so 12 to 24; three probes give at most about 1.5% false hits
KEYS_PER_SLOT = 1  # average number of keys in a slot of the directory


@dataclass(frozen=True)
class DecontaminateSpec:
    """Keys of the stage `decontaminate`."""

    benchmarks: tuple[Benchmark, ...]  # Benchmarks to look for.
    # Words in an n-gram, 1 to 50; 13 is GPT-3's. In scripts without spaces, 1.5 characters of Chinese or Japanese, or 3
    # of Thai, Lao, Khmer, Burmese or Tibetan, count as a word.
    ngram: int = 13
    # Share of an item's distinct n-grams, above 0 and at most 1, from which a row is rejected; half, as in Cosmopedia.
    min_share: float = 0.5
    # Words, counted as for `ngram`, of the shortest benchmark text that is looked for; shorter texts match by chance.
    min_words: int = 8
    column: str = "text"  # Column with the text.
    # Further columns with text that are searched; by default the model's `reasoning`, where rows have it. What only
    # stands there is rejected as REASON_in_COLUMN.
    also: tuple[str, ...] | None = later(None)

    def __post_init__(self) -> None:
        check_names(self.benchmarks)
        if not 1 <= self.ngram <= 50:
            raise ValueError(f"ngram must be 1 to 50 words, not {self.ngram}")
        if not 0 < self.min_share <= 1:
            raise ValueError(f"min_share must be above 0 and at most 1, not {self.min_share}")
        if self.min_words < 1:
            raise ValueError("min_words must be at least 1")


class Decontaminate(BenchmarkStage):
    """Adds the largest overlap of each row, even a small one: benchmark, item, share and character span.

    `text[overlap_start:overlap_end]` is the longest stretch of the row's text that occurs in the item. A row that only
    its reasoning rejects has the evidence of its reasoning, and the reason overlap_in_reasoning.
    """

    kind: ClassVar[str] = "decontaminate"
    revision: ClassVar[int] = 2  # 2: words and normal form of every script
    Spec: ClassVar[type] = DecontaminateSpec
    prefix, score, reason = "overlap", "overlap_share", "overlap"
    spec: DecontaminateSpec

    def build_index(self) -> "Index":
        return Index(self.spec)

    def find(self, rows: pa.RecordBatch) -> Findings:
        assert self._index is not None, "open() first"
        further = further_columns(self.spec.also, self.spec.column, rows.schema.names)
        return with_further(rows, self._find_in(rows, self.spec.column), further, partial(self._find_in, rows))

    def _find_in(self, rows: pa.RecordBatch, column: str) -> Findings:
        return self.findings(self._index.scan(rows.column(column)), self.spec.min_share)

    def reads(self) -> list[str]:
        return [*super().reads(), *(self.spec.also or ())]


class Index:
    """The distinct n-grams of all benchmark texts and the texts that hold each; about 30 bytes an n-gram."""

    def __init__(self, spec: DecontaminateSpec) -> None:
        ids, names, texts = list[str](), list[str](), list[str]()
        for benchmark in spec.benchmarks:
            for item, text in load(benchmark):
                ids.append(item)
                names.append(benchmark.name)
                texts.append(text)
        self._fill(spec, pa.array(names, pa.string()), pa.array(ids, pa.string()), pa.array(texts, pa.large_string()))

    @classmethod
    def of(cls, spec: DecontaminateSpec, names: pa.Array, ids: pa.Array, texts: pa.Array) -> "Index":
        """An index of texts in memory, with a benchmark name and an item id for each."""
        index = cls.__new__(cls)
        index._fill(spec, names, ids, texts)
        return index

    def _fill(self, spec: DecontaminateSpec, names: pa.Array, ids: pa.Array, texts: pa.Array) -> None:
        from gristmill.stages.kernels import decontaminate as kernels
        from gristmill.stages.kernels.fold import form_room

        self.kernels, self.benchmarks, self.items = kernels, names, ids
        data, offsets = text_buffers(texts)
        room = form_room(data, offsets, tables())[1] + 1
        keys, units = np.empty(room, np.uint64), np.empty(room, np.int32)
        self.unit_words = np.zeros(len(texts), np.int32)
        lengths = np.zeros(max(SIXTHS.values()) // min(SIXTHS.values()) * spec.ngram + 1, bool)
        total = kernels.index_keys(
            data, offsets, tables(), spec.ngram, spec.min_words, keys, units, self.unit_words, lengths
        )
        self.lengths = np.flatnonzero(lengths)
        order = np.argsort(keys[:total], kind="stable")  # stable, so the units of a key stay in order
        keys, units = keys[order], units[order]
        fresh = np.ones(total, bool)
        fresh[1:] = (keys[1:] != keys[:-1]) | (units[1:] != units[:-1])  # a repeated n-gram of a text counts once
        keys, self.postings = keys[fresh], units[fresh]
        self.unit_keys = np.bincount(self.postings, minlength=len(texts)).astype(np.int32)
        first = np.ones(len(keys), bool)
        first[1:] = keys[1:] != keys[:-1]
        self.posting_starts = np.append(np.flatnonzero(first), len(keys)).astype(np.int64)
        self.keys = keys[first]

        self.directory_shift, slots = _slots(len(self.keys) // KEYS_PER_SLOT)
        self.directory = np.empty(slots + 1, np.int32 if len(self.keys) < 2**31 else np.int64)
        kernels.fill_directory(self.keys, self.directory, self.directory_shift)
        self.bloom_shift, words = _slots(len(self.keys) * BLOOM_BITS_PER_KEY // 64)
        self.bloom = np.zeros(words, np.uint64)
        kernels.fill_bloom(self.keys, self.bloom, self.bloom_shift)

    def scan(self, column: pa.Array) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(unit or -1, share of its n-grams, character span) for each row; see the kernel."""
        data, offsets = text_buffers(column)
        num_rows = len(column)
        unit, share = np.full(num_rows, -1, np.int32), np.zeros(num_rows, np.float64)
        span = np.zeros((num_rows, 2), np.int32)
        self.kernels.scan(
            data,
            offsets,
            tables(),
            self.lengths,
            self.bloom,
            self.bloom_shift,
            self.keys,
            self.directory,
            self.directory_shift,
            self.posting_starts,
            self.postings,
            self.unit_keys,
            self.unit_words,
            unit,
            share,
            span,
        )
        return unit, share, span


def _slots(num_keys: int) -> tuple[np.uint64, int]:
    """(shift, slots): the power of two at or above `num_keys`, and the shift for which key >> shift is a slot."""
    bits = max(1, (max(1, num_keys) - 1).bit_length())
    return np.uint64(64 - bits), 1 << bits

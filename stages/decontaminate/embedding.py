"""Rejects rows that restate a benchmark item in other words, by cosine of embeddings; item and place are the evidence.

N-grams miss rephrasings and translations, and models trained on those score as if they had trained on the test itself
(Yang et al. 2023, "Rethinking Benchmark and Contamination for Language Models with Rephrased Samples", sections 3 and
4). The embedding of a long row averages all that it says, so rows and items are compared window by window. A row's
paragraphs, and its long lines, are cut into overlapping windows of `window` tokens, and compared with each item's
windows.

Defaults are measured on HumanEval with all-MiniLM-L6-v2 (docs/recipes.md; tests/stages has the texts). Windows of 64
tokens were the best of 48, 64, 96 and 126. A threshold of 0.7 lies above every unrelated text that was tried (prose at
most 0.54, other programming tasks 0.62) and finds 13 of 24 thoroughly rephrased items; 0.65 finds 15. The paper lets a
model judge the nearest items: for that, lower `threshold` and add a judge.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from gristmill.engines import models
from gristmill.records.errors import UserError
from gristmill.stages import embeddings as embedding
from gristmill.stages.contract import Findings
from gristmill.stages.decontaminate.benchmarks import Benchmark, check_names, load
from gristmill.stages.decontaminate.stage import BenchmarkStage

DECIMALS = 4  # of a similarity, before the comparison
MIN_WORDS = 8  # of a paragraph; a shorter one is joined with the next
MIN_WINDOW = 8
BLOCK = 256  # windows in one comparison
VECTORS = "vectors.npy"
MAX_WRAP_WIDTH = 120  # characters; a longer line is not wrapped, so it is a paragraph by itself


@dataclass(frozen=True)
class DecontaminateEmbeddingSpec:
    """Keys of the stage `decontaminate_embedding`."""

    benchmarks: tuple[Benchmark, ...]  # Benchmarks to look for.
    # Sentence encoder: a folder, a hub id, an s3:// address or a package; the default comes in a package.
    model: str = embedding.DEFAULT
    # Cosine, above 0 and at most 1, from which a row is rejected; the default is measured on HumanEval.
    threshold: float = 0.7
    window: int = 64  # Tokens in a window, at least 8; 64 was the best of four sizes on HumanEval.
    # Tokens that consecutive windows share, less than `window`; half a window, so no item falls between two.
    overlap: int = 32
    min_words: int = 8  # Words of the shortest benchmark text that is looked for, as in `decontaminate`.
    column: str = "text"  # Column with the text.

    def __post_init__(self) -> None:
        check_names(self.benchmarks)
        if not 0 < self.threshold <= 1:
            raise ValueError(f"threshold must be a cosine above 0 and at most 1, not {self.threshold}")
        if self.window < MIN_WINDOW:
            raise ValueError(f"window must be at least {MIN_WINDOW} tokens, not {self.window}")
        if not 0 <= self.overlap < self.window:
            raise ValueError(f"overlap must lie in 0 to {self.window - 1} tokens (window = {self.window})")
        if self.min_words < 1:
            raise ValueError("min_words must be at least 1")


class DecontaminateEmbedding(BenchmarkStage):
    """Adds the nearest benchmark item of each row, even if it is too far to reject.

    `text[similar_start:similar_end]` is the window of the row nearest to the item; `similarity` is their cosine.
    """

    kind: ClassVar[str] = "decontaminate_embedding"
    Spec: ClassVar[type] = DecontaminateEmbeddingSpec
    prefix, score, reason = "similar", "similarity", "similar"
    spec: DecontaminateEmbeddingSpec

    def identity(self) -> dict[str, Any]:
        return {**super().identity(), "model": embedding.digest(self.spec.model)}

    def check(self) -> None:
        embedding.check(self.spec.model)
        super().check()

    def build_index(self) -> "Index":
        return Index(self.spec)

    def can_match(self, text: str) -> bool:
        return is_long(text, self.spec.min_words)

    def find(self, rows: pa.RecordBatch) -> Findings:
        assert self._index is not None, "open() first"
        return self.findings(self._index.scan(rows.column(self.spec.column).to_pylist()), self.spec.threshold)


class Index:
    """The windows of all benchmark texts as vectors: 384 bytes a window of MiniLM.

    Made once per node, then read from a cache.
    """

    def __init__(self, spec: DecontaminateEmbeddingSpec) -> None:
        self.encoder = embedding.Encoder(spec.model)
        if spec.window > self.encoder.max_tokens:
            raise UserError(
                f"window = {spec.window}, but '{spec.model}' takes at most {self.encoder.max_tokens} tokens"
            )
        self.window, self.step = spec.window, spec.window - spec.overlap
        names, ids, pieces = list[str](), list[str](), list[list[int]]()
        for benchmark in spec.benchmarks:
            for item, text in load(benchmark):
                tokens = self.encoder.tokens(text)[0] if is_long(text, spec.min_words) else []
                # An item is not cut at paragraphs: its first lines (imports, a header) alone are not the item.
                for first, stop in embedding.windows(len(tokens), self.window, self.step) if tokens else ():
                    names.append(benchmark.name)
                    ids.append(item)
                    pieces.append(tokens[first:stop])
        self.benchmarks, self.items = pa.array(names, pa.string()), pa.array(ids, pa.string())
        self.vectors = self._item_vectors(spec.model, pieces)

    def _item_vectors(self, model: str, pieces: list[list[int]]) -> np.ndarray:
        """Vectors of the items' windows, from the node's cache if the same packages made them."""
        import torch
        import transformers

        inputs = (embedding.digest(model), torch.__version__, transformers.__version__, pieces)
        name = f"embedded-{hashlib.blake2b(repr(inputs).encode(), digest_size=16).hexdigest()}"

        def make(folder: Path) -> None:
            np.save(folder / VECTORS, self.encoder.vectors(pieces, self.window))

        vectors: np.ndarray = np.load(Path(models.made_once(name, make)) / VECTORS)
        return vectors

    def scan(self, texts: list[str | None]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(window of an item or -1, cosine, character span) of the nearest window of each row; the first of equals."""
        unit, best = np.full(len(texts), -1, np.int32), np.zeros(len(texts))
        span = np.zeros((len(texts), 2), np.int32)
        rows, spans, pieces = list[int](), list[embedding.Span](), list[list[int]]()
        for number, text in enumerate(texts):
            for piece, characters in self._pieces(text or ""):
                rows.append(number)
                spans.append(characters)
                pieces.append(piece)
        for first in range(0, len(pieces), BLOCK):
            vectors = self.encoder.vectors(pieces[first : first + BLOCK], self.window)
            cosines = np.round(embedding.cosines(vectors, self.vectors), DECIMALS)
            nearest = cosines.argmax(axis=1)
            for number, (place, score) in enumerate(zip(nearest.tolist(), cosines.max(axis=1).tolist()), first):
                row = rows[number]
                if unit[row] < 0 or score > best[row]:
                    unit[row], best[row], span[row] = place, score, spans[number]
        return unit, best, span

    def _pieces(self, text: str) -> Iterator[tuple[list[int], embedding.Span]]:
        """The windows of a row's text: their token ids and their characters."""
        for start, stop in paragraphs(text):
            tokens, offsets = self.encoder.tokens(text[start:stop])
            if tokens:
                for first, last in embedding.windows(len(tokens), self.window, self.step):
                    yield tokens[first:last], (start + offsets[first][0], start + offsets[last - 1][1])


def paragraphs(text: str) -> list[embedding.Span]:
    """(start, stop) in characters of the parts between blank lines, and of long lines.

    A short part is joined with the next, the last one with the part before it.
    """
    parts: list[embedding.Span] = []
    start, place, num_words = 0, 0, 0  # the part begins at `start` and has `num_words` words before `place`

    def stop() -> None:
        nonlocal start, num_words
        if num_words >= MIN_WORDS:
            parts.append((start, place))
            start, num_words = place, 0

    for line in text.splitlines(keepends=True):  # line ends are white space, so no word goes over one
        is_long_line = len(line) > MAX_WRAP_WIDTH
        if is_long_line:
            stop()
        words = line.split()
        place += len(line)
        num_words += len(words)
        if is_long_line or not words:
            stop()
    stop()
    if start < len(text):
        before = parts.pop()[0] if parts else 0
        parts.append((before, len(text)))
    return parts


def is_long(text: str, min_words: int) -> bool:
    """Whether a text has at least `min_words` words."""
    return len(text.split()) >= min_words

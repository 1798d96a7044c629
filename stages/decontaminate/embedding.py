"""Rejects rows that say what a benchmark item says in other words, by cosine of embeddings; item and place as evidence.

N-grams miss rephrasings and translations, and models trained on those score as if on the test itself (Yang et al.
2023, "Rethinking Benchmark and Contamination for Language Models with Rephrased Samples", sections 3 and 4). An
embedding of a long row is a blur of all that it says, so rows and items are compared window by window: a row's
paragraphs, and lines as long as such, cut into overlapping windows of `window` tokens, against each item's windows.

Defaults are measured on HumanEval with all-MiniLM-L6-v2 (docs/recipes.md; tests/stages has the texts): windows of 64
tokens did best of 48, 64, 96 and 126, and 0.7 lies above every unrelated text that was tried (prose at most 0.54, other
programming tasks 0.62) and finds 13 of 24 items that were thoroughly rephrased; 0.65 finds 15. The paper's own
remedy is to have a model judge the nearest items: lower `threshold`, and let a judge read what is found.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.engines import models
from gristmill.records.errors import UserError
from gristmill.stages import embeddings as embedding
from gristmill.stages.contract import Findings, Stage
from gristmill.stages.decontaminate.benchmarks import Benchmark, check_names, digest, load

SIMILAR = "similar"
DECIMALS = 4  # of a similarity, before it is compared
MIN_WORDS = 8  # of a paragraph; a shorter one goes with the next
MIN_WINDOW = 8
BLOCK = 256  # windows looked up at once
VECTORS = "vectors.npy"
WRAPPED = 120  # characters; a line that is longer was not broken to fit a page, so its ends end paragraphs


@dataclass(frozen=True)
class DecontaminateEmbeddingSpec:
    """`model` is a sentence encoder (see engines.models), `threshold` a cosine in (0, 1]; `window` and `overlap` are
    tokens; `min_words` the shortest benchmark text that is looked for."""

    benchmarks: tuple[Benchmark, ...]
    model: str = embedding.DEFAULT
    threshold: float = 0.7
    window: int = 64
    overlap: int = 32
    min_words: int = 8
    column: str = "text"

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


class DecontaminateEmbedding(Stage):
    """Adds the benchmark item that is nearest to a row, also where it is too far away to reject.

    `text[similar_start:similar_end]` is the window of the row that is nearest to the item, `similarity` their cosine.
    """

    kind: ClassVar[str] = "decontaminate_embedding"
    Spec: ClassVar[type] = DecontaminateEmbeddingSpec
    spec: DecontaminateEmbeddingSpec

    def __init__(self, spec: DecontaminateEmbeddingSpec, name: str | None = None) -> None:
        super().__init__(spec, name)
        self._index: Index | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_index": None}

    def columns(self) -> list[pa.Field]:
        return [
            pa.field("similar_benchmark", pa.string()),
            pa.field("similar_item", pa.string()),
            pa.field("similarity", pa.float32()),
            pa.field("similar_start", pa.int32()),
            pa.field("similar_end", pa.int32()),
        ]

    def reads(self) -> list[str]:
        return [self.spec.column]

    def identity(self) -> dict[str, Any]:
        return {"benchmarks": [digest(b) for b in self.spec.benchmarks], "model": embedding.digest(self.spec.model)}

    def check(self) -> None:
        embedding.check(self.spec.model)
        for benchmark in self.spec.benchmarks:
            if not any(is_long(text, self.spec.min_words) for _, text in load(benchmark)):
                raise UserError(
                    f"benchmark '{benchmark.name}': every text is shorter than min_words = {self.spec.min_words}"
                )

    def open(self) -> None:
        if self._index is None:
            self._index = Index(self.spec)

    def close(self) -> None:
        self._index = None

    def find(self, rows: pa.RecordBatch) -> Findings:
        assert self._index is not None, "open() first"
        unit, similarity, span = self._index.scan(rows.column(self.spec.column).to_pylist())
        missing = unit < 0
        units = pa.array(unit, mask=missing)
        columns = {
            "similar_benchmark": self._index.benchmarks.take(units),
            "similar_item": self._index.items.take(units),
            "similarity": pa.array(similarity.astype(np.float32), mask=missing),
            "similar_start": pa.array(span[:, 0], mask=missing),
            "similar_end": pa.array(span[:, 1], mask=missing),
        }
        refused = pa.array(similarity >= self.spec.threshold)
        return Findings(columns, pc.if_else(refused, pa.scalar(SIMILAR), pa.scalar(None, pa.string())))


class Index:
    """The windows of all benchmark texts as vectors: 384 bytes a window of MiniLM. Made once per node, then read."""

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
                # An item's first lines (imports, a header) are no item: it is not cut at paragraphs.
                for first, stop in embedding.windows(len(tokens), self.window, self.step) if tokens else ():
                    names.append(benchmark.name)
                    ids.append(item)
                    pieces.append(tokens[first:stop])
        self.benchmarks, self.items = pa.array(names, pa.string()), pa.array(ids, pa.string())
        self.vectors = self._cached(spec.model, pieces)

    def _cached(self, model: str, pieces: list[list[int]]) -> np.ndarray:
        """Vectors of the items' windows, from the node's cache if they have been made there with the same packages."""
        import torch
        import transformers

        told = (embedding.digest(model), torch.__version__, transformers.__version__, pieces)
        name = f"embedded-{hashlib.blake2b(repr(told).encode(), digest_size=16).hexdigest()}"

        def make(folder: Path) -> None:
            np.save(folder / VECTORS, self.encoder.vectors(pieces, self.window))

        found: np.ndarray = np.load(Path(models.made_once(name, make)) / VECTORS)
        return found

    def scan(self, texts: list[str | None]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(window of an item or -1, cosine, character span) per row: of its nearest window, the first of several."""
        unit, best = np.full(len(texts), -1, np.int32), np.zeros(len(texts))
        span = np.zeros((len(texts), 2), np.int32)
        rows, spans, pieces = list[int](), list[embedding.Span](), list[list[int]]()
        for number, text in enumerate(texts):
            for piece, where in self._pieces(text or ""):
                rows.append(number)
                spans.append(where)
                pieces.append(piece)
        for first in range(0, len(pieces), BLOCK):
            vectors = self.encoder.vectors(pieces[first : first + BLOCK], self.window)
            found = np.round(embedding.cosines(vectors, self.vectors), DECIMALS)
            nearest = found.argmax(axis=1)
            for at, (place, score) in enumerate(zip(nearest.tolist(), found.max(axis=1).tolist()), first):
                row = rows[at]
                if unit[row] < 0 or score > best[row]:
                    unit[row], best[row], span[row] = place, score, spans[at]
        return unit, best, span

    def _pieces(self, text: str) -> Iterator[tuple[list[int], embedding.Span]]:
        """The windows of a row's text: token ids, and their characters."""
        for start, stop in paragraphs(text):
            tokens, offsets = self.encoder.tokens(text[start:stop])
            if tokens:
                for first, last in embedding.windows(len(tokens), self.window, self.step):
                    yield tokens[first:last], (start + offsets[first][0], start + offsets[last - 1][1])


def paragraphs(text: str) -> list[embedding.Span]:
    """(start, stop) in characters of the parts between blank lines, and of long lines; a short one goes with the next,
    or with the last."""
    stops, at = list[int](), 0
    for line in text.splitlines(keepends=True):
        is_own = len(line) > WRAPPED
        if is_own:
            stops.append(at)
        at += len(line)
        if is_own or not line.strip():
            stops.append(at)
    stops.append(len(text))
    made: list[embedding.Span] = []
    start = 0
    for stop in stops:
        if is_long(text[start:stop], MIN_WORDS):
            made.append((start, stop))
            start = stop
    if start < len(text):
        before = made.pop()[0] if made else 0
        made.append((before, len(text)))
    return made


def is_long(text: str, min_words: int) -> bool:
    return len(text.split()) >= min_words

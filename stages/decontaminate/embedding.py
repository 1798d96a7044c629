"""Rejects rows that restate a benchmark item in other words, by cosine of embeddings; item and place are the evidence.

N-grams miss rephrasings and translations, and models trained on those score as if they had trained on the test itself
(Yang et al. 2023, "Rethinking Benchmark and Contamination for Language Models with Rephrased Samples", sections 3 and
4). The embedding of a long row averages all that it says, so rows and items are compared window by window. A row's
paragraphs, and its long lines, are cut into overlapping windows of `window` tokens, and compared with each item's
windows. The windows that cover a row without overlap come first; those that lie between two of them are compared only
where one of the two is within SCREEN of the threshold. In planted items the nearest neighbour of a window of at least
0.7 had at least 0.65; nine tenths of the windows of unrelated prose are spared.

Defaults are measured on HumanEval with all-MiniLM-L6-v2 (docs/recipes.md; tests/stages has the texts). Windows of 64
tokens were the best of 48, 64, 96 and 126. A threshold of 0.7 lies above every unrelated text that was tried (prose at
most 0.54, other programming tasks 0.62) and finds 13 of 24 thoroughly rephrased items; 0.65 finds 15. The paper lets a
model judge the nearest items: for that, lower `threshold` and add a judge.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from gristmill.engines import models
from gristmill.engines.needs import Needs
from gristmill.records.errors import UserError
from gristmill.records.words import num_words
from gristmill.stages import embeddings as embedding
from gristmill.stages.contract import Findings
from gristmill.stages.decontaminate.benchmarks import Benchmark, check_names, load
from gristmill.stages.decontaminate.stage import BenchmarkStage
from gristmill.stages.encoders.bert import has_bfloat16
from gristmill.stages.encoders.encoder import Encoder, EncoderUse

DECIMALS = 4  # of a similarity, before the comparison
MIN_WORDS = 8  # of a paragraph; a shorter one is joined with the next
MIN_WINDOW = 8
BLOCK = 1024  # windows in one comparison
SCREEN = 0.2  # how far below the threshold a window's cosine may lie for the windows that overlap it to be compared too
VECTORS = "vectors.npy"
MAX_WRAP_WIDTH = 120  # characters; a longer line is not wrapped, so it is a paragraph by itself


@dataclass(frozen=True)
class DecontaminateEmbeddingSpec(EncoderUse):
    """Keys of the stage `decontaminate_embedding`."""

    benchmarks: tuple[Benchmark, ...]  # Benchmarks to look for.
    # Sentence encoder: a folder, a hub id, an s3:// address or a package; the default comes in a package.
    model: str = embedding.DEFAULT
    # Cosine, above 0 and at most 1, from which a row is rejected; the default is measured on HumanEval.
    threshold: float = 0.7
    window: int = 64  # Tokens in a window, at least 8; 64 was the best of four sizes on HumanEval.
    # Tokens that consecutive windows share, less than `window`; half a window, so no item falls between two.
    overlap: int = 32
    min_words: int = 8  # Words of the shortest benchmark text that is looked for, counted as in `decontaminate`.
    column: str = "text"  # Column with the text.

    def __post_init__(self) -> None:
        super().__post_init__()
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
    revision: ClassVar[int] = 3  # 3: words of every script; text that the encoder cannot read is not compared
    Spec: ClassVar[type] = DecontaminateEmbeddingSpec
    prefix, score, reason = "similar", "similarity", "similar"
    has_encoder: ClassVar[bool] = True
    spec: DecontaminateEmbeddingSpec

    def identity(self) -> dict[str, Any]:
        return {**super().identity(), "model": embedding.digest(self.spec.model)}

    @property
    def needs(self) -> Needs | None:
        return self.spec.needs

    def check(self) -> None:
        embedding.check(self.spec.model)
        super().check()

    def reader(self) -> Callable[[str], bool]:
        return embedding.reader(self.spec.model)

    def build_index(self) -> "Index":
        return Index(self.spec)

    def find(self, rows: pa.RecordBatch) -> Findings:
        assert self._index is not None, "open() first"
        return self.findings(self._index.scan(rows.column(self.spec.column).to_pylist()), self.spec.threshold)


class Index:
    """The windows of all benchmark texts as vectors: 384 bytes a window of MiniLM.

    Made once per node, then read from a cache.
    """

    def __init__(self, spec: DecontaminateEmbeddingSpec) -> None:
        self.encoder = Encoder(spec.model, spec.precision, spec.device)
        if spec.window > self.encoder.max_tokens:
            raise UserError(
                f"window = {spec.window}, but '{spec.model}' takes at most {self.encoder.max_tokens} tokens"
            )
        self.window, self.step = spec.window, spec.window - spec.overlap
        self.stride = spec.window // self.step  # every so many windows cover a paragraph
        self.least = spec.threshold - SCREEN
        names, ids, pieces = list[str](), list[str](), list[list[int]]()
        for benchmark in spec.benchmarks:
            for item, text in load(benchmark):
                tokens = self.encoder.tokens(text)[0] if num_words(text) >= spec.min_words else []
                # An item is not cut at paragraphs: its first lines (imports, a header) alone are not the item.
                for first, stop in embedding.windows(len(tokens), self.window, self.step) if tokens else ():
                    if not self.encoder.knows(tokens[first:stop]):
                        continue
                    names.append(benchmark.name)
                    ids.append(item)
                    pieces.append(tokens[first:stop])
        self.benchmarks, self.items = pa.array(names, pa.string()), pa.array(ids, pa.string())
        self.vectors = self._item_vectors(spec, pieces)

    def _item_vectors(self, spec: DecontaminateEmbeddingSpec, pieces: list[list[int]]) -> np.ndarray:
        """Vectors of the items' windows, from the node's cache if the same packages made them."""
        import torch
        import transformers

        versions = (DecontaminateEmbedding.revision, torch.__version__, transformers.__version__)
        inputs = (embedding.digest(spec.model), spec.precision, spec.device, has_bfloat16(), versions, pieces)
        name = f"embedded-{hashlib.blake2b(repr(inputs).encode(), digest_size=16).hexdigest()}"

        def make(folder: Path) -> None:
            np.save(folder / VECTORS, self.encoder.vectors(pieces, self.window))

        vectors: np.ndarray = np.load(Path(models.made_once(name, make)) / VECTORS)
        return vectors

    def scan(self, texts: list[str | None]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(window of an item or -1, cosine, character span) of the nearest window of each row; the first of equals."""
        pieces, spans = list[list[int]](), list[embedding.Span]()
        rows, before, after = list[int](), list[int](), list[int]()
        for number, text in enumerate(texts):
            for windows in self._windows(text or ""):
                start = len(pieces)
                for place, (piece, characters) in enumerate(windows):
                    pieces.append(piece)
                    spans.append(characters)
                    rows.append(number)
                    before.append(start + place - place % self.stride)
                    after.append(start + min(before[-1] - start + self.stride, len(windows) - 1))
                if windows:
                    before[-1] = len(pieces) - 1
        neighbours = np.array([before, after], np.int64).reshape(2, -1)
        units, scores = np.full(len(pieces), -1, np.int32), np.full(len(pieces), -1.0)
        is_known = np.array([self.encoder.knows(piece) for piece in pieces], bool)
        is_first = (neighbours[0] == np.arange(len(pieces))) & is_known
        self._compare(pieces, np.flatnonzero(is_first), units, scores)
        is_near = scores[neighbours].max(axis=0) >= self.least
        self._compare(pieces, np.flatnonzero(is_near & is_known & ~is_first), units, scores)
        unit, best = np.full(len(texts), -1, np.int32), np.zeros(len(texts))
        span = np.zeros((len(texts), 2), np.int32)
        for place in np.flatnonzero(units >= 0).tolist():
            row = rows[place]
            if unit[row] < 0 or scores[place] > best[row]:
                unit[row], best[row], span[row] = units[place], scores[place], spans[place]
        return unit, best, span

    def _compare(self, pieces: list[list[int]], places: np.ndarray, units: np.ndarray, scores: np.ndarray) -> None:
        """Write the nearest window of an item, and the cosine, of the pieces at `places` to `units` and `scores`."""
        for first in range(0, len(places), BLOCK):
            block = places[first : first + BLOCK]
            vectors = self.encoder.vectors([pieces[place] for place in block.tolist()], self.window)
            cosines = np.round(embedding.cosines(vectors, self.vectors), DECIMALS)
            units[block], scores[block] = cosines.argmax(axis=1), cosines.max(axis=1)

    def _windows(self, text: str) -> Iterator[list[tuple[list[int], embedding.Span]]]:
        """For each paragraph of a row its windows: their token ids and their characters."""
        for start, stop in paragraphs(text):
            tokens, offsets = self.encoder.tokens(text[start:stop])
            yield [
                (tokens[first:last], (start + offsets[first][0], start + offsets[last - 1][1]))
                for first, last in (embedding.windows(len(tokens), self.window, self.step) if tokens else ())
            ]


def paragraphs(text: str) -> list[embedding.Span]:
    """(start, stop) in characters of the parts between blank lines, and of long lines.

    A short part is joined with the next, the last one with the part before it.
    """
    parts: list[embedding.Span] = []
    start, place, length = 0, 0, 0.0  # the part begins at `start` and has `length` words before `place`

    def stop() -> None:
        nonlocal start, length
        if length >= MIN_WORDS:
            parts.append((start, place))
            start, length = place, 0.0

    for line in text.splitlines(keepends=True):  # line ends are white space, so no word goes over one
        is_long_line = len(line) > MAX_WRAP_WIDTH
        if is_long_line:
            stop()
        place += len(line)
        length += num_words(line)
        if is_long_line or line.isspace():
            stop()
    stop()
    if start < len(text):
        before = parts.pop()[0] if parts else 0
        parts.append((before, len(text)))
    return parts

"""Rejects rewritings that say something else than their original, by cosine of embeddings.

As in Kimi K2 (Kimi Team 2025, arXiv 2507.20534, section 2.2), each passage is compared with the passage that it was
made from. A row made in parts (`rephrase` with chunk_words, `megadoc`) counts by its worst part. A vector is the mean
over all of a passage. The default model reads English; another language needs a multilingual one.

The default limit is measured on Python's help topics (docs/recipes.md). A cosine tells another subject from this one,
not a true sentence from a false one: for single facts add a judge with `question = "original"`.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from gristmill.engines.needs import Needs
from gristmill.stages import embeddings
from gristmill.stages.contract import Findings, Stage
from gristmill.stages.encoders.encoder import Encoder, EncoderUse

DECIMALS = 4  # of a similarity, before the comparison
MIN_WINDOW = 8


@dataclass(frozen=True)
class FidelitySpec(EncoderUse):
    """Keys of the stage `fidelity`."""

    # Least cosine of a rewriting and its original; rows below it are rejected as "similarity". Null rejects none.
    min_similarity: float | None = 0.6
    column: str = "text"  # Column with the rewriting.
    original: str = "original"  # Column with what was rewritten.
    # Column that says which part of the text was made from which part of the original; "" compares whole texts.
    parts: str = ""
    # Sentence encoder: a folder, a hub id, an s3:// address or a package; the default comes in a package.
    model: str = embeddings.DEFAULT
    window: int = 126  # Longest piece of a text, in tokens, that is encoded as a whole.

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.min_similarity is not None and not -1 <= self.min_similarity <= 1:
            raise ValueError(f"min_similarity must be a cosine from -1 to 1, not {self.min_similarity}")
        if self.window < MIN_WINDOW:
            raise ValueError(f"window must be at least {MIN_WINDOW} tokens, not {self.window}")
        if not self.column or not self.original:
            raise ValueError("column and original must name columns")


class Fidelity(Stage):
    """Adds the cosine of each part and its original as `NAME_parts`, and the lowest of them as `NAME_similarity`."""

    kind: ClassVar[str] = "fidelity"
    Spec: ClassVar[type] = FidelitySpec
    reads_text: ClassVar[bool] = False
    spec: FidelitySpec

    def __init__(self, spec: FidelitySpec, name: str | None = None) -> None:
        super().__init__(spec, name)
        self._encoder: Encoder | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_encoder": None}

    def columns(self) -> list[pa.Field]:
        return [
            pa.field(f"{self.name}_similarity", pa.float32()),
            pa.field(f"{self.name}_parts", pa.list_(pa.float32())),
        ]

    def reads(self) -> list[str]:
        return [self.spec.column, self.spec.original, *([self.spec.parts] if self.spec.parts else [])]

    def refuses(self, field: pa.Field) -> str | None:
        if field.name == self.spec.parts:
            return None if pa.types.is_list(field.type) else "holds no parts: rephrase and megadoc write them"
        return None if pa.types.is_string(field.type) else "holds no text"

    def identity(self) -> dict[str, Any]:
        return {**super().identity(), "model": embeddings.digest(self.spec.model)}

    @property
    def needs(self) -> Needs | None:
        return self.spec.needs

    def check(self) -> None:
        embeddings.check(self.spec.model)

    def open(self) -> None:
        if self._encoder is None:
            self._encoder = Encoder(self.spec.model, self.spec.precision, self.spec.device)

    def close(self) -> None:
        self._encoder = None

    def find(self, rows: pa.RecordBatch) -> Findings:
        assert self._encoder is not None, "open() first"
        pairs = [_pairs(row, self.spec) for row in rows.select(self.reads()).to_pylist()]
        texts = list(dict.fromkeys(text for row in pairs for pair in row for text in pair))
        numbers = {text: number for number, text in enumerate(texts)}
        vectors = self._encoder.text_vectors(texts, self.spec.window)
        norms = embeddings.norms(vectors) if texts else np.zeros(0)
        similarities: list[list[float]] = []
        for row in pairs:
            a, b = ([numbers[text] for text in side] for side in zip(*row)) if row else ([], [])
            cosines = (vectors[a].astype(np.int64) * vectors[b]).sum(axis=1) / (norms[a] * norms[b])
            similarities.append([round(float(cosine), DECIMALS) for cosine in np.clip(cosines, -1.0, 1.0)])
        lowest = [min(row, default=None) for row in similarities]
        least = self.spec.min_similarity
        reasons = ["similarity" if least is not None and (low is None or low < least) else None for low in lowest]
        columns = {
            f.name: pa.array(values, f.type) for f, values in zip(self.columns(), (lowest, similarities), strict=True)
        }
        return Findings(columns, pa.array(reasons, pa.string()))


def _pairs(row: dict[str, Any], spec: FidelitySpec) -> list[tuple[str, str]]:
    """The (original, rewriting) passages of a row; a null text is empty."""
    original, text = row[spec.original] or "", row[spec.column] or ""
    if not spec.parts:
        return [(original, text)]
    return [
        (original[p["original_start"] : p["original_end"]], text[p["text_start"] : p["text_end"]])
        for p in row[spec.parts] or []
    ]

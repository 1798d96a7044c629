"""Rows that say the same as a kept row in other words, found by embedding.

As in SemDeDup (Abbas et al. 2023, arXiv 2303.09540), rows are duplicates if the cosine of their embeddings is at least
`threshold` (there 1 - epsilon). SemDeDup clusters a finished corpus with k-means and searches for pairs within
clusters. Here rows come lot by lot, and each is compared with every row kept before it (stages/dedup/nearindex.py). So
no pair is missed, and the first row stays. The verdict comes at commit, as in all dedup stages.

The default threshold is measured. Among 212 rows kept by recipes/demo.toml, 23 of 657 pairs on one topic have a cosine
of at least 0.9 and say the same (one pair has 0.95). The most similar pair on two topics has 0.84.

The vector of a text longer than `window` is the mean of the unit vectors of its parts, so all of the text counts.
Vectors depend only on the text and the precision, up to the kind of machine: another CPU may round numbers to their
neighbours, which moves a cosine by less than 0.01.

An empty text, and a text of which the encoder's vocabulary lacks half the tokens or more (as that of the default lacks
Thai), have no meaning that it could compare. Their vectors are arbitrary directions of their normal forms, so they are
duplicates only of equal texts.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from gristmill.engines.needs import Needs
from gristmill.stages import embeddings as embedding
from gristmill.stages.contract import Findings
from gristmill.stages.dedup.contract import DUPLICATE_OF, Duplicates
from gristmill.stages.encoders.encoder import Encoder, EncoderUse

MIN_WINDOW = 8
SAME = 0.99  # least cosine of two vectors of one text from different machines


@dataclass(frozen=True)
class DedupSemanticSpec(EncoderUse):
    """Keys of the stage `dedup_semantic`."""

    # Sentence encoder: a folder, a hub id, an s3:// address or a package; the default comes in a package.
    model: str = embedding.DEFAULT
    # Least cosine of two duplicates, above 0 and at most 1; the default is measured on the demo corpus.
    threshold: float = 0.9
    # Longest part of a text, in tokens, that is encoded as a whole; with two special tokens 126 make the 128 that the
    # default model was trained on.
    window: int = 126
    column: str = "text"  # Column with the text.

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.threshold <= 1:
            raise ValueError(f"threshold must be a cosine above 0 and at most 1, not {self.threshold}")
        if self.window < MIN_WINDOW:
            raise ValueError(f"window must be at least {MIN_WINDOW} tokens, not {self.window}")
        if not self.column:
            raise ValueError("column must name the text column")


class DedupSemantic(Duplicates):
    """Adds `embedding`, int8 [d], and `duplicate_of`: null until the lot commits, then the id of a kept row."""

    kind: ClassVar[str] = "dedup_semantic"
    revision: ClassVar[int] = 3  # 3: texts that the encoder cannot read equal only their like
    Spec: ClassVar[type] = DedupSemanticSpec
    signature: ClassVar[str] = "embedding"
    signature_source: ClassVar[str] = "text"
    is_divisible: ClassVar[bool] = False
    spec: DedupSemanticSpec

    def __init__(self, spec: DedupSemanticSpec, name: str | None = None) -> None:
        super().__init__(spec, name)
        self._dimension: int | None = None
        self._encoder: Encoder | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_encoder": None}

    @property
    def dimension(self) -> int:
        """Number of values in a vector; reads the model's config once."""
        if self._dimension is None:
            self._dimension = embedding.dimension(self.spec.model)
        return self._dimension

    def columns(self) -> list[pa.Field]:
        return [pa.field(self.signature, pa.list_(pa.int8(), self.dimension)), DUPLICATE_OF]

    def reads(self) -> list[str]:
        return [self.spec.column]

    def identity(self) -> dict[str, Any]:
        return {**super().identity(), "model": embedding.digest(self.spec.model)}

    @property
    def needs(self) -> Needs | None:
        return self.spec.needs

    def check(self) -> None:
        embedding.check(self.spec.model)

    def open(self) -> None:
        if self._encoder is None:
            self._encoder = Encoder(self.spec.model, self.spec.precision, self.spec.device)

    def close(self) -> None:
        self._encoder = None

    @property
    def is_exact(self) -> bool:
        return True

    @property
    def bands(self) -> int:
        """Number of keys that carry a vector; they are not looked up one by one."""
        return -(-self.dimension // 8)

    def find(self, rows: pa.RecordBatch) -> Findings:
        if self._encoder is None:  # in an audit, which compares by cosine: it needs no GPU
            self._encoder = Encoder(self.spec.model, self.spec.precision)
        texts = [text or "" for text in rows.column(self.spec.column).to_pylist()]
        vectors = self._encoder.text_vectors(texts, self.spec.window)
        column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), self.dimension)
        return Findings(
            {self.signature: column.cast(self.columns()[0].type), DUPLICATE_OF.name: pa.nulls(len(texts), pa.string())}
        )

    def agree(self, stored_signatures: pa.Array, new_signatures: pa.Array) -> bool:
        ours, theirs = (vectors_in(column, self.dimension) for column in (stored_signatures, new_signatures))
        cosines = (ours.astype(np.int64) * theirs).sum(axis=1) / (embedding.norms(ours) * embedding.norms(theirs))
        return bool((cosines >= SAME).all())

    def probe(self) -> np.ndarray:
        from gristmill.stages.dedup.nearindex import keys_of

        return keys_of((np.arange(self.dimension) % 255 - 127).astype(np.int8).reshape(1, -1))

    def keys(self, column: Any) -> np.ndarray:
        from gristmill.stages.dedup.nearindex import keys_of

        keys = np.zeros((len(column), self.bands), np.uint64)
        is_valid = column.is_valid().to_numpy(zero_copy_only=False) if len(column) else np.zeros(0, bool)
        keys[is_valid] = keys_of(vectors_in(column, self.dimension))
        return keys

    def exact_index(self, num_bands: int) -> Any:
        from gristmill.stages.dedup.nearindex import NearIndex

        return NearIndex(num_bands, self.dimension, self.spec.threshold)

    def resolve(self, keys: np.ndarray, owners: np.ndarray, alive: np.ndarray, first_owner: int) -> np.ndarray:
        answers: np.ndarray = self.exact_index(self.bands).resolve(keys, owners, alive, first_owner)
        return answers


def vectors_in(column: Any, dimension: int) -> np.ndarray:
    """int8 (n, dimension): the vectors of the rows that have one."""
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    # flatten, unlike values, respects slices and skips what lies under nulls.
    parts = [chunk.flatten().to_numpy().reshape(-1, dimension) for chunk in chunks]
    return np.concatenate(parts) if parts else np.zeros((0, dimension), np.int8)

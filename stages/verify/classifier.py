"""Keeps images that a classifier recognises with confidence. `gristmill fit` trains the model, of kind "classifier".

It runs without torch: two layers of a perceptron, as generators/images/classifier.py writes them.
"""

import io
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from gristmill.records.schema import IMAGE
from gristmill.stages.contract import Findings, Stage
from gristmill.stages.model_files import read_card, read_weights

LAYERS = 1, 3  # numbers of the linear layers in the network
UNREADABLE, OTHER, UNSURE = "unreadable", "other_class", "unsure"
NUM_DECIMALS = 4  # of the score


@dataclass(frozen=True)
class ClassifierSpec:
    """Keys of the stage `classifier`."""

    path: str  # Output of `gristmill fit` with the model.
    column: str = "image"  # Column with the images; an image of another size than the classifier's is `unreadable`.
    label: str = "label"  # Column with the expected class; "" accepts any class.
    min_score: float = 0.5  # Least probability of the predicted class, 0 to 1, of a row that is kept.

    def __post_init__(self) -> None:
        if not self.path or not self.column:
            raise ValueError("path and column must not be empty")
        if not 0 <= self.min_score <= 1:
            raise ValueError("min_score must lie in 0 to 1")


class Classifier(Stage):
    """Adds `predicted`, the likeliest class, and `class_score`, its probability."""

    kind: ClassVar[str] = "classifier"
    Spec: ClassVar[type] = ClassifierSpec
    reads_text: ClassVar[bool] = False

    def __init__(self, spec: Any, name: str | None = None) -> None:
        super().__init__(spec, name)
        self._layers: list[tuple[np.ndarray, np.ndarray]] = []
        self._card: dict[str, Any] = {}

    def columns(self) -> list[pa.Field]:
        return [pa.field("predicted", pa.string()), pa.field("class_score", pa.float32())]

    def reads(self) -> list[str]:
        return [self.spec.column, *([self.spec.label] if self.spec.label else [])]

    def refuses(self, field: pa.Field) -> str | None:
        if field.name == self.spec.column:
            return None if field.type == IMAGE else "holds no images"
        return None if pa.types.is_string(field.type) else "holds no labels"

    def identity(self) -> dict[str, Any]:
        card = self._read_card()
        return {**super().identity(), "model": [card["fingerprint"], card["weights_sha256"]]}

    def check(self) -> None:
        self._read_card()

    def _read_card(self) -> dict[str, Any]:
        return read_card(self.spec.path, self.kind, self.name)

    def open(self) -> None:
        self._card = self._read_card()
        weights = read_weights(self.spec.path, self._card, self.name)
        self._layers = [(weights[f"net/{n}.weight"], weights[f"net/{n}.bias"]) for n in LAYERS]
        columns = {c["kind"]: c for c in self._card["identity"]["schema"]["columns"]}
        self._image, self._classes = columns["image"], columns["category"]["categories"]

    def find(self, rows: pa.RecordBatch) -> Findings:
        images = rows.column(self.spec.column).to_pylist()
        labels = rows.column(self.spec.label).to_pylist() if self.spec.label else [None] * len(images)
        results = [self._one((v or {}).get("bytes"), label) for v, label in zip(images, labels)]
        predicted, scores, reasons = zip(*results)
        columns = {"predicted": pa.array(predicted, pa.string()), "class_score": pa.array(scores, pa.float32())}
        return Findings(columns, pa.array(reasons, pa.string()))

    def _one(self, data: bytes | None, label: str | None) -> tuple[str | None, float | None, str | None]:
        """(class, its probability, reason) of an image. It is computed alone, so sums do not depend on the batch."""
        pixels = self._pixels(data)
        if pixels is None:
            return None, None, UNREADABLE
        (first, shift1), (last, shift2) = self._layers
        logits = last @ np.maximum(first @ pixels + shift1, 0) + shift2
        shares = np.exp(logits.astype(np.float64) - logits.max())
        best = int(shares.argmax())
        score = round(float(shares[best] / shares.sum()), NUM_DECIMALS)
        is_other = bool(self.spec.label) and label != self._classes[best]
        reason = OTHER if is_other else UNSURE if score < self.spec.min_score else None
        return self._classes[best], score, reason

    def _pixels(self, data: bytes | None) -> np.ndarray | None:
        """float32 (channels * height * width,) in [-1, 1]; None if it is not an image of the right size."""
        from PIL import Image

        try:
            with Image.open(io.BytesIO(data or b"")) as opened:
                if opened.size != (self._image["width"], self._image["height"]):
                    return None
                image = np.asarray(opened.convert("L" if self._image["channels"] == 1 else "RGB"), np.float32)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            return None
        planes = image[None] if image.ndim == 2 else np.moveaxis(image, -1, 0)
        return planes.ravel() / np.float32(127.5) - 1

"""Hashed n-gram features of texts, and linear models over them: the input and form of a light text classifier.

As in fastText (Joulin et al. 2016, Bag of Tricks for Efficient Text Classification), n-grams are hashed into a fixed
number of buckets, so a model needs no vocabulary. A text is the set of its buckets, not their counts, so a text that
repeats itself does not outweigh the rest. The hashes, those of stages/kernels/ngrams.py, are fixed.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from gristmill.records.normal_form import tables
from gristmill.stages.buffers import text_buffers

ROWS_A_TIME = 4096  # limits the scratch memory of `features`
NUM_DECIMALS = 4  # of a score: machines differ in the last bit of `exp`, not in these
MAX_WEIGHT = (1 << 15) - 1  # largest int16


@dataclass(frozen=True)
class Features:
    """Result of `Ngrams.features`. Row r has the buckets `buckets[ends[r] : ends[r + 1]]`: distinct, unordered."""

    ends: np.ndarray  # int64 (rows + 1,)
    buckets: np.ndarray  # int32 (ends[-1],)
    shapes: np.ndarray  # float64 (rows, 3): length, share of distinct words, share of bytes in words


@dataclass(frozen=True)
class Linear:
    """A fitted model: logit = bias + shape . slopes + sum of a text's weights / sqrt(number of its buckets).

    `weights` are int16 (2^bits,) in units of `unit`: a sum of integers does not depend on its order.
    """

    weights: np.ndarray
    unit: float
    slopes: np.ndarray  # float64 (3,)
    bias: float

    def __post_init__(self) -> None:
        for name in ("weights", "slopes"):  # the kernel is compiled only for read-only arrays
            object.__setattr__(self, name, _read_only(getattr(self, name)))

    @classmethod
    def of(cls, weights: np.ndarray, slopes: np.ndarray, bias: float) -> "Linear":
        """A model from float weights, each rounded to the nearest of 65,535 levels."""
        unit = max(float(np.abs(weights).max()), 1e-12) / MAX_WEIGHT
        return cls(np.rint(weights / unit).astype(np.int16), unit, np.asarray(slopes, np.float64), float(bias))


@dataclass(frozen=True)
class Ngrams:
    """Buckets, 2^bits of them, for n-grams of 1 to `words` words and of `num_bytes` bytes (0: no byte n-grams)."""

    bits: int
    words: int
    num_bytes: int

    def features(self, column: pa.Array) -> Features:
        """Features of a string column; a null row is an empty text, which has no bucket."""
        from gristmill.stages.kernels.fold import form_room
        from gristmill.stages.kernels.ngrams import NUM_SHAPES, featurize

        ends, shapes = np.zeros(len(column) + 1, np.int64), np.zeros((len(column), NUM_SHAPES))
        parts = [np.empty(0, np.int32)]
        for start in range(0, len(column), ROWS_A_TIME):
            data, offsets = self._buffers(column.slice(start, ROWS_A_TIME))
            num_rows = len(offsets) - 1
            num_bytes, room = int(offsets[-1] - offsets[0]), form_room(data, offsets, tables())[1]
            buckets = np.empty(self.words * room + num_bytes + 1, np.int32)
            stops = ends[start + 1 : start + 1 + num_rows]
            rows = shapes[start : start + num_rows]
            featurize(data, offsets, tables(), self.bits, self.words, self.num_bytes, stops, buckets, rows)
            parts.append(buckets[: stops[-1]].copy())
            stops += ends[start]
        return Features(ends, np.concatenate(parts), shapes)

    def scores(self, column: pa.Array, model: Linear) -> np.ndarray:
        """Probability of the positive class of each text, to 4 decimals: float64 (rows,).

        The score of a text depends only on its bytes.
        """
        from gristmill.stages.kernels.ngrams import score

        data, offsets = self._buffers(column)
        out = np.empty(len(column), np.float64)
        score(
            data, offsets, tables(), self.bits, self.words, self.num_bytes, model.weights, model.unit,
            model.slopes, model.bias, out,
        )  # fmt: skip
        return np.round(out, NUM_DECIMALS)

    @staticmethod
    def _buffers(column: pa.Array) -> tuple[np.ndarray, np.ndarray]:
        data, offsets = text_buffers(column)
        return _read_only(data if data.size else np.zeros(1, np.uint8)), offsets


def _read_only(array: np.ndarray) -> np.ndarray:
    view = array.view()
    view.flags.writeable = False
    return view

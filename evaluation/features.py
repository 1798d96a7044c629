"""Tables as matrices for all metrics: numbers scaled to [0, 1] by the real train rows, categories as 0 and 1/sqrt(2).

The whole range of a number and a change of category both count 1 in the squared distance (Kotelnikov et al. 2023,
TabDDPM, distances to closest records). A category of more than MAX_WIDTH values keeps the most frequent values of the
real train rows; the other values share NUM_HASHED columns by hash.
"""

import warnings
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

from gristmill.evaluation.draws import some, whole_number
from gristmill.records.readers.datasets import pixels_of
from gristmill.records.readers.tables import Column, TableSchema

MAX_WIDTH, NUM_HASHED = 256, 56
MAX_BINS = 255
MISSING = "\0missing"
ONE = np.float32(0.5**0.5)
NET_ROWS, NET_WIDTHS = 10_000, (128, 64)
NET_STEPS, NET_BATCH = 1500, 128


def numbers(column: Column, table: pa.Table) -> np.ndarray:
    """A number column as float64 (rows,), NaN for missing values."""
    values = table.column(column.name).cast(pa.float64())
    return np.asarray(pc.fill_null(values, float("nan")).to_numpy(), np.float64) + 0.0  # -0 becomes 0


def texts(column: Column, table: pa.Table) -> pa.Array:
    """A category column with MISSING as the category of missing values."""
    values = table.column(column.name)
    return pc.fill_null(values, MISSING).combine_chunks()


def pixels(column: Column, table: pa.Table) -> np.ndarray:
    """An image column as float32 (rows, channels * height * width) in [0, 1]."""
    assert column.height and column.width and column.channels
    values = pixels_of(table.column(column.name), column.height, column.width, column.channels)
    return values.reshape(len(values), -1).astype(np.float32) / 255


@dataclass(frozen=True)
class _Part:
    """Encoding of one column."""

    column: Column
    low: float = 0.0
    span: float = 1.0
    middle: float = 0.0  # replaces missing numbers
    has_missing: bool = False
    vocabulary: tuple[str, ...] = ()
    num_hashed: int = 0

    @property
    def width(self) -> int:
        c = self.column
        if c.kind == "image":
            return (c.height or 0) * (c.width or 0) * (c.channels or 0)
        return 1 + self.has_missing if c.is_number else len(self.vocabulary) + self.num_hashed


@dataclass(frozen=True)
class Encoder:
    """Encodes tables of a schema as matrices. `fit` makes it from the real train rows."""

    schema: TableSchema
    parts: tuple[_Part, ...] = field(repr=False)

    @classmethod
    def fit(cls, schema: TableSchema, train: pa.Table, without: str | None = None) -> "Encoder":
        """An encoder with the ranges, categories and medians of `train`, without the column `without`."""
        parts = []
        for column in schema.columns:
            if column.name == without:
                continue
            if column.is_number:
                parts.append(_number_part(column, numbers(column, train)))
            elif column.kind == "category":
                parts.append(_category_part(column, texts(column, train)))
            else:
                parts.append(_Part(column))
        return cls(schema, tuple(parts))

    @property
    def width(self) -> int:
        return sum(part.width for part in self.parts)

    def encode(self, table: pa.Table) -> np.ndarray:
        """float32 (rows, width) without NaN. Numbers outside the range of the train rows are outside [0, 1]."""
        matrix = np.zeros((table.num_rows, self.width), np.float32)
        at = 0
        for part in self.parts:
            block = matrix[:, at : at + part.width]
            if part.column.is_number:
                values = numbers(part.column, table)
                is_missing = np.isnan(values)
                block[:, 0] = (np.where(is_missing, part.middle, values) - part.low) / part.span
                if part.has_missing:
                    block[:, 1] = is_missing
            elif part.column.kind == "category":
                places = _places(part, texts(part.column, table))
                block[np.arange(len(block)), places] = ONE
            else:
                block[:] = pixels(part.column, table)
            at += part.width
        return matrix

    def ranks(self, table: pa.Table) -> np.ndarray:
        """float32 (rows, columns) for trees: numbers, NaN for missing values; categories as their rank by frequency in
        the real train rows; pixels of images."""
        parts = []
        for part in self.parts:
            if part.column.is_number:
                parts.append(numbers(part.column, table)[:, None])
            elif part.column.kind == "category":
                parts.append(_places(part, texts(part.column, table))[:, None])
            else:
                parts.append(pixels(part.column, table))
        return np.hstack(parts).astype(np.float32)

    @property
    def are_categories(self) -> list[bool]:
        """Whether each column of `ranks` holds categories that are few enough for scikit-learn's histograms."""
        flags: list[bool] = []
        for part in self.parts:
            is_short = part.column.kind == "category" and part.width < MAX_BINS
            flags += [is_short] * (part.width if part.column.kind == "image" else 1)
        return flags


def _number_part(column: Column, values: np.ndarray) -> _Part:
    present = values[~np.isnan(values)]
    if not len(present):
        return _Part(column, has_missing=True)
    low, high = float(present.min()), float(present.max())
    has_missing = column.nullable or len(present) < len(values)
    return _Part(column, low, (high - low) or 1.0, float(np.median(present)), has_missing)


def _category_part(column: Column, values: pa.Array) -> _Part:
    counts = sorted((-c["counts"], c["values"]) for c in pc.value_counts(values).to_pylist())
    frequent = [value for _, value in counts]
    present = set(frequent)
    rare = [c for c in (*column.categories, *[MISSING] * column.nullable) if c not in present]
    if len(frequent) + len(rare) <= MAX_WIDTH:
        return _Part(column, vocabulary=(*frequent, *rare), num_hashed=1)  # one column for unknown values
    return _Part(column, vocabulary=tuple(frequent[: MAX_WIDTH - NUM_HASHED]), num_hashed=NUM_HASHED)


def _places(part: _Part, values: pa.Array) -> np.ndarray:
    """The feature number of each value, int64."""
    dictionary = values.dictionary_encode()
    place_of = {text: place for place, text in enumerate(part.vocabulary)}
    distinct = np.empty(len(dictionary.dictionary), np.int64)
    for number, text in enumerate(dictionary.dictionary.to_pylist()):
        hashed = len(place_of) + zlib.crc32(text.encode()) % part.num_hashed
        distinct[number] = place_of.get(text, hashed)
    return distinct[dictionary.indices.to_numpy()] if len(values) else np.zeros(0, np.int64)


def row_numbers(schema: TableSchema, tables: Sequence[pa.Table]) -> list[np.ndarray]:
    """For each table int64 (rows,): two rows have the same number if and only if they are equal in every column."""
    row_codes = np.zeros(sum(t.num_rows for t in tables), np.int64)
    for column in schema.columns:
        if column.kind == "image":
            images = np.concatenate([_image_codes(pixels(column, t)) for t in tables])
            codes = np.unique(images, return_inverse=True)[1]
        elif column.is_number:
            codes = np.unique(np.concatenate([numbers(column, t) for t in tables]), return_inverse=True)[1]
        else:
            together = pa.concat_arrays([texts(column, t) for t in tables])
            codes = together.dictionary_encode().indices.to_numpy().astype(np.int64)
        row_codes = np.unique(row_codes * (int(codes.max(initial=0)) + 1) + codes, return_inverse=True)[1]
    return np.split(row_codes, np.cumsum([t.num_rows for t in tables])[:-1])


def _image_codes(values: np.ndarray) -> np.ndarray:
    """The pixels of each row as one binary value."""
    rows = np.ascontiguousarray(np.round(values * 255).astype(np.uint8))
    return rows.view(np.dtype((np.void, rows.shape[1]))).ravel()


class FeatureNet:
    """Image features: the last hidden layer of a small network trained on the labels of the real train images.

    ImageNet features mean little for 8 x 8 digits, and their weights would need a download. Values are comparable only
    between models that are measured with the same network.
    """

    def __init__(self, images: np.ndarray, labels: np.ndarray, seed: int) -> None:
        """`images` float32 (rows, features), `labels` (rows,) of any kind, at least two different ones."""
        rows = some(len(images), NET_ROWS, seed, "feature net rows")
        state = whole_number(seed, "feature net")
        batch = min(NET_BATCH, len(rows))
        num_rounds = -(-NET_STEPS * batch // len(rows))
        net = MLPClassifier(NET_WIDTHS, max_iter=num_rounds, batch_size=batch, random_state=state)
        net.n_iter_no_change = num_rounds  # run all rounds, whatever the convergence
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # the number of steps is deliberate
            net.fit(images[rows], labels[rows])
        self.layers = list(zip(net.coefs_[:-1], net.intercepts_[:-1]))

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """float32 (rows, 64)."""
        values = images
        for weights, bias in self.layers:
            values = np.maximum(values @ weights + bias, 0)
        return values.astype(np.float32)

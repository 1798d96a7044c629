"""The model of py3langid in the layout of the kernel, kept in the node's cache.

py3langid unpacks its model in 0.7 s and 70 MB, and the conversion takes as long again. Every worker of a node needs the
result, so the first one that makes it keeps it as a file.
"""

import hashlib
import io
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from gristmill.records.cache import cache_folder
from gristmill.records.errors import UserError
from gristmill.records.stores.local import LocalStore
from gristmill.stages.buffers import aligned_zeros, text_buffers

PY3LANGID = "0.4.0"  # the release whose private arrays `convert` reads; pyproject.toml pins it
UNIT = 2.0**-9  # every weight of the model is a multiple of it
SOURCES = (Path(__file__), Path(__file__).parent.parent / "kernels" / "language.py")


class Model:
    """The arrays of py3langid, and the kernel that reads them."""

    def __init__(self) -> None:
        from py3langid.langid import LanguageIdentifier

        from gristmill.stages.kernels import language as kernels

        self.kernels = kernels
        self.prepare = LanguageIdentifier._encode  # a static method
        arrays = load()
        names = arrays.pop("labels").tolist()
        aligned = {name: _align(array) for name, array in arrays.items()}
        self.table, self.first_feature, self.features = aligned["table"], aligned["first_feature"], aligned["features"]
        self.weights, self.priors = aligned["weights"], aligned["priors"]
        self.labels = pa.array(names, pa.string())
        self.first_column = np.array([names.index(label) for label in names], np.int64)

    def classify(self, column: pa.Array, max_bytes: int) -> tuple[np.ndarray, np.ndarray]:
        """(index into `labels`, probability) of the first `max_bytes` bytes of each text.

        A null row is an empty text.
        """
        data, offsets = text_buffers(column)
        num_rows = len(column)
        ends, plain = np.empty(num_rows, np.int64), np.empty(num_rows, np.bool_)
        self.kernels.plain_spans(data, offsets, max_bytes, ends, plain)
        classes, scores = np.empty(num_rows, np.int32), np.empty(num_rows, np.float64)
        self._run(data, offsets[:-1].copy(), np.where(plain, ends, offsets[:-1]), classes, scores)
        rest = np.flatnonzero(~plain)
        if len(rest):
            # Unicode composition and case need Python: py3langid prepares these rows.
            texts = [self.prepare(data[offsets[r] : ends[r]].tobytes()) for r in rest]
            bounds = np.cumsum([0, *map(len, texts)])
            rest_classes, rest_scores = np.empty(len(rest), np.int32), np.empty(len(rest), np.float64)
            self._run(np.frombuffer(b"".join(texts), np.uint8), bounds[:-1], bounds[1:], rest_classes, rest_scores)
            classes[rest], scores[rest] = rest_classes, rest_scores
        return classes, scores

    def _run(
        self, data: np.ndarray, starts: np.ndarray, ends: np.ndarray, classes: np.ndarray, scores: np.ndarray
    ) -> None:
        self.kernels.classify(
            data,
            starts,
            ends,
            self.table,
            self.first_feature,
            self.features,
            self.weights,
            UNIT,
            self.priors,
            self.first_column,
            classes,
            scores,
        )


def labels() -> list[str]:
    """The codes of the languages, by column of the weights."""
    names: list[str] = load(only="labels")["labels"].tolist()
    return names


def load(only: str | None = None) -> dict[str, np.ndarray]:
    """The converted model, or one of its arrays: from the cache, else from py3langid, and then it is kept.

    Workers that start together may all convert it; the file of the last one stays.
    """
    store, name = LocalStore(str(cache_folder() / "language")), _file_name()
    try:
        with np.load(store.root / name, allow_pickle=False) as file:  # checks the CRC of every array that is read
            return {key: file[key] for key in ([only] if only else file.files)}
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile):
        arrays: dict[str, Any] = convert()  # no file yet, or a damaged one
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    with suppress(OSError, UserError):  # without a place for the file, every process converts the model
        store.sweep()  # what killed workers have left
        for entry in store.list():  # files of other versions
            store.delete(entry.name)
        store.put(name, buffer.getvalue())  # the file of another worker holds the same
    return arrays


def _file_name() -> str:
    digest = hashlib.blake2b(digest_size=12)
    for source in SOURCES:
        digest.update(source.read_bytes())
    return f"{PY3LANGID}-{digest.hexdigest()}.npz"


def convert() -> dict[str, np.ndarray]:
    """The arrays of py3langid in the layout of the kernel: see `gristmill.stages.kernels.language`."""
    from gristmill.stages.kernels.language import NO_FEATURE, WIDTH

    identifier = load_identifier()
    row_of = np.array(identifier.tk_row, np.int64)  # states with the same transitions share a row
    feature_of = np.array(identifier.tk_output, np.int64)
    if row_of[0] != 0:  # the kernel starts in row 0: swap it with the row of the first state
        row_of = np.where(row_of == 0, row_of[0], np.where(row_of == row_of[0], 0, row_of))
    # An entry names its feature by the row and the index among that row's features: 32 bits hold both.
    with_feature = np.flatnonzero(feature_of >= 0)
    with_feature = with_feature[np.argsort(row_of[with_feature], kind="stable")]
    num_rows = len(identifier.tk_nextmove) >> 8
    first = np.searchsorted(row_of[with_feature], np.arange(num_rows))
    place = np.full(len(row_of), NO_FEATURE, np.int64)
    place[with_feature] = np.arange(len(with_feature)) - first[row_of[with_feature]]
    entry = (row_of << 16 | place).astype(np.uint32)
    assert num_rows < 2**16 and (place[with_feature] < NO_FEATURE).all(), "py3langid's model exceeds the layout"
    moves = np.array(identifier.tk_nextmove).reshape(num_rows, 256)
    old_row = np.arange(num_rows)
    old_row[[0, int(identifier.tk_row[0])]] = old_row[[int(identifier.tk_row[0]), 0]]

    exact = np.asarray(identifier.nb_ptc, np.float32)
    multiples = np.rint(exact / UNIT)
    assert (multiples * UNIT == exact).all() and np.abs(multiples).max() < 2**13, (
        "py3langid's weights are not multiples of UNIT"
    )
    assert exact.shape[1] <= WIDTH, "py3langid's model exceeds the layout"
    weights = np.zeros((len(exact), WIDTH), np.int16)
    weights[:, : exact.shape[1]] = multiples
    return {
        "labels": np.array(list(identifier.nb_classes)),
        "table": entry[moves[old_row]].reshape(-1),
        "first_feature": first.astype(np.int32),
        "features": feature_of[with_feature].astype(np.int32),
        "weights": weights,
        "priors": np.asarray(identifier.nb_pc, np.float64),
    }


def load_identifier() -> Any:
    """py3langid's classifier with normalised probabilities."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def _align(array: np.ndarray) -> np.ndarray:
    copy = aligned_zeros(array.shape, array.dtype)
    copy[...] = array
    return copy

"""Rejects rows in other languages, by the model of py3langid over Arrow bytes (140 languages, no download)."""

from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.records.errors import UserError
from gristmill.stages.buffers import aligned_zeros, text_buffers
from gristmill.stages.contract import Findings, Stage

PY3LANGID = "0.4.0"  # the release whose private arrays `Model` reads; pyproject.toml pins it
UNIT = 2.0**-9  # every weight of the model is a multiple of it


@dataclass(frozen=True)
class LanguageSpec:
    """Keys of the stage `language`.

    The default `min_score` is the threshold of FineWeb (Penedo et al. 2024, section 3.3), there on fastText's
    probability. py3langid softens its probability by the square root of the length, so clean text of a few sentences
    scores 0.9 and more.
    """

    keep: tuple[str, ...] = ("en",)  # Languages to keep, as ISO 639 codes of py3langid.
    min_score: float = 0.65  # Least probability of the language, 0 to 1; FineWeb's threshold.
    max_bytes: int = 2048  # Number of leading bytes of a text that are examined; 2 KB identify a language.
    column: str = "text"  # Column with the text.

    def __post_init__(self) -> None:
        if not self.keep:
            raise ValueError("keep must name at least one language, e.g. 'en'")
        if not 0 <= self.min_score <= 1:
            raise ValueError(f"min_score is a probability, 0 to 1, not {self.min_score}")
        if self.max_bytes < 64:
            raise ValueError("max_bytes must be at least 64: fewer bytes do not identify a language")


class Language(Stage):
    """Adds `language` and `language_score`. Reasons: "other" (not in `keep`) and "unsure" (below `min_score`)."""

    kind: ClassVar[str] = "language"
    Spec: ClassVar[type] = LanguageSpec
    spec: LanguageSpec

    def __init__(self, spec: LanguageSpec, name: str | None = None) -> None:
        super().__init__(spec, name)
        self._model: Model | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_model": None}

    def columns(self) -> list[pa.Field]:
        return [pa.field("language", pa.string()), pa.field("language_score", pa.float32())]

    def reads(self) -> list[str]:
        return [self.spec.column]

    def identity(self) -> dict[str, Any]:
        return {**super().identity(), "py3langid": PY3LANGID}

    def check(self) -> None:
        check_release(self.name)
        codes = languages()
        for code in self.spec.keep:
            if code not in codes:
                raise UserError(f"{self.name}: keep: no language '{code}' (known: {', '.join(sorted(codes))})")

    def open(self) -> None:
        if self._model is None:
            check_release(self.name)
            self._model = model()

    def close(self) -> None:
        self._model = None

    def find(self, rows: pa.RecordBatch) -> Findings:
        assert self._model is not None, "open() first"
        classes, scores = self._model.classify(rows.column(self.spec.column), self.spec.max_bytes)
        language = self._model.labels.take(pa.array(classes))
        kept = pc.is_in(language, value_set=pa.array(self.spec.keep, pa.string()))
        sure = pa.array(scores >= self.spec.min_score)
        passes = pa.scalar(None, pa.string())
        reasons = pc.if_else(kept, pc.if_else(sure, passes, pa.scalar("unsure")), pa.scalar("other"))
        return Findings({"language": language, "language_score": pa.array(scores.astype(np.float32))}, reasons)


def check_release(stage: str) -> None:
    """Raise UserError, with the name of the stage, unless the release of py3langid is the one that `Model` reads."""
    try:
        release = version("py3langid")
    except PackageNotFoundError:
        raise UserError(f"{stage}: package py3langid is missing; pip install py3langid=={PY3LANGID}") from None
    if release != PY3LANGID:
        raise UserError(
            f"{stage}: py3langid {release} is installed, and this stage reads the model of {PY3LANGID} only; "
            f"pip install py3langid=={PY3LANGID}"
        )


class Model:
    """The arrays of py3langid, in the layout of the kernel."""

    def __init__(self) -> None:
        from gristmill.stages.kernels import language as kernels

        self.kernels = kernels
        identifier = load_identifier()
        self.prepare = identifier._encode  # a static method, so the classifier's 70 MB are freed
        row_of = np.array(identifier.tk_row, np.int64)  # states with the same transitions share a row
        feature_of = np.array(identifier.tk_output, np.int64)
        if row_of[0] != 0:  # the kernel starts in row 0: swap it with the row of the first state
            row_of = np.where(row_of == 0, row_of[0], np.where(row_of == row_of[0], 0, row_of))
        # An entry names its feature by the row and the index among that row's features: 32 bits hold both.
        with_feature = np.flatnonzero(feature_of >= 0)
        with_feature = with_feature[np.argsort(row_of[with_feature], kind="stable")]
        num_rows = len(identifier.tk_nextmove) >> 8
        first = np.searchsorted(row_of[with_feature], np.arange(num_rows))
        place = np.full(len(row_of), kernels.NO_FEATURE, np.int64)
        place[with_feature] = np.arange(len(with_feature)) - first[row_of[with_feature]]
        entry = (row_of << 16 | place).astype(np.uint32)
        assert num_rows < 2**16 and (place[with_feature] < kernels.NO_FEATURE).all(), (
            "py3langid's model exceeds the layout"
        )
        moves = np.array(identifier.tk_nextmove).reshape(num_rows, 256)
        old_row = np.arange(num_rows)
        old_row[[0, int(identifier.tk_row[0])]] = old_row[[int(identifier.tk_row[0]), 0]]
        self.table = _align(entry[moves[old_row]].reshape(-1))
        self.first_feature = first.astype(np.int32)
        self.features = feature_of[with_feature].astype(np.int32)

        weights = np.asarray(identifier.nb_ptc, np.float32)
        multiples = np.rint(weights / UNIT)
        assert (multiples * UNIT == weights).all() and np.abs(multiples).max() < 2**13, (
            "py3langid's weights are not multiples of UNIT"
        )
        assert weights.shape[1] <= kernels.WIDTH, "py3langid's model exceeds the layout"
        self.weights = aligned_zeros((len(weights), kernels.WIDTH), np.int16)
        self.weights[:, : weights.shape[1]] = multiples
        self.priors = np.asarray(identifier.nb_pc, np.float64)
        labels = list(identifier.nb_classes)
        self.labels = pa.array(labels, pa.string())
        self.first_column = np.array([labels.index(label) for label in labels], np.int64)

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


@lru_cache(maxsize=1)
def model() -> Model:
    """The model of this process: loading it takes two seconds, and the stages of several runs read the same one."""
    return Model()


@lru_cache(maxsize=1)
def languages() -> frozenset[str]:
    """The codes of the languages that the model knows."""
    return frozenset(load_identifier().nb_classes)


def load_identifier() -> Any:
    """py3langid's classifier with normalised probabilities."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def _align(array: np.ndarray) -> np.ndarray:
    copy = aligned_zeros(array.shape, array.dtype)
    copy[...] = array
    return copy

"""`quality`: a light classifier of good texts, trained on judged rows; the stage `quality` applies it on CPU.

Gunasekar et al. 2023 (Textbooks Are All You Need, section 2.1) label some 100,000 files with a large model and filter
the rest with a classifier trained on them. Theirs reads embeddings; this one is a logistic regression on hashed n-grams
(stages/ngrams.py), like the fastText classifier of Li et al. 2024 (DataComp-LM, section 4.4). It makes no rows.
"""

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.generators.families.contract import Family, SampleBlock, State
from gristmill.generators.private.account import Account
from gristmill.records.errors import UserError
from gristmill.records.readers.tables import TableSchema
from gristmill.records.words import text_key
from gristmill.stages.ngrams import NUM_DECIMALS, Features, Linear, Ngrams

MIN_EACH, MIN_EACH_HOLDOUT = 50, 5  # smallest number of rows of each class: in total, and in the holdout
MIN_ROWS_OF_THRESHOLD = 20  # smallest number of kept rows from which a precision is estimated
NUM_FOLDS = 3  # folds of the cross-validation that chooses the threshold
SPLIT, FOLD = b"split", b"fold"  # purposes for which texts are hashed
MAX_ITERATIONS = 500


@dataclass(frozen=True)
class QualitySpec:
    """Settings of `quality`: give `threshold` for numeric labels, `positive` for categories."""

    text: str = "text"  # column of the texts
    label: str = "judge_score"  # column of the labels, numeric or category; rows without a text or a label are left out
    threshold: float | None = None  # rows whose numeric label is at least this are good
    positive: str | None = None  # rows whose category label is this are good
    min_score: float | None = None  # score from which the stage keeps a row, in 0 to 1; default: 0.5
    # share of the kept rows that must be good; sets the lowest score that reaches it, by cross-validation
    min_precision: float | None = None
    # share of the rows, drawn by their texts, that the report is about and the model does not learn from
    holdout: float = 0.2
    max_rows: int = 50_000  # rows to learn from at most, drawn by their texts (50,000 rows of 2 KB take some 4 GB)
    bits: int = 18  # log2 of the number of n-gram buckets
    words: int = 2  # longest n-gram of words, in words
    num_bytes: int = 5  # length of n-grams of bytes, in bytes
    c: float = 10.0  # inverse strength of the L2 penalty of the logistic regression

    def __post_init__(self) -> None:
        if (self.threshold is None) == (self.positive is None):
            raise ValueError("give either threshold (from which score on a row is good) or positive (of a category)")
        if self.min_score is not None and self.min_precision is not None:
            raise ValueError("give either min_score or min_precision")
        for name in ("min_score", "min_precision"):
            if (value := getattr(self, name)) is not None and not 0 < value < 1:
                raise ValueError(f"{name} must lie between 0 and 1")
        if not 0 < self.holdout < 1 or self.c <= 0 or self.max_rows < 1:
            raise ValueError("holdout must lie between 0 and 1, c and max_rows must be above 0")
        if not (10 <= self.bits <= 24 and 1 <= self.words <= 5 and 0 <= self.num_bytes <= 8):
            raise ValueError("bits must lie in 10..24, words in 1..5, num_bytes in 0..8")


class Quality(Family):
    """Fitted by `begin` alone: a convex problem, so the same rows give the same weights."""

    kind: ClassVar[str] = "quality"
    revision: ClassVar[int] = 2  # 2: words and normal form of every script
    Spec: ClassVar[type] = QualitySpec
    extra: ClassVar[str] = "tables"
    packages: ClassVar[tuple[str, ...]] = ("sklearn", "scipy")
    makes_rows: ClassVar[bool] = False
    used_by: ClassVar[str] = '[[stages]] kind = "quality", path = "{uri}"'
    spec: QualitySpec

    def __init__(self, spec: QualitySpec, schema: TableSchema) -> None:
        super().__init__(spec, schema)
        self.ngrams = Ngrams(spec.bits, spec.words, spec.num_bytes)
        self.model: Linear | None = None
        self.facts: dict[str, Any] = {}

    def check(self) -> None:
        spec = self.spec
        if sorted(self.schema.names) != sorted((spec.text, spec.label)):
            raise UserError(
                f"model 'quality' learns from two columns, '{spec.text}' and '{spec.label}', but the schema has "
                f"{', '.join(self.schema.names)}; name them by model.text and model.label"
            )
        if self.schema.column(spec.text).kind != "text":
            raise UserError(f"model 'quality': column '{spec.text}' must be of kind \"text\"; declare it in [schema]")
        label = self.schema.column(spec.label)
        if spec.threshold is not None and not label.is_number:
            raise UserError(f"model.threshold is for numbers, but '{spec.label}' is {label.kind}; give model.positive")
        if spec.positive is not None and spec.positive not in label.categories:
            raise UserError(f"model.positive: '{spec.positive}' is none of the categories of '{spec.label}'")

    def check_rows(self, table: pa.Table) -> None:
        _, labels, _ = self._texts_and_labels(table)
        self._enough(labels, MIN_EACH, "rows")

    def _enough(self, labels: np.ndarray, least: int, noun: str) -> None:
        spec, num_good = self.spec, int(labels.sum())
        rule = (
            f"{spec.label} >= {spec.threshold:g}" if spec.threshold is not None else f"{spec.label} = {spec.positive}"
        )
        for name, count in (("good", num_good), ("not good", len(labels) - num_good)):
            if count < least:
                raise UserError(
                    f"model 'quality' needs {least} {noun} of either class, but {count} of {len(labels):,} are {name} "
                    f"({rule}): judge more rows, take the rejected ones too (data.rejected = true), or move threshold"
                )

    def _texts_and_labels(self, table: pa.Table) -> tuple[pa.Array, np.ndarray, int]:
        """(texts, whether each is good, number of rows without a text or a label)."""
        both = table.select([self.spec.text, self.spec.label]).combine_chunks()
        complete = both.filter(pc.and_(both[0].is_valid(), both[1].is_valid()))
        texts, values = complete[0].combine_chunks().cast(pa.large_string()), complete[1]
        if self.spec.threshold is not None:
            labels = pc.greater_equal(values.cast(pa.float64()), self.spec.threshold)
        else:
            labels = pc.equal(values, self.spec.positive)
        return texts, labels.to_numpy().astype(np.int64), table.num_rows - complete.num_rows

    # Fitting.

    def begin(self, table: pa.Table, seed: int, account: Account | None) -> None:
        texts, labels, num_left_out = self._texts_and_labels(table)
        keys = [text_key(text) for text in texts.to_pylist()]
        if len(keys) > self.spec.max_rows:
            chosen_rows = np.sort(np.argsort(_draws(keys, seed, b"rows"), kind="stable")[: self.spec.max_rows])
            texts, labels, keys = (
                texts.take(pa.array(chosen_rows)),
                labels[chosen_rows],
                [keys[row] for row in chosen_rows],
            )
        is_holdout = _draws(keys, seed, SPLIT) < self.spec.holdout
        training, holdout = np.flatnonzero(~is_holdout), np.flatnonzero(is_holdout)
        self._enough(labels[holdout], MIN_EACH_HOLDOUT, "held-out rows")
        self._enough(labels[training], MIN_EACH_HOLDOUT * NUM_FOLDS, "rows to learn from")
        features = self.ngrams.features(texts)
        model = self._fit(features, labels, training)
        threshold = self.spec.min_score or 0.5
        if self.spec.min_precision is not None:
            folds = (_draws(keys, seed, FOLD) * NUM_FOLDS).astype(int)
            scores = np.empty(len(labels))
            for fold in range(NUM_FOLDS):
                inner, outer = training[folds[training] != fold], training[folds[training] == fold]
                scores[outer] = self.ngrams.scores(texts.take(pa.array(outer)), self._fit(features, labels, inner))
            threshold = lowest(scores[training], labels[training], self.spec.min_precision)
        scores = self.ngrams.scores(texts.take(pa.array(holdout)), model)
        self.model = model
        self.facts = {
            "threshold": round(threshold, NUM_DECIMALS),
            "held_out": report(scores, labels[holdout], threshold),
            "learnt_from": {"rows": len(training), "base_rate": round(float(labels[training].mean()), NUM_DECIMALS)},
            "left_out": num_left_out,
        }

    def _fit(self, features: Features, labels: np.ndarray, rows: np.ndarray) -> Linear:
        """Logistic regression over the rows. Each bucket of a text weighs 1 / sqrt(its number of buckets), so that the
        length does not count twice."""
        from scipy import sparse
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression

        if labels[rows].min() == labels[rows].max():
            raise UserError("model 'quality': a part of the rows has one class only; judge more rows")
        counts = np.diff(features.ends)
        values = np.repeat(1 / np.sqrt(np.maximum(counts, 1)), counts)
        shape = len(counts), 1 << self.spec.bits
        grams = sparse.csr_matrix((values, features.buckets, features.ends), shape)[rows]
        matrix = sparse.hstack([grams, sparse.csr_matrix(features.shapes[rows])], "csr")
        with warnings.catch_warnings():
            warnings.simplefilter("error", ConvergenceWarning)
            try:
                regression = LogisticRegression(C=self.spec.c, max_iter=MAX_ITERATIONS).fit(matrix, labels[rows])
            except ConvergenceWarning:
                raise UserError(
                    f"model 'quality' did not settle in {MAX_ITERATIONS} iterations; lower model.c"
                ) from None
        weights = regression.coef_[0]
        return Linear.of(weights[: shape[1]], weights[shape[1] :], float(regression.intercept_[0]))

    def model_state(self) -> State:
        assert self.model is not None
        model = self.model
        arrays = {
            "weights": model.weights,
            "unit": np.array([model.unit]),
            "slopes": model.slopes,
            "bias": np.array([model.bias]),
        }
        return State(arrays, self.facts)

    def restore(self, model_state: State, training_state: State | None = None) -> None:
        arrays, self.facts = model_state.tensors, model_state.facts
        self.model = Linear(arrays["weights"], float(arrays["unit"][0]), arrays["slopes"], float(arrays["bias"][0]))

    def sample(self, requests: Sequence[Mapping[str, Any]], seeds: np.ndarray) -> SampleBlock:
        raise AssertionError("a quality classifier makes no rows")

    @classmethod
    def summary(cls, facts: Mapping[str, Any]) -> Mapping[str, str]:
        holdout = facts["held_out"]
        precision = "none kept" if holdout["precision"] is None else f"{holdout['precision']:.3f}"
        return {
            "held-out rows": f"{holdout['rows']:,}, {holdout['base_rate']:.1%} of them good; AUC {holdout['auc']:.3f}",
            "kept of them": f"{holdout['kept']:,}, from score {facts['threshold']:g} on: precision {precision}, "
            f"recall {holdout['recall']:.3f}",
        }


def _draws(keys: Sequence[bytes], seed: int, purpose: bytes) -> np.ndarray:
    """A number in [0, 1) for each text, equal for equal texts: float64 (keys,)."""
    salt = seed.to_bytes(8, "little") + purpose
    numbers = [int.from_bytes(hashlib.blake2b(key, digest_size=8, key=salt).digest(), "little") >> 11 for key in keys]
    return np.array(numbers, np.float64) / (1 << 53)


def lowest(scores: np.ndarray, labels: np.ndarray, min_precision: float) -> float:
    """The lowest threshold that keeps at least 20 rows, of which a share of at least `min_precision` is good.

    Raises UserError if there is none; the message names the best precision.
    """
    order = np.argsort(-scores, kind="stable")
    good, num_rows = np.cumsum(labels[order]), np.arange(1, len(scores) + 1)
    is_last = np.append(scores[order][1:] != scores[order][:-1], True)  # of the rows with an equal score
    usable = is_last & (num_rows >= MIN_ROWS_OF_THRESHOLD)
    if not usable.any():
        raise UserError(f"min_precision needs {MIN_ROWS_OF_THRESHOLD} rows to learn from")
    precision = good / num_rows
    enough = np.flatnonzero(usable & (precision >= min_precision))
    if not len(enough):
        best = np.flatnonzero(usable)[precision[usable].argmax()]
        raise UserError(
            f"no threshold has a precision of {min_precision:g}: the best is {precision[best]:.3f}, from score "
            f"{scores[order][best]:g} on; lower model.min_precision or judge more rows"
        )
    return float(scores[order][enough[-1]])


def report(scores: np.ndarray, labels: np.ndarray, threshold: float) -> dict[str, Any]:
    """Scores of a classifier on rows of both classes. precision: share of the kept rows that are good (None if none is
    kept); recall: share of the good rows that are kept; base_rate: the precision of keeping everything."""
    from sklearn.metrics import roc_auc_score

    is_kept = scores >= threshold
    num_right = int((is_kept & (labels == 1)).sum())
    scores_by_name = {
        "base_rate": labels.mean(),
        "precision": num_right / is_kept.sum() if is_kept.any() else None,
        "recall": num_right / labels.sum(),
        "auc": roc_auc_score(labels, scores),
    }
    rounded = {name: None if v is None else round(float(v), NUM_DECIMALS) for name, v in scores_by_name.items()}
    return {"rows": len(labels), "kept": int(is_kept.sum()), **rounded}

"""Rejects rows in other languages, by the model of py3langid over Arrow bytes (140 languages, no download)."""

from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.records.errors import UserError
from gristmill.stages.contract import Findings, Stage
from gristmill.stages.filters.language_model import PY3LANGID, Model, labels


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
        codes = labels()
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


@lru_cache(maxsize=1)
def model() -> Model:
    """The model of this process; the stages of several runs read the same one."""
    return Model()

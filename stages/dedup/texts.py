"""Near-duplicates of kept texts by MinHash: signatures here, verdicts at commit (see stages/dedup/contract.py)."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.records.spec import later
from gristmill.stages.contract import Findings
from gristmill.stages.dedup import minhash
from gristmill.stages.dedup.contract import DUPLICATE_OF, EXISTING, EXISTING_COLUMNS, Duplicates, IndexSpec
from gristmill.stages.dedup.existing import Existing


@dataclass(frozen=True)
class DedupSpec(IndexSpec):
    """Keys of the stage `dedup`."""

    # Jaccard similarity of word n-grams from which two texts are duplicates, about; 0 to 1, both excluded.
    threshold: float = 0.8
    # Number of MinHash permutations, 16 to 4096; more make the threshold sharper and signatures longer.
    num_perm: int = 128
    ngram: int = 5  # Words in an n-gram, 1 to 1000; 5 is usual for documents, shorter texts need fewer.
    column: str = "text"  # Column with the text.
    # Corpora whose texts must not come again: outputs of runs, releases, or any files that a source reads. Rows like
    # theirs are rejected as `existing`. Their texts are in `column`.
    against: tuple[str, ...] = later(())

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.threshold < 1:
            raise ValueError(f"threshold must lie between 0 and 1, not {self.threshold}")
        if not 16 <= self.num_perm <= 4096:
            raise ValueError(f"num_perm must lie in 16 to 4096, not {self.num_perm}")
        if not 1 <= self.ngram <= 1000:
            raise ValueError(f"ngram must lie in 1 to 1000, not {self.ngram}")
        if not self.column:
            raise ValueError("column must name the text column")
        if len({address.rstrip("/") for address in self.against}) < len(self.against) or not all(self.against):
            raise ValueError("against must name each corpus once")


class Dedup(Duplicates):
    """Adds `minhash`, uint32 [num_perm], and `duplicate_of`: null until the lot commits, then the id of a kept row.

    With `against` also `existing_source` and `existing_id`: the corpus and the id of the row that a row repeats. The
    index of these corpora is frozen (stages/dedup/existing.py), so this verdict comes before the commit.
    """

    kind: ClassVar[str] = "dedup"
    revision: ClassVar[int] = 2  # 2: words and normal form of every script; texts without words equal only their like
    Spec: ClassVar[type] = DedupSpec
    signature: ClassVar[str] = "minhash"
    signature_source: ClassVar[str] = "text"

    def __init__(self, spec: Any, name: str | None = None) -> None:
        super().__init__(spec, name)
        self._minhash = pa.list_(pa.uint32(), spec.num_perm)
        self._existing: Existing | None = None

    @property
    def existing(self) -> Existing | None:
        """The corpora of `against`, None without. Raises UserError when one cannot be read."""
        if self._existing is None and self.spec.against:
            signing = {key: getattr(self.spec, key) for key in ("num_perm", "ngram", "column")}
            signing |= {"kind": self.kind, "revision": self.revision}
            keying = [self.bands, self.rows, self.probe().tolist()]
            self._existing = Existing(
                self.spec.against, self.spec.column, signing, keying, self.bands, self._keys_of_rows
            )
        return self._existing

    def _keys_of_rows(self, rows: pa.Table) -> np.ndarray:
        """Keys of the rows of a corpus, which hold their signatures or their texts."""
        if self.signature in rows.column_names:
            return self.keys(rows.column(self.signature))
        return self.keys(self._signed(rows.column(self.spec.column).combine_chunks()))

    def identity(self) -> dict[str, Any]:
        # The corpora replace their addresses.
        return {**super().identity(), **({"against": self.existing.identity} if self.existing else {})}

    def columns(self) -> list[pa.Field]:
        more = EXISTING_COLUMNS if self.spec.against else ()
        return [pa.field("minhash", self._minhash), DUPLICATE_OF, *more]

    def reads(self) -> list[str]:
        return [self.spec.column]

    @property
    def bands(self) -> int:
        """Number of bands, chosen by datasketch for the threshold. Raises ValueError if it is a single band."""
        return minhash.optimal_bands(self.spec.threshold, self.spec.num_perm)[0]

    @property
    def rows(self) -> int:
        """Number of permutations in a band."""
        return minhash.optimal_bands(self.spec.threshold, self.spec.num_perm)[1]

    def check(self) -> None:
        from gristmill.records.errors import UserError

        try:
            minhash.optimal_bands(self.spec.threshold, self.spec.num_perm)
        except ValueError:
            keys = f"threshold {self.spec.threshold} with {self.spec.num_perm} permutations"
            raise UserError(f"{self.name}: {keys} leaves one band; lower the threshold or raise num_perm") from None
        for corpus in self.existing.corpora if self.existing else ():
            corpus.check(self.spec.column)

    def open(self) -> None:
        minhash.signatures(pa.array(["compile or load the kernels before the first lot"]), 16)
        if self.existing:
            self.existing.make()

    def close(self) -> None:
        if self._existing:
            self._existing.close()

    def signatures(self, rows: pa.RecordBatch) -> pa.Array:
        return self._signed(rows.column(self.spec.column))

    def _signed(self, texts: pa.Array) -> pa.Array:
        signatures = minhash.signatures(texts, self.spec.num_perm, self.spec.ngram)
        return pa.FixedSizeListArray.from_arrays(pa.array(signatures.reshape(-1)), type=self._minhash)

    def find(self, rows: pa.RecordBatch) -> Findings:
        column = self.signatures(rows)
        findings = {"minhash": column, "duplicate_of": pa.nulls(len(column), pa.string())}
        if not self.existing:
            return Findings(findings)
        sources, ids = self.existing.matches(self.keys(column))
        findings |= {field.name: values for field, values in zip(EXISTING_COLUMNS, (sources, ids))}
        return Findings(findings, pc.if_else(ids.is_valid(), pa.scalar(EXISTING), pa.scalar(None, pa.string())))

    def probe(self) -> np.ndarray:
        signature = np.arange(self.spec.num_perm, dtype=np.uint32).reshape(1, -1)
        return minhash.band_keys(signature, self.bands, self.rows)

    def keys(self, column: Any) -> np.ndarray:
        if isinstance(column, pa.ChunkedArray):
            parts = [self.keys(chunk) for chunk in column.chunks]
            return np.concatenate(parts) if parts else np.zeros((0, self.bands), np.uint64)
        # flatten, unlike values, respects slices and skips what lies under nulls.
        flat = column.flatten().to_numpy().reshape(-1, self.spec.num_perm)
        valid_keys = minhash.band_keys(flat, self.bands, self.rows)
        if not column.null_count:
            return valid_keys
        keys = np.zeros((len(column), self.bands), np.uint64)
        keys[column.is_valid().to_numpy(zero_copy_only=False)] = valid_keys
        return keys

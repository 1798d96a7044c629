"""Keeps a row only if its ROUGE-L similarity with every kept row is low, as self-instruct keeps instructions.

Wang et al. 2022 (Self-Instruct, section 2.2) add an instruction to the pool only if its ROUGE-L similarity with every
instruction in the pool is below 0.7. ROUGE-L here is the F1 score of the longest common subsequence of words (Lin
2004), 2 LCS / (m + n), which is rapidfuzz's normalised indel similarity. Each row is compared with every kept row, so
this suits pools of some ten thousand short texts; use MinHash dedup for larger ones.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from gristmill.records.errors import UserError
from gristmill.records.ids import row_id
from gristmill.records.spec import later
from gristmill.records.words import words_or_text
from gristmill.stages.admission.contract import Admission, AdmissionBook, AdmissionVerdict, ReadKept
from gristmill.stages.contract import RunContext

SIMILAR, TOO_LONG = "similar", "too_long"
NUM_DECIMALS = 4
MAX_SEEDS = 100_000
SEED = -1  # the ask number of a row of the source
FIRST_CHARACTER = 0xE000  # above the surrogates, which are not characters
NUM_CHARACTERS = 0x110000 - FIRST_CHARACTER


@dataclass(frozen=True)
class NoveltySpec:
    """Keys of the stage `novelty`."""

    column: str = "instruction"  # Column with the text that must be new.
    # ROUGE-L similarity, above 0 and at most 1, from which a row is rejected as `similar`; 0.7 is self-instruct's.
    max_rouge_l: float = 0.7
    # Whether the rows of the source count as kept before the run, by the same column, if they have it.
    seeds: bool = True
    # Longest text that is compared, in words, at least 1; a longer one is rejected as `too_long`, because the time of a
    # comparison grows with the product of the lengths.
    max_words: int = later(4096)

    def __post_init__(self) -> None:
        if self.max_words < 1:
            raise ValueError("max_words must be at least 1")
        if not 0 < self.max_rouge_l <= 1:
            raise ValueError(f"max_rouge_l must lie above 0 and at most at 1, not {self.max_rouge_l}")


class Novelty(Admission):
    """Adds `rouge_l` and `nearest`: the largest similarity with a row kept before, and the id of that row.

    `nearest` is "seed" for a row of the source. Both are null until the lot commits, and for rows similar to none.
    """

    kind: ClassVar[str] = "novelty"
    revision: ClassVar[int] = 3  # 3: words of every script; a text without words is new unless it is equal
    Spec: ClassVar[type] = NoveltySpec
    has_seeds: ClassVar[bool] = True
    spec: NoveltySpec

    def __init__(self, spec: NoveltySpec, name: str | None = None) -> None:
        super().__init__(spec, name)
        self._seeds: list[list[str]] = []
        self._run: tuple[str, int, int] | None = None  # fingerprint, generation, lot size

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_seeds": []}  # only the driver's book needs them

    def columns(self) -> list[pa.Field]:
        return [pa.field("rouge_l", pa.float32()), pa.field("nearest", pa.string())]

    def reads(self) -> list[str]:
        return [self.spec.column]

    @property
    def reads_source(self) -> bool:
        return self.spec.seeds

    def bind(self, run: RunContext) -> None:
        source, self._run = run.source, (run.fingerprint, run.generation, run.lot_size)
        self._seeds = []
        if self.spec.seeds:
            if source.num_rows > MAX_SEEDS:
                raise UserError(
                    f"{self.name}: seeds = true compares with every row of the source, which has "
                    f"at most {MAX_SEEDS:,} then, not {source.words}; set seeds = false"
                )
            for _, text in source.rows(0, source.num_rows):
                try:
                    row = json.loads(text)
                except (ValueError, RecursionError):
                    continue  # the generator rejects this row
                if isinstance(row, dict) and isinstance(value := row.get(self.spec.column), str):
                    self._seeds.append(words_or_text(value))

    def offers(self, batch: Any) -> list[Any]:
        most = self.spec.max_words + 1  # one more tells that a text is too long
        return [words_or_text(text or "")[:most] for text in batch.column(self.spec.column).to_pylist()]

    def new_book(self) -> AdmissionBook:
        return TextBook(self.spec, self._seeds, self._id)

    def _id(self, ask: int) -> str:
        if ask == SEED or self._run is None:
            return "seed"
        fingerprint, generation, lot_size = self._run
        return row_id(fingerprint, generation, *divmod(ask, lot_size))

    def refill(self, book: AdmissionBook, counts: Mapping[str, int], read_rows: ReadKept) -> None:
        assert self._run is not None
        for lot, table in read_rows(["row", self.spec.column]):
            texts = table.column(self.spec.column).to_pylist()
            for row, text in zip(table.column("row").to_pylist(), texts):
                book.admit(words_or_text(text or ""), lot * self._run[2] + row)


class TextBook(AdmissionBook):
    """The words of all kept texts, in the order in which they were kept."""

    def __init__(self, spec: NoveltySpec, seeds: list[list[str]], name: Any) -> None:
        self.spec, self._name = spec, name
        self._ids: dict[str, int] = {}
        self._texts: list[str] = []  # one character for each word, because rapidfuzz is fastest on strings
        self._asks: list[int] = []
        for seed in seeds:
            self.admit(seed, SEED)

    def _text(self, text: list[str]) -> str:
        """The words as characters.

        Words of no kept text get characters for this call only: a rejected row leaves no trace.
        """
        others: dict[str, int] = {}
        numbers = []
        for word in text:
            number = self._ids.get(word)
            numbers.append(len(self._ids) + others.setdefault(word, len(others)) if number is None else number)
        if len(self._ids) + len(others) > NUM_CHARACTERS:
            raise UserError(f"novelty: the kept rows have more than {NUM_CHARACTERS:,} different words; use dedup")
        return "".join([chr(FIRST_CHARACTER + number) for number in numbers])

    def judge(self, offer: Any, ask: int) -> AdmissionVerdict:
        from rapidfuzz.distance import Indel
        from rapidfuzz.process import extractOne

        if len(offer) > self.spec.max_words:
            return AdmissionVerdict(TOO_LONG)
        best = extractOne(self._text(offer), self._texts, scorer=Indel.normalized_similarity)
        if best is None or not offer:
            return AdmissionVerdict()
        _, score, at = best
        score = round(float(score), NUM_DECIMALS)
        if not score:
            return AdmissionVerdict()
        evidence = {"rouge_l": score, "nearest": self._name(self._asks[at])}
        return AdmissionVerdict(SIMILAR if score >= self.spec.max_rouge_l else None, evidence)

    def admit(self, offer: Any, ask: int) -> None:
        for word in offer:
            self._ids.setdefault(word, len(self._ids))
        self._texts.append(self._text(offer))
        self._asks.append(ask)

    def retract(self, offer: Any, ask: int) -> None:
        self._texts.pop()
        self._asks.pop()

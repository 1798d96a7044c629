"""Rejects rows by the published quality rules for web text: Gopher, C4 and FineWeb, all metrics in one pass.

Sources: Gopher, Rae et al. 2021 (arXiv 2112.11446), section A.1.1 with table A1; C4, Raffel et al. 2020 (JMLR 21),
section 2.2; FineWeb, Penedo et al. 2024 (arXiv 2406.17557), section 3.6. `gristmill.stages.kernels.rules` says how each
metric is counted. The rules were made for web pages of prose:

- C4's rules remove lines of a page; here they reject the row, and any row with code in it. So the set "c4" is not in
  the default; use it for corpora of plain prose.
- The FineWeb and Gopher sets expect running text of at least 50 words. For short rows (questions, dialogues, code) use
  `sets = ["gopher_repetition"]`, or skip or relax single rules.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import pyarrow as pa

from gristmill.records.normal_form import tables
from gristmill.records.spec import later, nearest
from gristmill.records.words import words as words_of
from gristmill.stages.buffers import text_buffers
from gristmill.stages.contract import Findings, Stage
from gristmill.stages.filters import datatrove_rules

SETS = ("gopher_quality", "gopher_repetition", "c4", "fineweb")


class Rule(NamedTuple):
    """A published rule.

    A row passes if its metric is at least (">="), at most ("<="), above (">") or below ("<") a threshold.
    """

    set: str
    metric: str
    passes: str
    threshold: float
    source: str


# The order matters: the first rule that a row fails is its reason.
RULES: dict[str, Rule] = {
    "gopher_min_words": Rule("gopher_quality", "num_words", ">=", 50, "Gopher A.1.1"),
    "gopher_max_words": Rule("gopher_quality", "num_words", "<=", 100_000, "Gopher A.1.1"),
    "gopher_min_word_length": Rule("gopher_quality", "mean_word_length", ">=", 3, "Gopher A.1.1"),
    "gopher_max_word_length": Rule("gopher_quality", "mean_word_length", "<=", 10, "Gopher A.1.1"),
    "gopher_symbol_ratio": Rule("gopher_quality", "symbol_ratio", "<=", 0.1, "Gopher A.1.1: # or ellipses a word"),
    "gopher_bullet_lines": Rule("gopher_quality", "bullet_lines", "<=", 0.9, "Gopher A.1.1"),
    "gopher_ellipsis_lines": Rule("gopher_quality", "ellipsis_lines", "<=", 0.3, "Gopher A.1.1"),
    "gopher_alpha_words": Rule("gopher_quality", "alpha_words", ">=", 0.8, "Gopher A.1.1"),
    "gopher_stop_words": Rule("gopher_quality", "stop_words", ">=", 2, "Gopher A.1.1: different ones"),
    "gopher_dup_lines": Rule("gopher_repetition", "dup_lines", "<=", 0.3, "Gopher table A1"),
    "gopher_dup_paragraphs": Rule("gopher_repetition", "dup_paragraphs", "<=", 0.3, "Gopher table A1"),
    "gopher_dup_line_chars": Rule("gopher_repetition", "dup_line_chars", "<=", 0.2, "Gopher table A1"),
    "gopher_dup_paragraph_chars": Rule("gopher_repetition", "dup_paragraph_chars", "<=", 0.2, "Gopher table A1"),
    "gopher_top_2gram": Rule("gopher_repetition", "top_2gram", "<=", 0.20, "Gopher table A1"),
    "gopher_top_3gram": Rule("gopher_repetition", "top_3gram", "<=", 0.18, "Gopher table A1"),
    "gopher_top_4gram": Rule("gopher_repetition", "top_4gram", "<=", 0.16, "Gopher table A1"),
    "gopher_dup_5gram": Rule("gopher_repetition", "dup_5gram", "<=", 0.15, "Gopher table A1"),
    "gopher_dup_6gram": Rule("gopher_repetition", "dup_6gram", "<=", 0.14, "Gopher table A1"),
    "gopher_dup_7gram": Rule("gopher_repetition", "dup_7gram", "<=", 0.13, "Gopher table A1"),
    "gopher_dup_8gram": Rule("gopher_repetition", "dup_8gram", "<=", 0.12, "Gopher table A1"),
    "gopher_dup_9gram": Rule("gopher_repetition", "dup_9gram", "<=", 0.11, "Gopher table A1"),
    "gopher_dup_10gram": Rule("gopher_repetition", "dup_10gram", "<=", 0.10, "Gopher table A1"),
    "c4_lorem_ipsum": Rule("c4", "lorem_ipsum", "<=", 0, "C4 2.2: pages"),
    "c4_curly_bracket": Rule("c4", "curly_brackets", "<=", 0, "C4 2.2: pages"),
    "c4_javascript": Rule("c4", "javascript", "<=", 0, "C4 2.2: lines"),
    "c4_policy": Rule("c4", "policy", "<=", 0, "C4 2.2: lines; phrases of its code, c4_utils.py"),
    "c4_min_sentences": Rule("c4", "num_sentences", ">=", 3, "C4 2.2, with the number of its code, c4_utils.py"),
    "fineweb_line_punct": Rule("fineweb", "line_punct", ">", 0.12, "FineWeb 3.6"),
    "fineweb_dup_line_chars": Rule("fineweb", "dup_line_chars", "<", 0.1, "FineWeb 3.6"),
    "fineweb_short_lines": Rule("fineweb", "short_lines", "<", 0.67, "FineWeb 3.6: shorter than short_line_length"),
    "fineweb_newlines": Rule("fineweb", "newline_ratio", "<=", 0.3, "datatrove, FineWebQualityFilter: newlines a word"),
}
FAILS = {">=": np.less, "<=": np.greater, ">": np.less_equal, "<": np.greater_equal}


@dataclass(frozen=True)
class RulesSpec:
    """Keys of the stage `rules`."""

    # Sets of rules that apply: "gopher_quality", "gopher_repetition", "c4" and "fineweb"; "c4" rejects any row with
    # code, so it is not in the default.
    sets: tuple[str, ...] = ("gopher_quality", "gopher_repetition", "fineweb")
    limits: dict[str, float] = field(default_factory=dict)  # Thresholds by rule that replace the published ones.
    skip: tuple[str, ...] = ()  # Rules that do not apply.
    # Words of `gopher_stop_words`, in lower case, compared without the punctuation around them; those of Gopher A.1.1.
    stop_words: tuple[str, ...] = ("the", "be", "to", "of", "and", "that", "have", "with")
    short_line_length: int = 30  # Characters below which `fineweb_short_lines` calls a line short; FineWeb's.
    column: str = "text"  # Column with the text.
    # What is a word: "spaces", a run of anything but white space, as in Gopher; or "datatrove", to match FineWeb: marks
    # and parts of words count as words, and counts and thresholds are those of datatrove's code (English only, slow).
    words: Literal["spaces", "datatrove"] = later("spaces")

    def __post_init__(self) -> None:
        for name in self.sets:
            if name not in SETS:
                raise ValueError(f"no set '{name}'{nearest(name, SETS)}")
        for name in (*self.limits, *self.skip):
            if name not in RULES:
                raise ValueError(f"no rule '{name}'{nearest(name, RULES)}")
            if RULES[name].set not in self.sets:
                raise ValueError(f"rule '{name}' belongs to the set '{RULES[name].set}', which is not in sets")
        for name in self.limits:
            if name in self.skip:
                raise ValueError(f"rule '{name}' is both in limits and in skip")
        if not self.rules():
            raise ValueError("no rule is left; name at least one of the sets")
        for word in self.stop_words:
            if len(words_of(word)) != 1 or word.split() != [word] or word != word.lower() or len(word.encode()) > 24:
                raise ValueError(f"stop word '{word}' must be one lower-case word of at most 24 bytes")
        if len(self.stop_words) > 60:
            raise ValueError("at most 60 stop_words")

    def rules(self) -> dict[str, Rule]:
        """The rules that apply, in order, with their thresholds."""
        rules = {}
        for name, rule in RULES.items():
            if rule.set in self.sets and name not in self.skip:
                passes, threshold = rule.passes, rule.threshold
                if self.words == "datatrove":
                    passes, threshold = datatrove_rules.RULES.get(name, (passes, threshold))
                rules[name] = rule._replace(passes=passes, threshold=self.limits.get(name, threshold))
        return rules


class Rules(Stage):
    """Adds `num_words` and, for rejected rows, `rule_value`, the metric that failed. The reason is the rule."""

    kind: ClassVar[str] = "rules"
    revision: ClassVar[int] = 2  # 2: alphabets, ends of sentences and bullets of Unicode
    Spec: ClassVar[type] = RulesSpec
    spec: RulesSpec

    def __init__(self, spec: RulesSpec, name: str | None = None) -> None:
        super().__init__(spec, name)
        self._kernels: Any = None
        self._stop_words = np.empty(0, np.uint64)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kernels": None}

    def columns(self) -> list[pa.Field]:
        return [pa.field("num_words", pa.int32()), pa.field("rule_value", pa.float32())]

    def reads(self) -> list[str]:
        return [self.spec.column]

    def open(self) -> None:
        from gristmill.stages.kernels import rules as kernels

        self._kernels = kernels
        scratch = kernels.fold_scratch(kernels.MAX_STOP_WORD, kernels.MAX_STOP_WORD * kernels.MAX_GROWTH)
        words = [np.frombuffer(word.encode(), np.uint8) for word in self.spec.stop_words]
        hashes = [kernels.folded_core_hash(word, 0, len(word), tables(), scratch) for word in words]
        self._stop_words = np.array(hashes, np.uint64)

    def metrics(self, column: pa.Array) -> dict[str, np.ndarray]:
        """Every metric by name, a float64 for each row; a null row is an empty text.

        With words = "datatrove" there is a metric with the name of a rule, which takes the place of the rule's metric.
        """
        assert self._kernels is not None, "open() first"
        data, offsets = text_buffers(column)
        values = np.empty((len(column), len(self._kernels.METRICS)), np.float64)
        with_phrases = "c4" in self.spec.sets
        self._kernels.measure(
            data, offsets, tables(), self._stop_words, self.spec.short_line_length, with_phrases, values
        )
        metrics = dict(zip(self._kernels.METRICS, values.T))
        if self.spec.words == "datatrove":
            texts = [text or "" for text in column.to_pylist()]
            metrics |= datatrove_rules.metrics(texts, self.spec.stop_words, self.spec.short_line_length)
        return metrics

    def find(self, rows: pa.RecordBatch) -> Findings:
        metrics = self.metrics(rows.column(self.spec.column))
        reason, value = np.full(rows.num_rows, -1), np.zeros(rows.num_rows, np.float32)
        rules = self.spec.rules()
        for number, (name, rule) in enumerate(rules.items()):
            metric = metrics.get(name, metrics[rule.metric])
            fails = FAILS[rule.passes](metric, rule.threshold) & (reason < 0)
            reason[fails] = number
            value[fails] = metric[fails]
        passes = reason < 0
        columns = {
            "num_words": pa.array(metrics["num_words"].astype(np.int32)),
            "rule_value": pa.array(value, mask=passes),
        }
        return Findings(columns, pa.array(list(rules), pa.string()).take(pa.array(reason, mask=passes)))

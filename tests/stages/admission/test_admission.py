"""What is admitted by the rows kept before: quotas, shares, ROUGE-L novelty, and what a refused row leaves behind."""

import pickle
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.records.errors import UserError
from gristmill.records.readers.sources import Part, Source
from gristmill.records.schema import REJECT
from gristmill.records.spec import build
from gristmill.records.words import words_or_text
from gristmill.stages.admission.balance import Balance, BalanceSpec
from gristmill.stages.admission.contract import AdmissionBook, is_full, resolve_admitting, tally
from gristmill.stages.admission.novelty import Novelty, NoveltySpec
from gristmill.stages.contract import RunContext
from gristmill.stages.dedup.bandindex import NOBODY, UNKNOWN, BandIndex, resolve

KEYS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.booleans(), st.integers(-2, 3)), max_size=24)


def arrays(rows: list[tuple[int, int, bool, int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    keys = np.array([[a, 10 + b] for a, b, _, _ in rows], np.uint64).reshape(-1, 2)
    alive = np.array([alive for *_, alive, _ in rows], bool)
    return keys, np.array([found for *_, found in rows], np.int64), alive


def admitting(keys: Any, found: Any, alive: Any, first: int, admit: Any) -> list[int]:
    return resolve_admitting(lambda living: resolve(keys, found, living, first), alive, first, admit)[0].tolist()


@settings(deadline=None)
@given(KEYS)
def test_with_nobody_refused_it_is_the_plain_pass(rows: list) -> None:
    keys, found, alive = arrays(rows)
    assert admitting(keys, found, alive, 100, lambda ask: True) == resolve(keys, found, alive, 100).tolist()


@settings(deadline=None)
@given(KEYS, st.sets(st.integers(0, 23)))
def test_a_refused_row_is_as_if_it_were_dead(rows: list, refused: set[int]) -> None:
    keys, found, alive = arrays(rows)
    asked: list[int] = []

    def admit(ask: int) -> bool:
        asked.append(ask - 100)
        return ask - 100 not in refused

    owners = admitting(keys, found, alive, 100, admit)
    gone = alive.copy()
    gone[[row for row in asked if row in refused]] = False
    assert owners == resolve(keys, found, gone, 100).tolist()
    assert asked == sorted(asked) and all(found[row] == NOBODY for row in asked)


def test_the_index_sees_no_refused_row() -> None:
    keys, index = np.array([[1], [1], [1]], np.uint64), BandIndex(1)
    owners = admitting(keys, index.query(keys), np.ones(3, bool), 0, lambda ask: ask != 0)
    assert owners == [NOBODY, NOBODY, 1]  # the twin of a refused row is kept, and owns the third
    unknown = np.array([UNKNOWN, NOBODY, NOBODY])
    assert admitting(keys, unknown, np.ones(3, bool), 0, lambda ask: True) == [UNKNOWN, NOBODY, 1]


def led(book: AdmissionBook, offers: list[Any]) -> list[str | None]:
    reasons = []
    for ask, offer in enumerate(offers):
        reasons.append(book.judge(offer, ask).reason)
        if reasons[-1] is None:
            book.admit(offer, ask)
    return reasons


def balance(**table: Any) -> Balance:
    return Balance(build(BalanceSpec, {"column": "label", **table}, "stages[0]"))


LABELS = st.lists(st.sampled_from(["a", "b", "c", None]), max_size=60)


@given(LABELS, st.integers(0, 5), st.integers(0, 5), st.none() | st.integers(0, 3))
def test_quotas_are_kept_to_the_row(labels: list, first: int, second: int, other: int | None) -> None:
    stage = balance(quotas={"a": first, "b": second}, other=other, allow_null=True)
    reasons = led(stage.new_book(), labels)
    for label, quota in (("a", first), ("b", second), ("c", other), (None, other)):
        came = labels.count(label)
        kept = sum(r is None for r, have in zip(reasons, labels) if have == label)
        assert kept == (came if quota is None else min(came, quota))
    assert set(reasons) <= {None, "quota"}


@given(LABELS, st.floats(0.1, 0.9), st.integers(1, 4))
def test_no_label_outgrows_its_share_at_any_moment(labels: list, share: float, slack: int) -> None:
    stage = balance(max_share=share, slack_rows=slack)
    reasons, counts, num_kept = led(stage.new_book(), labels), {"a": 0, "b": 0, "c": 0}, 0
    for label, reason in zip(labels, reasons):
        if label is None:
            assert reason == "no_label"
            continue
        if reason is None:
            counts[label] += 1
            num_kept += 1
            assert counts[label] <= share * num_kept + slack
        else:
            assert counts[label] + 1 > share * (num_kept + 1) + slack


@given(LABELS, st.integers(0, 59))
def test_taking_back_undoes_and_refilling_restores(labels: list, at: int) -> None:
    stage = balance(max_share=0.5, slack_rows=2, allow_null=True)
    book, admitted = stage.new_book(), []
    for ask, label in enumerate(labels[:at]):
        if book.judge(label, ask).reason is None:
            book.admit(label, ask)
            admitted.append(label or "")
    before = led(stage.new_book(), labels)[at:]
    refilled = stage.new_book()
    stage.refill(refilled, {label: admitted.count(label) for label in set(admitted)}, lambda columns: iter(()))
    kept = [(ask, label) for ask, label in enumerate(labels[at:], at)]
    done = [(ask, label) for (ask, label), reason in zip(kept, led(book, labels[at:])) if reason is None]
    for ask, label in reversed(done):
        book.retract(label, ask)
    assert led(book, labels[at:]) == before == led(refilled, labels[at:])


def test_labels_may_be_numbers_and_truth_values_but_not_lists() -> None:
    batch = pa.RecordBatch.from_pydict({"label": [1, None, 2], "text": ["a", "b", "c"]})
    assert balance(other=1).offers(batch) == ["1", None, "2"] and balance(other=1).labels(batch) == ["1", "", "2"]
    assert balance(other=1).refuses(pa.field("x", pa.list_(pa.string()))) is not None
    assert all(balance(other=1).refuses(pa.field("x", t)) is None for t in (pa.string(), pa.int32(), pa.bool_()))


def test_it_is_full_when_every_quota_is_and_nothing_else_is_wanted() -> None:
    stages = [balance(quotas={"a": 2, "b": 1}, other=0)]
    assert not is_full(stages, {}) and not is_full(stages, {"balance": {"a": 2}})
    assert is_full(stages, {"balance": {"a": 2, "b": 1}})
    assert not is_full([balance(quotas={"a": 2})], {"balance": {"a": 2}})


def test_what_came_and_what_was_kept_is_counted_by_label() -> None:
    columns = {"label": ["a", "a", "b", "b", "c"], REJECT.name: [None, "balance:quota", None, "rules:x", "level:quota"]}
    batch = pa.RecordBatch.from_pydict(columns)
    level = balance(other=1)
    level.name = "level"
    offered, admitted = tally([balance(other=1), level], batch)
    assert offered == {"balance": {"a": 2, "b": 1, "c": 1}, "level": {"a": 1, "b": 1, "c": 1}}
    assert admitted == {"balance": {"a": 1, "b": 1}, "level": {"a": 1, "b": 1}}


@pytest.mark.parametrize(
    "table",
    [{}, {"quotas": {"a": -1}}, {"max_share": 1.0}, {"max_share": 0.5, "slack_rows": 0}, {"other": 1, "column": ""}],
)
def test_what_makes_no_sense_is_refused(table: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        balance(**table)


def novelty(**table: Any) -> Novelty:
    return Novelty(build(NoveltySpec, table, "stages[0]"))


def rouge_l(first: list[str], second: list[str]) -> float:
    """F1 of the longest common subsequence, the plain way."""
    row = [0] * (len(second) + 1)
    for a in first:
        last, row = row, [0]
        for at, b in enumerate(second):
            row.append(last[at] + 1 if a == b else max(last[at + 1], row[at]))
    return 2 * row[-1] / (len(first) + len(second))


@settings(deadline=None)
@given(st.lists(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=8).map(" ".join), max_size=12))
def test_novelty_is_rouge_l_with_every_row_kept_before(texts: list[str]) -> None:
    book, kept = novelty().new_book(), list[list[str]]()
    for ask, text in enumerate(texts):
        told = book.judge(words_or_text(text), ask)
        best = max((rouge_l(words_or_text(text), other) for other in kept), default=0.0)
        assert told.reason == ("similar" if round(best, 4) >= 0.7 else None)
        assert told.evidence.get("rouge_l", 0.0) == pytest.approx(best, abs=1e-4)
        if told.reason is None:
            book.admit(words_or_text(text), ask)
            kept.append(words_or_text(text))


def test_novelty_names_the_nearest_and_reads_words_of_any_script() -> None:
    assert words_or_text("Straße, die 3.") == ["strasse", "die", "3"]
    book = novelty(max_rouge_l=0.5).new_book()
    book.admit(words_or_text("name three rivers of the north"), 0)
    assert book.judge(words_or_text("Name four rivers of the south"), 1).reason == "similar"
    assert book.judge(words_or_text("write a poem on glass"), 1).reason is None


def test_novelty_does_not_hang_on_what_was_refused() -> None:
    texts = [f"say {n} of {n % 7} and {n % 11} then {n % 3}" for n in range(60)]
    whole, begun = novelty(max_rouge_l=0.9).new_book(), novelty(max_rouge_l=0.9).new_book()
    for ask, text in enumerate(texts):
        whole.judge(words_or_text(f"refused words {ask} {ask * 7}"), ask)  # seen and not kept
        told = whole.judge(words_or_text(text), ask), begun.judge(words_or_text(text), ask)
        assert told[0] == told[1]
        if told[0].reason is None:
            whole.admit(words_or_text(text), ask)
            begun.admit(words_or_text(text), ask)


class Broken(Part):
    name, num_rows, digest = "broken.jsonl", 3, ""

    def rows(self, start: int, stop: int) -> list[str]:
        return ["{not json", "[1]", '{"instruction": "Sing a song."}'][start:stop]


def test_seeds_are_the_rows_that_can_be_read_and_workers_need_none() -> None:
    stage = novelty()
    for _ in range(2):
        stage.bind(RunContext(Source([Broken()], None), "0" * 32, 0, 8))
    assert stage.new_book().judge(words_or_text("sing a song"), 0).evidence == {"rouge_l": 1.0, "nearest": "seed"}
    assert pickle.loads(pickle.dumps(stage)).new_book().judge(words_or_text("sing a song"), 0).reason is None


def test_a_source_too_long_to_compare_with_is_refused() -> None:
    many = Broken()
    many.num_rows = 100_001
    with pytest.raises(UserError, match="set seeds = false"):
        novelty().bind(RunContext(Source([many], None), "0" * 32, 0, 8))


def test_novelty_takes_texts_without_words_as_equal_or_new() -> None:
    book = Novelty(NoveltySpec(seeds=False)).new_book()
    for ask, (text, reason) in enumerate(
        [("!!!", None), ("∑ ∫", None), ("！！！", "similar"), ("", None), (" ", "similar")]
    ):
        assert book.judge(words_or_text(text), ask).reason == reason, text
        if reason is None:
            book.admit(words_or_text(text), ask)

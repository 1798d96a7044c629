"""Answers are kept by lot: a torn, foreign or repeated batch never breaks a run and never counts twice."""

import json
import logging
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.records.output import answers
from gristmill.records.output.answers import AnswerFolder, Record
from gristmill.records.stores.local import LocalStore

RUN, WRITER = "f" * 32, "0123456789abcdef"
texts = st.text(st.characters(exclude_categories=()), max_size=30)  # also half characters
literals = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
records = st.lists(
    st.builds(Record, texts, texts, texts, literals, st.floats(0, 1e6, allow_subnormal=False)), max_size=4
)


@given(records)
def test_a_batch_is_read_as_it_was_written(batch: list[Record]) -> None:
    assert answers.decode(RUN, answers.encode(RUN, batch)) == batch
    with pytest.raises(ValueError, match="another run"):
        answers.decode("0" * 32, answers.encode(RUN, batch))


def test_a_batch_that_is_torn_anywhere_is_refused() -> None:
    data = answers.encode(RUN, [Record("generator", "a", f"key {n}", {"text": "word " * n}) for n in range(50)])
    for size in range(len(data)):
        with pytest.raises(ValueError):
            answers.decode(RUN, data[:size])


@given(st.binary(max_size=200))
def test_any_bytes_are_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError):
        answers.decode(RUN, data)


HEAD = json.dumps({"format": 1, "run": RUN})


@pytest.mark.parametrize("text", ["[]\n", "{}\n", f"{HEAD}\n{{}}\n", f"{HEAD}\n7\n", "[" * 10**5])
def test_other_json_is_a_value_error_or_nested_too_deeply(text: str) -> None:
    with pytest.raises((ValueError, RecursionError)):
        answers.decode(RUN, pa.compress(text.encode() + b"\n", codec="zstd", asbytes=True))


@pytest.mark.parametrize("lot", [0, 42, 99_999_999, 123_456_789_012])
def test_names(lot: int) -> None:
    name = answers.name_of(lot, WRITER, 7)
    assert answers.lot_of(name) == lot and name.startswith(answers.prefix_of(lot))
    for other in (f"{name}x", name.replace("lot-", "lot-0"), name.replace(WRITER, "x"), "answers/readme.txt"):
        assert answers.lot_of(other) is None


def test_a_start_deletes_what_is_committed_and_counts_the_rest_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = LocalStore(str(tmp_path))
    folder = AnswerFolder(store, RUN)
    for lot in range(4):
        answers.keep(folder, answers.name_of(lot, WRITER, 0), [Record("generator", f"{lot}", "key", {}, 0.5)] * 2)
    answers.keep(folder, answers.name_of(3, WRITER, 0), [Record("generator", "3", "key", {}, 0.5)] * 2)  # once more
    store.put("answers/notes.txt", b"mine")
    store.put(answers.name_of(3, WRITER, 1), answers.encode(RUN, [])[:-3])
    store.put(answers.name_of(3, WRITER, 2), answers.encode("0" * 32, [Record("generator", "3", "key", {}, 9.0)]))
    assert answers.leftovers(store, 2) == 2
    with caplog.at_level(logging.WARNING):
        assert answers.settle(store, RUN, 2) == 2.0
    assert len(caplog.records) == 3 and "of another run" in caplog.text
    assert [r.row for r in answers.records_of(folder, 3)] == ["3", "3"]
    assert not list(answers.records_of(folder, 1)) and answers.leftovers(store, 2) == 0
    answers.delete(store, 2)
    assert not list(answers.records_of(folder, 2)) and list(answers.records_of(folder, 3))
    answers.delete(store)
    assert [entry.name for entry in store.list()] == ["answers/notes.txt"]
    store.delete("answers/notes.txt")
    answers.delete(store)
    assert not (tmp_path / "answers").exists()

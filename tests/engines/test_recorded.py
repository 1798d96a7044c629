"""Answers that cost money are paid once: whatever dies whenever, a kept answer is taken and never requested again."""

import asyncio
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.engines.contract import FREE_TEXT, AnswerForm, Logprobs, Messages, Reply, ToolCall
from gristmill.engines.recorded import RecordedEngine, outcome_of, reply_literals, request_key
from gristmill.records.errors import UserError
from gristmill.records.output import answers
from gristmill.records.output.answers import AnswerFolder
from gristmill.records.output.summary import summarise
from gristmill.records.stores.local import LocalStore
from tests.paid import BEGUN, PRICE, RUN, Mortal, Paid, PaidSpec, Steps, asks, calls, num_kept


def generator(folder: Path, store: Any, **changes: Any) -> Paid:
    made = Paid(PaidSpec(str(folder), **changes), Steps(None))
    made.answers = AnswerFolder(store, RUN)
    made.open()
    return made


steps = st.lists(st.lists(st.sampled_from("ab"), min_size=1, max_size=3), min_size=1, max_size=3)
kills = st.lists(st.tuples(st.integers(1, 12), st.integers(0, 3)), max_size=3)  # (calls until it, faults of the store)


@given(st.lists(steps, min_size=1, max_size=4), kills)
def test_whenever_it_is_killed_no_kept_answer_is_paid_again(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Any], kills: list[tuple[int, int]]
) -> None:
    folder = tmp_path_factory.mktemp("paid")
    batch, num_lost = asks(rows), 0
    needed = sum(len(prompts) for row in rows for prompts in row)

    async def killed(num_calls: int, num_faults: int) -> None:
        """One life, until so many of its calls were begun."""
        store = Mortal(folder, num_faults)
        part = generator(folder, store, flush_s=0.002, seconds=0.001, num_slots=2)
        until = calls(folder)[BEGUN] + num_calls
        life = asyncio.ensure_future(part.make(batch))
        while calls(folder)[BEGUN] < until and not life.done():
            await asyncio.sleep(0)
        store.is_dead = True
        life.cancel()
        with suppress(asyncio.CancelledError):
            await life

    for num_calls, num_faults in kills:
        before = calls(folder)[BEGUN], num_kept(folder)
        asyncio.run(killed(num_calls, num_faults))
        num_lost += calls(folder)[BEGUN] - before[0] - (num_kept(folder) - before[1])
    last = generator(folder, Mortal(folder), flush_s=0.002)
    made = asyncio.run(last.make(batch))
    assert calls(folder)[BEGUN] == needed + num_lost
    assert num_kept(folder) == needed  # each once
    assert made.column("cost").to_pylist() == [PRICE * sum(map(len, row)) for row in rows]
    again = generator(folder, Mortal(folder))
    assert asyncio.run(again.make(batch)).equals(made)  # the second driver
    assert calls(folder)[BEGUN] == needed + num_lost and again.paid == 0.0
    assert summarise(pa.table(made)).paid == PRICE * needed == answers.settle(LocalStore(str(folder)), RUN, 3)


def test_equal_calls_of_a_row_get_different_answers_and_keep_them(tmp_path: Path) -> None:
    batch = asks([[["a", "a", "a", "b"]]])
    made = asyncio.run(generator(tmp_path, Mortal(tmp_path)).make(batch))
    assert len(set(made.column("text")[0].as_py().split())) == 3 + 4  # "The answer is", and four different words
    again = asyncio.run(generator(tmp_path, Mortal(tmp_path)).make(batch))
    assert again.equals(made) and calls(tmp_path)[BEGUN] == 4


def test_what_a_refused_call_cost_is_counted_and_kept(tmp_path: Path) -> None:
    batch = asks([[["a", "bad"]], [["a"]]])
    first = generator(tmp_path, Mortal(tmp_path), refuse="bad")
    made = asyncio.run(first.make(batch))
    assert made.column("reject").to_pylist() == ["generator:content_filter", None]
    assert made.column("cost").to_pylist() == [2 * PRICE, PRICE] and first.paid == 3 * PRICE
    assert asyncio.run(generator(tmp_path, Mortal(tmp_path), refuse="bad").make(batch)).equals(made)
    assert calls(tmp_path)[BEGUN] == 3


def test_a_store_in_trouble_holds_back_calls_and_then_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hiccup costs time. A store that never keeps an answer must not let the run pay on."""
    rows = [[["a"]] for _ in range(64)]
    hiccup = Mortal(tmp_path, num_faults=5)
    whole = generator(tmp_path, hiccup, flush_s=0.01, seconds=0.002)
    assert asyncio.run(whole.make(asks(rows))).column("reject").null_count == 64
    assert num_kept(tmp_path) == 64 and hiccup.num_faults == 0
    monkeypatch.setenv("GRISTMILL_S3_RETRY_S", "0.1")
    before = calls(tmp_path)[BEGUN]
    gone = generator(tmp_path, Mortal(tmp_path / "gone", num_faults=10**6), flush_s=0.01, seconds=0.005)
    with pytest.raises(UserError, match="paid for cannot be kept .the store is in trouble.; repair that, and run"):
        asyncio.run(gone.make(asks([[["a"]] for _ in range(10_000)], lot=4)))
    assert calls(tmp_path)[BEGUN] - before < 200  # of 10,000


def test_a_torn_batch_is_requested_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    batch = asks([[["a"]], [["a"]]])
    asyncio.run(generator(tmp_path, Mortal(tmp_path)).make(batch))
    (path,) = (tmp_path / "answers").iterdir()
    path.write_bytes(path.read_bytes()[:-9])
    made = asyncio.run(generator(tmp_path, Mortal(tmp_path)).make(batch))
    assert calls(tmp_path)[BEGUN] == 4 and made.column("reject").null_count == 2
    assert "cannot be read" in caplog.text and "requested again" in caplog.text


def test_close_keeps_what_is_not_kept_yet(tmp_path: Path) -> None:
    """As at Ctrl-C: the actor closes its part and is killed then."""
    part = generator(tmp_path, Mortal(tmp_path), flush_s=600.0, seconds=0.001)

    async def life() -> None:
        making = asyncio.ensure_future(part.make(asks([[["a"]], [["a"], ["b"]], [["hang"]]])))
        while part.paid < 4 * PRICE:
            await asyncio.sleep(0.001)
        part.close()
        assert num_kept(tmp_path) == 4
        making.cancel()

    with suppress(asyncio.CancelledError):
        asyncio.run(life())


@given(
    st.builds(
        Reply,
        st.text(),
        st.sampled_from(["stop", "length"]),
        st.integers(0, 99),
        st.integers(0, 99),
        st.none() | st.text(),
        st.integers(0, 9),
        st.lists(st.builds(ToolCall, st.text(), st.text(), st.text()), max_size=2).map(tuple),
        st.none() | st.builds(Logprobs, st.floats(-9, 0), st.floats(-9, 0), st.floats(0, 9)),
        st.integers(0, 9),
        st.floats(0, 9),
    )
)
def test_a_reply_is_kept_whole(reply: Reply) -> None:
    assert outcome_of(json.loads(json.dumps(reply_literals(reply)))) == reply


@pytest.mark.parametrize("literals", [7, None, [], "text", {}, {"other": 1}, {"refused": 3}, {"text": "a", "more": 1}])
def test_literals_that_are_no_reply_are_none(literals: Any) -> None:
    assert outcome_of(literals) is None


def test_a_request_is_its_prompt_its_sampling_and_its_form() -> None:
    base: tuple[Messages, Mapping[str, Any], AnswerForm] = ("a", {"temperature": 1.0}, FREE_TEXT)
    others: list[Callable[[], str]] = [
        lambda: request_key("b", *base[1:]),
        lambda: request_key([{"role": "user", "content": "a"}], *base[1:]),
        lambda: request_key("a", {"temperature": 0.0}, FREE_TEXT),
        lambda: request_key("a", base[1], AnswerForm(choice=("a",))),
        lambda: request_key("a", base[1], AnswerForm(tools=({"type": "function"},))),
    ]
    assert len({request_key(*base), *(other() for other in others)}) == 6
    assert request_key(*base) == request_key("a", dict(base[1]), AnswerForm())


def test_without_an_output_money_is_counted_and_nothing_is_kept(tmp_path: Path) -> None:
    part = Paid(PaidSpec(str(tmp_path)), Steps(None))
    part.open()
    assert isinstance(part._engine, RecordedEngine)
    assert asyncio.run(part.make(asks([[["a", "b"]]]))).column("cost").to_pylist() == [2 * PRICE]
    assert part.paid == 2 * PRICE and [p.name for p in tmp_path.iterdir()] == ["calls"]

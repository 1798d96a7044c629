"""The order in which asks begin."""

import json

from hypothesis import given
from hypothesis import strategies as st

from gristmill.generators.text.order import LEAST_CHARS, begin_order

DOCUMENTS = [letter * LEAST_CHARS for letter in "abc"]


def ask(document: str, style: str = "plain") -> str:
    return json.dumps({"style": style, "text": document})


def test_asks_about_one_document_begin_together() -> None:
    asks = [ask(DOCUMENTS[n % 3], style=f"style {n}") for n in range(9)]
    assert begin_order(asks, False) == [0, 3, 6, 1, 4, 7, 2, 5, 8]


def test_short_asks_begin_as_they_come() -> None:
    assert begin_order([ask("river")] * 4, False) is None
    assert begin_order([None, "no json", ask("river"), "[" * 1000], False) is None


def test_long_asks_begin_first_where_answers_follow_them() -> None:
    assert begin_order([ask("x" * n) for n in (5, 50, 10)], True) == [1, 2, 0]
    asks = [ask("short"), ask(DOCUMENTS[0]), ask(DOCUMENTS[1] + "more"), ask(DOCUMENTS[0], "a longer style")]
    assert begin_order(asks, True) == [3, 1, 2, 0]


@given(
    asks=st.lists(st.none() | st.text() | st.sampled_from([ask(d) for d in DOCUMENTS]), max_size=20),
    answers_follow_asks=st.booleans(),
)
def test_every_ask_begins_once(asks: list[str | None], answers_follow_asks: bool) -> None:
    order = begin_order(asks, answers_follow_asks)
    assert order is None or sorted(order) == list(range(len(asks)))

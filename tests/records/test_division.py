"""The division of asks among generators: by shares, in turn and by a column, the same in any batch."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from gristmill.records.division import NOBODY, REASON, Author, Division
from gristmill.records.lots import Plan, asks
from gristmill.records.readers.sources import SourceSpec, open_source

SHARES = st.lists(st.floats(0.1, 10.0), min_size=1, max_size=5)


def authors(*shares: float, when: tuple[tuple[str, ...], ...] = ()) -> tuple[Author, ...]:
    values = when or ((),) * len(shares)
    return tuple(
        Author(f"g{n}", f"model-{n}", "prompt", "synthetic", share, values[n]) for n, share in enumerate(shares)
    )


def seeds(number: int, start: int = 0) -> np.ndarray:
    return np.random.SeedSequence(start).generate_state(number, np.uint64).astype(np.int64) & (2**63 - 1)


@given(SHARES, st.integers(1, 300), st.integers(0, 300), st.sampled_from(["shares", "samples"]))
def test_an_ask_has_its_generator_in_any_batch(shares: list[float], num: int, cut: int, by: str) -> None:
    division = Division(authors(*shares), by, None, 1)  # type: ignore[arg-type]
    drawn, texts, cut = seeds(num), ["{}"] * num, min(cut, num)
    whole = division.choices(0, 7, drawn, texts)
    parts = [division.choices(0, 7, drawn[:cut], texts[:cut]), division.choices(cut, 7, drawn[cut:], texts[cut:])]
    assert np.array_equal(whole, np.concatenate(parts))
    assert ((whole >= 0) & (whole < len(shares))).all()


@pytest.mark.parametrize("shares", [(1, 1), (3, 1), (0.2, 0.3, 0.5), (1, 20)])
def test_generators_get_their_shares(shares: tuple[float, ...]) -> None:
    number = 40_000
    chosen = Division(authors(*shares)).choices(0, 5, seeds(number), ["{}"] * number)
    expected = np.array(shares) / sum(shares) * number
    assert stats.chisquare(np.bincount(chosen, minlength=len(shares)), expected).pvalue > 1e-3


def test_samples_go_to_the_generators_in_turn() -> None:
    division = Division(authors(1, 1), "samples", None, 4)
    assert division.choices(8, 3, seeds(8), ["{}"] * 8).tolist() == [0, 1] * 4
    apart = replace(division, num_together=1)  # the second sample of each of 3 rows follows the first of all
    assert apart.choices(0, 3, seeds(9), ["{}"] * 9).tolist() == [0, 0, 0, 1, 1, 1, 0, 0, 0]


def test_values_of_a_column_decide_and_what_nobody_takes_is_rejected() -> None:
    items = [{"lang": value} for value in ("de", "fr", "it", 3, None)] + [{"text": "no column"}]
    source = open_source(SourceSpec(items=tuple(items)))
    three = authors(1, 1, 1, when=(("de", "3"), ("fr", "de"), ()))
    plan = Plan("0" * 32, 6, 6, 6, "several", division=Division(three, "shares", "lang"))
    rows = asks(plan, source, 0).to_pylist()
    assert rows[0]["generator"] in ("g0", "g1")
    assert [row["generator"] for row in rows[1:]] == ["g1", "g2", "g0", "g2", "g2"]
    assert [row["model"] for row in rows[1:3]] == ["model-1", "model-2"]
    assert all(row["reject"] is None for row in rows)

    named = replace(plan, division=Division(three[:2], "shares", "lang"))
    rows = asks(named, source, 0).to_pylist()
    assert [row["reject"] for row in rows] == [None, None, REASON, None, REASON, REASON]
    assert (rows[2]["generator"], rows[2]["model"], rows[2]["method"]) == (NOBODY, None, None)


def test_an_ask_that_is_no_object_counts_as_one_without_the_column() -> None:
    division = Division(authors(1, 1, when=(("a",), ())), "shares", "kind")
    texts = ["[1]", "{", json.dumps({"kind": "a"}), "null"]
    assert division.choices(0, 4, seeds(4), texts).tolist() == [1, 1, 0, 1]

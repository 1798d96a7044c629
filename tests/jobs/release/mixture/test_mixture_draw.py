"""The draw of a mixture: never above the cap, real rows win, the same rows whatever the order that they came in."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.jobs.release.mixture.count import count_mixture
from gristmill.jobs.release.mixture.draw import Candidates, Draw, draw, twins
from gristmill.jobs.release.mixture.spec import MixtureSpec, PartSpec
from gristmill.records.errors import UserError
from gristmill.records.mixing.caps import effective_size
from gristmill.records.words import NO_KEY, num_tokens, text_key
from tests.profiles import scaled

POLICIES = ["fail", "shrink", "resample", "real", "reweight"]


def rows_of(parts: list[list[tuple[bool, int, int]]], seed: int = 0) -> Candidates:
    """Candidates from parts of rows (is real, tokens, content: rows of the same one are twins, 0 is like no other)."""
    flat = [(number, *row) for number, part in enumerate(parts) for row in part]
    random = np.random.default_rng(seed)
    num = len(flat)
    return Candidates(
        ids=np.array([b"%016d" % i for i in range(num)], "S16"),
        contents=np.array([b"%016d" % row[3] if row[3] else NO_KEY for row in flat], "S16"),
        keys=random.integers(0, 2**63, num).astype(np.uint64),
        tokens=np.array([row[2] for row in flat], np.int64),
        is_real=np.array([row[1] for row in flat], bool),
        generation=np.zeros(num, np.int32),
        part=np.array([row[0] for row in flat], np.int32),
        chunk=np.zeros(num, np.int32),
        row=np.arange(num, dtype=np.int32),
    )


def spec_of(num_parts: int = 2, shares: list[float] | None = None, **keys: Any) -> MixtureSpec:
    parts = tuple(PartSpec(path=f"p{i}", share=shares[i] if shares else None) for i in range(num_parts))
    return MixtureSpec(**{"name": "m", "synthetic_max": 0.3, "parts": parts, **keys})


def drawn_of(rows: Candidates, spec: MixtureSpec) -> Draw:
    return draw(rows, spec, [part.title for part in spec.parts])


def sums(rows: Candidates, drawn: Draw, by: str) -> tuple[float, float]:
    """(real, synthetic), added up row by row in Python's whole numbers or, with weights, floats."""
    real = made = 0
    for i in range(len(rows)):
        weight = drawn.weights[i].item()
        unit = 1 if by == "rows" else rows.tokens[i].item()
        amount = drawn.times[i].item() * unit * (int(weight) if weight == 1 else weight)
        if rows.is_real[i]:
            real += amount
        else:
            made += amount
    return real, made


row = st.tuples(st.booleans(), st.integers(0, 40), st.integers(0, 6))
corpus = st.lists(row, max_size=25)


@st.composite
def mixtures(draw_: st.DrawFn) -> tuple[Candidates, MixtureSpec]:
    real = [(True, tokens, twin) for _, tokens, twin in draw_(corpus)]
    made = [(False, tokens, twin) for _, tokens, twin in draw_(corpus)]
    parts = [real, made, draw_(corpus)]
    by = draw_(st.sampled_from(["rows", "tokens"]))
    size = draw_(st.none() | st.integers(1, 200))
    cuts = sorted([draw_(st.integers(0, 100)), draw_(st.integers(0, 100))])
    shares = draw_(st.sampled_from([None, [cuts[0] / 100, (cuts[1] - cuts[0]) / 100, (100 - cuts[1]) / 100]]))
    cap = draw_(st.sampled_from([0.0, 0.1, 0.3, 1 / 3, 0.5, 0.7, 0.9, 1.0]) | st.floats(0, 1))
    keys: dict[str, Any] = {"by": by, by: size, "synthetic_max": cap}
    keys |= {"shortfall": draw_(st.sampled_from(POLICIES)), "dedup": draw_(st.sampled_from(["twins", "all"]))}
    return rows_of(parts), spec_of(3, shares, **keys)


@settings(max_examples=scaled(500))
@given(mixtures())
def test_no_mixture_is_above_its_cap(given_: tuple[Candidates, MixtureSpec]) -> None:
    rows, spec = given_
    try:
        drawn = drawn_of(rows, spec)
    except UserError:
        return
    real, made = sums(rows, drawn, spec.by)
    if made:
        slack = 1e-9 if spec.shortfall == "reweight" else 0
        assert made / (real + made) <= spec.synthetic_max + slack
    assert drawn.times.any() and (drawn.times >= 0).all() and (drawn.weights > 0).all() | (spec.synthetic_max == 0)
    assert not (drawn.is_twin & (drawn.times > 0)).any()
    assert drawn.times.max() <= 100
    if spec.shortfall in ("fail", "shrink"):
        assert drawn.times.max() == 1 and (drawn.weights == 1).all()
    if spec.shortfall == "fail":
        assert drawn.share_before is None and not drawn.short_parts
    assert (drawn.weights == 1).all() or spec.shortfall == "reweight"
    counts = count_mixture(rows, drawn, ["a", "b", "c"], True)
    plain = replace_weights(drawn)
    assert counts["totals"]["real"][spec.by] == sums(rows, plain, spec.by)[0]
    assert counts["totals"]["synthetic"][spec.by] == sums(rows, plain, spec.by)[1]
    assert 0 < counts["effective_rows"] <= (drawn.times > 0).sum() + 1e-6


def replace_weights(drawn: Draw) -> Draw:
    return replace(drawn, weights=np.ones(len(drawn.weights)))


@given(mixtures(), st.randoms(use_true_random=False))
def test_the_order_of_reading_changes_nothing(given_: tuple[Candidates, MixtureSpec], random: Any) -> None:
    rows, spec = given_
    spec = replace(spec, dedup="twins")
    order = np.arange(len(rows))
    random.shuffle(order)
    mixed = Candidates(**{name: values[order] for name, values in rows.__dict__.items()})
    try:
        drawn = drawn_of(rows, spec)
    except UserError as error:
        with pytest.raises(UserError) as other:
            drawn_of(mixed, spec)
        assert str(other.value) == str(error)
        return
    again = drawn_of(mixed, spec)
    assert (again.times == drawn.times[order]).all() and np.allclose(again.weights, drawn.weights[order])


def test_real_rows_win_over_their_twins() -> None:
    rows = rows_of([[(False, 5, 1), (False, 5, 2), (False, 5, 2), (False, 5, 0)], [(True, 5, 1), (True, 5, 0)]])
    assert twins(rows, whole=False).tolist() == [True, False, False, False, False, False]
    assert twins(rows, whole=True).tolist() == [True, False, True, False, False, False]
    drawn = drawn_of(rows, spec_of(synthetic_max=0.5, shortfall="shrink"))
    assert drawn.times[0] == 0 and drawn.times[4:].tolist() == [1, 1] and drawn.times.sum() == 4


def test_the_cap_counts_what_is_left_after_dedup() -> None:
    """Four real rows and two synthetic are within a third; when two of the real ones' twins go, nothing else must."""
    rows = rows_of([[(True, 1, i) for i in (1, 2, 3, 4)], [(False, 1, i) for i in (1, 2, 7, 8)]])
    assert drawn_of(rows, spec_of(synthetic_max=1 / 3)).times.sum() == 6


def plain(num_real: int, num_made: int) -> Candidates:
    return rows_of([[(True, 10, 0)] * num_real, [(False, 10, 0)] * num_made])


@pytest.mark.parametrize(
    ("policy", "real", "made", "rows"),
    [("shrink", 70, 30, 100), ("resample", 70, 30, 100), ("real", 234, 100, 334), ("reweight", 70, 30, 170)],
)
def test_policies_at_the_cap(policy: str, real: float, made: float, rows: int) -> None:
    given_ = plain(70, 100)
    drawn = drawn_of(given_, spec_of(shortfall=policy))
    assert sums(given_, drawn, "rows") == (pytest.approx(real), pytest.approx(made))
    assert drawn.times.sum() == rows and drawn.share_before == pytest.approx(100 / 170)
    by_tokens = drawn_of(given_, spec_of(shortfall=policy, by="tokens"))
    assert sums(given_, by_tokens, "tokens") == (pytest.approx(real * 10), pytest.approx(made * 10))


@pytest.mark.parametrize(
    ("policy", "real", "made", "distinct"),
    [("shrink", 70, 10, 80), ("resample", 70, 30, 80), ("real", 90, 10, 100), ("reweight", 70, 30, 80)],
)
def test_policies_for_too_few_rows(policy: str, real: float, made: float, distinct: int) -> None:
    given_ = plain(500, 10)
    drawn = drawn_of(given_, spec_of(shares=[0.7, 0.3], rows=100, shortfall=policy))
    assert sums(given_, drawn, "rows") == (pytest.approx(real), pytest.approx(made))
    assert (drawn.times > 0).sum() == distinct and drawn.short_parts == [1]


def test_fail_says_what_lacks() -> None:
    with pytest.raises(UserError, match=r"part 'p1': 30 rows are wanted from it, which has 10; set shortfall"):
        drawn_of(plain(500, 10), spec_of(shares=[0.7, 0.3], rows=100))
    with pytest.raises(UserError, match=r"100 synthetic rows beside 70 real rows are a share of 0\.588, above"):
        drawn_of(plain(70, 100), spec_of())
    with pytest.raises(UserError, match=r"no part has real rows; add one, or set synthetic_max = 1"):
        drawn_of(plain(0, 100), spec_of(shortfall="shrink"))
    with pytest.raises(UserError, match=r"no part has real rows"):
        drawn_of(plain(0, 100), spec_of(shortfall="real"))
    with pytest.raises(UserError, match=r"part 'p1': no rows are left of it; set its share to 0"):
        drawn_of(plain(5, 0), spec_of(shares=[0.7, 0.3]))
    with pytest.raises(UserError, match=r"part 'p1': no row is left of it"):
        drawn_of(plain(5, 0), spec_of(shares=[0.7, 0.3], rows=10, shortfall="resample"))
    with pytest.raises(UserError, match=r"taken more than 100 times"):
        drawn_of(plain(500, 1), spec_of(shares=[0.7, 0.3], rows=400, shortfall="resample"))
    with pytest.raises(UserError, match=r"each real row would be taken more than 100 times"):
        drawn_of(plain(1, 300), spec_of(shortfall="real"))
    with pytest.raises(UserError, match=r"more than 1,000 real rows per synthetic one"):
        drawn_of(plain(1, 300), spec_of(shortfall="real", synthetic_max=0.0001))
    with pytest.raises(UserError, match=r"none of them fits"):
        drawn_of(plain(1, 300), spec_of(shortfall="shrink"))
    twice = plain(5, 5)
    twice.ids[7] = twice.ids[2]
    with pytest.raises(UserError, match=r"parts 'p0' and 'p1' share 1 rows of the same id"):
        drawn_of(twice, spec_of(shortfall="shrink"))


def test_shares_without_a_size_make_the_largest_mixture() -> None:
    drawn = drawn_of(plain(1000, 60), spec_of(shares=[0.8, 0.2]))
    assert drawn.times.sum() == 300 and not drawn.short_parts
    sized = drawn_of(plain(1000, 60), spec_of(shares=[0.8, 0.2], rows=101))
    assert sums(plain(1000, 60), sized, "rows") == (81, 20)


def test_a_share_at_the_cap_is_no_shortfall_by_tokens() -> None:
    """Rows do not divide: what rounding leaves must fall on the real side, or a share at the cap would be refused."""
    random = np.random.default_rng(0)
    lengths = random.integers(1, 90, 600).tolist()
    rows = rows_of([[(True, n, 0) for n in lengths[:400]], [(False, n, 0) for n in lengths[400:]]])
    for size in (500, 1001, 4000):
        drawn = drawn_of(rows, spec_of(shares=[0.7, 0.3], by="tokens", tokens=size))
        real, made = sums(rows, drawn, "tokens")
        assert made / (real + made) <= 0.3 and abs(real + made - size) < 200 and made > 0.3 * size - 90


def test_a_seed_draws_other_rows_of_the_same_number() -> None:
    spec = spec_of(shares=[0.7, 0.3], rows=100)
    one, other = (drawn_of(replace(plain(500, 500), keys=rows_of([[], []] + [[(True, 1, 0)] * 1000], s).keys), spec)
                  for s in (1, 2))  # fmt: skip
    assert one.times.sum() == other.times.sum() == 100 and (one.times != other.times).any()


def test_effective_rows() -> None:
    assert effective_size([(10, 1.0)]) == 10 and effective_size([(1, 2.0), (2, 1.0)]) == pytest.approx(16 / 6)
    drawn = drawn_of(plain(70, 10), spec_of(shares=[0.7, 0.3], rows=100, shortfall="resample"))
    assert drawn.effective_rows() == pytest.approx(100**2 / (70 + 10 * 9))


def test_words_and_twins_of_texts() -> None:
    assert num_tokens("It isn't 3.5%, naïve!") == 11 and num_tokens(None) == num_tokens(" \n") == 0
    assert text_key("A  b\n") == text_key("a B") != text_key("ab") and text_key(" ") == NO_KEY

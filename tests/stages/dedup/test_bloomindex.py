import math
import pickle
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.stages.dedup.bandindex import UNKNOWN
from gristmill.stages.dedup.bloomindex import BLOCK_BITS, BloomIndex, key_error, over_bands, shape
from tests.profiles import scaled


def fresh(num_rows: int, num_bands: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2**64, (num_rows, num_bands), np.uint64)


@pytest.mark.parametrize("error", [0.05, 0.01, 0.001])
@pytest.mark.parametrize("num_bands", [1, 9])
def test_a_full_filter_errs_as_often_as_stated(error: float, num_bands: int) -> None:
    num_rows, num_asked = 40_000, 200_000
    index = BloomIndex(num_bands, num_rows, error, num_bands)
    keys = fresh(num_rows, num_bands, 1)
    for start in range(0, num_rows, 999):
        part = slice(start, start + 999)
        index.insert(keys[part], np.arange(num_rows)[part], is_settled=True)
    assert (index.query(keys) == UNKNOWN).all()
    found = (index.query(fresh(num_asked, num_bands, 2)) != -1).mean()
    spread = math.sqrt(error / num_asked)
    # The bits come in quarters and so may be up to 2 % too many; the rest is chance (four sigma).
    assert error * 0.9 - 4 * spread < found < error + 4 * spread


@pytest.mark.parametrize("fill", [0.5, 1.5, 2.0])
def test_the_error_of_any_fill_is_foretold(fill: float) -> None:
    num_rows, num_asked = 30_000, 100_000
    bits, num_hashes = shape(0.01, 4)
    index = BloomIndex(4, num_rows, 0.01, 4)
    keys = fresh(int(num_rows * fill), 4, 1)
    index.insert(keys, np.arange(len(keys)), is_settled=True)
    expected = over_bands(key_error(bits / fill, num_hashes), 4)
    found = (index.query(fresh(num_asked, 4, 2)) != -1).mean()
    assert abs(found - expected) < 4 * math.sqrt(expected / num_asked) + 0.03 * expected


def test_the_filter_is_not_much_larger_than_a_classic_one() -> None:
    for error in (0.1, 0.01, 0.001, 1e-6):
        bits, num_hashes = shape(error, 1)
        classic = -math.log(error) / math.log(2) ** 2
        assert classic < bits < classic * 1.5 and num_hashes <= -math.log2(error) + 2
        index = BloomIndex(3, 10_000, error, 3)
        assert index.nbytes * 8 <= 3 * (10_000 * shape(error, 3)[0] + BLOCK_BITS)
    with pytest.raises(ValueError, match="too small for a filter"):
        shape(1e-15, 9)


@settings(max_examples=scaled(60), deadline=None)
@given(st.data(), st.integers(0, 2**32 - 1))
def test_taken_back_claims_leave_no_trace(data: st.DataObject, seed: int) -> None:
    """In any order of lots, settled or not, one bit for bit: filters hold what the claims that stay have set."""
    sizes = data.draw(st.lists(st.integers(0, 30), min_size=1, max_size=8))
    stay = data.draw(st.integers(0, len(sizes)))
    settled = data.draw(st.integers(0, stay))
    borders = np.cumsum([0, *sizes])
    keys = fresh(int(borders[-1]), 3, seed) % np.uint64(50)  # so few that claims share bits
    owners = np.arange(borders[-1])
    lots = [slice(a, b) for a, b in pairwise(borders)]
    index, plain = BloomIndex(3, 20, 0.01, 3), BloomIndex(3, 20, 0.01, 3)
    for number, lot in enumerate(lots):
        index.insert(keys[lot], owners[lot], is_settled=number < settled)
        if number % 3 == 0:
            index.insert(keys[lot], owners[lot])  # a second time, as when another actor was lost meanwhile
    index.settle(int(borders[settled]))
    index.retract(keys[borders[stay] :], owners[borders[stay] :])
    for lot in reversed(lots[:stay]):
        plain.insert(keys[lot], owners[lot], is_settled=True)
    np.testing.assert_array_equal(index._filters, plain._filters)
    for lot in lots[stay:]:
        index.insert(keys[lot], owners[lot])
        plain.insert(keys[lot], owners[lot])
    np.testing.assert_array_equal(index._filters, plain._filters)


@settings(max_examples=scaled(30), deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_bits_do_not_depend_on_how_bands_are_spread(num_bands: int, cut: int, seed: int) -> None:
    cut = min(cut, num_bands)
    keys, asked = fresh(300, num_bands, seed), fresh(2000, num_bands, seed + 1)
    whole = BloomIndex(num_bands, 100, 0.05, num_bands)
    parts = [(slice(0, cut), cut), (slice(cut, num_bands), num_bands - cut)]
    indexes = [(part, BloomIndex(size, 100, 0.05, num_bands)) for part, size in parts if size]
    whole.insert(keys, np.arange(300))
    for part, index in indexes:
        index.insert(np.asfortranarray(keys[:, part]), np.arange(300), is_settled=True)
    together = np.stack([index.query(asked[:, part]) for part, index in indexes]).min(axis=0)
    np.testing.assert_array_equal(whole.query(asked), together)
    assert (together != -1).any()
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(whole)).query(asked), together)


def test_what_cannot_be_taken_back_is_refused() -> None:
    index, keys = BloomIndex(2, 100, 0.01, 2), fresh(30, 2, 0)
    index.insert(keys[:10], np.arange(10))
    index.insert(keys[10:20], np.arange(10, 20))
    with pytest.raises(ValueError, match="from owner 15 on cannot be retracted"):
        index.retract(keys[15:20], np.arange(15, 20))
    index.settle(10)
    index.retract(keys[10:20], np.arange(10, 20))
    with pytest.raises(ValueError, match="from owner 0 on cannot be retracted"):
        index.retract(keys[:10], np.arange(10))
    with pytest.raises(ValueError, match=r"keys must be uint64 \(n, 2\)"):
        index.query(keys[:, :1])
    with pytest.raises(ValueError, match="owners must lie in 0 to"):
        index.insert(keys, np.arange(30) - 1)

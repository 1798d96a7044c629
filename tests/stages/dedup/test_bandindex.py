import pickle
from itertools import pairwise

import datasketch
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.stages.dedup.bandindex import MAX_OWNER, UNKNOWN, BandIndex, merge_answers, resolve
from gristmill.stages.dedup.minhash import band_keys, to_datasketch
from tests.profiles import scaled

ROWS = 3  # permutations a band, few so that random signatures often share one


def plain_pass(signed: np.ndarray, alive: np.ndarray, bands: int) -> list[int]:
    """Row by row through datasketch's own index: the smallest kept row that matches, -1 when kept or dead."""
    index = datasketch.MinHashLSH(num_perm=signed.shape[1], params=(bands, ROWS))
    verdicts = []
    for row, signature in enumerate(signed):
        verdicts.append(-1)
        if alive[row]:
            sketch = to_datasketch(signature)
            matches = index.query(sketch)
            if matches:
                verdicts[row] = min(matches)
            else:
                index.insert(row, sketch)
    return verdicts


def by_lots(keys: np.ndarray, alive: np.ndarray, sizes: list[int], slices: list[slice], offset: int) -> list[int]:
    """The same pass lot by lot over several indexes, as commits do it; owners count from `offset`."""
    indexes = [BandIndex(keys[:, s].shape[1]) for s in slices]
    verdicts: list[int] = []
    start = 0
    for size in [*sizes, len(keys)]:
        lot = slice(start, min(start + size, len(keys)))
        found = merge_answers([index.query(keys[lot, s]) for index, s in zip(indexes, slices)])
        owners = resolve(keys[lot], found, alive[lot], offset + start)
        kept = np.flatnonzero(alive[lot] & (owners < 0))
        for index, s in zip(indexes, slices):
            index.insert(keys[lot, s][kept], offset + start + kept)
        verdicts += [int(o) if o < 0 else int(o) - offset for o in owners]
        start = lot.stop
    return verdicts


@settings(max_examples=scaled(150), deadline=None)
@given(
    st.data(), st.integers(2, 7), st.integers(1, 3), st.integers(0, 250), st.integers(2, 6), st.integers(0, 2**32 - 1)
)
def test_kept_rows_are_those_of_a_plain_pass(
    data: st.DataObject, bands: int, num_slices: int, num_rows: int, values: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    signed = rng.integers(0, values, (num_rows, bands * ROWS), np.uint32)
    alive = rng.random(num_rows) < data.draw(st.sampled_from([0.2, 0.9, 1.0]))
    sizes = data.draw(st.lists(st.integers(0, 80), max_size=20))
    edges = np.linspace(0, bands, min(num_slices, bands) + 1).astype(int)
    slices = [slice(a, b) for a, b in pairwise(edges)]
    expected = plain_pass(signed, alive, bands)
    offset = data.draw(st.sampled_from([0, 2**32 - 100, 2**40 - 1000]))
    verdicts = by_lots(band_keys(signed, bands, ROWS), alive, sizes, slices, offset)
    assert verdicts == expected
    assert all(alive[v] and verdicts[v] == -1 and v < row for row, v in enumerate(verdicts) if v >= 0)


class Dictionaries:
    """What BandIndex promises, in Python dictionaries."""

    def __init__(self, num_bands: int) -> None:
        self.bands: list[dict[int, int]] = [{} for _ in range(num_bands)]

    def insert(self, keys: np.ndarray, owners: np.ndarray) -> None:
        for band, column in zip(self.bands, keys.T.tolist()):
            for key, owner in zip(column, owners.tolist()):
                band[key] = min(owner, band.get(key, owner))

    def query(self, keys: np.ndarray) -> list[int]:
        hits = [[b[k] for b, k in zip(self.bands, row) if k in b] for row in keys.tolist()]
        return [min(h, default=-1) for h in hits]


# Keys that meet: the key of empty slots, neighbours, both ends, and any.
KEYS = st.one_of(st.integers(0, 12), st.integers(2**64 - 5, 2**64 - 1), st.integers(0, 2**64 - 1))
OWNERS = st.one_of(st.integers(0, 20), st.integers(MAX_OWNER - 9, MAX_OWNER), st.integers(0, MAX_OWNER))


@settings(max_examples=scaled(150), deadline=None)
@given(st.integers(1, 3), st.data())
def test_index_is_a_dictionary(num_bands: int, data: st.DataObject) -> None:
    index, model = BandIndex(num_bands), Dictionaries(num_bands)
    row = st.tuples(st.lists(KEYS, min_size=num_bands, max_size=num_bands), OWNERS)
    for _ in range(data.draw(st.integers(1, 3))):
        rows = data.draw(st.lists(row, max_size=90))
        keys = np.array([r[0] for r in rows], np.uint64).reshape(len(rows), num_bands)
        owners = np.array([r[1] for r in rows], np.int64)
        index.insert(keys, owners)
        model.insert(keys, owners)
        asked = np.array(
            data.draw(st.lists(st.lists(KEYS, min_size=num_bands, max_size=num_bands), max_size=20)), np.uint64
        )
        asked = np.concatenate([keys, asked.reshape(-1, num_bands)])
        assert index.query(asked).tolist() == model.query(asked)
        assert pickle.loads(pickle.dumps(index)).query(asked).tolist() == model.query(asked)
    assert index.num_rows == max(len(band) for band in model.bands)


@pytest.mark.parametrize("num_rows", [5_000, 7_777, 20_000, 60_001])
def test_growth_keeps_every_row_below_200_bytes(num_rows: int) -> None:
    keys = np.random.default_rng(num_rows).integers(0, 2**64, (num_rows, 9), np.uint64)
    owners = np.arange(num_rows, dtype=np.int64) * 17 + (1 << 33)
    index = BandIndex(9)
    for start in range(0, num_rows, 997):
        index.insert(keys[start : start + 997], owners[start : start + 997])
        if start >= 4000:
            assert index.nbytes / index.num_rows <= 200
    assert index.num_rows == num_rows
    np.testing.assert_array_equal(index.query(keys), owners)
    assert (index.query(keys ^ np.uint64(1)) == -1).all()


def test_consecutive_keys_do_not_pile_up() -> None:
    keys = np.arange(50_000, dtype=np.uint64).reshape(-1, 1)
    for factor in (1, 1 << 20, 1 << 44):
        index = BandIndex(1)
        index.insert(keys * np.uint64(factor), np.arange(50_000))
        np.testing.assert_array_equal(index.query(keys * np.uint64(factor)), np.arange(50_000))


@settings(max_examples=scaled(100), deadline=None)
@given(st.integers(0, 2000), st.floats(0, 1), st.sampled_from([2**62, 3000]), st.integers(0, 2**32 - 1))
def test_retract_forgets_the_latest_claims(num_rows: int, share: float, values: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    keys = np.stack([rng.choice(values, num_rows, replace=values > 10_000) for _ in range(2)], 1).astype(np.uint64)
    owners, first = np.arange(num_rows), int(num_rows * share)
    index = BandIndex(2)
    index.insert(keys, owners)
    index.retract(keys[first:], owners[first:])
    np.testing.assert_array_equal(index.query(keys), np.where(owners < first, owners, -1))
    assert index.num_rows == first
    index.retract(keys[:first], owners[:first] + 1)  # what belongs to others stays theirs
    index.insert(keys[first:], owners[first:])
    np.testing.assert_array_equal(index.query(keys), owners)


def test_retract_closes_gaps_in_long_runs_of_slots() -> None:
    """Consecutive products with the inverse of the multiplier share their high bits, so all of them probe one run."""
    inverse = np.uint64(pow(0x9E3779B97F4A7C15, -1, 2**64))
    rng = np.random.default_rng(3)
    for start in (0, 2**58 - 45):  # at the begin of a table, and round its end
        keys = ((np.arange(90, dtype=np.uint64) + np.uint64(start)) * inverse).reshape(-1, 1)
        owners = np.arange(90)
        index = BandIndex(1)
        index.reserve(50_000)
        index.insert(keys, owners)
        gone = rng.permutation(90)
        for row in gone[:60]:
            index.retract(keys[row : row + 1], owners[row : row + 1])
        stays = np.isin(owners, gone[60:])
        np.testing.assert_array_equal(index.query(keys), np.where(stays, owners, -1))


@settings(max_examples=scaled(50), deadline=None)
@given(st.integers(0, 20_000), st.integers(0, 3_000))
def test_reserved_room_moves_nothing_and_answers_alike(reserved: int, num_rows: int) -> None:
    keys = np.random.default_rng(num_rows).integers(0, 2**64, (num_rows, 3), np.uint64)
    index = BandIndex(3)
    index.reserve(reserved)
    before = index.nbytes
    index.insert(keys[: num_rows // 2], np.arange(num_rows // 2))
    index.insert(np.asfortranarray(keys[num_rows // 2 :]), np.arange(num_rows // 2, num_rows))
    np.testing.assert_array_equal(index.query(keys), np.arange(num_rows))
    np.testing.assert_array_equal(index.query(np.asfortranarray(keys)), np.arange(num_rows))
    if num_rows * 1.2 + 1000 < reserved:
        assert index.nbytes == before
    if reserved >= 5000:
        assert before / reserved < 3 * 21.2


def test_merged_answers_name_the_smallest_owner_else_admit_that_they_know_none() -> None:
    answers = [[7, -1, -1, -2, -2, -1], [3, 9, -1, -1, 5, -2], [-1, -1, -1, -2, 8, -1]]
    arrays = [np.array(a) for a in answers]
    assert merge_answers(arrays).tolist() == [3, 9, -1, -2, 5, -2]
    assert merge_answers(arrays[::-1]).tolist() == merge_answers(arrays).tolist()
    assert merge_answers(arrays[:1]).tolist() == answers[0] and arrays[0].tolist() == answers[0]


def test_resolve_prefers_the_earlier_owner_and_ignores_the_dead() -> None:
    keys = np.array([[1, 2], [1, 9], [3, 2], [3, 4], [5, 4], [1, 4]], np.uint64)
    found = np.array([-1, -1, 7, -1, -1, -1])
    alive = np.array([False, True, True, True, True, True])
    # Row 0 is dead, 2 duplicates owner 7 and so does not claim (3, 2); row 5 meets rows 1 and 3.
    assert resolve(keys, found, alive, 100).tolist() == [-1, -1, 7, -1, 103, 101]
    assert resolve(keys[:0], found[:0], alive[:0], 0).shape == (0,)


def test_resolve_names_a_twin_in_the_lot_before_it_says_unknown() -> None:
    keys = np.array([[1, 2], [3, 4], [1, 9], [3, 8], [5, 6]], np.uint64)
    found = np.array([-1, UNKNOWN, UNKNOWN, -1, UNKNOWN])
    # Row 1 is like a row nobody can name, and so claims nothing: row 3 is kept. Row 2 is like one too, and like row 0.
    assert resolve(keys, found, np.ones(5, bool), 100).tolist() == [-1, UNKNOWN, 100, -1, UNKNOWN]


def test_wrong_arguments_are_refused() -> None:
    index = BandIndex(2)
    with pytest.raises(ValueError, match=r"keys must be uint64 \(n, 2\), not int64 \(1, 2\)"):
        index.query(np.zeros((1, 2), np.int64))
    for owner in (-1, MAX_OWNER + 1):
        with pytest.raises(ValueError, match="owners must lie in 0 to"):
            index.insert(np.zeros((1, 2), np.uint64), np.array([owner]))
    with pytest.raises(ValueError, match="but owners of shape"):
        index.insert(np.zeros((2, 2), np.uint64), np.array([1]))
    with pytest.raises(ValueError, match="num_bands must be at least 1"):
        BandIndex(0)

"""The index by meaning against a plain pass over the same vectors, and what it is fed in a run."""

import pickle
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.stages.dedup import nearindex
from gristmill.stages.dedup.bandindex import NOBODY
from gristmill.stages.dedup.nearindex import NearIndex, keys_of, vectors_of
from gristmill.stages.embeddings import cosines, quantise
from tests.profiles import scaled

DIMENSION, THRESHOLD = 20, 0.9
KEYS = 3


def rows(seed: int, num: int, dimension: int = DIMENSION) -> np.ndarray:
    """Vectors in a few loose heaps, so that about half of them are near another."""
    draw = np.random.default_rng(seed)
    centres = draw.normal(size=(max(1, num // 4), dimension))
    return quantise(centres[draw.integers(0, len(centres), num)] + draw.normal(0, 0.35, (num, dimension)))


def plain_pass(vectors: np.ndarray, alive: np.ndarray) -> list[int]:
    """Row by row against every kept row: the first that is near, -1 when kept or dead."""
    kept: list[int] = []
    verdicts = []
    for row, is_alive in enumerate(alive):
        near = [k for k in kept if cosines(vectors[row : row + 1], vectors[k : k + 1])[0, 0] >= THRESHOLD]
        verdicts.append(near[0] if is_alive and near else NOBODY)
        if is_alive and not near:
            kept.append(row)
    return verdicts


@settings(max_examples=scaled(60), deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.lists(st.integers(0, 60), max_size=4), st.booleans())
def test_lots_of_any_size_get_the_verdicts_of_a_plain_pass(seed: int, num: int, cuts: list[int], small: bool) -> None:
    vectors = rows(seed, num)
    alive = np.random.default_rng(seed).random(num) < 0.8
    keys = keys_of(vectors)
    index = NearIndex(KEYS, DIMENSION, THRESHOLD)
    verdicts: list[int] = []
    edges = sorted({0, num, *(cut for cut in cuts if cut < num)})
    with pytest.MonkeyPatch.context() as patch:
        if small:
            patch.setattr(nearindex, "BLOCK", 5)
            patch.setattr(nearindex, "QUERY_ROWS", 7)
        for first, stop in pairwise(edges):
            found = np.full(stop - first, NOBODY, np.int64)
            found[alive[first:stop]] = index.query(keys[first:stop][alive[first:stop]])
            fresh = NearIndex(KEYS, DIMENSION, THRESHOLD)
            answers = fresh.resolve(keys[first:stop], found, alive[first:stop], first)
            kept = np.flatnonzero(alive[first:stop] & (answers == NOBODY))
            index.insert(keys[first:stop][kept], first + kept)
            verdicts += answers.tolist()
    assert verdicts == plain_pass(vectors, alive)
    assert index.num_rows == sum(v == NOBODY for v, a in zip(verdicts, alive) if a)


def test_every_pair_above_the_threshold_is_found_and_none_below() -> None:
    """Where hashes of signs would find a pair at 0.9 by chance only (docs/recipes.md): there is no chance here."""
    draw = np.random.default_rng(3)
    kept = draw.normal(size=(400, 384))
    kept /= np.linalg.norm(kept, axis=1, keepdims=True)
    aside = draw.normal(size=(400, 384))
    aside -= (aside * kept).sum(axis=1, keepdims=True) * kept
    aside /= np.linalg.norm(aside, axis=1, keepdims=True)
    index = NearIndex(48, 384, 0.9)
    index.insert(keys_of(quantise(kept)), np.arange(400))
    for cosine, is_found in ((0.91, True), (0.95, True), (0.99, True), (0.89, False), (0.7, False), (0.0, False)):
        asked = quantise(cosine * kept + np.sqrt(1 - cosine**2) * aside)
        expected = np.arange(400) if is_found else np.full(400, NOBODY)
        np.testing.assert_array_equal(index.query(keys_of(asked)), expected)


def test_claims_twice_retractions_and_pickles() -> None:
    vectors = rows(5, 50)
    keys, owners = keys_of(vectors), np.arange(100, 150)
    index = NearIndex(KEYS, DIMENSION, THRESHOLD)
    index.reserve(10)
    index.insert(keys[:30], owners[:30])
    before = index.query(keys)
    index.insert(keys[20:], owners[20:])
    index.insert(keys[20:], owners[20:])
    assert index.num_rows == 50 and index.nbytes >= 50 * (DIMENSION + 16)
    copy: NearIndex = pickle.loads(pickle.dumps(index))
    np.testing.assert_array_equal(copy.query(keys), index.query(keys))
    index.retract(keys[30:], owners[30:])
    np.testing.assert_array_equal(index.query(keys), before)
    index.settle(120)
    assert index.num_rows == 30 and (copy.query(keys) >= 100).all()


def test_equal_vectors_are_duplicates_at_the_highest_threshold() -> None:
    vectors = rows(9, 500)
    index = NearIndex(KEYS, DIMENSION, 1.0)
    index.insert(keys_of(vectors), np.arange(500))
    assert (index.query(keys_of(vectors)) >= 0).all()


@pytest.mark.parametrize("keys", [np.zeros((2, 4), np.uint64), np.zeros((2, 3), np.int64), np.zeros(3, np.uint64)])
def test_wrong_keys_are_refused(keys: Any) -> None:
    with pytest.raises(ValueError, match="keys must be uint64"):
        NearIndex(KEYS, DIMENSION, THRESHOLD).query(keys)
    with pytest.raises(ValueError, match="cannot hold"):
        NearIndex(KEYS, 40, THRESHOLD)


@given(st.integers(1, 40), st.integers(0, 5))
def test_keys_hold_the_vectors(dimension: int, num: int) -> None:
    vectors = np.random.default_rng(dimension).integers(-127, 128, (num, dimension)).astype(np.int8)
    keys = keys_of(vectors)
    assert keys.shape == (num, -(-dimension // 8)) and keys.dtype == np.uint64
    np.testing.assert_array_equal(vectors_of(keys, dimension), vectors)
    np.testing.assert_array_equal(vectors_of(np.asfortranarray(keys), dimension), vectors)


def test_the_stage_makes_its_keys_of_a_stored_column() -> None:
    from gristmill.stages.dedup.semantic import DedupSemantic, DedupSemanticSpec
    from tests.engines.models import encoder

    stage = DedupSemantic(DedupSemanticSpec(model=encoder(), window=16))
    texts = pa.array(["The mill of grain", "a list of numbers " * 20, None, ""], pa.string())
    batch = pa.RecordBatch.from_arrays([texts, pa.nulls(4, pa.string())], ["text", "reject"])
    column = stage.run(batch).column("embedding")
    assert column.type == pa.list_(pa.int8(), 24) and column.null_count == 0 and column[2] == column[3]
    keys = stage.keys(column)
    assert keys.shape == (4, stage.bands) == (4, 3)
    held = pa.chunked_array([column.slice(1, 2), pa.nulls(1, column.type), column.slice(3)])
    np.testing.assert_array_equal(stage.keys(held), np.concatenate([keys[1:3], np.zeros((1, 3), np.uint64), keys[3:]]))
    assert stage.keys(pa.chunked_array([], column.type)).shape == (0, 3)
    other = pa.array([[-v for v in row.as_py()] for row in column], column.type)
    assert stage.agree(column, column) and not stage.agree(column, other)
    assert stage.probe().shape == (1, 3) and stage.is_exact and stage.error_at(10**9) == 0.0

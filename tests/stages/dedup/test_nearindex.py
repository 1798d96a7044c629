"""The index by meaning against a plain pass over the same vectors, and what it is fed in a run."""

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gristmill.stages.dedup import nearindex, nearrows
from gristmill.stages.dedup.bandindex import NOBODY, merge_answers
from gristmill.stages.dedup.nearindex import NearIndex, keys_of, vectors_of
from gristmill.stages.dedup.products import FloatProducts, Int8Products, is_int8_exact
from gristmill.stages.embeddings import cosines, quantise
from tests.profiles import scaled

DIMENSION, THRESHOLD = 20, 0.9
KEYS = 3
WIDE = 64  # numbers of a vector that has a head and a tail


def rows(seed: int, num: int, dimension: int = DIMENSION, spread: float = 0.35) -> np.ndarray:
    """Vectors in a few loose heaps, so that about half of them are near another."""
    draw = np.random.default_rng(seed)
    centres = draw.normal(size=(max(1, num // 4), dimension))
    return quantise(centres[draw.integers(0, len(centres), num)] + draw.normal(0, spread, (num, dimension)))


def is_near(later: np.ndarray, earlier: np.ndarray, threshold: float) -> bool:
    """The definition: whole numbers, and 1e-6 for the rounding of the root."""
    product = sum(int(a) * int(b) for a, b in zip(later, earlier))
    sizes = [float(np.sqrt(float(sum(int(a) ** 2 for a in vector)))) for vector in (later, earlier)]
    return product >= threshold * sizes[0] * sizes[1] - 1e-6


def plain_pass(vectors: np.ndarray, alive: np.ndarray, threshold: float) -> list[int]:
    """Row by row against every kept row: the first that is near, -1 when kept or dead."""
    kept: list[int] = []
    verdicts = []
    for row, is_alive in enumerate(alive):
        twin = next((k for k in kept if is_near(vectors[row], vectors[k], threshold)), None) if is_alive else None
        verdicts.append(NOBODY if twin is None else twin)
        if is_alive and twin is None:
            kept.append(row)
    return verdicts


def lot_by_lot(
    vectors: np.ndarray, alive: np.ndarray, threshold: float, edges: list[int], num_actors: int
) -> tuple[list[int], list[NearIndex]]:
    """The verdicts on lots between `edges` by indexes that share the rows, and these indexes."""
    dimension, keys = vectors.shape[1], keys_of(vectors)
    indexes = [NearIndex(keys.shape[1], dimension, threshold) for _ in range(num_actors)]
    verdicts: list[int] = []
    for first, stop in pairwise(edges):
        living = alive[first:stop]
        found = np.full(stop - first, NOBODY, np.int64)
        found[living] = merge_answers([index.query(keys[first:stop][living]) for index in indexes])
        fresh = NearIndex(keys.shape[1], dimension, threshold)
        answers = fresh.resolve(keys[first:stop], found, living, first)
        kept = first + np.flatnonzero(living & (answers == NOBODY))
        for number, index in enumerate(indexes):
            own = kept[kept % num_actors == number]
            index.insert(keys[own], own)
        verdicts += answers.tolist()
    return verdicts, indexes


@pytest.fixture
def sizes() -> Iterator[Callable[..., None]]:
    """Sets the sizes of the search, until the test ends."""
    with pytest.MonkeyPatch.context() as patch:

        def change(small: bool, head: int, by_int8: bool, share: int) -> None:
            patch.setattr(nearindex, "head_of", lambda dimension, threshold: min(head, dimension))
            patch.setattr(nearindex, "INT8_ROWS", 0 if by_int8 else 2**62)
            patch.setattr(nearindex, "OPEN_SHARE", share)
            patch.setattr(nearindex, "MIN_OPEN", 3)
            for module, name, few, many in (
                (nearindex, "BLOCK", 5, 512),
                (nearindex, "QUERY_ROWS", 7, 512),
                (nearrows, "MIN_ROOM", 3, 1024),
                (nearrows, "MAX_ROOM", 11, 65536),
            ):
                patch.setattr(module, name, few if small else many)

        yield change


@settings(max_examples=scaled(120), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**32 - 1),
    num=st.integers(1, 60),
    cuts=st.lists(st.integers(0, 60), max_size=4),
    num_actors=st.integers(1, 4),
    threshold=st.sampled_from([0.5, 0.8, 0.9, 0.97, 1.0]),
    shape=st.tuples(st.booleans(), st.sampled_from([8, 32, WIDE]), st.booleans(), st.sampled_from([1, 32])),
)
def test_lots_and_actors_of_any_number_give_the_verdicts_of_a_plain_pass(
    sizes: Callable[..., None], seed: int, num: int, cuts: list[int], num_actors: int, threshold: float, shape: Any
) -> None:
    sizes(*shape)
    vectors = rows(seed, num, WIDE)
    alive = np.random.default_rng(seed).random(num) < 0.8
    edges = sorted({0, num, *(cut for cut in cuts if cut < num)})
    verdicts, indexes = lot_by_lot(vectors, alive, threshold, edges, num_actors)
    assert verdicts == plain_pass(vectors, alive, threshold)
    assert sum(index.num_rows for index in indexes) == sum(v == NOBODY for v, a in zip(verdicts, alive) if a)


@settings(max_examples=scaled(200), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**32 - 1),
    nudge=st.sampled_from([0.0, 2e-16, -2e-16, 1e-12, 1e-9, -1e-9, 1e-6, -1e-6]),
    same_tails=st.booleans(),
    shape=st.tuples(st.just(False), st.sampled_from([8, 32, WIDE]), st.booleans(), st.sampled_from([1, 32])),
)
def test_pairs_at_the_very_threshold_are_told_as_by_the_definition(
    sizes: Callable[..., None], seed: int, nudge: float, same_tails: bool, shape: Any
) -> None:
    """The threshold is the cosine of a pair. Where tails are equal the bound is no larger than the product itself."""
    sizes(*shape)
    draw = np.random.default_rng(seed)
    vectors = draw.integers(-127, 128, (24, WIDE)).astype(np.int8)
    vectors[:, shape[1] :] = vectors[0, shape[1] :] if same_tails else vectors[:, shape[1] :]
    vectors[12:] = np.clip(vectors[:12] + draw.integers(-20, 21, (12, WIDE)), -127, 127)
    one, other = draw.integers(0, 12) + 12, draw.integers(0, 12)
    threshold = min(1.0, float(cosines(vectors[one : one + 1], vectors[other : other + 1])[0, 0]) + nudge)
    if threshold <= 0:
        return
    index = NearIndex(WIDE // 8, WIDE, threshold)
    places = draw.permutation(12)  # the smallest owner counts, not the first row
    index.insert(keys_of(vectors[places]), places)
    expected = [
        next((k for k in range(12) if is_near(vectors[row], vectors[k], threshold)), NOBODY) for row in range(12, 24)
    ]
    assert index.query(keys_of(vectors[12:])).tolist() == expected


@pytest.mark.parametrize("dimension", [24, 384, 1100])
def test_products_of_the_largest_numbers_are_exact(dimension: int) -> None:
    draw = np.random.default_rng(dimension)
    a, b = (draw.integers(-128, 128, (n, dimension)).astype(np.int8) for n in (9, 70))
    a[:3], b[:3] = np.array([[127], [-128], [0]]), np.array([[127], [-128], [-1]])
    expected = a.astype(np.int64) @ b.astype(np.int64).T
    kinds = [FloatProducts(dimension), *([Int8Products()] if is_int8_exact() else [])]
    for products in kinds:
        np.testing.assert_array_equal(products(a, b), expected)
        np.testing.assert_array_equal(products(a[:4], b[:5]), expected[:4, :5])


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


def test_sums_that_overflow_are_noticed() -> None:
    """Without VNNI, oneDNN adds pairs of products in int16; a variable takes the instructions from it."""
    code = "from gristmill.stages.dedup.products import is_int8_exact; assert not is_int8_exact()"
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}, check=True)


@pytest.mark.parametrize("dimension", [1024, 1500])
def test_products_that_float32_cannot_hold_are_exact(sizes: Callable[..., None], dimension: int) -> None:
    """Heads and tails fit float32 each, their sum does not: one more or less decides, where a threshold is a cosine."""
    sizes(False, dimension // 2, False, 2**62)
    vectors = np.full((13, dimension), 127, np.int8)
    vectors[1:, :9] = np.random.default_rng(0).integers(110, 127, (12, 9))
    for row in range(1, 13):
        threshold = float(cosines(vectors[:1], vectors[row : row + 1])[0, 0])
        index = NearIndex(-(-dimension // 8), dimension, threshold)
        index.insert(keys_of(vectors[[row] * 5]), np.arange(5)[::-1])  # the first rows are computed in full
        assert is_near(vectors[0], vectors[row], threshold) and index.query(keys_of(vectors[:1])).tolist() == [0]


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

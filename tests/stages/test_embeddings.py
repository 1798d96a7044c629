"""What a model's files say; windows over tokens; cosines are exact."""

import json
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.engines import models
from gristmill.records.errors import UserError
from gristmill.stages import embeddings as embedding
from gristmill.stages.embeddings import DEFAULT, cosines, dots, quantise, split_evenly, windows
from tests.engines.models import encoder
from tests.profiles import scaled


@given(st.integers(0, 400), st.integers(1, 80), st.integers(1, 80))
def test_windows_cover_and_are_full(length: int, size: int, step: int) -> None:
    step = min(step, size)
    found = windows(length, size, step)
    assert found[0][0] == 0 and found[-1][1] == length
    assert all(b[0] <= a[1] and b[0] > a[0] for a, b in pairwise(found))
    assert len(found) == 1 or all(stop - first == size for first, stop in found)


@given(st.integers(0, 2000), st.integers(1, 300))
def test_parts_cover_and_differ_by_one_at_most(length: int, size: int) -> None:
    found = split_evenly(length, size)
    sizes = [stop - first for first, stop in found]
    assert sum(sizes) == length and found[0][0] == 0 and max(sizes) <= size and max(sizes) - min(sizes) <= 1
    assert all(a[1] == b[0] for a, b in pairwise(found))


@settings(max_examples=scaled(50), deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([24, 384, 1024, 1536]))
def test_products_are_exact_and_rounding_moves_a_cosine_by_little(seed: int, dimension: int) -> None:
    draw = np.random.default_rng(seed)
    ints = draw.integers(-127, 128, (7, dimension)).astype(np.int8)
    extreme = np.full((2, dimension), 127, np.int8)
    a, b = np.concatenate([ints, extreme]), np.concatenate([extreme, ints[:3]])
    np.testing.assert_array_equal(dots(a, b).astype(np.int64), a.astype(np.int64) @ b.astype(np.int64).T)
    whole = cosines(a, b)
    one = np.array([[cosines(a[i : i + 1], b[j : j + 1])[0, 0] for j in range(len(b))] for i in range(len(a))])
    np.testing.assert_array_equal(whole, one)
    floats = draw.normal(size=(6, dimension))
    floats[1] = 0.9 * floats[0] + 0.3 * floats[1]
    unit = floats / np.linalg.norm(floats, axis=1, keepdims=True)
    assert np.abs(cosines(quantise(floats), quantise(floats)) - unit @ unit.T).max() < 0.02 * (24 / dimension) + 0.003


def test_the_models_own_files_say_what_it_is(tmp_path: Path) -> None:
    assert embedding.dimension(DEFAULT) == 384 and embedding.pooling(DEFAULT) == "mean"
    embedding.check(DEFAULT)
    folder = Path(shutil.copytree(encoder(), tmp_path / "encoder"))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_max_tokens": True}))
    with pytest.raises(UserError, match="pooling_mode_max_tokens is not supported"):
        embedding.check(str(folder))
    (folder / "tokenizer.json").unlink()
    with pytest.raises(UserError, match="it has no tokenizer.json"):
        embedding.check(str(folder))


def test_the_packaged_model_is_used_where_it_lies() -> None:
    assert Path(models.resolve(DEFAULT), "model.safetensors").is_file()
    assert len(models.digest(DEFAULT)) == 32

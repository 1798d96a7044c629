"""Vectors hang on their text alone; their cosines are exact."""

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
from gristmill.stages.embeddings import DEFAULT, Encoder, cosines, dots, quantise, split_evenly, windows
from tests.engines.models import encoder
from tests.profiles import scaled

SENTENCES = (
    "The mill stands by the river, and the river turns its wheel.",
    "A wheel that the river turns drives the mill on its bank.",
    "Prime numbers have no divisors but one and themselves.",
)


@pytest.fixture(scope="module")
def minilm() -> Encoder:
    return Encoder(DEFAULT)


def pieces(minilm: Encoder, lengths: list[int]) -> list[list[int]]:
    draw = np.random.default_rng(1)
    return [draw.integers(1000, 29000, length).tolist() for length in lengths]


def test_a_vector_is_the_same_alone_in_any_company_and_on_any_number_of_threads(minilm: Encoder) -> None:
    import torch

    asked = pieces(minilm, [1, 2, 3, 5, 9, 33, *[64] * 19, 100, 254])
    alone = np.concatenate([minilm.vectors([piece]) for piece in asked])
    assert alone.dtype == np.int8 and alone.shape == (len(asked), 384)
    np.testing.assert_array_equal(minilm.vectors(asked), alone)
    np.testing.assert_array_equal(minilm.vectors(asked, usual=64), alone)
    np.testing.assert_array_equal(minilm.vectors(asked[::-1], usual=64), alone[::-1])
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        np.testing.assert_array_equal(minilm.vectors(asked[:10], usual=64), alone[:10])
        assert torch.get_num_threads() == 2  # the process's own setting is left as it was
    finally:
        torch.set_num_threads(before)


def test_pieces_are_joined_only_where_no_bit_changes(minilm: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = pieces(minilm, [20] * 8)
    sizes: list[int] = []
    forward = Encoder._forward

    def skewed(self: Encoder, group: list[list[int]]) -> np.ndarray:
        """A machine on which batches have other bits."""
        sizes.append(len(group))
        return forward(self, group) + np.float32(1e-6 if len(group) > 1 else 0)

    monkeypatch.setattr(Encoder, "_forward", skewed)
    minilm._can_batch.clear()
    minilm.vectors(asked, usual=20)
    assert sizes[-8:] == [1] * 8 and not minilm._can_batch[20]
    minilm._can_batch.clear()


def test_what_means_the_same_lies_near(minilm: Encoder) -> None:
    found = cosines(*[minilm.text_vectors(SENTENCES, 126)] * 2)
    assert found[0, 1] > 0.75 and found[0, 2] < 0.3 and found[1, 2] < 0.3
    np.testing.assert_allclose(found.diagonal(), 1.0, atol=1e-12)


def test_a_long_text_counts_to_its_end(minilm: Encoder) -> None:
    half = " ".join([SENTENCES[0]] * 20)
    long = minilm.text_vectors([half, f"{half} " + " ".join([SENTENCES[2]] * 20)], 126)
    ending = cosines(long, minilm.text_vectors([SENTENCES[2]], 126))[:, 0]
    assert ending[1] > ending[0] + 0.3


def test_tokens_tell_their_characters(minilm: Encoder) -> None:
    text = "Über den Fluss – a\nwheel"
    ids, offsets = minilm.tokens(text)
    assert len(ids) == len(offsets) and text[offsets[-1][0] : offsets[-1][1]] == "wheel"
    assert "".join(text[first:stop] for first, stop in offsets).startswith("Überden")
    assert len(minilm.tokens("wheel " * 5000)[0]) == 5000  # nothing is cut off


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
    made = Encoder(str(folder))
    assert (made.dimension, made.max_tokens) == (24, 64)
    mean, first = made.vectors([[5, 6, 7]]), embedding.digest(str(folder))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_cls_token": True}))
    assert embedding.digest(str(folder)) != first
    assert not np.array_equal(Encoder(str(folder)).vectors([[5, 6, 7]]), mean)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_max_tokens": True}))
    with pytest.raises(UserError, match="pooling_mode_max_tokens is not supported"):
        embedding.check(str(folder))
    (folder / "tokenizer.json").unlink()
    with pytest.raises(UserError, match="it has no tokenizer.json"):
        embedding.check(str(folder))


def test_the_packaged_model_is_used_where_it_lies() -> None:
    assert Path(models.resolve(DEFAULT), "model.safetensors").is_file()
    assert len(models.digest(DEFAULT)) == 32

"""A vector depends on its text alone: not on its neighbours, its place, the order or the threads."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.records.errors import UserError
from gristmill.records.spec import build
from gristmill.stages import embeddings as embedding
from gristmill.stages.decontaminate.benchmarks import Benchmark
from gristmill.stages.decontaminate.embedding import DecontaminateEmbedding, DecontaminateEmbeddingSpec
from gristmill.stages.dedup.semantic import DedupSemantic, DedupSemanticSpec
from gristmill.stages.embeddings import DEFAULT, cosines
from gristmill.stages.encoders import bert
from gristmill.stages.encoders.encoder import Encoder
from tests.bench.corpus import sentences
from tests.engines.models import encoder
from tests.profiles import scaled

SENTENCES = (
    "The mill stands by the river, and the river turns its wheel.",
    "A wheel that the river turns drives the mill on its bank.",
    "Prime numbers have no divisors but one and themselves.",
)
LENGTHS = (1, 2, 5, 6, 14, 30, 40, 62, 64, 64, 64, 100, 126, 200, 254)


@pytest.fixture(scope="module")
def minilm() -> Encoder:
    return Encoder(DEFAULT)


@pytest.fixture(scope="module")
def pieces() -> list[list[int]]:
    draw = np.random.default_rng(1)
    return [draw.integers(1000, 29000, length).tolist() for length in LENGTHS * 3]


@pytest.fixture(scope="module")
def alone(minilm: Encoder, pieces: list[list[int]]) -> np.ndarray:
    """The vector of each piece, computed without another."""
    return np.concatenate([minilm.vectors([piece], usual=64) for piece in pieces])


@settings(max_examples=scaled(12), deadline=None)
@given(st.data())
def test_a_vector_is_the_same_among_random_neighbours(
    minilm: Encoder, pieces: list[list[int]], alone: np.ndarray, data: st.DataObject
) -> None:
    places = data.draw(st.lists(st.integers(0, len(pieces) - 1), min_size=1, max_size=40))
    found = minilm.vectors([pieces[place] for place in places], usual=64)
    assert found.dtype == np.int8 and found.shape == (len(places), 384)
    np.testing.assert_array_equal(found, alone[places])


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
@settings(max_examples=scaled(10), deadline=None)
@given(data=st.data())
def test_a_text_is_the_same_in_any_order_and_number(precision: Any, data: st.DataObject) -> None:
    found = _tiny(precision)
    texts = data.draw(st.lists(st.sampled_from(sentences()[:60]) | st.text(max_size=30), min_size=1, max_size=30))
    whole = found.text_vectors(texts, 20)
    order = data.draw(st.permutations(range(len(texts))))
    np.testing.assert_array_equal(found.text_vectors([texts[i] for i in order], 20), whole[order])
    cut = data.draw(st.integers(0, len(texts)))
    parts = [found.text_vectors(part, 20) for part in (texts[:cut], texts[cut:])]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


TINY: dict[str, Encoder] = {}


def _tiny(precision: Any) -> Encoder:
    if precision not in TINY:
        TINY[precision] = Encoder(encoder(), precision)
    return TINY[precision]


def test_the_number_of_threads_changes_nothing(minilm: Encoder, pieces: list[list[int]], alone: np.ndarray) -> None:
    import torch

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        np.testing.assert_array_equal(minilm.vectors(pieces[:12], usual=64), alone[:12])
        assert torch.get_num_threads() == 2  # the process's own setting is left as it was
    finally:
        torch.set_num_threads(before)


def test_a_batch_holds_one_piece_where_its_place_changes_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    forward = Encoder._forward

    def skewed(self: Encoder, batch: Any, length: int, size: int) -> np.ndarray:
        """A machine on which the place in a batch changes the last bits."""
        sizes.append(size)
        return forward(self, batch, length, size) + np.arange(size, dtype=np.float32)[:, None] * np.float32(1e-6)

    monkeypatch.setattr(Encoder, "_forward", skewed)
    found = Encoder(encoder())
    piece = [5, 6, 7, 8, 9, 10]
    vectors = found.vectors([piece] * 5)
    assert sizes == [96, 96, 1, 1, 1, 1, 1]
    np.testing.assert_array_equal(vectors, vectors[:1].repeat(5, axis=0))


def test_bfloat16_is_near_float32_with_and_without_its_instructions(
    minilm: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [*SENTENCES, " ".join(SENTENCES) * 8, *sentences()[::500]]
    fast, exact = minilm.text_vectors(texts, 126), Encoder(DEFAULT, "float32").text_vectors(texts, 126)
    assert np.abs(cosines(fast, fast) - cosines(exact, exact)).max() < 0.01
    assert cosines(fast, exact).diagonal().min() > 0.999
    monkeypatch.setattr(bert, "has_bfloat16", lambda: False)
    emulated = Encoder(DEFAULT).text_vectors(texts, 126)
    assert np.abs(cosines(emulated, emulated) - cosines(exact, exact)).max() < 0.01
    assert cosines(fast, emulated).diagonal().min() > 0.999


def test_scores_of_any_size_give_a_softmax() -> None:
    from gristmill.stages.kernels.encoder import attention_weights

    draw = np.random.default_rng(0)
    scores = draw.normal(size=(2, 1, 16, 16)).astype(np.float32) * np.array([1, 10, 100, 1000] * 4, np.float32)[:, None]
    scores[0, 0, 3] -= 5000
    scores = _widened(_bfloat16(scores))
    lengths = np.array([16, 11])
    weights, totals = np.empty((2, 1, 16, 16), np.uint16), np.empty((2, 1, 16), np.float32)
    attention_weights(_bfloat16(scores), lengths, 0.5, weights, totals)
    for piece, size in enumerate(lengths):
        exponents = 0.5 * scores[piece, 0, :size, :size].astype(np.float64)
        expected = np.exp(exponents - exponents.max(1, keepdims=True))
        expected /= expected.sum(1, keepdims=True)
        result = _widened(weights)[piece, 0] / totals[piece, 0][:, None]
        assert np.abs(result[:size, :size] - expected).max() < 0.005
        assert np.abs(result[:, size:]).max(initial=0) < 1e-15 and not result[size:].any()


def _bfloat16(numbers: np.ndarray) -> np.ndarray:
    return (numbers.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)


def _widened(bits: np.ndarray) -> np.ndarray:
    return (bits.astype(np.uint32) << 16).view(np.float32)


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


def test_the_models_own_files_say_what_it_is(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(encoder(), tmp_path / "encoder"))
    found = Encoder(str(folder))
    assert (found.dimension, found.max_tokens) == (24, 64)
    mean, first = found.vectors([[5, 6, 7]]), embedding.digest(str(folder))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_cls_token": True}))
    assert embedding.digest(str(folder)) != first
    assert not np.array_equal(Encoder(str(folder)).vectors([[5, 6, 7]]), mean)


@pytest.mark.parametrize("family", ["Camembert", "Roberta", "XLMRoberta"])
def test_relatives_of_bert_agree_with_transformers(family: str, tmp_path: Path) -> None:
    import torch
    import transformers

    folder = Path(shutil.copytree(encoder(), tmp_path / "encoder"))
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    config = getattr(transformers, f"{family}Config")(
        vocab_size=100, max_position_embeddings=80, pad_token_id=0, bos_token_id=2, eos_token_id=3, **sizes
    )
    with torch.random.fork_rng():
        torch.manual_seed(2)
        getattr(transformers, f"{family}Model")(config).save_pretrained(folder)
    found, exact = Encoder(str(folder)), Encoder(str(folder), "float32")
    assert found._bert is not None and exact._bert is None
    pieces = [[5, 6, 7], [8] * 30, [9, 10]]
    assert cosines(found.vectors(pieces), exact.vectors(pieces)).diagonal().min() > 0.999


def test_a_model_without_berts_layers_runs_in_transformers(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(encoder(), tmp_path / "encoder"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "hidden_act": "relu"}))
    found = Encoder(str(folder))
    pieces = [[5, 6, 7], [8] * 30, [9, 10]]
    vectors = found.vectors(pieces)
    np.testing.assert_array_equal(found.vectors(pieces[::-1]), vectors[::-1])
    exact = Encoder(str(folder), "float32").vectors(pieces)
    assert cosines(vectors, exact).diagonal().min() > 0.999
    assert not np.array_equal(vectors, _tiny("bfloat16").vectors(pieces))


def test_an_encoder_on_a_gpu_runs_in_a_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    def stage(**table: Any) -> DedupSemantic:
        return DedupSemantic(build(DedupSemanticSpec, table, "stages[0]"))

    assert stage().needs is None
    needs = stage(device="cuda", num_gpus=0.25).needs
    assert needs is not None and (needs.num_gpus, needs.pooled) == (0.25, True)
    with pytest.raises(UserError, match="num_gpus must be positive"):
        stage(device="cuda", num_gpus=0)
    with pytest.raises(UserError, match="is not one of 'bfloat16', 'float32'"):
        stage(precision="int8")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="torch finds no GPU"):
        stage(device="cuda").open()


def test_texts_that_the_model_does_not_know_equal_only_their_like(minilm: Encoder) -> None:
    texts = ["สะพานแห่งแรก", "คณะกรรมการประชุม", "⟁ ⟟ ⟥", "⇏ ⊬ ⟂", "", "The bridge."]
    unknown = [not minilm.knows(minilm.tokens(text)[0]) for text in texts]
    assert unknown == [True] * 5 + [False]
    forms = ["สะพานแห่งแรก ", "คณะกรรมการประชุม", "⟁  ⟟\n⟥", "⇏ ⊬ ⟂", "\u200b", "the bridge."]
    similar = cosines(minilm.text_vectors(texts, 64), minilm.text_vectors(forms, 64))
    assert similar.diagonal()[:5].tolist() == pytest.approx([1.0] * 5)
    assert np.abs(similar - np.diag(similar.diagonal())).max() < 0.4


def test_a_benchmark_that_the_model_does_not_know_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thai.txt").write_text("สะพานแห่งแรกที่ข้ามแม่น้ำสายนี้สร้างขึ้นในปีใดและหมู่บ้านริมฝั่งชื่ออะไร\n")
    stage = DecontaminateEmbedding(DecontaminateEmbeddingSpec((Benchmark("thai", str(tmp_path / "thai.txt")),)))
    with pytest.raises(UserError, match="or of signs that the encoder does not know, so none of its 1 items"):
        stage.check()

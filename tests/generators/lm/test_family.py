"""Causal language models: tokens, a fit that stops and goes on, adapters, and what others read of them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.engines.scorer import Scorer, bits_per_byte, perplexity
from gristmill.generators.families.fit import Fit, FitStopped
from gristmill.generators.families.folder import load_model, read_card
from gristmill.generators.lm import tokens
from gristmill.generators.lm.family import CausalLm
from gristmill.generators.lm.spec import LmSpec
from gristmill.records.errors import UserError
from gristmill.records.readers.datasets import data_spec, digest_table, read_table
from gristmill.records.readers.tables import Column, TableSchema
from gristmill.records.stores.opening import open_store
from tests.profiles import scaled

SCHEMA = TableSchema((Column("text", "text"),))
SMALL: dict[str, Any] = {"hidden": 32, "layers": 2, "heads": 1, "vocabulary": 512, "length": 16, "batch": 8, "lr": 4e-3}


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """Real English: the topics of Python's help."""
    found: list[str] = read_table(data_spec("package:help-topics")).column("text").to_pylist()
    return [text[:2000] for text in found[:20]]


def fit_of(texts: list[str], folder: Path, seed: int = 3, **changes: Any) -> Fit:
    table = pa.table({"text": texts})
    told = {"path": "a test", "num_rows": len(texts), "digest": digest_table(table)}
    family = CausalLm(LmSpec(**{**SMALL, **changes}), SCHEMA)
    return Fit(family, table, told, open_store(str(folder)), seed, span_s=0.05)


@pytest.fixture(scope="module")
def fitted(texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lm") / "model"
    fit_of(texts, folder).run()
    return folder


@given(st.lists(st.text(min_size=0, max_size=60), min_size=1, max_size=5), st.integers(4, 12))
@settings(max_examples=scaled(60), deadline=None)
def test_blocks_hold_every_token_once_and_in_order(some: list[str], length: int) -> None:
    made = tokens.learnt(["the quick brown fox " * 20], 512)
    line = [code for ids in tokens.encode(made, some) for code in [*ids, made.eos_token_id]]
    blocks = tokens.blocks_of(made, some, length)
    assert (blocks[:, 0] == made.bos_token_id).all() and blocks.shape[1] == length + 1
    held = blocks[:, 1:].ravel()
    assert held[held != tokens.IGNORED].tolist() == line[: len(blocks) * length]
    rows = tokens.rows_of(made, some, length)
    assert [r[r != tokens.IGNORED].tolist()[1:] for r in rows] == [i[:length] for i in tokens.encode(made, some)]
    for text, ids in zip(some, tokens.encode(made, some)):
        assert made.decode(ids) == text  # bytes are never lost


def test_a_tokenizer_is_the_same_twice_and_from_its_files(texts: list[str]) -> None:
    first, second = (tokens.files_of(tokens.learnt(texts, 600)) for _ in range(2))
    assert first == second
    again = tokens.from_files(first)
    assert tokens.encode(again, texts[:3]) == tokens.encode(tokens.learnt(texts, 600), texts[:3])


def test_training_learns_and_the_folder_is_what_transformers_reads(texts: list[str], fitted: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    card = read_card(str(fitted))
    assert card.losses[-1]["loss"] < 6.0 < card.losses[0]["loss"] < 6.5  # log(512) is 6.24
    network = AutoModelForCausalLM.from_pretrained(fitted / "hf", dtype="float32")
    tokenizer = AutoTokenizer.from_pretrained(fitted / "hf")
    assert json.loads((fitted / "hf" / "config.json").read_text())["tie_word_embeddings"] is False
    files = {path.name: path.read_bytes() for path in (fitted / "hf").iterdir()}
    scores = Scorer.from_files(files).log_probabilities(texts[:4], 16)
    ids = tokens.rows_of(tokenizer, texts[:1], 16)
    import torch

    with torch.inference_mode():
        logits = network(torch.from_numpy(ids[:, :-1])).logits.log_softmax(-1)
    expected = logits[0].gather(1, torch.from_numpy(ids[0, 1:])[:, None])[:, 0].numpy()
    assert np.allclose(scores[0], expected, atol=1e-4)
    assert perplexity(scores) == pytest.approx(np.exp(-np.concatenate(scores).mean()), rel=1e-5)
    assert bits_per_byte(scores[:1], [texts[0]]) > 0


def test_stopped_and_gone_on_it_is_the_same_model(texts: list[str], fitted: Path, tmp_path: Path) -> None:
    calls = iter(range(1000))
    with pytest.raises(FitStopped):
        fit_of(texts, tmp_path).run(is_stopped=lambda: next(calls) == 3)
    fit_of(texts, tmp_path).run()
    names = ("weights.safetensors", "hf/model.safetensors", "hf/tokenizer.json")
    assert all((tmp_path / n).read_bytes() == (fitted / n).read_bytes() for n in names)
    other = fit_of(texts, tmp_path / "other", seed=4)
    other.run()
    assert (tmp_path / "other" / "hf/model.safetensors").read_bytes() != (fitted / names[1]).read_bytes()


def test_a_model_comes_back_from_its_folder(fitted: Path) -> None:
    card = read_card(str(fitted))
    family = load_model(str(fitted), card)
    assert isinstance(family, CausalLm)
    assert family.files_to_serve()["model.safetensors"] == (fitted / "hf" / "model.safetensors").read_bytes()


def test_adapters_alone_are_trained_and_are_merged_into_what_is_served(
    texts: list[str], fitted: Path, tmp_path: Path
) -> None:
    fit = fit_of(texts, tmp_path, base=str(fitted / "hf"), lora=2, epochs=2.0)
    fit.run()
    assert isinstance(fit.family, CausalLm)
    assert all("lora" in name for name in fit.family.model_state().tensors)
    served = {path.name: path.read_bytes() for path in (tmp_path / "hf").iterdir()}
    merged = np.concatenate(Scorer.from_files(served).log_probabilities(texts[:4], 16))
    apart = np.concatenate(Scorer(lambda: (fit.family._network, fit.family.tokenizer)).log_probabilities(texts[:4], 16))
    before = Scorer.from_model(str(fitted / "hf")).log_probabilities(texts[:4], 16)
    assert np.allclose(merged, apart, atol=0.1)  # one is rounded to bfloat16
    assert np.concatenate(before).mean() < apart.mean() - 0.05  # and it has learnt
    assert set(served) == {path.name for path in (fitted / "hf").iterdir()}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"lora": 4}, "set base"),
        ({"hidden": 32, "heads": 2}, "size of a head"),
        ({"length": 2}, "at least 4"),
        ({"vocabulary": 100}, "256 of it are bytes"),
        ({"epochs": 0.0}, "above 0"),
    ],
)
def test_bad_specs_are_refused(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LmSpec(**spec)


def test_what_is_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="one column of texts"):
        CausalLm(LmSpec(), TableSchema((Column("a", "numeric"),))).check()
    with pytest.raises(UserError, match="no such folder"):
        CausalLm(LmSpec(base=str(tmp_path / "none")), SCHEMA).check()
    with pytest.raises(UserError, match="nothing to learn from"):
        fit_of(["", ""], tmp_path, packing="rows").run()

"""Scores of texts under a causal language model: the start token, the limit, and independence of other texts."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gristmill.engines.scorer import MAX_TOKENS, Scorer, bits_per_byte, perplexity
from gristmill.records.errors import UserError

TEXTS = ["the mill grinds", "", "a", "slow " * 40, "x" * 700]


def network_and_tokenizer(context: int, **special_tokens: str) -> tuple[Any, Any]:
    """A small random GPT-2 over printable ASCII; each character is a token."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    vocabulary = {chr(c): c - 32 for c in range(32, 127)} | {"<unk>": 95, "<s>": 96, "</s>": 97}
    letters = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    letters.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=98, n_positions=context, n_embd=16, n_layer=1, n_head=2, initializer_range=0.5)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=letters, unk_token="<unk>", **special_tokens)
    return GPT2LMHeadModel(config), tokenizer


def by_hand(network: Any, ids: list[int]) -> np.ndarray:
    import torch

    with torch.inference_mode():
        logits = network.eval()(torch.tensor([ids[:-1]])).logits[0].double().log_softmax(-1)
    return logits.gather(1, torch.tensor(ids[1:])[:, None])[:, 0].numpy()


@pytest.mark.parametrize(
    ("special_tokens", "start"),
    [({"bos_token": "<s>", "eos_token": "</s>"}, [96]), ({"eos_token": "</s>"}, [97]), ({}, [])],
)
def test_each_token_behind_the_start_token_is_scored(special_tokens: dict[str, str], start: list[int]) -> None:
    network, tokenizer = network_and_tokenizer(1024, **special_tokens)
    scores = Scorer(lambda: (network, tokenizer)).log_probabilities(TEXTS)
    for text, values in zip(TEXTS, scores):
        ids = [*start, *(ord(c) - 32 for c in text)][: MAX_TOKENS + 1]
        expected = by_hand(network, ids) if len(ids) > 1 else np.empty(0)
        assert values.dtype == np.float64 and np.allclose(values, expected, atol=1e-4)
    assert len(scores[-1]) == MAX_TOKENS


def test_the_limit_is_the_models_context_or_what_the_caller_says() -> None:
    network, tokenizer = network_and_tokenizer(48, eos_token="</s>")
    scorer = Scorer(lambda: (network, tokenizer))
    assert len(scorer.log_probabilities(["x" * 700])[0]) == 48
    assert [len(s) for s in scorer.log_probabilities(TEXTS, 10)] == [10, 0, 1, 10, 10]
    assert len(scorer.choices(TEXTS, 10)) == 31


def test_the_scores_of_a_text_do_not_depend_on_other_texts() -> None:
    network, tokenizer = network_and_tokenizer(1024, eos_token="</s>")
    scorer = Scorer(lambda: (network, tokenizer))
    together = scorer.log_probabilities(TEXTS * 9)
    for place, text in enumerate(TEXTS):
        assert np.array_equal(scorer.log_probabilities([text])[0], together[place])
        assert np.array_equal(together[place], together[place + 8 * len(TEXTS)])


def test_choices_are_in_the_order_of_the_texts() -> None:
    network, tokenizer = network_and_tokenizer(1024, eos_token="</s>")
    scorer = Scorer(lambda: (network, tokenizer))
    apart = [scorer.choices([text]) for text in TEXTS]
    assert np.array_equal(scorer.choices(TEXTS), np.concatenate(apart))


def test_measures_by_hand() -> None:
    scores = [np.log([0.5]), np.log([0.125, 0.25])]
    assert perplexity(scores) == pytest.approx(4)
    assert bits_per_byte(scores, ["é", "ab"]) == pytest.approx(6 / 4)


def test_a_folder_without_a_language_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    scorer = Scorer.from_model(str(tmp_path))
    with pytest.raises(UserError, match="no causal language model there"):
        scorer.log_probabilities(["text"])

"""Causal language models: construction, loss, and export."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gristmill.generators.lm.spec import LmSpec
from gristmill.generators.lm.tokens import IGNORED

ROOM = 2  # length of a context in blocks: room for a prompt before the sampled text


def from_scratch(spec: LmSpec, tokenizer: Any) -> nn.Module:
    """A network of the Llama architecture, initialised from torch's global generator: seed it first."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=spec.hidden,
        intermediate_size=3 * spec.hidden,
        num_hidden_layers=spec.layers,
        num_attention_heads=spec.heads,
        num_key_value_heads=spec.heads,
        max_position_embeddings=ROOM * (spec.length + 1),
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=None,
    )
    return LlamaForCausalLM(config).float()


def add_adapters(network: nn.Module, spec: LmSpec) -> nn.Module:
    """The network with low-rank adapters in its linear layers (Hu et al. 2021). Only the adapters are trained."""
    from peft import LoraConfig, get_peft_model

    alpha = spec.lora_alpha if spec.lora_alpha is not None else 2 * spec.lora
    config = LoraConfig(r=spec.lora, lora_alpha=alpha, target_modules="all-linear", task_type="CAUSAL_LM")
    return get_peft_model(network, config)


def losses(network: nn.Module, blocks: Tensor) -> Tensor:
    """Loss in nats of each token after the first of its block, float32 (blocks, tokens); 0 where there is no token."""
    has_token = blocks[:, 1:] != IGNORED
    inputs = blocks[:, :-1].masked_fill(blocks[:, :-1] == IGNORED, 0)
    logits = network(input_ids=inputs).logits.float()
    labels = blocks[:, 1:].masked_fill(~has_token, 0)
    token_losses = nn.functional.cross_entropy(logits.transpose(1, 2), labels, reduction="none")
    return token_losses * has_token


def mean_loss(network: nn.Module, blocks: Tensor) -> Tensor:
    """Mean loss over all tokens of the blocks, without padding."""
    return losses(network, blocks).sum() / (blocks[:, 1:] != IGNORED).sum().clamp(min=1)


def trained_weights(network: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Names and weights of the trained parameters: all, or the adapters."""
    return ((name, weight) for name, weight in network.named_parameters() if weight.requires_grad)


def arrays(network: nn.Module) -> dict[str, np.ndarray]:
    return {f"net/{name}": weight.detach().cpu().float().numpy().copy() for name, weight in trained_weights(network)}


def load_arrays(network: nn.Module, arrays: dict[str, np.ndarray]) -> None:
    """The inverse of `arrays`. Raises KeyError for arrays of another network."""
    with torch.no_grad():
        for name, weight in trained_weights(network):
            weight.copy_(torch.from_numpy(np.array(arrays[f"net/{name}"])))


def files_to_serve(network: nn.Module) -> dict[str, bytes]:
    """config.json and model.safetensors for transformers and vLLM: bfloat16, with adapters merged.

    The output matrix is written even if it equals the embedding, because a running engine loads new weights by name.
    """
    from safetensors.torch import save

    plain, weights = network, {}
    if hasattr(network, "merge_adapter"):
        network.merge_adapter()
        plain = network.get_base_model()
    for name, tensor in plain.state_dict().items():
        if ".lora_" not in name:
            weights[name.replace(".base_layer.", ".")] = tensor.detach().cpu().to(torch.bfloat16).clone().contiguous()
    if hasattr(network, "unmerge_adapter"):
        network.unmerge_adapter()
    config = {**plain.config.to_dict(), "tie_word_embeddings": False, "dtype": "bfloat16"}
    config.pop("_name_or_path", None)
    config_json = json.dumps(config, indent=1, sort_keys=True, default=str).encode()
    return {"config.json": config_json, "model.safetensors": bytes(save(weights, {"format": "pt"}))}

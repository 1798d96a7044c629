"""Conversion of torch modules and Adam states to named numpy arrays, for checkpoints and models, and back."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from gristmill.generators.families.contract import stream

MOMENTS = ("exp_avg", "exp_avg_sq")


def seed_torch(seed: int, *keys: int) -> None:
    """Seed torch's global generator, which initialises layers, from the fit's seed."""
    torch.manual_seed(int(stream(seed, *keys).integers(1 << 62)))


def of_module(module: nn.Module, prefix: str) -> dict[str, np.ndarray]:
    """Weights and buffers as arrays named `prefix/name`."""
    return {f"{prefix}/{name}": t.detach().cpu().numpy().copy() for name, t in module.state_dict().items()}


def to_module(module: nn.Module, prefix: str, arrays: Mapping[str, np.ndarray]) -> None:
    """The inverse of `of_module`. Raises KeyError or RuntimeError for arrays of another network."""
    names = module.state_dict().keys()
    module.load_state_dict({name: torch.from_numpy(np.array(arrays[f"{prefix}/{name}"])) for name in names})


def of_adam(adam: torch.optim.Adam, prefix: str) -> dict[str, np.ndarray]:
    """Moments and step counts by parameter number; empty before the first step."""
    arrays: dict[str, np.ndarray] = {}
    for number, parameter in enumerate(_parameters(adam)):
        state = adam.state.get(parameter)
        if state:
            arrays |= {f"{prefix}/{number}/{name}": state[name].detach().cpu().numpy().copy() for name in MOMENTS}
            arrays[f"{prefix}/{number}/step"] = np.array(float(state["step"]), np.float32)
    return arrays


def to_adam(adam: torch.optim.Adam, prefix: str, arrays: Mapping[str, np.ndarray]) -> None:
    """The inverse of `of_adam`."""
    adam.state.clear()
    for number, parameter in enumerate(_parameters(adam)):
        if f"{prefix}/{number}/step" not in arrays:
            continue
        state: dict[str, Any] = {"step": torch.tensor(float(arrays[f"{prefix}/{number}/step"]))}
        for name in MOMENTS:
            moment = torch.from_numpy(np.array(arrays[f"{prefix}/{number}/{name}"]))
            state[name] = torch.empty_like(parameter).copy_(moment)
        adam.state[parameter] = state


def _parameters(adam: torch.optim.Adam) -> list[Any]:
    return [p for group in adam.param_groups for p in group["params"]]


@torch.no_grad()
def follow(average: nn.Module, module: nn.Module, step: int, decay: float) -> None:
    """Move `average` towards `module`: an exponential moving average with a smaller decay in the first steps."""
    share = min(decay, (1 + step) / (10 + step))
    for mine, theirs in zip(average.parameters(), module.parameters()):
        mine.lerp_(theirs, 1 - share)
    for mine, theirs in zip(average.buffers(), module.buffers()):
        mine.copy_(theirs)

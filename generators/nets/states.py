"""Conversion of networks and optimizers to named arrays and back, random numbers of a step, averages of weights."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from gristmill.generators.families.contract import stream


def module_arrays(module: nn.Module, name: str) -> dict[str, np.ndarray]:
    """Copies of all weights and buffers, named `name/...`."""
    return {f"{name}/{k}": v.detach().cpu().numpy().copy() for k, v in module.state_dict().items()}


def load_module(module: nn.Module, name: str, arrays: Mapping[str, np.ndarray]) -> None:
    """The inverse of `module_arrays`."""
    module_state = {
        k.removeprefix(f"{name}/"): torch.from_numpy(v.copy()) for k, v in arrays.items() if k.startswith(f"{name}/")
    }
    module.load_state_dict(module_state)


def adam_arrays(optimizer: torch.optim.Optimizer, name: str) -> dict[str, np.ndarray]:
    """Copies of the optimizer's state of each weight, named `name/number/what`."""
    state = optimizer.state_dict()["state"]
    return {
        f"{name}/{number}/{what}": value.detach().cpu().numpy().copy()
        for number, values in state.items()
        for what, value in values.items()
    }


def load_adam(optimizer: torch.optim.Optimizer, name: str, arrays: Mapping[str, np.ndarray]) -> None:
    """The inverse of `adam_arrays`."""
    state_dict = optimizer.state_dict()
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in arrays.items():
        if key.startswith(f"{name}/"):
            number, what = key.removeprefix(f"{name}/").split("/")
            state.setdefault(int(number), {})[what] = torch.from_numpy(value.copy())
    optimizer.load_state_dict({**state_dict, "state": state})


def step_random(seed: int, step: int, device: str) -> torch.Generator:
    """Random numbers of one training step, on the device that uses them."""
    return torch.Generator(device).manual_seed(int(stream(seed, 0, step).integers(2**63)))


def seed_weights(module: nn.Module, seed: int, key: int) -> None:
    """Initialise all linear layers and embeddings uniformly, as torch does for linear layers, from their own stream."""
    random = torch.Generator().manual_seed(int(stream(seed, 1, key).integers(2**63)))
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, nn.Linear | nn.Embedding):
                bound = 1 / np.sqrt(layer.weight.shape[1])
                for weight in layer.parameters(recurse=False):
                    weight.copy_((torch.rand(weight.shape, generator=random) * 2 - 1) * bound)


@torch.no_grad()
def average_into(average: nn.Module, module: nn.Module, decay: float) -> None:
    """Move `average` towards `module`: an exponential moving average of weights and of running statistics."""
    old, new = list(average.state_dict().values()), list(module.state_dict().values())
    floats = [(o, n) for o, n in zip(old, new) if o.is_floating_point()]
    torch._foreach_lerp_([o for o, _ in floats], [n for _, n in floats], 1 - decay)
    for o, n in zip(old, new):
        if not o.is_floating_point():
            o.copy_(n)


def device_of(module: nn.Module) -> torch.device:
    return next(module.parameters()).device

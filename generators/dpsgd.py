"""DP-SGD (Abadi et al. 2016): a Poisson sample, each row's gradient clipped, noise added once to their sum.

Two ways to the sum of clipped gradients, tested to agree: opacus' hooks, for any module that opacus knows (convolutions
too), and for networks of Linear layers the ghost norms of Li et al. 2022 with the book-keeping of Bu et al. 2023: one
pass forwards and one back, and no gradient of a single row is ever made.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from generators.family import stream
from records.errors import UserError

if TYPE_CHECKING:
    import torch

SAMPLE, NOISE = 1, 2  # purposes of a step's random numbers
LossOfRows = Callable[["torch.nn.Module"], "torch.Tensor"]


def poisson_sample(seed: int, step: int, num_rows: int, rate: float) -> np.ndarray:
    """Rows of the step: each of `num_rows` is in with probability `rate`, on its own. Sorted int64; may be empty."""
    return np.nonzero(stream(seed, step, SAMPLE).random(num_rows) < rate)[0]


def check_module(module: "torch.nn.Module") -> None:
    """Raise UserError for layers that mix the rows of a batch: then no gradient belongs to one row."""
    import torch

    for name, part in module.named_modules():
        if isinstance(part, torch.nn.modules.batchnorm._BatchNorm):
            raise UserError(f"DP-SGD: layer '{name}' is a batch norm, which mixes rows; take GroupNorm or LayerNorm")


def ghost_sums(module: "torch.nn.Module", losses: LossOfRows, max_norm: float) -> list["torch.Tensor"]:
    """Sum over rows of their gradients clipped to `max_norm`: a tensor a parameter, shaped as it.

    `losses(module)` runs the module and returns one loss a row, (rows,). All parameters must belong to Linear layers,
    each used once, on (rows, features). Raises UserError otherwise.
    """
    import torch

    layers = [m for m in module.modules() if isinstance(m, torch.nn.Linear)]
    if sum(1 for m in layers for _ in m.parameters()) != sum(1 for _ in module.parameters()):
        raise UserError("ghost clipping here is for networks of Linear layers; use hooks")
    inputs: dict[int, torch.Tensor] = {}
    outputs: dict[int, torch.Tensor] = {}

    def note(layer: torch.nn.Module, given: tuple[torch.Tensor, ...], made: torch.Tensor) -> None:
        if given[0].dim() != 2 or id(layer) in inputs:
            raise UserError("ghost clipping here needs each Linear layer used once, on (rows, features); use hooks")
        inputs[id(layer)], outputs[id(layer)] = given[0].detach(), made

    handles = [layer.register_forward_hook(note) for layer in layers]
    try:
        total = losses(module).sum()
    finally:
        for handle in handles:
            handle.remove()
    used = [layer for layer in layers if id(layer) in inputs]
    flows = dict(zip(map(id, used), torch.autograd.grad(total, [outputs[id(layer)] for layer in used])))
    squares = torch.zeros(())
    for layer in used:
        flow = flows[id(layer)].square().sum(1)
        squares = squares + flow * inputs[id(layer)].square().sum(1) + (flow if layer.bias is not None else 0)
    shares = _shares(squares.sqrt(), max_norm)
    sums: dict[int, torch.Tensor] = {}
    for layer in used:
        clipped = flows[id(layer)] * shares[:, None]
        sums[id(layer.weight)] = clipped.T @ inputs[id(layer)]
        if layer.bias is not None:
            sums[id(layer.bias)] = clipped.sum(0)
    return [sums.get(id(p), torch.zeros_like(p)) for p in module.parameters()]


def hook_sums(module: "torch.nn.Module", losses: LossOfRows, max_norm: float) -> list["torch.Tensor"]:
    """As `ghost_sums`, by opacus' per-row gradients: slower, for every layer that opacus knows. The losses of a
    module in training mode may use dropout; batch norms are refused with UserError."""
    import torch
    from opacus import GradSampleModule

    check_module(module)
    wrapped = GradSampleModule(module, loss_reduction="sum", strict=True)
    try:
        wrapped.zero_grad()
        losses(wrapped).sum().backward()
        gradients = [p.grad_sample for p in module.parameters()]
        if isinstance(gradients[0], list):
            raise UserError("DP-SGD: the module ran more than once in a step; compute all losses in one pass")
        norms = torch.stack([g.flatten(1).norm(dim=1) for g in gradients]).norm(dim=0)
        shares = _shares(norms, max_norm)
        return [torch.einsum("r,r...->...", shares, g) for g in gradients]
    finally:
        wrapped.zero_grad()
        wrapped.to_standard_module()


def _shares(norms: "torch.Tensor", max_norm: float) -> "torch.Tensor":
    """What is kept of each row's gradient."""
    return (max_norm / norms.clamp(min=1e-12)).clamp(max=1.0)


def set_gradients(
    module: "torch.nn.Module",
    sums: list["torch.Tensor"],
    max_norm: float,
    noise_multiplier: float,
    expected_rows: float,
    seed: int,
    step: int,
) -> float:
    """Put the noisy mean gradient where an optimizer looks for it; returns its 2-norm, which may be published.

    Noise of standard deviation noise_multiplier * max_norm is added once to the sum; the sum is divided by the expected
    number of rows, which is public, not by the number drawn.
    """
    import torch

    random = torch.Generator().manual_seed(int(stream(seed, step, NOISE).integers(2**63)))
    scale = noise_multiplier * max_norm if noise_multiplier else 0.0
    squares = 0.0
    for parameter, total in zip(module.parameters(), sums):
        noise = torch.randn(parameter.shape, generator=random)
        parameter.grad = (total + scale * noise.to(total)) / expected_rows
        squares += float(parameter.grad.square().sum())
    return float(squares**0.5)


def no_sums(module: "torch.nn.Module") -> list["torch.Tensor"]:
    """The sums of an empty sample: noise is still added to them."""
    import torch

    return [torch.zeros_like(p) for p in module.parameters()]


def plan(account: Any, sampling_rate: float, num_steps: int) -> tuple[float, int]:
    """(noise multiplier, how many of `num_steps` fit the budget). The recipe's multiplier, else the one that spends
    what is left. Raises UserError when not one step fits."""
    from generators.privacy import Event

    noise = account.spec.noise_multiplier or account.noise_for(WHAT, sampling_rate, num_steps)
    room = account.room(Event(WHAT, noise, sampling_rate), num_steps)
    if room == 0:
        raise UserError(f"privacy: not one step with noise multiplier {noise:g} fits; raise it, or epsilon")
    return noise, room


WHAT = "step of DP-SGD"

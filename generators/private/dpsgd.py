"""DP-SGD (Abadi et al. 2016): Poisson samples, clipped gradients of rows, noise added once to their sum.

Two engines compute the sum of clipped gradients and are tested to agree. `ghost` covers the layers of
generators.nets.ghost by the ghost norms of Li et al. 2022 with the book-keeping of Bu et al. 2023: one forward and one
backward pass, and the gradient of a single row only where that is cheaper. `opacus` covers every network that opacus
or functorch covers, by the gradient of each row.
"""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from gristmill.generators.families.contract import stream
from gristmill.generators.private.account import Account
from gristmill.generators.private.accountants import Event
from gristmill.records.errors import UserError
from gristmill.records.extras import require

if TYPE_CHECKING:
    import torch

EVENT = "step of DP-SGD"
SAMPLE, NOISE = 1, 2  # purposes of a step's random numbers
LossOfRows = Callable[["torch.nn.Module"], "torch.Tensor"]


def poisson_sample(seed: int, step: int, num_rows: int, rate: float) -> np.ndarray:
    """Rows of the step: each of `num_rows` is drawn independently at `rate`. Sorted int64; may be empty."""
    return np.nonzero(stream(seed, step, SAMPLE).random(num_rows) < rate)[0]


def check_module(module: "torch.nn.Module") -> None:
    """Raise UserError for layers that mix the rows of a batch, so that no gradient belongs to a single row."""
    import torch

    for name, part in module.named_modules():
        if isinstance(part, torch.nn.modules.batchnorm._BatchNorm):
            raise UserError(f"DP-SGD: layer '{name}' is a batch norm, which mixes rows; take GroupNorm or LayerNorm")


def ghost_sums(module: "torch.nn.Module", losses: LossOfRows, max_norm: float) -> list["torch.Tensor"]:
    """Sum of the rows' gradients clipped to `max_norm`: a tensor for each parameter, of the same shape.

    `losses(module)` runs the module and returns the loss of each row, (rows,). All parameters must belong to layers of
    generators.nets.ghost, each used once in a pass. The module may run on k adjacent entries for each row,
    (rows * k, ...): they are clipped together. Raises UserError otherwise.
    """
    import torch

    from gristmill.generators.nets.ghost import OTHER_ENGINE, layers_of, of_rows

    check_module(module)
    layers = layers_of(module)
    inputs: dict[int, torch.Tensor] = {}
    outputs: dict[int, torch.Tensor] = {}

    def note(layer: torch.nn.Module, layer_inputs: tuple[torch.Tensor, ...], layer_output: torch.Tensor) -> None:
        if layer_inputs[0].dim() < 2 - isinstance(layer, torch.nn.Embedding) or id(layer) in inputs:
            raise UserError(f"ghost clipping needs each layer used once, on (rows, ...); {OTHER_ENGINE}")
        inputs[id(layer)], outputs[id(layer)] = layer_inputs[0].detach(), layer_output

    handles = [layer.register_forward_hook(note) for layer in layers]
    try:
        each = losses(module)
    finally:
        for handle in handles:
            handle.remove()
    layers_of_pass = [layer for layer in layers if id(layer) in inputs]
    if any(len(output) % len(each) for output in outputs.values()):
        raise UserError(f"ghost clipping: a layer's batch is no multiple of the {len(each)} rows; {OTHER_ENGINE}")
    flows = torch.autograd.grad(each.sum(), [outputs[id(layer)] for layer in layers_of_pass])
    with torch.no_grad():
        gradients = [f for m, flow in zip(layers_of_pass, flows) for f in of_rows(m, inputs[id(m)], flow, len(each))]
        shares = _shares(sum((squares for _, squares, _ in gradients), torch.zeros(())).sqrt(), max_norm)
        sums = {id(p): total(shares) for p, _, total in gradients}
    return [sums.get(id(p), torch.zeros_like(p)) for p in module.parameters()]


def opacus_sums(module: "torch.nn.Module", losses: LossOfRows, max_norm: float) -> list["torch.Tensor"]:
    """As `ghost_sums`, from opacus' gradient of each entry: slower, for every layer that opacus or functorch knows.

    A module in training mode may use dropout. Raises UserError for batch norms and for layers used twice.
    """
    import torch

    require("opacus", "private")
    from opacus import GradSampleModule

    check_module(module)
    assert all(part.training for part in module.modules()), "opacus makes no gradients of modules in eval mode"
    hooks = GradSampleModule(module, loss_reduction="sum", strict=True)
    # opacus 1.6 unfolds the inputs of a convolution by their strides: in channels_last order its gradients are wrong.
    handles = [part.register_forward_pre_hook(_contiguous) for part in module.modules()]
    try:
        hooks.zero_grad()
        each = losses(module)
        each.sum().backward()
        samples = [p.grad_sample for p in module.parameters()]
        if any(isinstance(sample, list) for sample in samples):
            raise UserError("DP-SGD: the module ran more than once in a step; compute all losses in one pass")
        gradients = [None if s is None else s.unflatten(0, (len(each), -1)).sum(1) for s in samples]
        squares = (g.flatten(1).square().sum(1) for g in gradients if g is not None)
        shares = _shares(sum(squares, torch.zeros(())).sqrt(), max_norm)
        sums = (None if g is None else torch.einsum("r,r...->...", shares, g) for g in gradients)
        return [torch.zeros_like(p) if s is None else s for p, s in zip(module.parameters(), sums)]
    finally:
        for handle in handles:
            handle.remove()
        hooks.zero_grad()
        hooks.to_standard_module()


def _contiguous(_: "torch.nn.Module", inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """The inputs of a layer, tensors in row-major order."""
    return tuple(x.contiguous() if hasattr(x, "contiguous") else x for x in inputs)


CLIPPED_SUMS = {"ghost": ghost_sums, "opacus": opacus_sums}


def _shares(norms: "torch.Tensor", max_norm: float) -> "torch.Tensor":
    """The factor that clips each row's gradient, in (0, 1]: (rows,)."""
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
    """Set the noisy mean gradient of each parameter; returns its 2-norm, which may be published.

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
    """The sums of an empty sample, which still get noise."""
    import torch

    return [torch.zeros_like(p) for p in module.parameters()]


def plan(account: Account, sampling_rate: float, num_steps: int) -> tuple[float, int]:
    """(noise multiplier, how many of `num_steps` fit the budget).

    The multiplier is the recipe's, else it spends the rest of the budget. Raises UserError when no step fits.
    """
    noise = account.spec.noise_multiplier or account.noise_for(EVENT, sampling_rate, num_steps)
    room = account.room(Event(EVENT, noise, sampling_rate), num_steps)
    if room == 0:
        raise UserError(f"privacy: not one step with noise multiplier {noise:g} fits; raise it, or epsilon")
    return noise, room


class DpSgd:
    """The steps of a fit. Without an account samples are Poisson as well, but there is no noise."""

    def __init__(
        self, account: Account | None, seed: int, num_rows: int, batch: int, num_steps: int, free_norm: float = math.inf
    ) -> None:
        """`batch` is the expected size of a sample; `free_norm` clips when there is no account."""
        self.account, self.seed, self.num_rows, self.batch = account, seed, num_rows, batch
        self.rate = min(1.0, batch / num_rows)
        self.noise = plan(account, self.rate, num_steps)[0] if account else 0.0
        self.max_norm = account.spec.max_grad_norm if account else free_norm
        self._sums = CLIPPED_SUMS[account.spec.engine if account else "ghost"]

    def rows(self, step: int) -> np.ndarray:
        """Charge the step, then draw its rows. Raises BudgetSpent, and draws nothing, when the step does not fit."""
        if self.account:
            self.account.charge(Event(EVENT, self.noise, self.rate))
        return poisson_sample(self.seed, step, self.num_rows, self.rate)

    def clipped_sums(self, module: "torch.nn.Module", losses: LossOfRows) -> list["torch.Tensor"]:
        """Sum over rows of their clipped gradients, by the engine of the budget: a tensor a parameter."""
        return self._sums(module, losses, self.max_norm)

    def set_gradients(self, module: "torch.nn.Module", sums: list["torch.Tensor"], step: int) -> float:
        """As `set_gradients`, once a step of `rows`."""
        return set_gradients(module, sums, self.max_norm, self.noise, self.batch, self.seed, step)

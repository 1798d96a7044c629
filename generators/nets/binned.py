"""Small networks for rows of bins: perceptrons without batch norm, and sampling of one-hot rows."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import nn


def perceptron(num_in: int, widths: Sequence[int], num_out: int) -> nn.Sequential:
    """Linear layers with leaky ReLUs (slope 0.2) between them: (rows, num_in) to (rows, num_out)."""
    parts: list[nn.Module] = []
    for width in widths:
        parts += [nn.Linear(num_in, width), nn.LeakyReLU(0.2)]
        num_in = width
    return nn.Sequential(*parts, nn.Linear(num_in, num_out))


def module_from_seed(seed: int, make: "type[nn.Module] | object", *args: object) -> nn.Module:
    """A module whose initial weights depend on `seed` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module: nn.Module = make(*args)  # type: ignore[operator]
    return module


def start_at(net: nn.Sequential, logits: np.ndarray) -> None:
    """Initialise the last layer so that its output is close to these logits for any input."""
    last = net[-1]
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        last.weight.mul_(0.5)
        last.bias.copy_(torch.as_tensor(logits, dtype=torch.float32))


def one_hot(bins: np.ndarray | torch.Tensor, sizes: Sequence[int], device: str) -> torch.Tensor:
    """(rows, columns) of bins as float32 (rows, sum of sizes)."""
    places = torch.as_tensor(bins) + torch.as_tensor(np.concatenate([[0], np.cumsum(sizes)[:-1]]))
    return torch.zeros(len(places), int(sum(sizes))).scatter_(1, places.cpu(), 1.0).to(device)


@lru_cache(maxsize=64)
def _places(sizes: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """(index in a row of each place of a (columns, most) block, or the sum of sizes for padding; the inverse index)."""
    most, total = max(sizes), sum(sizes)
    to = torch.full((len(sizes), most), total)
    start = 0
    for at, size in enumerate(sizes):
        to[at, :size] = torch.arange(start, start + size)
        start += size
    flat = to.flatten()
    return flat, torch.nonzero(flat < total).squeeze(1)


def blocks(logits: torch.Tensor, sizes: Sequence[int]) -> torch.Tensor:
    """(rows, sum of sizes) as (rows, columns, most bins), padded with logits that have no share in a softmax."""
    to, _ = _places(tuple(sizes))
    none = torch.full((len(logits), 1), -1e30, dtype=logits.dtype, device=logits.device)
    return torch.cat([logits, none], dim=1)[:, to.to(logits.device)].reshape(len(logits), len(sizes), -1)


def flatten_blocks(values: torch.Tensor, sizes: Sequence[int]) -> torch.Tensor:
    """The inverse of `blocks`."""
    return values.flatten(1)[:, _places(tuple(sizes))[1].to(values.device)]


def draw_bins(logits: torch.Tensor, sizes: Sequence[int], random: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """(one bin for each column, int64 (rows, columns); the logits with the noise of the draw, as `blocks`).

    Gumbel's trick, with noise from the CPU generator `random`.
    """
    level = torch.rand(logits.shape, generator=random).clamp_(1e-9, 1 - 1e-7).to(logits)
    noisy = blocks(logits - torch.log(-torch.log(level)), sizes)
    return noisy.argmax(2), noisy


def hard_rows(logits: torch.Tensor, sizes: Sequence[int], heat: float, random: torch.Generator) -> torch.Tensor:
    """One-hot rows drawn by logits, with the gradient of the softmax (Jang et al. 2017, straight-through)."""
    bins, noisy = draw_bins(logits, sizes, random)
    soft = flatten_blocks((noisy / heat).softmax(2), sizes)
    hard = flatten_blocks(torch.zeros_like(noisy).scatter_(2, bins[:, :, None], 1.0), sizes)
    return hard + soft - soft.detach()


def nll_of_rows(logits: torch.Tensor, rows: torch.Tensor, sizes: Sequence[int]) -> torch.Tensor:
    """Negative log-likelihood in nats of each one-hot row, summed over columns: (rows,)."""
    return -(flatten_blocks(blocks(logits, sizes).log_softmax(2), sizes) * rows).sum(1)


def shares_of(logits: torch.Tensor, sizes: Sequence[int]) -> list[np.ndarray]:
    """Probabilities of the bins of each column: float64 (rows, size); each row sums to 1."""
    shares = blocks(logits.double(), sizes).softmax(2).cpu().numpy()
    return [shares[:, at, :size] for at, size in enumerate(sizes)]


def follow(average: nn.Module, net: nn.Module, share: float) -> None:
    """Move `average` towards `net`: average = share * average + (1 - share) * net."""
    with torch.no_grad():
        for mean, now in zip(average.parameters(), net.parameters()):
            mean.lerp_(now, 1 - share)


def pack_net(name: str, net: nn.Module) -> dict[str, np.ndarray]:
    return {f"{name}/{k}": v.detach().cpu().numpy().copy() for k, v in net.state_dict().items()}


def unpack_net(name: str, net: nn.Module, tensors: dict[str, np.ndarray]) -> None:
    net.load_state_dict({k: torch.as_tensor(tensors[f"{name}/{k}"]) for k in net.state_dict()})


def pack_adam(name: str, adam: torch.optim.Optimizer) -> dict[str, np.ndarray]:
    """The moments of an Adam after its first step; empty before."""
    return {
        f"{name}/{at}/{key}": value.cpu().numpy().copy()
        for at, moments in adam.state_dict()["state"].items()
        for key, value in moments.items()
    }


def unpack_adam(name: str, adam: torch.optim.Optimizer, tensors: dict[str, np.ndarray]) -> None:
    state_dict = adam.state_dict()
    state_dict["state"] = {}
    for key, value in tensors.items():
        if key.startswith(f"{name}/"):
            at, moment = key.removeprefix(f"{name}/").split("/")
            state_dict["state"].setdefault(int(at), {})[moment] = torch.as_tensor(value)
    adam.load_state_dict(state_dict)

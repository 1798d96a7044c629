"""The networks of TVAE (Xu et al. 2019, section 4.4)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gristmill.generators.nets.segments import Segments

MIN_DEVIATION, MAX_DEVIATION = 0.01, 1.0


def layers(width: int, widths: Sequence[int]) -> tuple[nn.Sequential, int]:
    """(linear layers, each followed by ReLU; the last width)."""
    modules: list[nn.Module] = []
    for size in widths:
        modules += [nn.Linear(width, size), nn.ReLU()]
        width = size
    return nn.Sequential(*modules), width


class Encoder(nn.Module):
    """Rows to a normal distribution over `latent` numbers."""

    def __init__(self, width: int, widths: Sequence[int], latent: int) -> None:
        super().__init__()
        self.body, last = layers(width, widths)
        self.head = nn.Linear(last, 2 * latent)

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Means and logs of variances, (n, latent) each."""
        mean, log_variance = self.head(self.body(rows)).chunk(2, 1)
        return mean, log_variance


class Decoder(nn.Module):
    """Latent numbers to the expectation of a row."""

    def __init__(self, latent: int, widths: Sequence[int], num_numbers: int, width: int) -> None:
        super().__init__()
        self.num_numbers = num_numbers
        self.body, last = layers(latent, widths)
        self.head = nn.Linear(last, num_numbers + width)
        self.deviation = nn.Parameter(torch.full((num_numbers,), 0.1))

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Expected alphas (n, M) and the logits of all segments (n, D)."""
        outputs = self.head(self.body(latents))
        return outputs[:, : self.num_numbers].tanh(), outputs[:, self.num_numbers :]

    @torch.no_grad()
    def clamp_deviations(self) -> None:
        """Keep the deviations of numbers in bounds; without bounds the likelihood has no maximum."""
        self.deviation.clamp_(MIN_DEVIATION, MAX_DEVIATION)


def reconstruction(
    decoder: Decoder, segments: Segments, latents: Tensor, numbers: Tensor, present: Tensor, codes: Tensor
) -> Tensor:
    """Mean negative log-likelihood of rows under the decoder; `present` is 0 where a number is missing."""
    alphas, logits = decoder(latents)
    deviation = decoder.deviation
    number_nll = (numbers - alphas).square() / (2 * deviation.square()) + deviation.log()
    code_nll = -segments.of(segments.log_softmax(logits), codes)
    return ((number_nll * present).sum() + code_nll.sum()) / len(numbers)


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Mean Kullback-Leibler divergence from the standard normal distribution."""
    return -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum() / len(mean)

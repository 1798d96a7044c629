"""Diffusion over numbers and categories: schedule, losses and reverse steps of TabDDPM (Kotelnikov et al. 2023).

Numbers: Gaussian diffusion (DDPM; Ho et al. 2020) with the cosine schedule of Nichol and Dhariwal (2021, eq. 17).
Categories: multinomial diffusion (Hoogeboom et al. 2021, section 4): at step t a code is still the first one with
probability bar_alpha_t, else uniform among K. Shares of codes reach 0 only at the very end, and logs are taken of
clamped numbers, so log 0 never occurs.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from gristmill.generators.nets.segments import Segments
from gristmill.generators.noise_schedule import betas, kept_signal

TINY = 1e-12
MAX_SCORE = 5.0  # scores of training rows lie within 4.8
NUM_WAVES = 64
UNSEEN_LOGIT = -1e4  # logit of a code that no training row has
BOUND_WEIGHT, AUXILIARY_WEIGHT = 0.1, 0.5  # weights of the variational bound and of the cross-entropy


class Schedule:
    """bar_alpha at steps -1..T-1 (`bar[t + 1]`, so bar[0] = 1) and alpha of each step."""

    def __init__(self, num_times: int, device: str = "cpu") -> None:
        self.num_times = num_times
        self.alpha = torch.from_numpy(1 - betas(num_times)).float().to(device)
        self.bar = torch.from_numpy(kept_signal(num_times)).float().to(device)


class Denoiser(nn.Module):
    """An MLP from a noisy row, its time and its class to the noise of the numbers and the logits of the codes.

    Codes that are `unseen`, bool (D,), have no probability.
    """

    def __init__(self, num_numbers: int, unseen: Tensor, num_labels: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.num_numbers, width = num_numbers, len(unseen)
        self.register_buffer("closed", unseen.float() * UNSEEN_LOGIT)
        self.entry = nn.Linear(num_numbers + width, widths[0])
        self.time = nn.Sequential(nn.Linear(2 * NUM_WAVES, widths[0]), nn.SiLU(), nn.Linear(widths[0], widths[0]))
        self.label = nn.Embedding(num_labels, widths[0])
        self.linears = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.head = nn.Linear(widths[-1], num_numbers + width)
        self.register_buffer("waves", torch.exp(-math.log(10_000) * torch.arange(NUM_WAVES) / NUM_WAVES))

    def clock(self, num_times: int) -> Tensor:
        """The contribution of each time to the entry layer, (T, hidden): one table for a whole batch."""
        angles = torch.arange(num_times, device=self.waves.device)[:, None] * self.waves * (1000 / num_times)
        table: Tensor = self.time(torch.cat([angles.sin(), angles.cos()], 1))
        return table

    def forward(self, rows: Tensor, clock: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Noise (n, M) and logits (n, D); `clock` is (n, hidden), `labels` int64 (n,)."""
        outputs = functional.silu(self.entry(rows) + clock + self.label(labels))
        for linear in self.linears:
            outputs = (
                outputs + functional.silu(linear(outputs))
                if linear.in_features == linear.out_features
                else linear(outputs)
            )
        outputs = self.head(outputs)
        return outputs[:, : self.num_numbers], outputs[:, self.num_numbers :] + self.closed


def diffuse_codes(codes: Tensor, bar: Tensor, levels: Tensor, sizes: Tensor) -> Tensor:
    """Keep codes, int64 (n, S), with probability `bar` (n, 1), else draw uniformly by `levels` in [0, 1) (n, S)."""
    other = ((levels - bar) / (1 - bar).clamp_min(TINY) * sizes).long()
    return torch.where(levels < bar, codes, torch.minimum(other.clamp_min(0), sizes - 1))


def posterior(segments: Segments, now: Tensor, first: Tensor, alpha: Tensor, bar_before: Tensor) -> Tensor:
    """Shares of the codes one step earlier, from one-hot `now` and shares `first` of the initial codes (n, D).

    The mixture of the posteriors given each initial code, each normalised separately (Austin et al. 2021, eq. 4).
    Hoogeboom et al. (2021, eq. 13) normalise only once, which differs unless the initial code is certain: shares learnt
    by cross-entropy would then give codes that are too uniform.
    """
    even = 1 / segments.sizes[segments.index]
    step = alpha * now + (1 - alpha) * even
    weights = first / (bar_before * step + (1 - bar_before) * even).clamp_min(TINY)
    likely = step * (bar_before * weights + (1 - bar_before) * even * segments.spread(segments.total(weights)))
    return likely / segments.spread(segments.total(likely)).clamp_min(TINY)


def losses(
    schedule: Schedule,
    segments: Segments,
    denoiser: Denoiser,
    numbers: Tensor,
    codes: Tensor,
    labels: Tensor,
    random: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """(squared error of the noise of numbers, Kullback-Leibler divergence of codes), means over rows and columns.

    The second is the paper's term of the variational bound, plus the cross-entropy of the initial codes with weight
    `AUXILIARY_WEIGHT` (Austin et al. 2021, eq. 5), which needs far fewer training steps.
    """
    device = numbers.device
    times = torch.randint(schedule.num_times, (len(numbers),), generator=random, device=device)
    bar, before = schedule.bar[times + 1][:, None], schedule.bar[times][:, None]
    noise = torch.randn(numbers.shape, generator=random, device=device)
    noisy = bar.sqrt() * numbers + (1 - bar).sqrt() * noise
    levels = torch.rand(codes.shape, generator=random, device=device)
    now = segments.one_hot(diffuse_codes(codes, bar, levels, segments.sizes))
    noise_estimate, logits = denoiser(torch.cat([noisy, now], 1), denoiser.clock(schedule.num_times)[times], labels)
    squared_error = (noise_estimate - noise).square().mean() if numbers.shape[1] else numbers.new_zeros(())
    if not segments.num:
        return squared_error, numbers.new_zeros(())
    log_shares = segments.log_softmax(logits)
    alpha = schedule.alpha[times][:, None]
    true_posterior = posterior(segments, now, segments.one_hot(codes), alpha, before)
    predicted_posterior = posterior(segments, now, log_shares.exp(), alpha, before)
    kl = (true_posterior * (true_posterior.clamp_min(TINY).log() - predicted_posterior.clamp_min(TINY).log())).sum(
        1
    ).mean() / segments.num
    cross_entropy = -segments.of(log_shares, codes).mean()
    return squared_error, kl * schedule.num_times * BOUND_WEIGHT + AUXILIARY_WEIGHT * cross_entropy


@torch.no_grad()
def step_back(
    schedule: Schedule,
    segments: Segments,
    denoiser: Denoiser,
    clock: Tensor,
    time: int,
    numbers: Tensor,
    codes: Tensor,
    labels: Tensor,
    noise: Tensor,
    levels: Tensor,
) -> tuple[Tensor, Tensor]:
    """Numbers and codes at `time` - 1 from those at `time`; those after time 0 are the sampled row."""
    bar, before, alpha = schedule.bar[time + 1], schedule.bar[time], schedule.alpha[time]
    now = segments.one_hot(codes)
    noise_estimate, logits = denoiser(torch.cat([numbers, now], 1), clock[time].expand(len(numbers), -1), labels)
    first = ((numbers - (1 - bar).sqrt() * noise_estimate) / bar.sqrt()).clamp(-MAX_SCORE, MAX_SCORE)
    mean = (before.sqrt() * (1 - alpha) * first + alpha.sqrt() * (1 - before) * numbers) / (1 - bar)
    deviation = ((1 - before) / (1 - bar) * (1 - alpha)).sqrt()
    shares = posterior(segments, now, segments.softmax(logits), alpha, before) if segments.num else now
    return mean + deviation * noise, segments.draw(shares, levels)

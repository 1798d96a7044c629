"""A conditional GAN on tables under DP-SGD: only the discriminator sees rows, and only through noisy clipped gradients.

After CTGAN (Xu et al. 2019), changed as a guarantee requires: a single row in a discriminator input (pac = 1), uniform
Poisson samples in place of training by sampling, a public schema with bins of noisy counts in place of fitted mixtures,
no batch norm, and clipped weights (Arjovsky et al. 2017) in place of a penalty on gradients at rows. The discriminator
steps many times for each step of the generator (Bie et al. 2023). The generator learns only from the discriminator.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from gristmill.generators.tabular.encoding.binned_net import BinnedSgd, BinnedSpec, weights_seed

FAKES, GENERATE = 3, 4  # purposes of a step's random numbers


@dataclass(frozen=True)
class DpCtganSpec(BinnedSpec):
    """Settings of `dp_ctgan`."""

    critic_steps: int = 5  # discriminator steps for each generator step; `steps` counts those of the discriminator
    critic_widths: tuple[int, ...] = (128, 128)  # units of the discriminator's hidden layers
    learning_rate: float = 5e-4  # learning rate of the generator
    critic_learning_rate: float = 1e-3  # learning rate of the discriminator
    weight_clip: float = 0.5  # largest absolute weight of the discriminator
    heat: float = 0.5  # temperature of the softmax that carries the generator's gradient
    marginal_weight: float = 1.0  # weight of the generator's distance from the noisy counts, in nats a column

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.critic_steps < 1:
            raise ValueError("critic_steps must be at least 1")


class DpCtgan(BinnedSgd):
    """Generator and discriminator over one-hot bins."""

    kind: ClassVar[str] = "dp_ctgan"
    revision: ClassVar[int] = 1
    Spec: ClassVar[type] = DpCtganSpec
    free_norm: ClassVar[float] = 1.0

    def make_nets(self, seed: int) -> None:
        import torch

        from gristmill.generators.nets.binned import module_from_seed, perceptron

        spec = self.spec
        critic = module_from_seed(weights_seed(seed, 1), perceptron, sum(self.sizes), spec.critic_widths, 1).to(
            self.device
        )
        self.nets["critic"] = self.critic = critic
        self.adams["decoder"] = torch.optim.Adam(self.decoder.parameters(), spec.learning_rate, (0.5, 0.9))
        self.adams["critic"] = torch.optim.Adam(critic.parameters(), spec.critic_learning_rate, (0.5, 0.9))

    def train(self, start: int, stop: int) -> Mapping[str, float]:
        """Returns the generator's loss, a function of the noisy discriminator, which may be published."""
        losses = []
        for step in range(start, stop):
            self._criticise(step)
            if (step + 1) % self.spec.critic_steps == 0:
                losses.append(self._generate(step))
        return {"generator": float(np.mean(losses))} if losses else {}

    def _criticise(self, step: int) -> None:
        """A discriminator step. Fakes are clipped like rows to weigh the same; they cost no privacy."""
        import torch
        from torch.nn.functional import softplus

        from gristmill.generators.nets.binned import one_hot

        chosen_rows = self._dp.rows(step)
        real = one_hot(self._rows[chosen_rows], self.sizes, self.device)
        fake = self.fakes(step, FAKES, self.spec.batch)
        signs = torch.cat([-torch.ones(len(real)), torch.ones(len(fake))]).to(self.device)
        batch = torch.cat([real, fake])
        sums = self._dp.clipped_sums(self.critic, lambda net: softplus(signs * net(batch).squeeze(1)))
        self._dp.set_gradients(self.critic, sums, step)
        self.adams["critic"].step()
        with torch.no_grad():
            for weights in self.critic.parameters():
                weights.clamp_(-self.spec.weight_clip, self.spec.weight_clip)

    def _generate(self, step: int) -> float:
        from torch.nn.functional import softplus

        from gristmill.generators.nets.binned import follow

        fakes = self.live_fakes(step, GENERATE, self.spec.batch)
        loss = softplus(-self.critic(fakes)).mean() + self.spec.marginal_weight * self.marginal_distance(fakes)
        self.adams["decoder"].zero_grad()
        loss.backward()
        self.adams["decoder"].step()
        follow(self.average, self.decoder, self.spec.average)
        return float(loss.detach())

"""A variational autoencoder on tables under DP-SGD: encoder and decoder are trained together, by a loss for each row.

After TVAE (Xu et al. 2019), over bins instead of fitted mixtures. Each column is a softmax, so the loss of a row is its
negative log-likelihood plus the Kullback-Leibler divergence of its latent vector. The model keeps only the decoder.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from gristmill.generators.private.dpsgd import no_sums
from gristmill.generators.tabular.encoding.binned_net import BinnedSgd, BinnedSpec, generator_of, weights_seed

LATENT = 3  # purpose of a step's random numbers


@dataclass(frozen=True)
class DpTvaeSpec(BinnedSpec):
    """Settings of `dp_tvae`."""

    num_noise: int = 16  # length of the latent vector
    widths: tuple[int, ...] = (128,)  # units of the hidden layers of encoder and decoder
    learning_rate: float = 2e-3  # learning rate of Adam
    divergence_weight: float = 1.0  # weight of the Kullback-Leibler divergence in the loss


class DpTvae(BinnedSgd):
    """Encoder and decoder over one-hot bins."""

    kind: ClassVar[str] = "dp_tvae"
    revision: ClassVar[int] = 1
    Spec: ClassVar[type] = DpTvaeSpec

    def make_nets(self, seed: int) -> None:
        import torch

        from gristmill.generators.nets.binned import module_from_seed, perceptron

        spec = self.spec
        encoder = module_from_seed(weights_seed(seed, 1), perceptron, sum(self.sizes), spec.widths, 2 * spec.num_noise)
        self.nets["encoder"] = encoder.to(self.device)
        self._both = torch.nn.ModuleList([self.nets["encoder"], self.decoder])
        self.adams["both"] = torch.optim.Adam(self._both.parameters(), spec.learning_rate)

    def train(self, start: int, stop: int) -> Mapping[str, float]:
        """Returns the 2-norm of the noisy gradients. The loss depends on rows without noise, so it is not published."""
        return {"gradient": float(np.mean([self._step(step) for step in range(start, stop)]))}

    def _step(self, step: int) -> float:
        from gristmill.generators.nets.binned import follow, one_hot

        batch = self._dp.rows(step)
        rows = one_hot(self._rows[batch], self.sizes, self.device)
        noise = self.noise(len(batch), generator_of(self.seed, step, LATENT))
        sums = no_sums(self._both)
        if len(batch):
            sums = self._dp.clipped_sums(self._both, lambda net: self._losses(net, rows, noise))
        size = self._dp.set_gradients(self._both, sums, step)
        self.adams["both"].step()
        follow(self.average, self.decoder, self.spec.average)
        return size

    def _losses(self, both: Any, rows: Any, noise: Any) -> Any:
        """The negative evidence lower bound of each row in nats (Kingma and Welling 2014): (rows,)."""
        from gristmill.generators.nets.binned import nll_of_rows

        encoder, decoder = both
        mean, log_variance = encoder(rows).chunk(2, dim=1)
        log_variance = log_variance.clamp(-10, 4)
        logits = decoder(mean + noise * (log_variance / 2).exp())
        divergence = (mean.square() + log_variance.exp() - 1 - log_variance).sum(1) / 2
        return nll_of_rows(logits, rows, self.sizes) + self.spec.divergence_weight * divergence

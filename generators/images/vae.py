"""`vae`: a conditional variational autoencoder of small images.

Kingma & Welling 2014; Sohn et al. 2015 (labels); Rybkin et al. 2021 (the noise of the pixels is the one that fits best,
so nothing weighs reconstruction against the prior by hand).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from gristmill.generators.families.contract import stream
from gristmill.generators.images.averaged import LatentFamily, LatentSpec


@dataclass(frozen=True)
class VaeSpec(LatentSpec):
    """Settings of `vae`. `lr` falls to 0 along a cosine. Images are the decoder's means, without pixel noise."""


class Vae(LatentFamily):
    """Encodes an image, given its label, as a normal vector, and decodes it."""

    kind: ClassVar[str] = "vae"
    revision: ClassVar[int] = 1
    Spec: ClassVar[type] = VaeSpec
    sampler: ClassVar[str] = "decoder"

    def _make_rest(self) -> None:
        import torch

        from gristmill.generators.nets.convs import Encoder

        encoder = Encoder(self.shape, self.spec.width, self.spec.latent, self.num_labels).to(self.device)
        self._nets["encoder"], self._encoder, self._decoder = encoder, encoder, self._nets["decoder"]
        parameters = [*self._encoder.parameters(), *self._decoder.parameters()]
        self._adam = self._adams["adam"] = torch.optim.Adam(parameters, lr=self.spec.lr)

    def train(self, start: int, stop: int) -> Mapping[str, float]:
        losses = np.mean([self._step(step) for step in range(start, stop)], axis=0)
        return {"reconstruction": float(losses[0]), "kl": float(losses[1])}

    def _step(self, step: int) -> tuple[float, float]:
        """One step; the losses in nats an image."""
        import torch

        spec, draw = self.spec, stream(self._seed, step)
        rows = draw.integers(len(self._pixels), size=spec.batch)
        labels = self._to(self._labels[rows])
        images = self._pixels[torch.from_numpy(rows)].to(self.device)
        noise = self._to(draw.standard_normal((spec.batch, spec.latent), np.float32))
        mean, log_variance = self._encoder(images, labels)
        made = self._decoder(mean + noise * (0.5 * log_variance).exp(), labels)
        # Equation 9 of Rybkin et al.: with the best sigma, the likelihood hangs on the log of the squared error alone.
        mse = torch.nn.functional.mse_loss(made, images).clamp_min(1e-6)
        size = math.prod(self.shape)
        reconstruction = 0.5 * size * (mse.log() + math.log(2 * math.pi) + 1)
        kl = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum(1).mean()
        for group in self._adam.param_groups:
            group["lr"] = spec.lr * 0.5 * (1 + math.cos(math.pi * step / spec.steps))
        self._adam.zero_grad()
        (reconstruction + kl).backward()
        torch.nn.utils.clip_grad_norm_([p for g in self._adam.param_groups for p in g["params"]], 100.0)
        self._adam.step()
        self._follow(step)
        return float(reconstruction.detach()), float(kl.detach())

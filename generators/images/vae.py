"""`vae`: a conditional variational autoencoder of small images.

Kingma & Welling 2014; Sohn et al. 2015 (labels); Rybkin et al. 2021 (the noise of the pixels is the one that fits best,
so nothing weighs reconstruction against the prior by hand).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from generators.family import Drawn, State, stream
from generators.images.common import ImageFamily, row_streams
from generators.privacy import Account

INIT = 1 << 32  # key of the stream of first weights, beyond all steps


@dataclass(frozen=True)
class Spec:
    """Sampled images are the decoder's means: smooth, without the pixels' own noise."""

    steps: int = 2000
    batch: int = 128
    lr: float = 2e-3  # falls to 0 along a cosine
    width: int = 32  # channels of the widest image; a multiple of 8
    latent: int = 16
    ema: float = 0.99

    def __post_init__(self) -> None:
        if min(self.steps, self.batch, self.latent) < 1 or self.lr <= 0 or not 0 <= self.ema < 1:
            raise ValueError("steps, batch, latent and lr must be above 0, and ema must lie in 0 to 1")
        if self.width < 8 or self.width % 8:
            raise ValueError("width must be a multiple of 8")


class Vae(ImageFamily):
    """Learns to write an image, given its label, as a few normal numbers, and to read it back."""

    kind: ClassVar[str] = "vae"
    Spec: ClassVar[type] = Spec

    @property
    def num_steps(self) -> int:
        return int(self.spec.steps)

    def _new_decoder(self) -> Any:
        from generators.nets.convs import Widen

        return Widen(self.shape, self.spec.width, self.spec.latent, self.num_labels).to(self.device)

    def begin(self, table: pa.Table, seed: int, account: Account | None) -> None:
        import torch

        from generators.nets.arrays import seeded
        from generators.nets.convs import Encoder

        self._seed = seed
        pixels, self._labels = self.read(table)
        self._pixels = torch.from_numpy(pixels)
        self._shares = self.shares(self._labels)
        seeded(seed, INIT)
        self._decoder, self._average = self._new_decoder(), self._new_decoder()
        self._average.load_state_dict(self._decoder.state_dict())
        self._encoder = Encoder(self.shape, self.spec.width, self.spec.latent, self.num_labels).to(self.device)
        parameters = [*self._encoder.parameters(), *self._decoder.parameters()]
        self._adam = torch.optim.Adam(parameters, lr=self.spec.lr)

    def train(self, start: int, stop: int) -> Mapping[str, float]:
        losses = np.mean([self._step(step) for step in range(start, stop)], axis=0)
        return {"reconstruction": float(losses[0]), "kl": float(losses[1])}

    def _step(self, step: int) -> tuple[float, float]:
        """One step; the losses in nats an image."""
        import torch

        from generators.nets.arrays import follow

        spec, draw = self.spec, stream(self._seed, step)
        rows = draw.integers(len(self._pixels), size=spec.batch)
        labels = torch.from_numpy(self._labels[rows]).to(self.device)
        images = self._pixels[torch.from_numpy(rows)].to(self.device)
        noise = torch.from_numpy(draw.standard_normal((spec.batch, spec.latent), np.float32)).to(self.device)
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
        follow(self._average, self._decoder, step, spec.ema)
        return float(reconstruction.detach()), float(kl.detach())

    def trained(self) -> State:
        from generators.nets.arrays import of_module

        return State({**of_module(self._average, "decoder"), "shares": self._shares})

    def training(self) -> State:
        from generators.nets.arrays import of_adam, of_module

        nets = {**of_module(self._decoder, "decoder"), **of_module(self._encoder, "encoder")}
        return State({**nets, **of_adam(self._adam, "adam")})

    def restore(self, trained: State, training: State | None = None) -> None:
        from generators.nets.arrays import to_adam, to_module

        self._average, self._shares = self._new_decoder(), trained.tensors["shares"]
        to_module(self._average, "decoder", trained.tensors)
        if training:
            to_module(self._decoder, "decoder", training.tensors)
            to_module(self._encoder, "encoder", training.tensors)
            to_adam(self._adam, "adam", training.tensors)

    def sample(self, wanted: Sequence[Mapping[str, Any]], seeds: np.ndarray) -> Drawn:
        import torch

        streams = row_streams(seeds)
        labels = self.choose(wanted, np.array([s.random() for s in streams]), self._shares)
        noise = np.stack([s.standard_normal(self.spec.latent, np.float32) for s in streams])
        with torch.inference_mode():
            made = self._average(torch.from_numpy(noise).to(self.device), torch.from_numpy(labels).to(self.device))
        return self.drawn(made.cpu().numpy(), labels)

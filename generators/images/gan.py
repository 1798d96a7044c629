"""`gan`: a conditional generative adversarial network of small images.

Gulrajani et al. 2017 (WGAN-GP), Miyato et al. 2018 (spectral normalisation, with the hinge loss), Miyato & Koyama 2018
(labels by projection), Yazici et al. 2019 (an average of the generator's weights samples better than its last ones).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa

from generators.family import Drawn, State, stream
from generators.images.common import ImageFamily, row_streams
from generators.privacy import Account

INIT = 1 << 32  # key of the stream of first weights, beyond all steps
NAMES = "generator", "critic"


@dataclass(frozen=True)
class Spec:
    """What holds the critic: a penalty on its gradient, or the spectral norm of its layers."""

    steps: int = 2000  # of the generator
    batch: int = 64
    lr: float = 5e-4
    width: int = 32  # channels of the widest image; a multiple of 8
    latent: int = 32
    hold: Literal["gradient", "spectral"] = "gradient"
    penalty: float = 10.0  # weight of the gradient penalty
    critic_steps: int | None = None  # a generator's step; default: 3 with the penalty, 1 with the norm
    ema: float = 0.99

    def __post_init__(self) -> None:
        if min(self.steps, self.batch, self.latent) < 1 or self.lr <= 0 or not 0 <= self.ema < 1:
            raise ValueError("steps, batch, latent and lr must be above 0, and ema must lie in 0 to 1")
        if self.width < 8 or self.width % 8:
            raise ValueError("width must be a multiple of 8")
        if self.penalty <= 0 or (self.critic_steps is not None and self.critic_steps < 1):
            raise ValueError("penalty must be above 0, and critic_steps at least 1")


class Gan(ImageFamily):
    """A generator and its critic; only the generator is kept."""

    kind: ClassVar[str] = "gan"
    Spec: ClassVar[type] = Spec

    @property
    def num_steps(self) -> int:
        return int(self.spec.steps)

    def _new_generator(self) -> Any:
        from generators.nets.convs import Widen

        return Widen(self.shape, self.spec.width, self.spec.latent, self.num_labels).to(self.device)

    def begin(self, table: pa.Table, seed: int, account: Account | None) -> None:
        import torch

        from generators.nets.arrays import seeded
        from generators.nets.convs import Critic

        self._seed = seed
        pixels, self._labels = self.read(table)
        self._pixels = torch.from_numpy(pixels)
        self._shares = self.shares(self._labels)
        seeded(seed, INIT)
        self._generator, self._average = self._new_generator(), self._new_generator()
        self._average.load_state_dict(self._generator.state_dict())
        is_spectral = self.spec.hold == "spectral"
        self._critic = Critic(self.shape, self.spec.width, self.num_labels, is_spectral).to(self.device)
        self._adams = {
            name: torch.optim.Adam(net.parameters(), lr=self.spec.lr, betas=(0.0, 0.9))
            for name, net in zip(NAMES, (self._generator, self._critic))
        }

    def train(self, start: int, stop: int) -> Mapping[str, float]:
        losses = np.mean([self._step(step) for step in range(start, stop)], axis=0)
        return {"critic": float(losses[0]), "generator": float(losses[1])}

    def _step(self, step: int) -> tuple[float, float]:
        from generators.nets.arrays import follow

        draw = stream(self._seed, step)
        count = self.spec.critic_steps or (3 if self.spec.hold == "gradient" else 1)
        of_critic = float(np.mean([self._criticise(draw) for _ in range(count)]))
        made, labels = self._make(draw)
        loss = -self._critic(made, labels).mean()
        self._move("generator", loss)
        follow(self._average, self._generator, step, self.spec.ema)
        return of_critic, float(loss.detach())

    def _make(self, draw: np.random.Generator) -> tuple[Any, Any]:
        """Images for labels as often as they are in the rows."""
        labels = self._to(self._labels[draw.integers(len(self._labels), size=self.spec.batch)])
        noise = self._to(draw.standard_normal((self.spec.batch, self.spec.latent), np.float32))
        return self._generator(noise, labels), labels

    def _criticise(self, draw: np.random.Generator) -> float:
        import torch

        rows = draw.integers(len(self._pixels), size=self.spec.batch)
        real, labels = self._pixels[torch.from_numpy(rows)].to(self.device), self._to(self._labels[rows])
        with torch.no_grad():
            made, made_labels = self._make(draw)
        of_real, of_made = self._critic(real, labels), self._critic(made, made_labels)
        if self.spec.hold == "spectral":
            loss = torch.relu(1 - of_real).mean() + torch.relu(1 + of_made).mean()
        else:
            between = self._between(draw, real, labels)
            loss = of_made.mean() - of_real.mean() + self.spec.penalty * between
        self._move("critic", loss)
        return float(loss.detach())

    def _between(self, draw: np.random.Generator, real: Any, labels: Any) -> Any:
        """The penalty of Gulrajani et al., equation 3: how far the critic's slope is from 1 between the two kinds.

        The made images bear the labels of the real ones, so that each point has one label.
        """
        import torch

        noise = self._to(draw.standard_normal((self.spec.batch, self.spec.latent), np.float32))
        with torch.no_grad():
            made = self._generator(noise, labels)
        share = self._to(draw.random((self.spec.batch, 1, 1, 1), np.float32))
        points = (share * real + (1 - share) * made).requires_grad_(True)
        (slope,) = torch.autograd.grad(self._critic(points, labels).sum(), points, create_graph=True)
        return ((slope.flatten(1).norm(dim=1) - 1) ** 2).mean()

    def _move(self, name: str, loss: Any) -> None:
        self._adams[name].zero_grad()
        loss.backward()
        self._adams[name].step()

    def _to(self, array: np.ndarray) -> Any:
        import torch

        return torch.from_numpy(array).to(self.device)

    def trained(self) -> State:
        from generators.nets.arrays import of_module

        return State({**of_module(self._average, "generator"), "shares": self._shares})

    def training(self) -> State:
        from generators.nets.arrays import of_adam, of_module

        tensors: dict[str, np.ndarray] = {}
        for name, net in zip(NAMES, (self._generator, self._critic)):
            tensors |= {**of_module(net, name), **of_adam(self._adams[name], f"adam_{name}")}
        return State(tensors)

    def restore(self, trained: State, training: State | None = None) -> None:
        from generators.nets.arrays import to_adam, to_module

        self._average, self._shares = self._new_generator(), trained.tensors["shares"]
        to_module(self._average, "generator", trained.tensors)
        if training:
            for name, net in zip(NAMES, (self._generator, self._critic)):
                to_module(net, name, training.tensors)
                to_adam(self._adams[name], f"adam_{name}", training.tensors)

    def sample(self, wanted: Sequence[Mapping[str, Any]], seeds: np.ndarray) -> Drawn:
        import torch

        streams = row_streams(seeds)
        labels = self.choose(wanted, np.array([s.random() for s in streams]), self._shares)
        noise = np.stack([s.standard_normal(self.spec.latent, np.float32) for s in streams])
        with torch.inference_mode():
            made = self._average(self._to(noise), self._to(labels))
        return self.drawn(made.cpu().numpy(), labels)

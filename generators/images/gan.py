"""`gan`: a conditional generative adversarial network of small images.

Gulrajani et al. 2017 (WGAN-GP), Miyato et al. 2018 (spectral normalisation, with the hinge loss), Miyato & Koyama 2018
(labels by projection).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from gristmill.generators.families.contract import stream
from gristmill.generators.images.averaged import LatentFamily, LatentSpec


@dataclass(frozen=True)
class GanSpec(LatentSpec):
    """Settings of `gan`. Steps are those of the generator."""

    batch: int = 64  # rows in a step
    lr: float = 5e-4  # learning rate of Adam
    latent: int = 32  # length of the normal vector that an image is made from
    # constraint of the critic: a penalty on its gradient, or spectral normalisation
    hold: Literal["gradient", "spectral"] = "gradient"
    penalty: float = 10.0  # weight of the gradient penalty
    # critic steps for each generator step; default: 3 with the penalty, 1 with spectral normalisation
    critic_steps: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.penalty <= 0 or (self.critic_steps is not None and self.critic_steps < 1):
            raise ValueError("penalty must be above 0, and critic_steps at least 1")


class Gan(LatentFamily):
    """A generator and its critic; the model keeps only the generator."""

    kind: ClassVar[str] = "gan"
    revision: ClassVar[int] = 1
    Spec: ClassVar[type] = GanSpec
    sampler: ClassVar[str] = "generator"

    def _make_rest(self) -> None:
        import torch

        from gristmill.generators.nets.convs import Critic

        is_spectral = self.spec.hold == "spectral"
        critic = Critic(self.shape, self.spec.width, self.num_labels, is_spectral).to(self.device)
        self._nets["critic"], self._generator, self._critic = critic, self._nets["generator"], critic
        for name, net in self._nets.items():
            self._adams[f"adam_{name}"] = torch.optim.Adam(net.parameters(), lr=self.spec.lr, betas=(0.0, 0.9))

    def train(self, start: int, stop: int) -> Mapping[str, float]:
        losses = np.mean([self._step(step) for step in range(start, stop)], axis=0)
        return {"critic": float(losses[0]), "generator": float(losses[1])}

    def _step(self, step: int) -> tuple[float, float]:
        draw = stream(self._seed, step)
        count = self.spec.critic_steps or (3 if self.spec.hold == "gradient" else 1)
        of_critic = float(np.mean([self._criticise(draw) for _ in range(count)]))
        fakes, labels = self._make(draw)
        loss = -self._critic(fakes, labels).mean()
        self._move("generator", loss)
        self._follow(step)
        return of_critic, float(loss.detach())

    def _make(self, draw: np.random.Generator) -> tuple[Any, Any]:
        """Images whose labels have their frequencies among the rows."""
        labels = self._to(self._labels[draw.integers(len(self._labels), size=self.spec.batch)])
        noise = self._to(draw.standard_normal((self.spec.batch, self.spec.latent), np.float32))
        return self._generator(noise, labels), labels

    def _criticise(self, draw: np.random.Generator) -> float:
        import torch

        rows = draw.integers(len(self._pixels), size=self.spec.batch)
        real, labels = self._pixels[torch.from_numpy(rows)].to(self.device), self._to(self._labels[rows])
        with torch.no_grad():
            fakes, fake_labels = self._make(draw)
        real_scores, fake_scores = self._critic(real, labels), self._critic(fakes, fake_labels)
        if self.spec.hold == "spectral":
            loss = torch.relu(1 - real_scores).mean() + torch.relu(1 + fake_scores).mean()
        else:
            between = self._between(draw, real, labels)
            loss = fake_scores.mean() - real_scores.mean() + self.spec.penalty * between
        self._move("critic", loss)
        return float(loss.detach())

    def _between(self, draw: np.random.Generator, real: Any, labels: Any) -> Any:
        """The penalty of Gulrajani et al., equation 3: how far the critic's slope is from 1 between the two kinds.

        The made images bear the labels of the real ones, so that each point has one label.
        """
        import torch

        noise = self._to(draw.standard_normal((self.spec.batch, self.spec.latent), np.float32))
        with torch.no_grad():
            fakes = self._generator(noise, labels)
        share = self._to(draw.random((self.spec.batch, 1, 1, 1), np.float32))
        points = (share * real + (1 - share) * fakes).requires_grad_(True)
        (slope,) = torch.autograd.grad(self._critic(points, labels).sum(), points, create_graph=True)
        return ((slope.flatten(1).norm(dim=1) - 1) ** 2).mean()

    def _move(self, name: str, loss: Any) -> None:
        adam = self._adams[f"adam_{name}"]
        adam.zero_grad()
        loss.backward()
        adam.step()

"""Base of image families that train networks step by step and sample with a moving average of a network's weights.

An average of a generator's weights samples better than its last ones: Yazici et al. 2019, Ho et al. 2020.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from gristmill.generators.families.contract import SampleBlock, State, check_bias
from gristmill.generators.images.common import ImageFamily, row_streams
from gristmill.generators.private.account import Account

INIT = 1 << 32  # key of the stream of first weights, beyond all steps


class AveragedFamily(ImageFamily):
    """Base of families with networks `_nets` and optimizers `_adams`, by name; `_average` follows the one that samples.

    `spec` has steps and ema.
    """

    sampler: ClassVar[str]  # name of the network that samples

    @abstractmethod
    def _new_sampler(self) -> Any:
        """The network that samples, on its device, with new weights."""

    @abstractmethod
    def _make_rest(self) -> None:
        """Add the other networks to `_nets` and the optimizers to `_adams`."""

    @property
    def num_steps(self) -> int:
        return int(self.spec.steps)

    def begin(self, table: pa.Table, seed: int, account: Account | None) -> None:
        import torch

        from gristmill.generators.nets.arrays import seed_torch

        self._seed = seed
        pixels, self._labels = self.read(table)
        self._pixels = torch.from_numpy(pixels)
        self._shares = self.shares(self._labels)
        seed_torch(seed, INIT)
        sampler, self._average = self._new_sampler(), self._new_sampler()
        self._average.load_state_dict(sampler.state_dict())
        self._nets: dict[str, Any] = {self.sampler: sampler}
        self._adams: dict[str, Any] = {}
        self._make_rest()

    def _follow(self, step: int) -> None:
        """Move the average after the network that samples."""
        from gristmill.generators.nets.arrays import follow

        follow(self._average, self._nets[self.sampler], step, self.spec.ema)

    def _to(self, array: np.ndarray) -> Any:
        import torch

        return torch.from_numpy(array).to(self.device)

    def model_state(self) -> State:
        from gristmill.generators.nets.arrays import of_module

        return State({**of_module(self._average, self.sampler), "shares": self._shares})

    def training_state(self) -> State:
        from gristmill.generators.nets.arrays import of_adam, of_module

        tensors: dict[str, np.ndarray] = {}
        for name, net in self._nets.items():
            tensors |= of_module(net, name)
        for name, adam in self._adams.items():
            tensors |= of_adam(adam, name)
        return State(tensors)

    def restore(self, model_state: State, training_state: State | None = None) -> None:
        from gristmill.generators.nets.arrays import to_adam, to_module

        self._average, self._shares = self._new_sampler(), model_state.tensors["shares"]
        to_module(self._average, self.sampler, model_state.tensors)
        if training_state:
            for name, net in self._nets.items():
                to_module(net, name, training_state.tensors)
            for name, adam in self._adams.items():
                to_adam(adam, name, training_state.tensors)


@dataclass(frozen=True)
class LatentSpec:
    """Settings of families that make an image from a normal vector in a single pass."""

    steps: int = 2000  # training steps
    batch: int = 128  # rows in a step
    lr: float = 2e-3  # learning rate of Adam
    width: int = 32  # channels of the widest layer; a multiple of 8
    latent: int = 16  # length of the normal vector that an image is made from
    ema: float = 0.99  # decay of the average of weights that samples
    bias: float = 1.0  # MAD's lambda: share of the vectors' variance that is sampled; below 1 there is less variety

    def __post_init__(self) -> None:
        if min(self.steps, self.batch, self.latent) < 1 or self.lr <= 0 or not 0 <= self.ema < 1:
            raise ValueError("steps, batch, latent and lr must be above 0, and ema must lie in 0 to 1")
        if self.width < 8 or self.width % 8:
            raise ValueError("width must be a multiple of 8")
        check_bias(self.bias)


class LatentFamily(AveragedFamily):
    """Base of families that make an image from a normal vector and a label in a single pass. `spec` is a LatentSpec."""

    def _new_sampler(self) -> Any:
        from gristmill.generators.nets.convs import Widen

        return Widen(self.shape, self.spec.width, self.spec.latent, self.num_labels).to(self.device)

    def sample(self, requests: Sequence[Mapping[str, Any]], seeds: np.ndarray) -> SampleBlock:
        import torch

        streams = row_streams(seeds)
        labels = self.choose(requests, np.array([s.random() for s in streams]), self._shares)
        noise = np.stack([s.standard_normal(self.spec.latent, np.float32) for s in streams])
        noise *= np.float32(np.sqrt(self.spec.bias))
        with torch.inference_mode():
            images = self._average(self._to(noise), self._to(labels))
        return self.sample_block(images.cpu().numpy(), labels)

"""`classifier`: classifies small images. It makes no rows; the stage `classifier` filters rows by it.

A perceptron of two layers over the pixels, so that the stage needs no torch: stages/verify/classifier.py reads the
arrays.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from gristmill.generators.families.contract import SampleBlock, State, stream
from gristmill.generators.images.common import ImageFamily
from gristmill.generators.private.account import Account
from gristmill.records.errors import UserError

INIT = 1 << 32  # key of the stream of first weights, beyond all steps


@dataclass(frozen=True)
class ClassifierSpec:
    """Settings of `classifier`."""

    steps: int = 1500  # training steps
    batch: int = 128  # rows in a step
    lr: float = 2e-3  # learning rate at the start; falls to 0 along a cosine
    width: int = 256  # units of the hidden layer
    weight_decay: float = 1e-4  # L2 penalty of Adam
    label_smoothing: float = 0.05  # share of the target that is spread over all labels, which limits overconfidence

    def __post_init__(self) -> None:
        if min(self.steps, self.batch, self.width) < 1 or self.lr <= 0 or self.weight_decay < 0:
            raise ValueError("steps, batch, width and lr must be above 0, and weight_decay must not be negative")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError("label_smoothing must lie in 0 to 1")


class Classifier(ImageFamily):
    """Learns the label column from the image column."""

    kind: ClassVar[str] = "classifier"
    revision: ClassVar[int] = 1
    Spec: ClassVar[type] = ClassifierSpec
    makes_rows: ClassVar[bool] = False
    used_by: ClassVar[str] = '[[stages]] kind = "classifier", path = "{uri}"'

    def check(self) -> None:
        super().check()
        if self.num_labels < 2:
            raise UserError("model 'classifier' needs a category column of at least 2 labels beside the images")

    def divisor(self) -> int:
        return 1

    @property
    def num_steps(self) -> int:
        return int(self.spec.steps)

    def _new_net(self) -> Any:
        import torch

        sizes = math.prod(self.shape), self.spec.width, self.num_labels
        layers = [torch.nn.Flatten(), torch.nn.Linear(*sizes[:2]), torch.nn.ReLU(), torch.nn.Linear(*sizes[1:])]
        return torch.nn.Sequential(*layers).to(self.device)

    def begin(self, table: pa.Table, seed: int, account: Account | None) -> None:
        import torch

        from gristmill.generators.nets.arrays import seed_torch

        self._seed = seed
        pixels, labels = self.read(table)
        self._pixels, self._labels = torch.from_numpy(pixels), torch.from_numpy(labels)
        seed_torch(seed, INIT)
        self._net = self._new_net()
        self._adam = torch.optim.Adam(self._net.parameters(), self.spec.lr, weight_decay=self.spec.weight_decay)

    def train(self, start: int, stop: int) -> Mapping[str, float]:
        means = np.mean([self._step(step) for step in range(start, stop)], axis=0)
        return {"loss": float(means[0]), "accuracy": float(means[1])}

    def _step(self, step: int) -> tuple[float, float]:
        import torch

        rows = torch.from_numpy(stream(self._seed, step).integers(len(self._pixels), size=self.spec.batch))
        images, labels = self._pixels[rows].to(self.device), self._labels[rows].to(self.device)
        logits = self._net(images)
        loss = torch.nn.functional.cross_entropy(logits, labels, label_smoothing=self.spec.label_smoothing)
        for group in self._adam.param_groups:
            group["lr"] = self.spec.lr * 0.5 * (1 + math.cos(math.pi * step / self.spec.steps))
        self._adam.zero_grad()
        loss.backward()
        self._adam.step()
        return float(loss.detach()), float((logits.argmax(1) == labels).float().mean())

    def model_state(self) -> State:
        from gristmill.generators.nets.arrays import of_module

        return State(of_module(self._net, "net"))

    def training_state(self) -> State:
        from gristmill.generators.nets.arrays import of_adam

        return State(of_adam(self._adam, "adam"))

    def restore(self, model_state: State, training_state: State | None = None) -> None:
        from gristmill.generators.nets.arrays import to_adam, to_module

        if training_state is None:
            self._net = self._new_net()
        to_module(self._net, "net", model_state.tensors)
        if training_state:
            to_adam(self._adam, "adam", training_state.tensors)

    def sample(self, requests: Sequence[Mapping[str, Any]], seeds: np.ndarray) -> SampleBlock:
        raise AssertionError("a classifier makes no rows")

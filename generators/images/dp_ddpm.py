"""`dp_ddpm`: the diffusion model of `ddpm` under DP-SGD.

Dockhorn et al. 2023 (Differentially Private Diffusion Models), Ghalebikesabi et al. 2023: small networks, large
samples, and noise multiplicity: a row's loss is the mean over several steps and noises, before its gradient is clipped.
All of them belong to the row, so the row is charged once, and its gradient varies less for the same noise.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from gristmill.generators.families.contract import stream
from gristmill.generators.images import ddpm
from gristmill.generators.images.averaged import INIT
from gristmill.generators.private.account import Account
from gristmill.generators.private.accountants import Event
from gristmill.generators.private.dpsgd import DpSgd, no_sums

COUNTS = "counts of labels"
COUNT = 3  # purpose of a stream of random numbers
MOST_PIXELS = 2**15  # pixels in the network at a time; bounds memory and changes gradients by rounding only


@dataclass(frozen=True)
class DpDdpmSpec(ddpm.DdpmSpec):
    """Settings of `dp_ddpm`: those of `ddpm`, with larger samples and a smaller network."""

    steps: int = 200  # training steps
    batch: int = 256  # expected rows of a Poisson sample
    # highest learning rate; rises over the first twentieth of the steps, then falls to 0 along a cosine
    lr: float = 8e-3
    width: int = 8  # channels of the first level; a multiple of 8
    copies: int = 4  # noisy images of a row in a step (noise multiplicity)
    share_counts: float = 0.05  # share of epsilon for the counts of labels

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.copies < 1 or not 0 < self.share_counts < 1:
            raise ValueError("copies must be at least 1, and share_counts must lie between 0 and 1")


class DpDdpm(ddpm.Ddpm):
    """Learns like Ddpm, but from noisy sums of clipped gradients and noisy counts of labels."""

    kind: ClassVar[str] = "dp_ddpm"
    revision: ClassVar[int] = 1
    Spec: ClassVar[type] = DpDdpmSpec
    is_private: ClassVar[bool] = True
    takes_engine: ClassVar[bool] = True

    def begin(self, table: pa.Table, seed: int, account: Account | None) -> None:
        super().begin(table, seed, account)
        if account and self.label:
            self._shares = self._noisy_shares(account)
        self._dp = DpSgd(account, seed, table.num_rows, self.spec.batch, self.num_steps)

    def _noisy_shares(self, account: Account) -> np.ndarray:
        """Shares of the labels by noisy counts; counts below 1 are raised to 1."""
        noise = account.noise_for(COUNTS, 1.0, 1, self.spec.share_counts)
        account.charge(Event(COUNTS, noise))
        counts = np.bincount(self._labels, minlength=self.num_labels)
        noisy = counts + noise * stream(self._seed, INIT, COUNT).standard_normal(self.num_labels)
        return np.maximum(noisy, 1.0) / np.maximum(noisy, 1.0).sum()

    def train(self, start: int, stop: int) -> Mapping[str, float]:
        """Returns the 2-norm of the noisy gradients. The loss is an exact function of rows and is not published."""
        return {"gradient": float(np.mean([self._step(step) for step in range(start, stop)]))}

    def _step(self, step: int) -> float:
        batch, draw = self._dp.rows(step), stream(self._seed, step)
        sums = no_sums(self._net)
        most = max(1, MOST_PIXELS // (self.spec.copies * math.prod(self.shape[1:])))
        for start in range(0, len(batch), most):
            task = self._task(np.repeat(batch[start : start + most], self.spec.copies), draw)
            found = self._dp.clipped_sums(self._net, lambda net: self._losses(net, task))  # noqa: B023
            sums = [total + more for total, more in zip(sums, found)]
        size = self._dp.set_gradients(self._net, sums, step)
        self._move(step)
        return size

    def _losses(self, net: Any, task: tuple[Any, Any, Any, Any]) -> Any:
        """The mean squared error of each row, over its copies and pixels: (rows,)."""
        *inputs, target = task
        return (net(*inputs) - target).square().reshape(len(target) // self.spec.copies, -1).mean(1)

"""`ddpm`: a diffusion model of small images, trained from scratch.

Ho et al. 2020 (DDPM), Nichol & Dhariwal 2021 (cosine schedule), Salimans & Ho 2022 (v prediction), Song et al. 2021
(DDIM), Lu et al. 2022 (DPM-Solver++), Ho & Salimans 2022 (classifier-free guidance).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Literal

import numpy as np

from gristmill.generators.families.contract import SampleBlock, stream
from gristmill.generators.images.averaged import AveragedFamily
from gristmill.generators.images.common import row_streams
from gristmill.generators.noise_schedule import kept_signal

NUM_TIMES = 1000  # noise levels of the schedule


@dataclass(frozen=True)
class DdpmSpec:
    """Settings of `ddpm`."""

    steps: int = 1000  # training steps
    batch: int = 128  # rows in a step
    # highest learning rate; rises over the first twentieth of the steps, then falls to 0 along a cosine
    lr: float = 2e-3
    width: int = 32  # channels of the first level; a multiple of 8
    # channels of each level over width; default: two levels up to 16 pixels, else three
    multipliers: tuple[int, ...] = ()
    predict: Literal["v", "epsilon"] = "v"  # what the network predicts: v (Salimans and Ho 2022) or the noise
    label_drop: float = 0.1  # share of rows that train the model without their label, for guidance
    ema: float = 0.995  # decay of the average of weights that samples
    # ddim, dpm (the same result in half the steps), or ddpm (fresh noise at every step)
    sampler: Literal["ddim", "ddpm", "dpm"] = "ddim"
    sample_steps: int = 25  # denoising steps of an image
    guidance: float = 0.0  # strength of classifier-free guidance; 0: none; more: clearer labels, less variety

    def __post_init__(self) -> None:
        if min(self.steps, self.batch) < 1 or self.lr <= 0:
            raise ValueError("steps, batch and lr must be above 0")
        if self.width < 8 or self.width % 8 or min(self.multipliers, default=1) < 1:
            raise ValueError("width must be a multiple of 8, and multipliers at least 1")
        if not 0 <= self.label_drop < 1 or not 0 <= self.ema < 1 or self.guidance < 0:
            raise ValueError("label_drop and ema must lie in 0 to 1, and guidance must not be negative")
        if not 1 <= self.sample_steps <= NUM_TIMES:
            raise ValueError(f"sample_steps must lie in 1 to {NUM_TIMES}")


class Ddpm(AveragedFamily):
    """Learns to denoise images, given their labels; samples by denoising pure noise."""

    kind: ClassVar[str] = "ddpm"
    revision: ClassVar[int] = 1
    Spec: ClassVar[type] = DdpmSpec
    sampler: ClassVar[str] = "net"

    @property
    def multipliers(self) -> tuple[int, ...]:
        small = max(self.shape[1:]) <= 16
        return self.spec.multipliers or ((1, 2) if small else (1, 2, 2))

    def divisor(self) -> int:
        return int(2 ** (len(self.multipliers) - 1))

    def _new_sampler(self) -> Any:
        import torch

        from gristmill.generators.nets.unet import UNet

        net = UNet(self.shape[0], self.spec.width, self.multipliers, self.num_labels)
        return net.to(self.device, memory_format=torch.channels_last)  # faster on CPUs and GPUs alike

    def _make_rest(self) -> None:
        import torch

        self._net = self._nets["net"]
        self._adam = self._adams["adam"] = torch.optim.Adam(
            self._net.parameters(), lr=self.spec.lr, betas=(0.9, 0.99), fused=True
        )

    def train(self, start: int, stop: int) -> Mapping[str, float]:
        losses = [self._step(step) for step in range(start, stop)]
        return {"loss": float(np.mean(losses))}

    def _step(self, step: int) -> float:
        import torch

        draw = stream(self._seed, step)
        rows = draw.integers(len(self._pixels), size=self.spec.batch)
        *inputs, target = self._task(rows, draw)
        loss = torch.nn.functional.mse_loss(self._net(*inputs), target)
        self._adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._net.parameters(), 1.0)
        self._move(step)
        return float(loss.detach())

    def _task(self, rows: np.ndarray, draw: np.random.Generator) -> tuple[Any, Any, Any, Any]:
        """Inputs of the network for `rows` (noisy images, steps, labels), and the target of its output."""
        import torch

        times = draw.integers(1, NUM_TIMES + 1, size=len(rows))
        labels = np.where(draw.random(len(rows)) < self.spec.label_drop, self.num_labels, self._labels[rows])
        noise = self._to(draw.standard_normal((len(rows), *self.shape), np.float32))
        images = self._pixels[torch.from_numpy(rows)].to(self.device)
        signal, spread = self._scales(times)
        target = noise if self.spec.predict == "epsilon" else signal * noise - spread * images
        return signal * images + spread * noise, self._to(times), self._to(labels), target

    def _move(self, step: int) -> None:
        """Step along the gradient that is set at the weights; update the average."""
        for group in self._adam.param_groups:
            group["lr"] = self.spec.lr * _rate(step, self.spec.steps)
        self._adam.step()
        self._follow(step)

    def _scales(self, times: np.ndarray) -> tuple[Any, Any]:
        """sqrt(alpha_bar) and sqrt(1 - alpha_bar) of each row's step, shaped to scale images."""
        kept = kept_signal(NUM_TIMES)[times].astype(np.float32).reshape(-1, 1, 1, 1)
        return self._to(np.sqrt(kept)), self._to(np.sqrt(1 - kept))

    def sample(self, requests: Sequence[Mapping[str, Any]], seeds: np.ndarray) -> SampleBlock:
        streams = row_streams(seeds)
        labels = self.choose(requests, np.array([s.random() for s in streams]), self._shares)
        return self.sample_block(
            self._denoise(labels if self.label else np.full(len(seeds), self.num_labels), streams), labels
        )

    def _denoise(self, labels: np.ndarray, streams: list[np.random.Generator]) -> np.ndarray:
        """From noise to images in `sample_steps` steps: Song et al. 2021, equations 12 and 16 (eta 0: DDIM, 1: DDPM).

        The predicted image is clipped to the range of pixels at every step. `dpm` extrapolates it to the middle of the
        step from the last two: Lu et al. 2022, algorithm 2 (2M), of which DDIM is the first order.
        """
        import torch

        def noise() -> Any:
            return self._to(np.stack([s.standard_normal(self.shape, np.float32) for s in streams]))

        eta = 1.0 if self.spec.sampler == "ddpm" else 0.0
        # The second order pays where steps get shorter as the noise goes: evenly spaced, the last ones spoil it.
        power = 1.5 if self.spec.sampler == "dpm" else 1.0
        shares = np.linspace(0, 1, self.spec.sample_steps + 1) ** power
        times = np.unique((NUM_TIMES * shares).round().astype(np.int64))[::-1]
        signal_shares, x = kept_signal(NUM_TIMES), noise()
        before: tuple[Any, float] | None = None  # the image predicted in the last step, and that step's length
        with torch.inference_mode():
            for now, then in pairwise(times):
                signal, spread = math.sqrt(signal_shares[now]), math.sqrt(1 - signal_shares[now])
                estimate = self._guess(x, int(now), labels)
                image = (
                    (x - spread * estimate) / signal
                    if self.spec.predict == "epsilon"
                    else signal * x - spread * estimate
                )
                image = image.clamp(-1, 1)
                error = (x - signal * image) / spread
                if self.spec.sampler == "dpm" and then:
                    length = _log_ratio(signal_shares[then]) - _log_ratio(signal_shares[now])
                    if before is not None:
                        lean = length / (2 * before[1])
                        image, before = image + lean * (image - before[0]), (image, length)
                        error = (x - signal * image) / spread
                    else:
                        before = image, length
                fresh = eta * math.sqrt(
                    (1 - signal_shares[then])
                    / (1 - signal_shares[now])
                    * (1 - signal_shares[now] / signal_shares[then])
                )
                x = (
                    math.sqrt(signal_shares[then]) * image
                    + math.sqrt(max(0.0, 1 - signal_shares[then] - fresh**2)) * error
                )
                if fresh and then:
                    x = x + fresh * noise()
        return np.asarray(x.cpu().numpy())

    def _guess(self, x: Any, time: int, labels: np.ndarray) -> Any:
        """Output of the network; with guidance w: (1 + w) times that with the label, minus w times that without."""
        import torch

        times = torch.full((len(labels),), time, device=self.device)
        label_tensor = self._to(labels)
        if not self.spec.guidance or not self.label:
            return self._average(x, times, label_tensor)
        both = torch.cat([label_tensor, torch.full_like(label_tensor, self.num_labels)])
        with_label, without = self._average(torch.cat([x, x]), torch.cat([times, times]), both).chunk(2)
        return with_label + self.spec.guidance * (with_label - without)


def _log_ratio(signal: float) -> float:
    """log of signal over noise, the time of Lu et al. 2022."""
    return 0.5 * (math.log(signal) - math.log1p(-signal))


def _rate(step: int, num_steps: int) -> float:
    """Share of the highest learning rate: up over the first twentieth, then down along a cosine."""
    rise = max(1, num_steps // 20)
    return min(1.0, (step + 1) / rise) * 0.5 * (1 + math.cos(math.pi * step / num_steps))

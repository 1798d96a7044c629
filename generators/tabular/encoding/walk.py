"""Reverse diffusion of a block, from noise to rows, by the steps of nets.tabdiffusion.

Every step inserts the known values with the noise of that time. Rows with known values repeat each step several times,
so that the other values adapt to the known ones (RePaint; Lugmayr et al. 2022, algorithm 1). Every random number comes
from the row's own seed, and every product has the shape of the whole block, so a row depends on no other row.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from gristmill.generators.tabular.encoding.candidates import some_normals, some_uniforms

NOISE_KEY, LEVEL_KEY = 1000, 2000  # of a row's seed; plus the number of the pass
NUM_PASSES = 4  # at each time, for rows with known values
TOP_LEVEL = 1 - 2**-24  # below 1 in float32 too


@dataclass
class KnownValues:
    """Scores of numbers (rows, M), codes (rows, S), and which of them are known: tensors on the model's device."""

    numbers: Any
    codes: Any
    is_number: Any
    is_code: Any


class Walk:
    """The reverse diffusion of a block: `labels` int64 (rows,) on the model's device, `seeds` int64 (rows,)."""

    def __init__(
        self, schedule: Any, segments: Any, denoiser: Any, labels: Any, targets: KnownValues, seeds: np.ndarray
    ) -> None:
        self.schedule, self.segments, self.denoiser = schedule, segments, denoiser
        self.labels, self.targets, self.seeds = labels, targets, seeds
        self.has_targets = targets.is_number.any(1) | targets.is_code.any(1)
        self.clock = denoiser.clock(schedule.num_times).detach()
        self._passes: dict[int, tuple[Any, Any]] = {}

    def run(self) -> tuple[np.ndarray, np.ndarray]:
        """Scores float32 (rows, M) and codes int64 (rows, S)."""
        import torch

        top = self.schedule.num_times
        noise, levels = self._random(0, top)
        state = self._put_targets(noise, (levels * self.segments.sizes).long(), top, noise, levels)
        for time in reversed(range(top)):
            state = self._back(time, 0, state)
            if time == 0 or not bool(self.has_targets.any()):
                continue
            for again in range(1, NUM_PASSES):
                numbers, codes = self._back(time, again, self._forth(time, again, state))
                has_targets = self.has_targets[:, None]
                state = torch.where(has_targets, numbers, state[0]), torch.where(has_targets, codes, state[1])
        return state[0].cpu().numpy(), state[1].cpu().numpy()

    def _random(self, key: int, slot: int) -> tuple[Any, Any]:
        """Normal numbers (rows, M) and levels (rows, S) of a pass at one time; draws the whole pass at once."""
        import torch

        if key not in self._passes:
            num, slots = len(self.seeds), self.schedule.num_times + 1
            # Only rows with known values repeat steps.
            needed = self.has_targets.cpu().numpy() | (key == 0)
            width, count = self.targets.numbers.shape[1], self.segments.num
            noise = some_normals(self.seeds, needed, slots * width, NOISE_KEY + key)
            levels = some_uniforms(self.seeds, needed, slots * count, LEVEL_KEY + key).astype(np.float32)
            device = self.labels.device
            self._passes[key] = (
                torch.from_numpy(noise.reshape(num, slots, width)).to(device),
                torch.from_numpy(levels.reshape(num, slots, count)).to(device).clamp_max(TOP_LEVEL),
            )
        noise, levels = self._passes[key]
        return noise[:, slot], levels[:, slot]

    def _put_targets(self, numbers: Any, codes: Any, slot: int, noise: Any, levels: Any) -> tuple[Any, Any]:
        """The state with the known values, diffused to bar[slot]."""
        import torch

        from gristmill.generators.nets.tabdiffusion import diffuse_codes

        bar, targets = self.schedule.bar[slot], self.targets
        blurry = bar.sqrt() * targets.numbers + (1 - bar).sqrt() * noise
        blurry_codes = diffuse_codes(targets.codes.clamp_min(0), bar, levels, self.segments.sizes)
        return torch.where(targets.is_number, blurry, numbers), torch.where(targets.is_code, blurry_codes, codes)

    def _back(self, time: int, key: int, state: tuple[Any, Any]) -> tuple[Any, Any]:
        """From `time` to `time` - 1."""
        from gristmill.generators.nets.tabdiffusion import step_back

        noise, levels = self._random(key, time)
        numbers, codes = step_back(
            self.schedule, self.segments, self.denoiser, self.clock, time, *state, self.labels, noise, levels
        )
        return self._put_targets(numbers, codes, time, noise, levels)

    def _forth(self, time: int, key: int, state: tuple[Any, Any]) -> tuple[Any, Any]:
        """From `time` - 1 to `time`."""
        from gristmill.generators.nets.tabdiffusion import diffuse_codes

        noise, levels = self._random(NUM_PASSES + key, time)
        alpha = self.schedule.alpha[time]
        numbers = alpha.sqrt() * state[0] + (1 - alpha).sqrt() * noise
        return numbers, diffuse_codes(state[1], alpha, levels, self.segments.sizes)

"""TabDDPM: diffusion over numbers and categories, given the class (Kotelnikov et al. 2023).

Conditions on the class are the network's own; those on other columns are kept in place while the rest is drawn
(replacement at every step, with a few steps back and forth so that the rest heeds them; RePaint, Lugmayr et al. 2022).
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from generators.family import Drawn, Family, State, need_columns, stream, uniforms
from generators.privacy import Account
from generators.tabular.candidates import some_normals, some_uniforms
from generators.tabular.labels import Labels
from generators.tabular.spread import EDGE, Spread, levels_of, scores
from generators.tabular.transforms import TableCoder, put_given
from records.errors import UserError

DRAW_KEY, NOISE_KEY, LEVEL_KEY = 1, 1000, 2000  # of a row's seed; the last two: one a pass
BATCH_KEY = 9  # of the fit's seed
NUM_PASSES = 4  # at each time, for rows with conditions beyond the class


@dataclass(frozen=True)
class TabDdpmSpec:
    """A small network by default, which two CPU cores train in minutes; the paper's have up to 4 x 1,024."""

    target: str | None = None  # the category column that the network is told; default: none
    steps: int = 8000
    batch_size: int = 1024
    times: int = 100  # steps of the diffusion
    hidden: tuple[int, ...] = (256, 256, 256)
    learning_rate: float = 2e-3  # falls to 0 in a straight line
    max_grad_norm: float = 1.0
    average: float = 0.999  # decay of the average of weights, which is what samples; 0: the last ones
    max_categories: int = 256  # codes of a column; beyond, rare categories share some

    def __post_init__(self) -> None:
        if min(self.steps, self.batch_size, *self.hidden) < 1 or self.times < 2 or not self.hidden:
            raise ValueError("steps, batch_size and hidden must be at least 1, times at least 2")
        if self.learning_rate <= 0 or self.max_grad_norm <= 0 or not 0 <= self.average < 1:
            raise ValueError("learning_rate and max_grad_norm must be above 0, average in [0, 1)")
        if self.max_categories < 4:
            raise ValueError("max_categories must be at least 4")


class TabDdpm(Family):
    """Denoises rows from noise."""

    kind: ClassVar[str] = "tabddpm"
    Spec: ClassVar[type] = TabDdpmSpec
    spec: TabDdpmSpec

    def check(self) -> None:
        need_columns(self.schema, self.kind, "numeric", "integer", "category")
        if self.spec.target is not None and self.schema.column(self.spec.target).kind != "category":
            raise UserError(f"model.target: '{self.spec.target}' is no category column")

    @property
    def num_steps(self) -> int:
        return self.spec.steps

    def begin(self, table: pa.Table, seed: int, account: Account | None) -> None:
        import torch

        if account:
            raise UserError("model 'tabddpm' is not private; take mst or another dp- model")
        self._seed = seed
        coder = TableCoder(self.schema, "spread", self.spec.max_categories)
        coded = coder.fit(table, seed)
        self._build(coder)
        self._labels = Labels.of(coded, self._target, [s.size for s in coder.segments])
        labels = coded.codes[:, self._target] if self._target is not None else np.zeros(len(coded.codes), np.int32)
        self._rows = [
            torch.from_numpy(part).to(self.device)
            for part in (
                coded.low,
                coded.high,
                coded.codes[:, self._others].astype(np.int64),
                labels.astype(np.int64),
            )
        ]

    def _build(self, coder: TableCoder) -> None:
        import torch

        from generators.nets import states
        from generators.nets.segments import Segments
        from generators.nets.tabdiffusion import Denoiser, Schedule

        self._coder = coder
        names = [self.schema.columns[s.column].name for s in coder.segments]
        self._target = names.index(self.spec.target) if self.spec.target is not None else None
        self._others = [i for i in range(len(names)) if i != self._target]
        sizes = [s.size for s in coder.segments]
        self._segments = Segments([sizes[i] for i in self._others], self.device)
        unseen = np.concatenate([coder.segments[i].seen == 0 for i in self._others] or [np.zeros(0, bool)])
        self._schedule = Schedule(self.spec.times, self.device)
        num_labels = sizes[self._target] if self._target is not None else 1
        self._denoiser = Denoiser(len(coder.numeric), torch.from_numpy(unseen), num_labels, self.spec.hidden)
        if hasattr(self, "_seed"):
            states.seed_weights(self._denoiser, self._seed, 0)
        self._denoiser.to(self.device)
        self._average = copy.deepcopy(self._denoiser).eval()
        self._adam = torch.optim.Adam(self._denoiser.parameters(), self.spec.learning_rate, fused=True)

    def train(self, start: int, stop: int) -> Mapping[str, float]:
        import torch

        from generators.nets import states
        from generators.nets.tabdiffusion import losses

        low, high, codes, labels = self._rows
        sums = torch.zeros(2)
        for step in range(start, stop):
            picked = stream(self._seed, BATCH_KEY, step).integers(len(codes), size=self.spec.batch_size)
            rows = torch.from_numpy(picked).to(self.device)
            random = states.step_random(self._seed, step, self.device)
            part = torch.rand((len(rows), low.shape[1]), generator=random, device=self.device)
            levels = (low[rows] + part * (high[rows] - low[rows])).clamp(EDGE, 1 - EDGE)
            numbers = torch.special.ndtri(levels)
            wrong, far = losses(
                self._schedule, self._segments, self._denoiser, numbers, codes[rows], labels[rows], random
            )
            for group in self._adam.param_groups:
                group["lr"] = self.spec.learning_rate * (1 - step / self.spec.steps)
            self._adam.zero_grad()
            (wrong + far).backward()
            torch.nn.utils.clip_grad_norm_(self._denoiser.parameters(), self.spec.max_grad_norm)
            self._adam.step()
            states.average_into(self._average, self._denoiser, min(self.spec.average, (1 + step) / (10 + step)))
            sums += torch.stack([wrong, far]).detach().cpu()
        means = (sums / (stop - start)).tolist()
        return {"numbers": means[0], "categories": means[1]}

    def trained(self) -> State:
        from generators.nets import states

        labels = {f"labels/{name}": table for name, table in self._labels.tables.items()}
        return State(self._coder.state() | labels | states.module_arrays(self._average, "average"))

    def training(self) -> State:
        from generators.nets import states

        return State(states.module_arrays(self._denoiser, "denoiser") | states.adam_arrays(self._adam, "adam"))

    def restore(self, trained: State, training: State | None = None) -> None:
        from generators.nets import states

        if training is None:  # else `begin` has made all this
            coder = TableCoder(self.schema, "spread", self.spec.max_categories)
            coder.load(trained.tensors)
            self._build(coder)
            tables = {n: t for n, t in trained.tensors.items() if n.startswith("labels/")}
            self._labels = Labels({n.removeprefix("labels/"): t for n, t in tables.items()})
        else:
            states.load_module(self._denoiser, "denoiser", training.tensors)
            states.load_adam(self._adam, "adam", training.tensors)
        states.load_module(self._average, "average", trained.tensors)

    def sample(self, wanted: Sequence[Mapping[str, Any]], seeds: np.ndarray) -> Drawn:
        import torch

        from generators.nets.segments import tensor

        given = self._coder.given(wanted)
        num, num_numbers, times = len(seeds), len(self._coder.numeric), self.spec.times
        draws = uniforms(seeds, len(self._coder.segments) + num_numbers + 1, DRAW_KEY)
        shares, spots, choice = np.split(draws, [len(self._coder.segments), draws.shape[1] - 1], 1)
        known = self._known_levels(given.values, spots)
        labels = self._labels.draw(given, known, self._target, choice[:, 0])
        fixed_codes = tensor(given.codes[:, self._others].astype(np.int64), self.device)
        fixed_numbers = tensor(scores(np.nan_to_num(known, nan=0.5)).astype(np.float32), self.device)
        is_fixed = tensor(~np.isnan(known), self.device), fixed_codes >= 0
        asked = is_fixed[0].any(1) | is_fixed[1].any(1)
        fixed = fixed_numbers, fixed_codes
        walk = _Walk(self, tensor(labels, self.device), fixed, is_fixed, asked.cpu().numpy(), seeds)
        state = walk.start()
        for time in reversed(range(times)):
            state = walk.back(time, 0, state)
            if bool(asked.any()) and time > 0:
                for again in range(1, NUM_PASSES):
                    tried = walk.back(time, again, walk.forth(time, again, state))
                    state = tuple(torch.where(asked[:, None], new, old) for new, old in zip(tried, state))
        numbers, others = (part.cpu().numpy() for part in state)
        codes = np.zeros((num, len(self._coder.segments)), np.int64)
        codes[:, self._others] = others
        if self._target is not None:
            codes[:, self._target] = labels
        columns = self._coder.decode(levels_of(numbers), codes, shares)
        return Drawn(put_given(self.schema, columns, wanted), given.reasons)

    def _known_levels(self, values: np.ndarray, spots: np.ndarray) -> np.ndarray:
        """Levels of the given values, NaN where none is given; `spots`, in [0, 1), choose within ties."""
        levels = np.full(values.shape, np.nan)
        for number, column in enumerate(self._coder.numeric):
            rows = np.flatnonzero(~np.isnan(values[:, number]))
            shape = self._coder.shapes[column.name]
            assert isinstance(shape, Spread)
            low, high = shape.intervals(values[rows, number])
            levels[rows, number] = low + spots[rows, number] * (high - low)
        return levels


class _Walk:
    """The way of one block from noise to rows: every random number from the rows' own seeds."""

    def __init__(
        self,
        family: TabDdpm,
        labels: Any,
        fixed: tuple[Any, Any],
        is_fixed: tuple[Any, Any],
        asked: np.ndarray,
        seeds: np.ndarray,
    ) -> None:
        self.family, self.labels, self.seeds = family, labels, seeds
        self.fixed, self.is_fixed, self.asked = fixed, is_fixed, asked
        self.clock = family._average.clock(family.spec.times).detach()
        self.kept: dict[int, tuple[Any, Any]] = {}

    def _random(self, key: int, time: int) -> tuple[Any, Any]:
        """Normal numbers (rows, M) and levels (rows, S) of one pass at one time; those of a pass are drawn at once."""
        import torch

        family = self.family
        num, count, slots = len(self.seeds), len(family._coder.numeric), family.spec.times + 1
        if key not in self.kept:
            needed = self.asked | (key == 0)  # only rows with conditions go back and forth
            drawn = some_normals(self.seeds, needed, slots * count, NOISE_KEY + key).reshape(num, slots, count)
            flat = some_uniforms(self.seeds, needed, slots * family._segments.num, LEVEL_KEY + key)
            levels = flat.astype(np.float32)
            self.kept[key] = torch.from_numpy(drawn), torch.from_numpy(levels.reshape(num, slots, -1))
        drawn, levels = self.kept[key]
        return drawn[:, time].to(family.device), levels[:, time].to(family.device).clamp_max(1 - 2**-24)

    def start(self) -> tuple[Any, Any]:
        noise, levels = self._random(0, self.family.spec.times)
        return self._held(noise, (levels * self.family._segments.sizes).long(), self.family.spec.times, noise, levels)

    def _held(self, numbers: Any, codes: Any, slot: int, noise: Any, levels: Any) -> tuple[Any, Any]:
        """The state with its known values as they would look at bar[slot]."""
        import torch

        from generators.nets.tabdiffusion import blurred

        bar = self.family._schedule.bar[slot]
        known = bar.sqrt() * self.fixed[0] + (1 - bar).sqrt() * noise
        seen = blurred(self.fixed[1].clamp_min(0), bar, levels, self.family._segments.sizes)
        return torch.where(self.is_fixed[0], known, numbers), torch.where(self.is_fixed[1], seen, codes)

    def back(self, time: int, number: int, state: tuple[Any, Any]) -> tuple[Any, Any]:
        """From `time` to `time` - 1."""
        from generators.nets.tabdiffusion import step_back

        family = self.family
        noise, levels = self._random(number, time)
        numbers, codes = step_back(
            family._schedule, family._segments, family._average, self.clock, time, *state, self.labels, noise, levels
        )
        return self._held(numbers, codes, time, noise, levels)

    def forth(self, time: int, number: int, state: tuple[Any, Any]) -> tuple[Any, Any]:
        """From `time` - 1 back to `time`."""
        from generators.nets.tabdiffusion import blurred

        noise, levels = self._random(NUM_PASSES + number, time)
        alpha = self.family._schedule.alpha[time]
        numbers = alpha.sqrt() * state[0] + (1 - alpha).sqrt() * noise
        return numbers, blurred(state[1], alpha, levels, self.family._segments.sizes)

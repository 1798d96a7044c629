"""TabDDPM: diffusion over numbers and categories, given the class (Kotelnikov et al. 2023).

The network takes the class as input. Conditions on other columns replace the sampled values at every step, which is
repeated several times so that the other values adapt to them (RePaint, Lugmayr et al. 2022).
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from gristmill.generators.families.contract import Family, SampleBlock, State, need_columns, stream, uniforms
from gristmill.generators.private.account import Account
from gristmill.generators.tabular.encoding.labels import Labels
from gristmill.generators.tabular.encoding.spread import EDGE, Spread, levels_of, scores
from gristmill.generators.tabular.encoding.transforms import TableCoder, put_conditions
from gristmill.generators.tabular.encoding.walk import KnownValues, Walk
from gristmill.records.errors import UserError

DRAW_KEY = 1  # of a row's seed
BATCH_KEY = 9  # of the fit's seed


@dataclass(frozen=True)
class TabDdpmSpec:
    """Settings of `tabddpm`. Two CPU cores train the default network in minutes; the paper has up to 4 x 1,024."""

    target: str | None = None  # category column that conditions the network; default: none
    steps: int = 8000  # training steps
    batch_size: int = 1024  # rows in a step
    times: int = 100  # steps of the diffusion
    hidden: tuple[int, ...] = (256, 256, 256)  # units of the hidden layers
    learning_rate: float = 2e-3  # learning rate at the start; falls to 0 linearly
    max_grad_norm: float = 1.0  # largest 2-norm of a step's gradient
    average: float = 0.999  # decay of the average of weights, which samples; 0: the last weights
    max_categories: int = 256  # codes of a column at most; beyond, rare categories share codes

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
    revision: ClassVar[int] = 1
    Spec: ClassVar[type] = TabDdpmSpec
    extra: ClassVar[str] = "tables"
    packages: ClassVar[tuple[str, ...]] = ("torch", "scipy")
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
        code_table = coder.fit(table, seed)
        self._build(coder)
        self._labels = Labels.of(code_table, self._target, [s.size for s in coder.segments])
        labels = (
            code_table.codes[:, self._target] if self._target is not None else np.zeros(len(code_table.codes), np.int32)
        )
        self._rows = [
            torch.from_numpy(part).to(self.device)
            for part in (
                code_table.low,
                code_table.high,
                code_table.codes[:, self._others].astype(np.int64),
                labels.astype(np.int64),
            )
        ]

    def _build(self, coder: TableCoder) -> None:
        import torch

        from gristmill.generators.nets import states
        from gristmill.generators.nets.segments import Segments
        from gristmill.generators.nets.tabdiffusion import Denoiser, Schedule

        self._coder = coder
        names = [self.schema.columns[s.column].name for s in coder.segments]
        self._target = names.index(self.spec.target) if self.spec.target is not None else None
        self._others = [i for i in range(len(names)) if i != self._target]
        sizes = [s.size for s in coder.segments]
        self._segments = Segments([sizes[i] for i in self._others], self.device)
        unseen = np.concatenate([coder.segments[i].num_rows_by_code == 0 for i in self._others] or [np.zeros(0, bool)])
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

        from gristmill.generators.nets import states
        from gristmill.generators.nets.tabdiffusion import losses

        low, high, codes, labels = self._rows
        sums = torch.zeros(2)
        for step in range(start, stop):
            numbers_of_rows = stream(self._seed, BATCH_KEY, step).integers(len(codes), size=self.spec.batch_size)
            rows = torch.from_numpy(numbers_of_rows).to(self.device)
            random = states.step_random(self._seed, step, self.device)
            part = torch.rand((len(rows), low.shape[1]), generator=random, device=self.device)
            levels = (low[rows] + part * (high[rows] - low[rows])).clamp(EDGE, 1 - EDGE)
            numbers = torch.special.ndtri(levels)
            number_loss, code_loss = losses(
                self._schedule, self._segments, self._denoiser, numbers, codes[rows], labels[rows], random
            )
            for group in self._adam.param_groups:
                group["lr"] = self.spec.learning_rate * (1 - step / self.spec.steps)
            self._adam.zero_grad()
            (number_loss + code_loss).backward()
            torch.nn.utils.clip_grad_norm_(self._denoiser.parameters(), self.spec.max_grad_norm)
            self._adam.step()
            states.average_into(self._average, self._denoiser, min(self.spec.average, (1 + step) / (10 + step)))
            sums += torch.stack([number_loss, code_loss]).detach().cpu()
        means = (sums / (stop - start)).tolist()
        return {"numbers": means[0], "categories": means[1]}

    def model_state(self) -> State:
        from gristmill.generators.nets import states

        labels = {f"labels/{name}": table for name, table in self._labels.tables.items()}
        return State(self._coder.state() | labels | states.module_arrays(self._average, "average"))

    def training_state(self) -> State:
        from gristmill.generators.nets import states

        return State(states.module_arrays(self._denoiser, "denoiser") | states.adam_arrays(self._adam, "adam"))

    def restore(self, model_state: State, training_state: State | None = None) -> None:
        from gristmill.generators.nets import states

        if training_state is None:  # else `begin` has made all this
            coder = TableCoder(self.schema, "spread", self.spec.max_categories)
            coder.load(model_state.tensors)
            self._build(coder)
            tables = {n: t for n, t in model_state.tensors.items() if n.startswith("labels/")}
            self._labels = Labels({n.removeprefix("labels/"): t for n, t in tables.items()})
        else:
            states.load_module(self._denoiser, "denoiser", training_state.tensors)
            states.load_adam(self._adam, "adam", training_state.tensors)
        states.load_module(self._average, "average", model_state.tensors)

    def sample(self, requests: Sequence[Mapping[str, Any]], seeds: np.ndarray) -> SampleBlock:

        from gristmill.generators.nets.segments import tensor

        coded_conditions = self._coder.encode_conditions(requests)
        num, num_numbers = len(seeds), len(self._coder.numeric)
        draws = uniforms(seeds, len(self._coder.segments) + num_numbers + 1, DRAW_KEY)
        shares, spots, choice = np.split(draws, [len(self._coder.segments), draws.shape[1] - 1], 1)
        condition_levels = self._condition_levels(coded_conditions.values, spots)
        labels = self._labels.draw(coded_conditions, condition_levels, self._target, choice[:, 0])
        condition_codes = coded_conditions.codes[:, self._others].astype(np.int64)
        places = scores(np.nan_to_num(condition_levels, nan=0.5)).astype(np.float32)
        parts = [
            tensor(part, self.device)
            for part in (places, condition_codes, ~np.isnan(condition_levels), condition_codes >= 0)
        ]
        walk = Walk(
            self._schedule, self._segments, self._average, tensor(labels, self.device), KnownValues(*parts), seeds
        )
        numbers, others = walk.run()
        codes = np.zeros((num, len(self._coder.segments)), np.int64)
        codes[:, self._others] = others
        if self._target is not None:
            codes[:, self._target] = labels
        columns = self._coder.decode(levels_of(numbers), codes, shares)
        return SampleBlock(put_conditions(self.schema, columns, requests), coded_conditions.reasons)

    def _condition_levels(self, values: np.ndarray, spots: np.ndarray) -> np.ndarray:
        """Levels of the given values, NaN elsewhere; `spots`, in [0, 1), choose within ties."""
        levels = np.full(values.shape, np.nan)
        for number, column in enumerate(self._coder.numeric):
            rows = np.flatnonzero(~np.isnan(values[:, number]))
            shape = self._coder.shapes[column.name]
            assert isinstance(shape, Spread)
            low, high = shape.intervals(values[rows, number])
            levels[rows, number] = low + spots[rows, number] * (high - low)
        return levels

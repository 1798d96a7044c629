"""CTGAN: a conditional Wasserstein GAN for tables (Xu et al. 2019), with conditions on all columns.

The conditional vector takes the rarest of a row's category conditions. Importance resampling (candidates.py) meets the
other conditions and those on numbers, and checks that the generator follows the vector.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from gristmill.generators.families.contract import (
    LEAST_BIAS,
    Family,
    SampleBlock,
    State,
    check_bias,
    need_columns,
    stream,
    uniforms,
)
from gristmill.generators.private.account import Account
from gristmill.generators.tabular.encoding.candidates import Outlook, resample, some_normals, some_uniforms
from gristmill.generators.tabular.encoding.conditions import Conditions
from gristmill.generators.tabular.encoding.transforms import TableCoder, put_conditions
from gristmill.records.errors import UserError

NOISE_KEY, DRAW_KEY, CONDITION_KEY = (
    1000,
    1,
    2000,
)  # of a row's seed; NOISE_KEY, CONDITION_KEY and above: one a candidate
BATCH_KEY = 8  # of the fit's seed


@dataclass(frozen=True)
class CtganSpec:
    """Settings of `ctgan`. Sizes and rates are those of the paper."""

    epochs: int = 150  # passes over the rows (the paper: 300); an epoch is rows / batch_size steps
    batch_size: int = 500  # rows in a step; a multiple of pac
    pac: int = 10  # rows that the critic judges together
    noise: int = 128  # length of the normal vector that a row is made from
    generator: tuple[int, ...] = (256, 256)  # units of the generator's hidden layers
    critic: tuple[int, ...] = (256, 256)  # units of the critic's hidden layers
    generator_rate: float = 2e-4  # learning rate of the generator
    critic_rate: float = 2e-4  # learning rate of the critic
    weight_decay: float = 1e-6  # L2 penalty of the generator
    average: float = 0.999  # decay of the average of the generator's weights, which samples; 0: the last weights
    max_categories: int = 256  # codes of a column at most; beyond, rare categories share codes
    bias: float = 1.0  # MAD's lambda: share of the vectors' variance that is sampled, and temperature of codes

    def __post_init__(self) -> None:
        if min(self.epochs, self.batch_size, self.pac, self.noise, *self.generator, *self.critic) < 1:
            raise ValueError("epochs, batch_size, pac, noise and the sizes of layers must be at least 1")
        if self.batch_size % self.pac:
            raise ValueError(f"batch_size must be a multiple of pac = {self.pac}")
        if min(self.generator_rate, self.critic_rate) <= 0 or self.weight_decay < 0 or not 0 <= self.average < 1:
            raise ValueError("rates must be above 0, weight_decay not negative, average in [0, 1)")
        if not self.generator or not self.critic or self.max_categories < 4:
            raise ValueError("generator and critic need a layer, max_categories must be at least 4")
        check_bias(self.bias)


class Ctgan(Family):
    """A generator of rows given a category, and a critic of packed rows."""

    kind: ClassVar[str] = "ctgan"
    revision: ClassVar[int] = 1
    Spec: ClassVar[type] = CtganSpec
    extra: ClassVar[str] = "tables"
    packages: ClassVar[tuple[str, ...]] = ("torch", "sklearn", "scipy")
    spec: CtganSpec

    def check(self) -> None:
        need_columns(self.schema, self.kind, "numeric", "integer", "category")

    @property
    def num_steps(self) -> int:
        return self.spec.epochs * max(1, len(self._codes) // self.spec.batch_size)

    def begin(self, table: pa.Table, seed: int, account: Account | None) -> None:
        import torch

        if account:
            raise UserError("model 'ctgan' is not private; take dp_ctgan or mst")
        self._seed = seed
        coder = TableCoder(self.schema, "modes", self.spec.max_categories)
        code_table = coder.fit(table, seed)
        self._build(coder)
        self._conditions.hold(code_table.codes)
        self._numbers = torch.from_numpy(code_table.low).to(self.device)
        self._codes = torch.from_numpy(code_table.codes.astype(np.int64)).to(self.device)

    def _build(self, coder: TableCoder) -> None:
        import torch

        from gristmill.generators.nets import states
        from gristmill.generators.nets.ctgan import Critic, Generator
        from gristmill.generators.nets.segments import Segments, tensor

        self._coder = coder
        self._segments = Segments([s.size for s in coder.segments], self.device)
        self._conditions = conditions = Conditions(coder.segments)
        self._unseen = np.concatenate([s.num_rows_by_code == 0 for s in coder.segments] or [np.zeros(0, bool)])
        # The place of each condition among the numbers of all segments.
        first = self._segments.first.cpu().numpy()
        places = [first[p] + np.arange(s) for p, s in zip(conditions.places, conditions.sizes)]
        self._condition_places = tensor(np.concatenate(places) if places else np.zeros(1, np.int64), self.device)
        spec, num_numbers, width = self.spec, len(coder.numeric), self._segments.width
        self._generator = Generator(spec.noise, conditions.num, spec.generator, num_numbers, width)
        self._critic = Critic(num_numbers + width, conditions.num, spec.critic, spec.pac)
        if hasattr(self, "_seed"):
            states.seed_weights(self._generator, self._seed, 0)
            states.seed_weights(self._critic, self._seed, 1)
        self._generator.to(self.device)
        self._critic.to(self.device)
        self._average = copy.deepcopy(self._generator).eval()
        self._generator_adam = torch.optim.Adam(
            self._generator.parameters(), spec.generator_rate, (0.5, 0.9), weight_decay=spec.weight_decay, fused=True
        )
        self._critic_adam = torch.optim.Adam(self._critic.parameters(), spec.critic_rate, (0.5, 0.9), fused=True)

    def train(self, start: int, stop: int) -> Mapping[str, float]:
        import torch

        from gristmill.generators.nets import states
        from gristmill.generators.nets.ctgan import soft_rows

        sums = torch.zeros(3)
        for step in range(start, stop):
            batch, random = stream(self._seed, BATCH_KEY, step), states.step_random(self._seed, step, self.device)
            batch_conditions = self._conditions.draw(self.spec.batch_size, batch)
            conditions, rows = (torch.from_numpy(part).to(self.device) for part in batch_conditions)
            latents = torch.randn((self.spec.batch_size, self.spec.noise), generator=random, device=self.device)
            # One batch of fake rows trains both networks: a second batch for the generator would cost a quarter more.
            alphas, logits = self._generator(latents, conditions)
            fake = soft_rows(self._segments, alphas, logits, random)
            distance = self._critic_step(fake.detach(), conditions, rows, random)
            score, condition_loss = self._generator_step(fake, logits, conditions, random)
            states.average_into(self._average, self._generator, min(self.spec.average, (1 + step) / (10 + step)))
            sums += torch.stack([distance, score, condition_loss]).detach().cpu()
        means = (sums / (stop - start)).tolist()
        return {"distance": means[0], "generator": means[1], "condition": means[2]}

    def _critic_step(self, fake: Any, conditions: Any, rows: Any, random: Any) -> Any:
        import torch

        from gristmill.generators.nets.ctgan import critic_loss

        real = torch.cat([self._numbers[rows], self._segments.one_hot(self._codes[rows])], 1)
        loss, distance = critic_loss(self._critic, real, fake, conditions, random)
        self._critic_adam.zero_grad()
        loss.backward()
        self._critic_adam.step()
        return distance

    def _generator_step(self, fake: Any, logits: Any, conditions: Any, random: Any) -> tuple[Any, Any]:
        critic = self._critic.requires_grad_(False)
        num = len(fake) // self.spec.pac
        scores, _ = critic(fake.reshape(num, -1), critic.embed(conditions), critic.masks(num, random))
        score = -scores.mean()
        condition_log_shares = self._segments.log_softmax(logits).gather(1, self._condition_places[conditions][:, None])
        condition_loss = -condition_log_shares.mean() if self._conditions.places else score.new_zeros(())
        self._generator_adam.zero_grad()
        (score + condition_loss).backward()
        critic.requires_grad_(True)
        self._generator_adam.step()
        return score, condition_loss

    def model_state(self) -> State:
        from gristmill.generators.nets import states

        return State(self._coder.state() | states.module_arrays(self._average, "average"))

    def training_state(self) -> State:
        from gristmill.generators.nets import states

        return State(
            states.module_arrays(self._generator, "generator")
            | states.module_arrays(self._critic, "critic")
            | states.adam_arrays(self._generator_adam, "generator_adam")
            | states.adam_arrays(self._critic_adam, "critic_adam")
        )

    def restore(self, model_state: State, training_state: State | None = None) -> None:
        from gristmill.generators.nets import states

        if training_state is None:  # else `begin` has made the coder, and has the rows sorted
            coder = TableCoder(self.schema, "modes", self.spec.max_categories)
            coder.load(model_state.tensors)
            self._build(coder)
        else:
            states.load_module(self._generator, "generator", training_state.tensors)
            states.load_module(self._critic, "critic", training_state.tensors)
            states.load_adam(self._generator_adam, "generator_adam", training_state.tensors)
            states.load_adam(self._critic_adam, "critic_adam", training_state.tensors)
        states.load_module(self._average, "average", model_state.tensors)

    def sample(self, requests: Sequence[Mapping[str, Any]], seeds: np.ndarray) -> SampleBlock:
        import torch

        from gristmill.generators.nets.segments import tensor

        coded_conditions = self._coder.encode_conditions(requests)

        @torch.no_grad()
        def propose(number: int, is_needed: np.ndarray) -> Outlook:
            latents = tensor(some_normals(seeds, is_needed, self.spec.noise, NOISE_KEY + number), self.device)
            latents = latents * self.spec.bias**0.5
            free = self._conditions.as_real(some_uniforms(seeds, is_needed, 2, CONDITION_KEY + number))
            conditions = self._conditions.rarest(coded_conditions.codes, free)
            alphas, logits = self._average(latents, tensor(conditions, self.device))
            shares = self._segments.softmax(logits / max(self.spec.bias, LEAST_BIAS)).cpu().numpy()
            shares[:, self._unseen] = 0
            return Outlook(shares, alphas.cpu().numpy())

        outlook = resample(self._coder, coded_conditions, np.zeros(len(self._coder.numeric)), seeds, propose)
        levels = uniforms(seeds, 2 * len(self._coder.segments), DRAW_KEY)
        shares, draws = tensor(outlook.shares, self.device), tensor(levels[:, ::2], self.device)
        codes = self._segments.draw(shares, draws).cpu().numpy()
        columns = self._coder.decode(outlook.alphas, codes, levels[:, 1::2])
        return SampleBlock(put_conditions(self.schema, columns, requests), coded_conditions.reasons)

"""TVAE: a variational autoencoder for tables (Xu et al. 2019, section 4.4); conditions by importance resampling."""

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
    normals,
    stream,
    uniforms,
)
from gristmill.generators.private.account import Account
from gristmill.generators.tabular.encoding.candidates import Outlook, resample, some_normals
from gristmill.generators.tabular.encoding.transforms import CodedTable, TableCoder, put_conditions
from gristmill.records.errors import UserError

NOISE_KEY, DRAW_KEY, SPREAD_KEY = 1000, 1, 2  # of a row's seed; NOISE_KEY and above: one a candidate
ORDER_KEY = 7  # of the fit's seed


@dataclass(frozen=True)
class TvaeSpec:
    """Settings of `tvae`. Sizes are those of the paper."""

    epochs: int = 100  # passes over the rows (the paper: 300)
    batch_size: int = 500  # rows in a step
    latent: int = 128  # length of the latent vector
    hidden: tuple[int, ...] = (128, 128)  # units of the encoder's hidden layers; the decoder has them in reverse
    learning_rate: float = 1e-3  # learning rate of Adam
    weight_decay: float = 1e-5  # L2 penalty of both networks
    reconstruction_weight: float = 2.0  # weight of the reconstruction against the divergence
    max_categories: int = 256  # codes of a column at most; beyond, rare categories share codes
    bias: float = 1.0  # MAD's lambda: share of the vectors' variance that is sampled, and temperature of codes

    def __post_init__(self) -> None:
        if min(self.epochs, self.batch_size, self.latent, *self.hidden, 1) < 1 or self.max_categories < 4:
            raise ValueError("epochs, batch_size, latent and hidden must be at least 1, max_categories at least 4")
        if self.learning_rate <= 0 or self.reconstruction_weight <= 0 or self.weight_decay < 0:
            raise ValueError("learning_rate and reconstruction_weight must be above 0, weight_decay not negative")
        check_bias(self.bias)


class Tvae(Family):
    """A variational autoencoder of rows in mode-specific normalisation."""

    kind: ClassVar[str] = "tvae"
    revision: ClassVar[int] = 1
    Spec: ClassVar[type] = TvaeSpec
    extra: ClassVar[str] = "tables"
    packages: ClassVar[tuple[str, ...]] = ("torch", "sklearn", "scipy")
    spec: TvaeSpec

    def check(self) -> None:
        need_columns(self.schema, self.kind, "numeric", "integer", "category")

    @property
    def num_steps(self) -> int:
        return self.spec.epochs * self._epoch_steps

    def begin(self, table: pa.Table, seed: int, account: Account | None) -> None:
        if account:
            raise UserError("model 'tvae' is not private; take dp_tvae or mst")
        self._seed = seed
        coder = TableCoder(self.schema, "modes", self.spec.max_categories)
        self._hold(coder.fit(table, seed))
        self._build(coder)

    def _hold(self, code_table: CodedTable) -> None:
        import torch

        self._batch_size = min(self.spec.batch_size, len(code_table.low))
        self._epoch_steps = max(1, len(code_table.low) // self._batch_size)
        self._numbers = torch.from_numpy(code_table.low).to(self.device)
        self._codes = torch.from_numpy(code_table.codes.astype(np.int64)).to(self.device)
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0, np.int64))

    def _build(self, coder: TableCoder) -> None:
        import torch

        from gristmill.generators.nets import states
        from gristmill.generators.nets.segments import Segments
        from gristmill.generators.nets.tvae import Decoder, Encoder

        self._coder = coder
        self._segments = Segments([s.size for s in coder.segments], self.device)
        self._unseen = np.concatenate([s.num_rows_by_code == 0 for s in coder.segments] or [np.zeros(0, bool)])
        # A number is missing where its segment has the code after the last mode.
        numeric = [i for i, s in enumerate(coder.segments) if not s.is_category]
        self._mode_segments = torch.tensor(numeric, dtype=torch.long, device=self.device)
        counts = [coder.shapes[c.name].size for c in coder.numeric]  # type: ignore[union-attr]
        self._mode_counts = torch.tensor(counts, dtype=torch.long, device=self.device)
        spec, num_numbers, width = self.spec, len(coder.numeric), self._segments.width
        self._encoder = Encoder(num_numbers + width, spec.hidden, spec.latent).to(self.device)
        self._decoder = Decoder(spec.latent, spec.hidden[::-1], num_numbers, width).to(self.device)
        if hasattr(self, "_seed"):
            states.seed_weights(self._encoder, self._seed, 0)
            states.seed_weights(self._decoder, self._seed, 1)
        parameters = [*self._encoder.parameters(), *self._decoder.parameters()]
        self._adam = torch.optim.Adam(parameters, spec.learning_rate, weight_decay=spec.weight_decay, fused=True)

    def train(self, start: int, stop: int) -> Mapping[str, float]:
        import torch

        from gristmill.generators.nets import states
        from gristmill.generators.nets.tvae import divergence, reconstruction

        sums = torch.zeros(2)
        for step in range(start, stop):
            rows = self._rows(step)
            numbers, codes = self._numbers[rows], self._codes[rows]
            is_present = (codes[:, self._mode_segments] < self._mode_counts).float()
            mean, log_variance = self._encoder(torch.cat([numbers, self._segments.one_hot(codes)], 1))
            random = states.step_random(self._seed, step, self.device)
            noise = torch.randn(mean.shape, generator=random, device=self.device)
            latents = mean + noise * (log_variance / 2).exp()
            error = reconstruction(self._decoder, self._segments, latents, numbers, is_present, codes)
            kl = divergence(mean, log_variance)
            self._adam.zero_grad()
            (self.spec.reconstruction_weight * error + kl).backward()
            self._adam.step()
            self._decoder.clamp_deviations()
            sums += torch.stack([error.detach(), kl.detach()]).cpu()
        means = (sums / (stop - start)).tolist()
        return {"reconstruction": means[0], "divergence": means[1]}

    def _rows(self, step: int) -> Any:
        """The rows of one step: every epoch visits the rows in a new order."""
        import torch

        epoch, place = divmod(step, self._epoch_steps)
        if self._order[0] != epoch:
            self._order = epoch, stream(self._seed, ORDER_KEY, epoch).permutation(len(self._codes))
        return torch.from_numpy(self._order[1][place * self._batch_size : (place + 1) * self._batch_size])

    def model_state(self) -> State:
        from gristmill.generators.nets import states

        return State(self._coder.state() | states.module_arrays(self._decoder, "decoder"))

    def training_state(self) -> State:
        from gristmill.generators.nets import states

        return State(states.module_arrays(self._encoder, "encoder") | states.adam_arrays(self._adam, "adam"))

    def restore(self, model_state: State, training_state: State | None = None) -> None:
        from gristmill.generators.nets import states

        coder = TableCoder(self.schema, "modes", self.spec.max_categories)
        coder.load(model_state.tensors)
        self._build(coder)
        states.load_module(self._decoder, "decoder", model_state.tensors)
        if training_state is not None:
            states.load_module(self._encoder, "encoder", training_state.tensors)
            states.load_adam(self._adam, "adam", training_state.tensors)

    def sample(self, requests: Sequence[Mapping[str, Any]], seeds: np.ndarray) -> SampleBlock:
        import torch

        from gristmill.generators.nets.segments import tensor

        coded_conditions = self._coder.encode_conditions(requests)
        deviations = self._decoder.deviation.detach().cpu().numpy() * self.spec.bias**0.5

        @torch.no_grad()
        def propose(number: int, is_needed: np.ndarray) -> Outlook:
            latents = tensor(some_normals(seeds, is_needed, self.spec.latent, NOISE_KEY + number), self.device)
            latents = latents * self.spec.bias**0.5
            alphas, logits = self._decoder(latents)
            shares = self._segments.softmax(logits / max(self.spec.bias, LEAST_BIAS)).cpu().numpy()
            shares[:, self._unseen] = 0
            return Outlook(shares, alphas.cpu().numpy())

        outlook = resample(self._coder, coded_conditions, deviations, seeds, propose)
        levels = uniforms(seeds, 2 * len(self._coder.segments), DRAW_KEY)
        shares, draws = tensor(outlook.shares, self.device), tensor(levels[:, ::2], self.device)
        codes = self._segments.draw(shares, draws).cpu().numpy()
        spread = normals(seeds, outlook.alphas.shape[1], SPREAD_KEY) * deviations
        alphas = np.clip(outlook.alphas + spread, -1, 1)
        columns = self._coder.decode(alphas, codes, levels[:, 1::2])
        return SampleBlock(put_conditions(self.schema, columns, requests), coded_conditions.reasons)

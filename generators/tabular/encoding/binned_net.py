"""Base of the private networks on tables: bins from noisy counts, a decoder from noise to bins, sampling, checkpoints.

The decoder computes the logits of the bins of all columns from a normal vector. Rows with conditions use sampling
importance resampling (Rubin 1987): one of NUM_TRIES vectors is drawn by the likelihood of the requested values. Rows
meet unlikely values too, with the likeliest of these vectors.
"""

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa

from gristmill.generators.families.contract import Family, SampleBlock, State, normals, stream, uniforms
from gristmill.generators.private.account import Account
from gristmill.generators.private.dpsgd import DpSgd
from gristmill.generators.tabular.encoding.public import Bins, CountSums, Grid, noisy_counts
from gristmill.generators.tabular.mst import draw

if TYPE_CHECKING:
    import torch

NUM_TRIES = 64
OTHER_STREAM = 0x5DEECE66D  # keeps a row's uniforms independent of its normals
COUNTS = 7  # purpose of a random stream


@dataclass(frozen=True)
class BinnedSpec:
    """Settings of all families that train networks on bins."""

    steps: int = 2000  # training steps
    batch: int = 512  # expected rows of a step's Poisson sample
    num_noise: int = 32  # length of the normal vector that a row is made from
    widths: tuple[int, ...] = (128, 128)  # units of the decoder's hidden layers
    average: float = 0.99  # decay of the average of the decoder's weights, which samples
    max_bins: int = 24  # bins of a numeric column at most
    share_counts: float = 0.2  # share of epsilon for the counts that bins are made from

    def __post_init__(self) -> None:
        if min(self.steps, self.batch, self.num_noise, self.max_bins - 1) < 1:
            raise ValueError("steps, batch and num_noise must be at least 1, and max_bins at least 2")
        if not 0 < self.share_counts < 1 or not 0 <= self.average < 1:
            raise ValueError("share_counts and average must lie between 0 and 1")


class BinnedNet(Family):
    """Base of families that train networks on one-hot bins. `spec` is a BinnedSpec."""

    extra: ClassVar[str] = "tables"
    packages: ClassVar[tuple[str, ...]] = ("torch",)
    is_private: ClassVar[bool] = True

    @property
    def num_steps(self) -> int:
        return int(self.spec.steps)

    def check(self) -> None:
        Grid.check(self.schema, self.kind)

    # For subclasses.

    @abstractmethod
    def make_nets(self, seed: int) -> None:
        """Set self.nets (by name) and self.adams; "decoder" exists already."""

    # Fitting.

    def learn_bins(self, table: pa.Table, seed: int, account: Account | None) -> np.ndarray:
        """Measure counts, build bins and networks; returns the bins of all rows, int64 (rows, columns)."""
        grid = Grid(self.schema)
        cells = grid.encode(table)
        noise = 0.0
        if account:
            noise = account.noise_for("counts of one column", 1.0, len(grid.sizes), self.spec.share_counts)
        counts = noisy_counts(grid, cells, noise, account, stream(seed, 0, COUNTS))
        self.facts: dict[str, Any] = {"noise": float(noise)}
        self.seed, self.account, self.num_rows = seed, account, table.num_rows
        self._use_bins(Bins(grid, counts, noise, self.spec.max_bins))
        self._make_decoder(seed)
        self.make_nets(seed)
        return self.bins.encode(cells).astype(np.int64)

    def _use_bins(self, bins: Bins) -> None:
        self.bins, self.sizes = bins, bins.sizes

    def _make_decoder(self, seed: int) -> None:
        from gristmill.generators.nets.binned import module_from_seed, perceptron, start_at

        def fresh() -> Any:
            net = module_from_seed(
                weights_seed(seed, 0), perceptron, self.spec.num_noise, self.spec.widths, sum(self.sizes)
            )
            start_at(net, self._logits())
            return net.to(self.device)

        self.decoder, self.average = fresh(), fresh()
        self.nets: dict[str, Any] = {"decoder": self.decoder}
        self.adams: dict[str, Any] = {}

    def _logits(self) -> np.ndarray:
        """Logits of the noisy counts of all bins, the initial output of the decoder."""
        logits = []
        for of, counts, size in zip(self.bins.of_cell, self.bins.counts, self.sizes):
            mass = np.maximum(np.bincount(of, counts, size), 1.0)
            logits.append(np.log(mass / mass.sum()))
        return np.concatenate(logits)

    def model_state(self) -> State:
        from gristmill.generators.nets.binned import pack_net

        tensors = {f"counts/{at}": c for at, c in enumerate(self.bins.counts)}
        return State(tensors | pack_net("average", self.average), dict(self.facts))

    def training_state(self) -> State:
        from gristmill.generators.nets.binned import pack_adam, pack_net

        tensors: dict[str, np.ndarray] = {}
        for name, net in self.nets.items():
            tensors |= pack_net(f"net/{name}", net)
        for name, adam in self.adams.items():
            tensors |= pack_adam(f"adam/{name}", adam)
        return State(tensors)

    def restore(self, model_state: State, training_state: State | None = None) -> None:
        from gristmill.generators.nets.binned import unpack_adam, unpack_net

        self.facts, grid = dict(model_state.facts), Grid(self.schema)
        counts = [model_state.tensors[f"counts/{at}"] for at in range(len(grid.sizes))]
        self._use_bins(Bins(grid, counts, self.facts["noise"], self.spec.max_bins))
        if training_state is None:
            self._make_decoder(0)
        unpack_net("average", self.average, model_state.tensors)
        if training_state is not None:
            for name, net in self.nets.items():
                unpack_net(f"net/{name}", net, training_state.tensors)
            for name, adam in self.adams.items():
                unpack_adam(f"adam/{name}", adam, training_state.tensors)

    def fakes(self, step: int, purpose: int, num_rows: int) -> "torch.Tensor":
        """One-hot rows from the current decoder, without gradient: (num_rows, sum of sizes)."""
        import torch

        from gristmill.generators.nets.binned import draw_bins, one_hot

        random = generator_of(self.seed, step, purpose)
        with torch.no_grad():
            bins, _ = draw_bins(self.decoder(self.noise(num_rows, random)), self.sizes, random)
        return one_hot(bins, self.sizes, self.device)

    def marginal_distance(self, fakes: "torch.Tensor") -> "torch.Tensor":
        """Kullback-Leibler divergence of the mean of `fakes` from the noisy counts, in nats, mean over columns: ().

        The counts are already charged, so matching them reveals nothing more about rows.
        """
        import torch

        log_targets = torch.as_tensor(self._logits(), dtype=torch.float32).to(self.device)
        shares = fakes.mean(0) + 1 / len(fakes)  # smoothed, so that a bin without rows has a gradient
        return (log_targets.exp() * (log_targets - shares.log())).sum() / len(self.sizes)

    def live_fakes(self, step: int, purpose: int, num_rows: int) -> "torch.Tensor":
        """Like `fakes`, with the gradient of the softmax for the decoder."""
        from gristmill.generators.nets.binned import hard_rows

        random = generator_of(self.seed, step, purpose)
        return hard_rows(self.decoder(self.noise(num_rows, random)), self.sizes, self.spec.heat, random)

    def noise(self, num_rows: int, random: "torch.Generator") -> "torch.Tensor":
        """Standard normal vectors for the decoder, drawn on the CPU: (num_rows, num_noise)."""
        import torch

        return torch.randn(num_rows, self.spec.num_noise, generator=random).to(self.device)

    def sums(self) -> CountSums | None:
        return CountSums.of(self.bins)

    # Sampling.

    def sample(self, requests: Sequence[Mapping[str, Any]], seeds: np.ndarray) -> SampleBlock:
        import torch

        from gristmill.generators.nets.binned import shares_of

        columns = self.schema.columns
        row_levels = uniforms(seeds ^ OTHER_STREAM, 3 * len(columns) + 1)
        vectors = normals(seeds, self.spec.num_noise)
        for row, values in enumerate(requests):
            if values:
                vectors[row] = self._likely(values, seeds[row : row + 1], row_levels[row : row + 1, -1])
        with torch.inference_mode():
            logits = self.average(torch.as_tensor(vectors).to(self.device))
        arrays = {}
        for at, (column, shares) in enumerate(zip(columns, shares_of(logits, self.sizes))):
            names = [w.get(column.name) for w in requests]
            bins = draw(shares, row_levels[:, at])
            levels = row_levels[:, len(columns) + 2 * at : len(columns) + 2 * at + 2]
            bins = np.array([b if g is None else self.bins.bin(at, g) for b, g in zip(bins, names)])
            arrays[column.name] = self.bins.decode(at, bins, levels, names)
        return SampleBlock(arrays, [None] * len(seeds))

    def _likely(self, values: Mapping[str, Any], seed: np.ndarray, level: np.ndarray) -> np.ndarray:
        """A vector drawn by the likelihood of `values`, float32 (num_noise,), from this row's seed alone."""
        import torch

        from gristmill.generators.nets.binned import blocks

        tries = normals(seed, NUM_TRIES * self.spec.num_noise).reshape(NUM_TRIES, -1)
        with torch.inference_mode():
            logits = self.average(torch.as_tensor(tries).to(self.device)).double()
            log_shares = blocks(logits, self.sizes).log_softmax(2).cpu().numpy()
        likelihood = np.zeros(NUM_TRIES)
        for at, column in enumerate(self.schema.columns):
            if column.name in values:
                likelihood += log_shares[:, at, self.bins.bin(at, values[column.name])]
        weights = np.exp(likelihood - likelihood.max())
        return tries[draw(weights[None, :], level)[0]]


class BinnedSgd(BinnedNet):
    """Base of families that use rows only through DP-SGD."""

    takes_engine: ClassVar[bool] = True
    free_norm: ClassVar[float] = math.inf  # 2-norm to which gradients are clipped without a budget

    def begin(self, table: pa.Table, seed: int, account: Account | None) -> None:
        self._rows = self.learn_bins(table, seed, account)
        self._dp = DpSgd(account, seed, table.num_rows, self.spec.batch, self.num_steps, self.free_norm)


def weights_seed(seed: int, number: int) -> int:
    """Seed of the initial weights of a network."""
    return int(stream(seed, 0, 100 + number).integers(2**63))


def generator_of(seed: int, step: int, purpose: int) -> "torch.Generator":
    """Torch's random numbers of one step and purpose."""
    import torch

    return torch.Generator().manual_seed(int(stream(seed, step, purpose).integers(2**63)))

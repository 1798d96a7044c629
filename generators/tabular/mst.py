"""Noisy marginals on a spanning tree (McKenna, Miklau, Sheldon 2021, "Winning the NIST contest"): the private default.

Three measurements, each a Gaussian mechanism on all rows and charged before use: the number of rows in each cell of
each column; the distance from independence of each pair of columns; the joint tables along the spanning tree with the
largest distances. The rest is post-processing: the tables are made consistent, and rows are sampled along the tree.
Conditions are exact, by messages along the tree (Pearl 1988).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from gristmill.generators.families.contract import Family, SampleBlock, State, stream, uniforms
from gristmill.generators.private.account import Account
from gristmill.generators.private.accountants import Event
from gristmill.generators.tabular.encoding.public import Bins, CountSums, Grid, noisy_counts
from gristmill.records.errors import UserError

FLOOR = 1e-7  # smallest count of a cell of a joint table, so that every allowed value can be requested
NUM_FITTINGS = 50  # rounds of iterative proportional fitting
Pair = tuple[int, int]


@dataclass(frozen=True)
class MstSpec:
    """Settings of `mst`."""

    max_bins: int = 32  # bins of a numeric column at most
    target: str | None = None  # column that the others are to predict; its pairs weigh more (a public choice)
    target_weight: float = 3.0  # factor by which the target's pairs weigh more
    share_counts: float = 0.2  # share of the budget (in precision, zCDP) for the counts of columns
    # share of the budget (in precision, zCDP) for choosing pairs; the rest goes to their joint tables
    share_scores: float = 0.1

    def __post_init__(self) -> None:
        if self.max_bins < 2 or self.target_weight <= 0:
            raise ValueError("max_bins must be at least 2 and target_weight above 0")
        if min(self.share_counts, self.share_scores) <= 0 or self.share_counts + self.share_scores >= 1:
            raise ValueError("share_counts and share_scores must be above 0 and leave something for the joint tables")


class Mst(Family):
    """A tree of two-column tables over cells of the public schema."""

    kind: ClassVar[str] = "mst"
    revision: ClassVar[int] = 1
    Spec: ClassVar[type] = MstSpec
    is_private: ClassVar[bool] = True

    def check(self) -> None:
        Grid.check(self.schema, self.kind)
        if self.spec.target is not None:
            self.schema.column(self.spec.target)

    def begin(self, table: pa.Table, seed: int, account: Account | None) -> None:
        if account and account.spec.noise_multiplier is not None:
            raise UserError(
                "privacy.noise_multiplier is for families that train by DP-SGD; mst spends epsilon as a whole"
            )
        spec, num_columns = self.spec, len(self.schema.columns)
        num_pairs, random = num_columns * (num_columns - 1) // 2, stream(seed, 0)
        share_pairs = 1 - spec.share_counts - spec.share_scores
        whole = account.noise_for("all marginals", 1.0, 1) if account else 0.0
        noise = whole * np.sqrt(num_columns / spec.share_counts)
        score_noise = whole * np.sqrt(max(1, num_pairs) / spec.share_scores)
        pair_noise = whole * np.sqrt(max(1, num_columns - 1) / share_pairs)
        grid = Grid(self.schema)
        cells = grid.encode(table)
        counts = noisy_counts(grid, cells, noise, account, random)
        self._facts: dict[str, Any] = {"noise": float(noise), "edges": []}
        self._bins = Bins(grid, counts, noise, spec.max_bins)
        bins = self._bins.encode(cells)
        singles = [
            np.bincount(of, c, self._bins.sizes[at]) for at, (of, c) in enumerate(zip(self._bins.of_cell, counts))
        ]
        variances = [noise**2 * np.bincount(of, minlength=s) for of, s in zip(self._bins.of_cell, self._bins.sizes)]
        self._joint: dict[Pair, np.ndarray] = {}
        if num_columns > 1:
            if account:
                account.charge(Event("distance from independence of one pair", score_noise, 1.0, num_pairs))
            scores = self._scores(bins, singles, score_noise, pair_noise, random)
            edges = spanning_tree(num_columns, scores)
            if account:
                account.charge(Event("joint table of one pair", pair_noise, 1.0, len(edges)))
            for a, b in edges:
                exact = self._table(bins, a, b)
                self._joint[a, b] = exact + pair_noise * random.standard_normal(exact.shape)
        joint, single = consistent(self._joint, singles, variances, pair_noise, float(table.num_rows))
        self._joint, self._single = joint, single
        self._facts["edges"] = [list(e) for e in joint]
        self._orient_edges()

    def _table(self, bins: np.ndarray, a: int, b: int) -> np.ndarray:
        """Rows by the bins of columns a and b."""
        shape = self._bins.sizes[a], self._bins.sizes[b]
        flat = bins[:, a].astype(np.int64) * shape[1] + bins[:, b]
        return np.bincount(flat, minlength=shape[0] * shape[1]).reshape(shape).astype(np.float64)

    def _scores(
        self, bins: np.ndarray, singles: list[np.ndarray], noise: float, pair_noise: float, random: np.random.Generator
    ) -> dict[Pair, float]:
        """For each pair the noisy L1 distance of its table from the product of the noisy counts (sensitivity 1).

        Subtracts the expected distance of independent columns and the error that the noise of the joint table would
        add, both from noisy counts alone (as AIM, McKenna et al. 2022).
        """
        target = self.schema.names.index(self.spec.target) if self.spec.target else None
        scores = {}
        masses = [np.maximum(s, 0.0) for s in singles]
        for a in range(len(singles)):
            for b in range(a + 1, len(singles)):
                expected = np.outer(masses[a], masses[b]) / max(1.0, (masses[a].sum() * masses[b].sum()) ** 0.5)
                distance = np.abs(self._table(bins, a, b) - expected).sum()
                chance = np.minimum(2 * expected, np.sqrt(2 / np.pi * expected)).sum()  # of Poisson counts, about
                cost = np.sqrt(2 / np.pi) * pair_noise * expected.size
                score = float(distance + noise * random.standard_normal() - chance - cost)
                scores[a, b] = score * self.spec.target_weight if target in (a, b) and score > 0 else score
        return scores

    def model_state(self) -> State:
        tensors = {f"counts/{at}": c for at, c in enumerate(self._bins.counts)}
        tensors |= {f"single/{at}": s for at, s in enumerate(self._single)}
        tensors |= {f"joint/{a}-{b}": t for (a, b), t in self._joint.items()}
        return State(tensors, dict(self._facts))

    def restore(self, model_state: State, training_state: State | None = None) -> None:
        self._facts, grid = dict(model_state.facts), Grid(self.schema)
        counts = [model_state.tensors[f"counts/{at}"] for at in range(len(grid.sizes))]
        self._bins = Bins(grid, counts, self._facts["noise"], self.spec.max_bins)
        self._single = [model_state.tensors[f"single/{at}"] for at in range(len(grid.sizes))]
        self._joint = {(a, b): model_state.tensors[f"joint/{a}-{b}"] for a, b in self._facts["edges"]}
        self._orient_edges()

    def sums(self) -> CountSums | None:
        return CountSums.of(self._bins)

    def _orient_edges(self) -> None:
        """Set `_transitions`: (parent, child, P(child | parent)), with parents before their children."""
        self._transitions: list[tuple[int, int, np.ndarray]] = []
        nodes, edges = {0}, dict(self._joint)
        while edges:
            a, b = next(e for e in edges if (e[0] in nodes) != (e[1] in nodes))
            table = edges.pop((a, b))
            parent, child, table = (a, b, table) if a in nodes else (b, a, table.T)
            nodes.add(child)
            self._transitions.append((parent, child, table / table.sum(axis=1, keepdims=True)))

    def sample(self, requests: Sequence[Mapping[str, Any]], seeds: np.ndarray) -> SampleBlock:
        columns, sizes = self.schema.columns, self._bins.sizes
        row_levels = uniforms(seeds, 3 * len(columns))
        # likelihood[c][row, bin] of all conditions at or below column c
        likelihood = [np.ones((len(seeds), s)) for s in sizes]
        for row, values in enumerate(requests):
            for at, column in enumerate(columns):
                if column.name in values:
                    likelihood[at][row] = np.eye(sizes[at])[self._bins.bin(at, values[column.name])]
        for parent, child, transition in reversed(self._transitions):
            message = likelihood[child] @ transition.T
            likelihood[parent] = likelihood[parent] * message / message.max(axis=1, keepdims=True)
        bins = np.zeros((len(seeds), len(columns)), np.int64)
        bins[:, 0] = draw(self._single[0] * likelihood[0], row_levels[:, 0])
        for parent, child, transition in self._transitions:
            bins[:, child] = draw(transition[bins[:, parent]] * likelihood[child], row_levels[:, child])
        arrays = {}
        for at, column in enumerate(columns):
            levels = row_levels[:, len(columns) + 2 * at : len(columns) + 2 * at + 2]
            arrays[column.name] = self._bins.decode(at, bins[:, at], levels, [w.get(column.name) for w in requests])
        return SampleBlock(arrays, [None] * len(seeds))


def draw(weights: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Draw a place for each row by its weights, (rows, places), at `levels` in [0, 1)."""
    ends = np.cumsum(weights, axis=1)
    return np.minimum((ends <= (levels * ends[:, -1])[:, None]).sum(axis=1), weights.shape[1] - 1)


def spanning_tree(num_nodes: int, scores: Mapping[Pair, float]) -> list[Pair]:
    """The edges of the spanning tree with the largest sum of scores (Kruskal 1956)."""
    group, edges = list(range(num_nodes)), []
    for a, b in sorted(scores, key=lambda e: (-scores[e], e)):
        if group[a] != group[b]:
            edges.append((a, b))
            group = [group[a] if g == group[b] else g for g in group]
    return edges


def consistent(
    joint: Mapping[Pair, np.ndarray],
    singles: list[np.ndarray],
    variances: list[np.ndarray],
    pair_noise: float,
    num_rows: float,
) -> tuple[dict[Pair, np.ndarray], list[np.ndarray]]:
    """Positive tables that sum to `num_rows` and agree about every column.

    The counts of a column are the precision-weighted mean of its measured counts and the sums of its joint tables (Hay
    et al. 2010). Tables are projected on the simplex and fitted to those counts by iterative proportional fitting.
    """
    margins = []
    for at, (single, variance) in enumerate(zip(singles, variances)):
        weight = 1 / (variance + 1e-9)
        total = single * weight
        for (a, b), table in joint.items():
            if at in (a, b):
                along = 1 if at == a else 0
                precision = 1 / (pair_noise**2 * table.shape[along] + 1e-9)
                total, weight = total + precision * table.sum(axis=along), weight + precision
        margins.append(on_simplex(total / weight, num_rows) + FLOOR)
    margins = [m * (num_rows / m.sum()) for m in margins]
    tables = {}
    for (a, b), table in joint.items():
        table = on_simplex(table.ravel(), num_rows).reshape(table.shape) + FLOOR
        for _ in range(NUM_FITTINGS):
            table = table * (margins[a] / table.sum(axis=1))[:, None]
            table = table * (margins[b] / table.sum(axis=0))[None, :]
        tables[a, b] = table
    return tables, margins


def on_simplex(values: np.ndarray, total: float) -> np.ndarray:
    """The nearest point without negative entries and with sum `total` (Duchi et al. 2008)."""
    falling = np.sort(values)[::-1]
    excess = (np.cumsum(falling) - total) / np.arange(1, len(values) + 1)
    num_kept = int(np.nonzero(falling > excess)[0][-1]) + 1
    return np.maximum(values - excess[num_kept - 1], 0.0)

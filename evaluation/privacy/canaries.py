"""Canaries of the one-run audit: unusual rows, tables with and without them, and scores of their membership.

The audit is as strong as its canaries, and typical rows move a model least. A guarantee holds for any row, so canaries
are rows that the schema allows and no real row equals: drawn uniformly over the range of each column, and of several
such rows those farthest from all real rows. They are chosen before the coins are tossed.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from gristmill.evaluation.distances import nearest
from gristmill.evaluation.draws import stream
from gristmill.evaluation.features import Encoder, row_numbers
from gristmill.records.readers.tables import Column, TableSchema, round_off

TRIES = 4  # rows drawn for each canary
NOISES = np.geomspace(1e-3, 1e5, 100)  # standard deviations, in rows


@dataclass(frozen=True)
class Canaries:
    """`ins` join the training rows where the coin says so; `outs`, if any, replace them elsewhere."""

    ins: pa.Table
    outs: pa.Table | None

    def mix_into(self, is_in: np.ndarray, others: pa.Table, seed: int) -> pa.Table:
        """`others` and the canaries by the coins, bool (canaries,), in random order."""
        parts = [others, self.ins.filter(pa.array(is_in))]
        if self.outs is not None:
            parts.append(self.outs.filter(pa.array(~is_in)))
        whole = pa.concat_tables(parts)
        return whole.take(pa.array(stream(seed, "order of rows").permutation(whole.num_rows))).combine_chunks()


def make_canaries(schema: TableSchema, rows: pa.Table, num: int, seed: int, is_replaced: bool) -> Canaries:
    """`num` canaries of `schema`; with `is_replaced` each has a replacement row.

    `rows` conform to the schema and give the bounds of numbers without declared bounds. Raises ValueError for columns
    that are neither numbers nor categories, and when the schema allows too few rows beside `rows`.
    """
    for column in schema.columns:
        if column.kind in ("image", "series", "text"):
            raise ValueError(f"column '{column.name}' is {column.kind}; canaries need numbers and categories")
    num_rows = num * (1 + is_replaced)
    draws = stream(seed, "canaries")
    columns = {c.name: _uniform(c, rows, TRIES * num_rows, draws) for c in schema.columns}
    candidates = pa.table(columns, schema=pa.schema(schema.payload))
    keys, taken = row_numbers(schema, [candidates, rows])
    first = np.unique(keys, return_index=True)[1]
    fresh = np.sort(first[~np.isin(keys[first], taken)])
    if len(fresh) < num_rows:
        raise ValueError(f"the schema allows too few rows beside the real rows: {len(fresh)} of {num_rows} were drawn")
    encoder = Encoder.fit(schema, rows)
    reach = nearest(encoder.encode(candidates.take(pa.array(fresh))), encoder.encode(rows))[0][:, 0]
    chosen = fresh[np.argsort(-reach, kind="stable")[:num_rows]]
    chosen = chosen[draws.permutation(num_rows)]
    parts = [candidates.take(pa.array(chosen[at : at + num])) for at in range(0, num_rows, num)]
    return Canaries(parts[0], parts[1] if is_replaced else None)


def _uniform(column: Column, rows: pa.Table, num: int, draws: np.random.Generator) -> pa.Array:
    if not column.is_number:
        places = draws.integers(len(column.categories), size=num)
        return pa.array(column.categories, pa.string()).take(pa.array(places))
    present = rows.column(column.name).drop_null().to_numpy().astype(np.float64)
    low = float(present.min()) if column.low is None else float(column.low)
    high = float(present.max()) if column.high is None else float(column.high)
    if column.kind == "integer":
        return pa.array(draws.integers(int(low), int(high), size=num, endpoint=True), pa.int64())
    return pa.array(round_off(column, draws.uniform(low, high, num)), pa.float64())


def scores_by_samples(schema: TableSchema, canaries: Canaries, others: pa.Table, samples: pa.Table) -> np.ndarray:
    """Scores float64 (canaries,), higher for likelier members: how much nearer the closest sampled row is than the
    closest of the other training rows, which the auditor knows. A replacement row counts with the opposite sign."""
    encoder = Encoder.fit(schema, others)
    others_encoded, sampled_encoded = encoder.encode(others), encoder.encode(samples)

    def nearness(table: pa.Table) -> np.ndarray:
        rows = encoder.encode(table)
        reach = np.maximum(nearest(rows, others_encoded)[0][:, 0].astype(np.float64), 1e-6)
        return -nearest(rows, sampled_encoded)[0][:, 0] / reach

    scores = nearness(canaries.ins)
    return scores if canaries.outs is None else scores - nearness(canaries.outs)


def scores_by_sums(noisy_sums: np.ndarray, without: np.ndarray, contributions: np.ndarray) -> np.ndarray:
    """Scores float64 (canaries,), higher for likelier members: the best linear estimate of inclusion (Wiener filter).

    `noisy_sums` float (sums,): sums over rows that the model publishes, with Gaussian noise. `without` float (sums,):
    the sums without the canaries. `contributions` float (canaries, sums): the part that each included canary adds. The
    noise is estimated from the sums (the likeliest of NOISES), because the model may claim noise that it does not add.
    """
    residual = noisy_sums - without - contributions.sum(0) / 2
    left, sizes, right = np.linalg.svd(contributions, full_matrices=False)
    projection = right @ residual
    beyond, num_beyond = max(0.0, float(residual @ residual - projection @ projection)), len(residual) - len(projection)

    def surprise(noise: float) -> float:
        """Minus twice the log-likelihood of the sums, up to a constant."""
        spread = sizes**2 / 4 + noise**2
        inside = float((np.log(spread) + projection**2 / spread).sum())
        return inside + num_beyond * 2 * float(np.log(noise)) + beyond / noise**2

    noise = min(NOISES, key=surprise)
    scores: np.ndarray = (left * sizes) @ (projection / (sizes**2 / 4 + noise**2))
    return scores

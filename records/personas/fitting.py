"""A network from a table of rows: the tree of attributes by Chow and Liu (1968), its shares as in the table.

The tree has the largest sum of mutual information between attributes and their parents. Shares are not smoothed:
smoothing would give weight to combinations that never occur. Instead every pair of values that fewer than `min_count`
rows hold is impossible, of any two attributes, so no persona holds a rare pair.
"""

import logging
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.records.errors import UserError
from gristmill.records.personas.network import Attribute, Network, Number, Value, cumulative

logger = logging.getLogger(__name__)
MAX_VALUES = 200  # of a text attribute
Numbers = dict[int, tuple[tuple[Number, ...], tuple[int, ...]]]  # by the place of their range
Codes = np.ndarray  # int64, shape (num_rows,): the place of each row's value


def fit_network(
    table: pa.Table, names: Sequence[str], weight: str | None, min_count: int, num_bins: int, personas: Sequence[str]
) -> Network:
    """The network of the columns `names`, weighted by the column `weight`. Raises UserError for unfit columns."""
    columns = [table.column(name) for name in names]
    is_whole = np.ones(table.num_rows, bool)
    for name, column in [*zip(names, columns), *([(weight, table.column(weight))] if weight else [])]:
        is_there = pc.is_valid(column).to_numpy()
        if pa.types.is_floating(column.type):
            is_there &= np.isfinite(column.to_numpy())
        if not is_there.any():
            what = "use another column as weight" if name == weight else "leave it out of attributes"
            raise UserError(f"source (personas): column '{name}' is empty in every row: {what}")
        is_whole &= is_there
    if not is_whole.any():
        raise UserError("source (personas): no row has a value in every column: leave columns out of attributes")
    whole = [column.filter(pa.array(is_whole)) for column in columns]
    attributes: list[tuple[str, tuple[Value, ...], Codes]] = []
    for name, column in zip(names, whole):
        attributes.append((name, *_coded(name, column, min_count, num_bins)))
    is_kept = np.all([codes >= 0 for _, _, codes in attributes], axis=0)
    if not is_kept.any():
        raise UserError(f"source (personas): no row has only values that {min_count} rows share: lower min_count")
    num_left = table.num_rows - int(is_kept.sum())
    if num_left:
        logger.info(
            f"personas: {num_left:,} of {table.num_rows:,} rows have a null or a value of fewer than {min_count} rows"
        )
    weights = np.ones(table.num_rows)
    if weight:
        weights = _numbers(weight, table.column(weight).filter(pa.array(is_whole)))
        weights = np.asarray(weights, np.float64)
        if (weights < 0).any():
            raise UserError(f"source (personas): weight: column '{weight}' has negative numbers")
    else:
        weights = weights[is_whole]
    weights = weights[is_kept]
    if not weights.sum():
        raise UserError(f"source (personas): weight: column '{weight}' is 0 in every row")
    coded = [(name, values, codes[is_kept]) for name, values, codes in attributes]
    numbers = {
        name: _frequent(np.asarray(column.to_numpy())[is_kept], codes, weights, min_count)
        for (name, values, codes), column in zip(coded, whole)
        if values and not isinstance(values[0], str)
    }
    return _network(coded, numbers, weights, min_count, personas)


def _frequent(numbers: np.ndarray, codes: Codes, weights: np.ndarray, min_count: int) -> Numbers:
    """The numbers of each range that `min_count` rows hold, with cumulative weights; ranges without any are absent."""
    frequent: Numbers = {}
    for place in range(int(codes.max()) + 1):
        held = codes == place
        values, inverse, counts = np.unique(numbers[held], return_inverse=True, return_counts=True)
        sums = np.bincount(inverse, weights[held])
        common = np.flatnonzero((counts >= min_count) & (sums > 0))
        if 0 < len(common) <= MAX_VALUES:
            frequent[place] = tuple(values[common].tolist()), cumulative(sums[common].tolist())
    return frequent


def _coded(name: str, column: pa.ChunkedArray, min_count: int, num_bins: int) -> tuple[tuple[Value, ...], Codes]:
    """The values of an attribute and the place of each row's; -1 for a value of fewer than `min_count` rows."""
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        return _binned(name, _numbers(name, column), min_count, num_bins)
    if not (
        pa.types.is_string(column.type) or pa.types.is_large_string(column.type) or pa.types.is_boolean(column.type)
    ):
        raise UserError(f"source (personas): attribute '{name}' is {column.type}, neither text nor number")
    texts = np.array([str(value) for value in column.to_pylist()], object)
    values, codes, counts = np.unique(texts.astype(str), return_inverse=True, return_counts=True)
    common = np.flatnonzero(counts >= min_count)
    if not len(common):
        raise UserError(
            f"source (personas): attribute '{name}' has no value that {min_count} rows hold: leave it out of "
            "attributes, or lower min_count"
        )
    if len(common) > MAX_VALUES:
        raise UserError(f"source (personas): attribute '{name}' has {len(common):,} values, above {MAX_VALUES}")
    places = np.full(len(values), -1)
    places[common] = np.arange(len(common))
    return tuple(str(values[at]) for at in common), places[codes.reshape(-1)]


def _numbers(name: str, column: pa.ChunkedArray) -> np.ndarray:
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        raise UserError(f"source (personas): column '{name}' is {column.type}, not a number")
    return np.asarray(column.to_numpy())


def _binned(name: str, numbers: np.ndarray, min_count: int, num_bins: int) -> tuple[tuple[Value, ...], Codes]:
    """Ranges that hold about as many rows each, `min_count` at least, and the range of each row.

    The outer ends are the `min_count`-th smallest and largest numbers, so none of them is the number of a few people;
    rows beyond them count with the outer ranges.
    """
    ordered = np.sort(numbers)
    if len(ordered) < min_count or ordered[min_count - 1] > ordered[-min_count]:
        raise UserError(
            f"source (personas): attribute '{name}' has {len(ordered):,} rows, too few for ranges whose ends "
            f"{min_count} rows reach: lower min_count, or leave it out of attributes"
        )
    low, high = ordered[min_count - 1], ordered[-min_count]
    inner = ordered[(ordered >= low) & (ordered <= high)]
    lows = np.unique(np.quantile(inner, np.arange(num_bins) / num_bins, method="lower"))
    starts = _merged(np.searchsorted(inner, lows), len(inner), min_count)
    codes = np.maximum(np.searchsorted(inner[starts], numbers, side="right") - 1, 0)
    is_whole = bool((numbers == np.floor(numbers)).all())
    spans: list[tuple[Number, Number]] = []
    for start, stop in zip(starts, [*starts[1:], len(inner)]):
        ends = inner[start], inner[stop - 1]
        spans.append((int(ends[0]), int(ends[1])) if is_whole else (float(ends[0]), float(ends[1])))
    return tuple(spans), codes


def _merged(starts: np.ndarray, stop: int, min_count: int) -> list[int]:
    """The starts of ranges after those that hold fewer than `min_count` of `stop` numbers are joined with the next.

    The last one is joined with the one before.
    """
    merged = [0]
    for start in starts[1:].tolist():
        if start - merged[-1] >= min_count:
            merged.append(start)
    if len(merged) > 1 and stop - merged[-1] < min_count:
        merged.pop()
    return merged


def _network(
    coded: Sequence[tuple[str, tuple[Value, ...], Codes]],
    numbers: Mapping[str, Numbers],
    weights: np.ndarray,
    min_count: int,
    personas: Sequence[str],
) -> Network:
    joint = {
        (a, b): _joint(coded[a], coded[b], weights) for a in range(len(coded)) for b in range(len(coded)) if a != b
    }
    order, parents = chow_liu(len(coded), {pair: information(shares) for pair, (shares, _) in joint.items()})
    places = {number: place for place, number in enumerate(order)}
    attributes = []
    for number in order:
        name, values, codes = coded[number]
        parent = parents[number]
        if parent is None:
            rows = [np.bincount(codes, weights, len(values))]
        else:
            rows = list(joint[parent, number][0])
        attributes.append(
            Attribute(
                name,
                values,
                None if parent is None else places[parent],
                tuple(cumulative(row.tolist()) for row in rows),
                {},
                numbers.get(name, {}),
            )
        )
    impossible = {
        (places[a], places[b]): {
            value: frozenset(np.flatnonzero(row < min_count).tolist()) for value, row in enumerate(counts)
        }
        for (a, b), (_, counts) in joint.items()
        if places[a] < places[b]
    }
    return Network("people of a table", attributes, impossible, personas)


def _joint(
    one: tuple[str, tuple[Value, ...], Codes], other: tuple[str, tuple[Value, ...], Codes], weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(weights, numbers of rows) of all pairs of values, float64 and int64 of shape (values, values)."""
    shape = len(one[1]), len(other[1])
    cells = one[2] * shape[1] + other[2]
    size = shape[0] * shape[1]
    return np.bincount(cells, weights, size).reshape(shape), np.bincount(cells, minlength=size).reshape(shape)


def information(joint: np.ndarray) -> float:
    """The mutual information of two attributes in nats, from the weights of all pairs of values."""
    shares = joint / joint.sum()
    product = shares.sum(1, keepdims=True) * shares.sum(0, keepdims=True)
    held = shares > 0
    return float((shares[held] * np.log(shares[held] / product[held])).sum())


def chow_liu(size: int, information: dict[tuple[int, int], float]) -> tuple[list[int], dict[int, int | None]]:
    """(order, parents) of the spanning tree with the most information, from attribute 0 on (Prim's algorithm)."""
    order, parents = [0], dict[int, int | None]({0: None})
    while len(order) < size:
        rest = [number for number in range(size) if number not in parents]
        parent, number = max(
            ((a, b) for a in order for b in rest), key=lambda pair: (information[pair], -pair[1], -pair[0])
        )
        order.append(number)
        parents[number] = parent
    return order, parents

"""The classifier of py3langid over Arrow bytes: its automaton, its Naive Bayes weights, its normalisation of scores.

Both halves are bound by memory bandwidth, and the layout serves that. A step of the automaton is one load: an entry
holds the row of the next state and which of that row's features it emits. Four texts advance in step, so that their
loads overlap. Weights are half-precision floats, all multiples of 2^-9 between 0 and -16, hence exact as int16. Four of
them add up without overflow: features that occur once in a text, as most do, are added four at a time before scaling.
"""

from typing import Any

import numpy as np
from numba import njit

from gristmill.stages.kernels.memory import prefetch_at

LANES = 4  # texts that advance in step; also rows of weights that are added at a time
NO_FEATURE = 0xFFFF
WIDTH = 160  # int16 lanes of a feature's row of weights: 142 classes, rounded up to whole cache lines
AHEAD = 16  # features between the prefetch of their weights and their use


@njit(cache=True, nogil=True)
def plain_spans(data: np.ndarray, offsets: np.ndarray, max_bytes: int, ends: np.ndarray, plain: np.ndarray) -> None:
    """Fill, per row, the end of its first `max_bytes` bytes and whether these bytes are classified as they are.

    The end lies between characters. py3langid must prepare a row first if it holds a byte from 0x80 on (it composes
    characters) or only upper case (it lowers it).
    """
    for row in range(len(offsets) - 1):
        start, end = offsets[row], offsets[row + 1]
        if end - start > max_bytes:
            end = start + max_bytes
            while end > start and (data[end] & 0xC0) == 0x80:
                end -= 1
        high, upper, lower = False, False, False
        for at in range(start, end):
            byte = data[at]
            high |= byte >= 0x80
            upper |= (byte >= 65) & (byte <= 90)
            lower |= (byte >= 97) & (byte <= 122)
        ends[row] = end
        plain[row] = not high and (lower or not upper)


@njit(cache=True, nogil=True)
def walk(data: np.ndarray, starts: np.ndarray, ends: np.ndarray, table: np.ndarray, entries: np.ndarray) -> None:
    """Fill entries[l, i] with the automaton's entry after byte i of text l; one text for each row of `entries`."""
    s0: Any = 0
    s1: Any = 0
    s2: Any = 0
    s3: Any = 0
    step = 0
    if len(starts) == LANES:
        b0, b1, b2, b3 = starts[0], starts[1], starts[2], starts[3]
        common = min(min(ends[0] - b0, ends[1] - b1), min(ends[2] - b2, ends[3] - b3))
        while step < common:
            e0, e1 = table[s0 << 8 | data[b0 + step]], table[s1 << 8 | data[b1 + step]]
            e2, e3 = table[s2 << 8 | data[b2 + step]], table[s3 << 8 | data[b3 + step]]
            entries[0, step], entries[1, step], entries[2, step], entries[3, step] = e0, e1, e2, e3
            s0, s1, s2, s3 = np.int64(e0 >> 16), np.int64(e1 >> 16), np.int64(e2 >> 16), np.int64(e3 >> 16)
            step += 1
    for lane in range(len(starts)):
        state = (s0, s1, s2, s3)[lane]
        for at in range(step, ends[lane] - starts[lane]):
            entry = table[state << 8 | data[starts[lane] + at]]
            entries[lane, at] = entry
            state = np.int64(entry >> 16)


@njit(cache=True, nogil=True)
def prefetch_rows(weights: np.ndarray, rows: np.ndarray, start: int, stop: int) -> None:
    """Prefetch the weights of rows[start:stop]."""
    base = np.uint64(weights.ctypes.data)
    for m in range(start, min(stop, len(rows))):
        first = np.int64(rows[m]) * WIDTH * 2
        for line in range(0, WIDTH * 2, 64):
            prefetch_at(base + np.uint64(first + line))


@njit(cache=True, nogil=True)
def add_one(sums: np.ndarray, weights: np.ndarray, a: int, factor: float) -> None:
    """Add `factor` times the weights of feature `a` to `sums`."""
    wa = weights[a]
    for j in range(WIDTH):
        sums[j] += factor * np.float32(wa[j])


@njit(cache=True, nogil=True)
def add_singles(sums: np.ndarray, weights: np.ndarray, rows: np.ndarray) -> None:
    """Add log(2) times the weights of features that occur once to `sums`; four add up within int16."""
    factor = np.float32(np.log1p(np.float32(1)))
    num_full = len(rows) // LANES * LANES
    for m in range(0, num_full, LANES):
        prefetch_rows(weights, rows, m + AHEAD, m + AHEAD + LANES)
        wa, wb, wc, wd = weights[rows[m]], weights[rows[m + 1]], weights[rows[m + 2]], weights[rows[m + 3]]
        for j in range(WIDTH):
            sums[j] += factor * np.float32(np.int16(np.int16(wa[j] + wb[j]) + np.int16(wc[j] + wd[j])))
    for m in range(num_full, len(rows)):
        add_one(sums, weights, rows[m], factor)


@njit(cache=True, nogil=True)
def add_repeated(
    sums: np.ndarray, weights: np.ndarray, rows: np.ndarray, counts: np.ndarray, factors: np.ndarray
) -> None:
    """Add log(1 + count) times the weights to `sums`, four features at a time to save reads and writes of `sums`."""
    num_full = len(rows) // LANES * LANES
    for m in range(0, num_full, LANES):
        prefetch_rows(weights, rows, m + AHEAD, m + AHEAD + LANES)
        a, b, c, d = rows[m], rows[m + 1], rows[m + 2], rows[m + 3]
        wa, wb, wc, wd = weights[a], weights[b], weights[c], weights[d]
        fa, fb, fc, fd = factors[counts[a]], factors[counts[b]], factors[counts[c]], factors[counts[d]]
        for j in range(WIDTH):
            first = fa * np.float32(wa[j]) + fb * np.float32(wb[j])
            sums[j] += first + (fc * np.float32(wc[j]) + fd * np.float32(wd[j]))
    for m in range(num_full, len(rows)):
        add_one(sums, weights, rows[m], factors[counts[rows[m]]])


@njit(cache=True, nogil=True)
def sum_weights(
    entries: np.ndarray,
    first_feature: np.ndarray,
    features: np.ndarray,
    weights: np.ndarray,
    counts: np.ndarray,
    factors: np.ndarray,
    features_of_text: np.ndarray,
    visit_features: np.ndarray,
    sums: np.ndarray,
) -> bool:
    """Set `sums` to the weights of the features in `entries`, each times log(1 + its count).

    Returns False if there is none.

    `counts` is all zeros before and after; `features_of_text` and `visit_features` are scratch. No loop branches on
    the text: writing a value that is then not counted is cheaper than a branch that the processor cannot predict.
    """
    sums[:] = 0
    visits: Any = 0
    for entry in entries:
        which = np.int64(entry & np.uint32(NO_FEATURE))
        visit_features[visits] = first_feature[entry >> np.uint32(16)] + which
        visits += which != NO_FEATURE
    num_distinct: Any = 0
    for v in range(visits):
        feature = features[visit_features[v]]
        features_of_text[num_distinct] = feature
        num_distinct += counts[feature] == 0
        counts[feature] += 1
    num_once: Any = 0
    num_more: Any = 0
    for m in range(num_distinct):
        feature = features_of_text[m]
        single = counts[feature] == 1
        visit_features[num_once] = feature
        num_once += single
        features_of_text[num_more] = feature
        num_more += not single
        # The count of a single is no longer needed; the others are cleared below.
        counts[feature] -= single
    add_singles(sums, weights, visit_features[:num_once])
    add_repeated(sums, weights, features_of_text[:num_more], counts, factors)
    for m in range(num_more):
        counts[features_of_text[m]] = 0
    return num_distinct > 0


@njit(cache=True, nogil=True)
def classify(
    data: np.ndarray,
    starts: np.ndarray,
    ends: np.ndarray,
    table: np.ndarray,
    first_feature: np.ndarray,
    features: np.ndarray,
    weights: np.ndarray,
    unit: float,
    priors: np.ndarray,
    first_column: np.ndarray,
    out_class: np.ndarray,
    out_score: np.ndarray,
) -> None:
    """Fill the class (a column of `weights`) and the normalised probability of data[starts[r]:ends[r]] for every row r.

    A weight is `unit` times its integer. `first_column[j]` is the first column with the label of column j: columns with
    the same label are added up.
    """
    longest = 0
    for row in range(len(starts)):
        longest = max(longest, ends[row] - starts[row])
    entries = np.empty((LANES, longest), np.uint32)
    counts = np.zeros(len(weights), np.int32)
    factors = np.log1p(np.arange(longest + 1).astype(np.float32))
    features_of_text, visit_features = np.empty(longest + 1, np.int32), np.empty(longest + 1, np.int32)
    sums = np.empty(WIDTH, np.float32)
    num_classes = len(priors)
    scores = np.empty(num_classes, np.float64)
    for row in range(len(starts)):
        lane = row % LANES
        if lane == 0:
            walk(data, starts[row : row + LANES], ends[row : row + LANES], table, entries)
        length = ends[row] - starts[row]
        has_features = sum_weights(
            entries[lane, :length],
            first_feature,
            features,
            weights,
            counts,
            factors,
            features_of_text,
            visit_features,
            sums,
        )
        # Without features all classes are equal, which is how py3langid abstains.
        for j in range(num_classes):
            scores[j] = np.float64(sums[j]) * unit + priors[j] if has_features else 0.0
        # py3langid's temperature: the square root of the length keeps the softmax calibrated across lengths.
        temperature = np.sqrt(max(1, length))
        top = scores.max()
        total = 0.0
        for j in range(num_classes):
            scores[j] = np.exp((scores[j] - top) / temperature)
            total += scores[j]
        for j in range(num_classes):
            if first_column[j] != j:
                scores[first_column[j]] += scores[j]
                scores[j] = 0.0
        best = np.argmax(scores)
        out_class[row] = best
        out_score[row] = scores[best] / total

"""py3langid's classifier over Arrow bytes: its automaton, its Naive Bayes weights, its normalisation of scores.

Both halves are bound by memory, and laid out for it. A step of the automaton is one load: an entry holds the row of
the next state and which of that row's features it bears, and four texts walk in step, so that their loads overlap.
Weights are half floats that are all multiples of 2^-9 between 0 and -16, hence exact as int16, and four of them add
up without overflow; features that occur equally often in a text are added four at a time before they are scaled.
"""

from typing import Any

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def plain_spans(data: np.ndarray, offsets: np.ndarray, max_bytes: int, ends: np.ndarray, plain: np.ndarray) -> None:
    """Per row the end of its first `max_bytes` bytes, cut between characters, and whether they are classified as is.

    They are not when they hold a byte from 0x80 on (py3langid composes characters first) or are all upper case
    (py3langid lowers them).
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


LANES = 4  # texts that walk the automaton in step; also the rows of weights added before scaling
NO_FEATURE = 0xFFFF
MOST = 32  # features seen this often or more are scaled one by one


@njit(cache=True, nogil=True)
def walk(data: np.ndarray, starts: np.ndarray, ends: np.ndarray, table: np.ndarray, entries: np.ndarray) -> None:
    """entries[l, i] = the automaton's entry after byte i of text l; as many texts as `entries` has rows, at most."""
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
def add_one(sums: np.ndarray, weights: np.ndarray, a: int, factor: float) -> None:
    wa = weights[a]
    for j in range(len(sums)):
        sums[j] += factor * np.float32(wa[j])


@njit(cache=True, nogil=True)
def add_four(sums: np.ndarray, weights: np.ndarray, a: int, b: int, c: int, d: int, factor: float) -> None:
    wa, wb, wc, wd = weights[a], weights[b], weights[c], weights[d]
    for j in range(len(sums)):
        sums[j] += factor * np.float32(np.int16(np.int16(wa[j] + wb[j]) + np.int16(wc[j] + wd[j])))


@njit(cache=True, nogil=True)
def sum_weights(
    entries: np.ndarray,
    first_feature: np.ndarray,
    features: np.ndarray,
    weights: np.ndarray,
    counts: np.ndarray,
    met: np.ndarray,
    grouped: np.ndarray,
    sums: np.ndarray,
) -> bool:
    """sums = the weights of the features in `entries`, each times log(1 + its count). False when there is none.

    `counts` is all zeros before and after.
    """
    sums[:] = 0
    num_met = 0
    for entry in entries:
        which = np.int64(entry & np.uint32(NO_FEATURE))
        if which != NO_FEATURE:
            feature = features[first_feature[entry >> np.uint32(16)] + which]
            met[num_met] = feature
            num_met += counts[feature] == 0
            counts[feature] += 1
    ends = np.zeros(MOST + 2, np.int64)
    for m in range(num_met):
        ends[min(counts[met[m]], MOST) + 1] += 1
    for count in range(1, MOST + 2):
        ends[count] += ends[count - 1]
    for m in range(num_met):
        count = min(counts[met[m]], MOST)
        grouped[ends[count]] = met[m]
        ends[count] += 1
    start = 0
    for count in range(1, MOST):
        factor = np.float32(np.log1p(np.float32(count)))
        while start + LANES <= ends[count]:
            g = grouped[start : start + LANES]
            add_four(sums, weights, g[0], g[1], g[2], g[3], factor)
            start += LANES
        while start < ends[count]:
            add_one(sums, weights, grouped[start], factor)
            start += 1
    for m in range(start, num_met):
        add_one(sums, weights, grouped[m], np.float32(np.log1p(np.float32(counts[grouped[m]]))))
    for m in range(num_met):
        counts[met[m]] = 0
    return num_met > 0


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
    """Class (a column of `weights`) and normalised probability of data[starts[r]:ends[r]], for every row r.

    A weight is `unit` times its integer; `first_column[j]` is the first column with the label of column j, because
    columns of one label are added up.
    """
    longest = 0
    for row in range(len(starts)):
        longest = max(longest, ends[row] - starts[row])
    entries = np.empty((LANES, longest), np.uint32)
    counts = np.zeros(len(weights), np.int32)
    met, grouped = np.empty(longest + 1, np.int32), np.empty(longest + 1, np.int32)
    sums = np.empty(weights.shape[1], np.float32)
    num_classes = len(priors)
    scores = np.empty(num_classes, np.float64)
    for row in range(len(starts)):
        lane = row % LANES
        if lane == 0:
            walk(data, starts[row : row + LANES], ends[row : row + LANES], table, entries)
        length = ends[row] - starts[row]
        some = sum_weights(entries[lane, :length], first_feature, features, weights, counts, met, grouped, sums)
        # No features: all classes alike, which is how py3langid abstains.
        for j in range(num_classes):
            scores[j] = np.float64(sums[j]) * unit + priors[j] if some else 0.0
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

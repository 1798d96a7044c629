"""The parts of an encoder's layer between its matrix products, on bfloat16 numbers held as uint16.

A row of a result depends on the same row of the input only. Sums run in float32, in an order that the length of the
row decides; results are rounded to the nearest bfloat16, ties to even. The polynomials are minimax fits with errors
far below that rounding (2^-9): 2^f on [0, 1] to 3e-6, and erf(x / sqrt 2) / x in x^2 on [0, 3.8] so that the GELU is
exact to 2e-5. The biases of the products are added here.
"""

import numpy as np
from numba import njit

ORDER_FREE = {"reassoc", "contract", "nsz", "nnan", "ninf"}  # sums may use vector registers
HALF, ROUND, ONE = np.uint32(16), np.uint32(0x7FFF), np.uint32(1)
MANTISSA = np.int32(23)
UNIT, MIDDLE, ZERO = np.float32(1.0), np.float32(0.5), np.float32(0.0)
LOG2E = 1.4426950408889634
P0, P1, P2 = np.float32(1.0000026226), np.float32(0.6930035949), np.float32(0.2414432317)
P3, P4 = np.float32(0.0520113073), np.float32(0.0135340793)
LEAST, LARGEST = np.float32(-120.0), np.float32(100.0)  # exponents of 2 that a score is kept in
SMALL_SUM, LARGE_SUM = np.float32(2.0**-60), np.float32(2.0**90)  # a sum outside means that a score was cut off
G0, G1, G2 = np.float32(0.7975659967), np.float32(-0.1321983784), np.float32(1.9281867892e-2)
G3, G4, G5 = np.float32(-2.0943435375e-3), np.float32(1.6263869475e-4), np.float32(-8.4340590547e-6)
G6, G7 = np.float32(2.5832210326e-7), np.float32(-3.4993195008e-9)
EDGE = np.float32(3.8)
LOWEST = np.uint16(0xFF7F)  # least finite bfloat16


@njit(cache=True, nogil=True, inline="always")
def _widen(bits):  # type: ignore[no-untyped-def]
    """float32 of a bfloat16."""
    return np.uint32(np.uint32(bits) << HALF).view(np.float32)  # numba shifts in 64 bits


@njit(cache=True, nogil=True, inline="always")
def _narrow(value):  # type: ignore[no-untyped-def]
    """bfloat16 of a finite float32."""
    bits = np.float32(value).view(np.uint32)
    return np.uint16(np.uint32(bits + ROUND + ((bits >> HALF) & ONE)) >> HALF)


@njit(cache=True, nogil=True, inline="always")
def _exp2(x):  # type: ignore[no-untyped-def]
    """2^x of a float32, which is cut off at LEAST and LARGEST."""
    x = x if x > LEAST else LEAST
    x = x if x < LARGEST else LARGEST
    n = np.floor(x)
    f = x - n
    series = (((P4 * f + P3) * f + P2) * f + P1) * f + P0  # in [1, 2], so that n can be added to its exponent
    return np.int32(np.float32(series).view(np.int32) + (np.int32(n) << MANTISSA)).view(np.float32)


@njit(cache=True, nogil=True, fastmath=ORDER_FREE)
def _exp(scores, factor, shift, weights):  # type: ignore[no-untyped-def]
    """Write 2^(factor * score - shift) to `weights`. One long loop, because its rest runs number by number."""
    for i in range(len(scores)):
        weights[i] = _narrow(_exp2(_widen(scores[i]) * factor - shift))


@njit(cache=True, nogil=True, fastmath=ORDER_FREE)
def _sum(numbers):  # type: ignore[no-untyped-def]
    total = ZERO
    for i in range(len(numbers)):
        total += _widen(numbers[i])
    return total


@njit(cache=True, nogil=True)
def attention_weights(scores, lengths, scale, weights, totals):  # type: ignore[no-untyped-def]
    """Write exp(scale * score) of uint16 (pieces, heads, length, length) to `weights`, and the sums to `totals`.

    `lengths` int64 (pieces,): the number of tokens of each piece, at least 1. Padding behind them gets a weight of at
    most 2^-120. `totals` float32 (pieces, heads, length). A softmax is weights / totals. The largest score is
    subtracted first only where the sum would leave the range of float32. Overwrites `scores`.
    """
    num_pieces, num_heads, _, _ = scores.shape
    factor = np.float32(scale * LOG2E)
    for piece in range(num_pieces):
        size = lengths[piece]
        for head in range(num_heads):
            rows, results = scores[piece, head], weights[piece, head]
            rows[:size, size:] = LOWEST
            _exp(rows[:size].reshape(-1), factor, ZERO, results[:size].reshape(-1))
            for token in range(size):
                total = _sum(results[token])
                if not SMALL_SUM < total < LARGE_SUM:
                    largest = _widen(rows[token, 0]) * factor
                    for i in range(1, size):
                        largest = max(largest, _widen(rows[token, i]) * factor)
                    _exp(rows[token], factor, largest, results[token])
                    total = _sum(results[token])
                totals[piece, head, token] = total
            results[size:] = 0
            totals[piece, head, size:] = UNIT


@njit(cache=True, nogil=True, fastmath=ORDER_FREE)
def merge_heads(values, totals, result):  # type: ignore[no-untyped-def]
    """Write uint16 (pieces, heads, length, width) / totals to `result` (pieces, length, heads, width)."""
    num_pieces, num_heads, length, width = values.shape
    for piece in range(num_pieces):
        for token in range(length):
            for head in range(num_heads):
                factor = UNIT / totals[piece, head, token]
                row, target = values[piece, head, token], result[piece, token, head]
                for i in range(width):
                    target[i] = _narrow(_widen(row[i]) * factor)


@njit(cache=True, nogil=True, fastmath=ORDER_FREE)
def split_heads(rows, bias, result):  # type: ignore[no-untyped-def]
    """Write uint16 (pieces, length, 3, heads, width) + bias (3, heads, width) as (3, pieces, heads, length, width)."""
    num_pieces, length, num_parts, num_heads, width = rows.shape
    for piece in range(num_pieces):
        for token in range(length):
            for part in range(num_parts):
                for head in range(num_heads):
                    row, target = rows[piece, token, part, head], result[part, piece, head, token]
                    shift = bias[part, head]
                    for i in range(width):
                        target[i] = _narrow(_widen(row[i]) + shift[i])


@njit(cache=True, nogil=True, fastmath=ORDER_FREE)
def gelu(rows, bias):  # type: ignore[no-untyped-def]
    """Replace x = row + bias of uint16 (n, d) by x Phi(x), the GELU of Hendrycks and Gimpel 2016."""
    for number in range(len(rows)):
        row = rows[number]
        for i in range(len(bias)):
            x = _widen(row[i]) + bias[i]
            y = x if x < EDGE else EDGE
            y = y if y > -EDGE else -EDGE
            t = y * y
            erf = y * (((((((G7 * t + G6) * t + G5) * t + G4) * t + G3) * t + G2) * t + G1) * t + G0)
            erf = erf if x < EDGE else UNIT
            erf = erf if x > -EDGE else -UNIT
            row[i] = _narrow(MIDDLE * x * (UNIT + erf))


@njit(cache=True, nogil=True, fastmath=ORDER_FREE)
def add_norm(rows, shift, others, weight, bias, eps, result):  # type: ignore[no-untyped-def]
    """Write the layer norm (Ba et al. 2016) of rows + shift + others to `result`, which may be an argument.

    `rows`, `others` and `result` uint16 (n, d); `shift`, `weight` and `bias` float32 (d,).
    """
    num_rows, width = rows.shape
    values = np.empty(width, np.float32)
    share = UNIT / np.float32(width)
    for number in range(num_rows):
        row, other, target = rows[number], others[number], result[number]
        total = ZERO
        for i in range(width):
            values[i] = _widen(row[i]) + shift[i] + _widen(other[i])
            total += values[i]
        mean = total * share
        square = ZERO
        for i in range(width):
            values[i] -= mean
            square += values[i] * values[i]
        factor = UNIT / np.sqrt(square * share + eps)
        for i in range(width):
            target[i] = _narrow(values[i] * factor * weight[i] + bias[i])

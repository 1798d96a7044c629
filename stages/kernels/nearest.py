"""The nearest of many mixed rows: numbers by their squared difference, codes by a fixed cost where they differ."""

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def nearest_rows(numbers, codes, row_numbers, row_codes, costs, own, distances, places):  # type: ignore[no-untyped-def]
    """For each query the `distances.shape[1]` nearest rows, nearest first, the earlier of two that are as near.

    numbers (q, M) and row_numbers (n, M) float32, codes (q, C) and row_codes (n, C) int32, costs (C,) float32 of a
    code that differs, squared. NaN in a number counts nothing. own (q,) int64 is a row that is passed over, or -1.
    Fills distances (q, k) float64, squared, and places (q, k) int64; where there are fewer rows, infinity and -1.
    A row is left as soon as it is too far.
    """
    num_kept = distances.shape[1]
    for q in range(numbers.shape[0]):
        for k in range(num_kept):
            distances[q, k] = np.inf
            places[q, k] = -1
        worst = np.inf
        for row in range(row_numbers.shape[0]):
            if row == own[q]:
                continue
            far = 0.0
            for c in range(codes.shape[1]):
                if codes[q, c] != row_codes[row, c]:
                    far += costs[c]
            if far >= worst:
                continue
            for m in range(numbers.shape[1]):
                apart = np.float64(numbers[q, m]) - row_numbers[row, m]
                if apart == apart:
                    far += apart * apart
            if far >= worst:
                continue
            k = num_kept - 1
            while k > 0 and distances[q, k - 1] > far:
                distances[q, k] = distances[q, k - 1]
                places[q, k] = places[q, k - 1]
                k -= 1
            distances[q, k] = far
            places[q, k] = row
            worst = distances[q, num_kept - 1]

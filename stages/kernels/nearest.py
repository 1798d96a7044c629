"""Nearest rows of mixed type: numbers by squared difference, codes by a fixed cost where they differ."""

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def nearest_rows(numbers, codes, row_numbers, row_codes, costs, skip, distances, places):  # type: ignore[no-untyped-def]
    """Find the `distances.shape[1]` nearest rows of each query, nearest first; of equally near rows, the earlier first.

    numbers (q, M) and row_numbers (n, M) are float32, codes (q, C) and row_codes (n, C) int32, costs (C,) float32 the
    squared cost of a differing code. NaN in a number adds nothing. skip (q,) int64 is a row to leave out, or -1. Fills
    distances (q, k) float64, squared, and places (q, k) int64; missing neighbours are infinity and -1. The search
    leaves a row as soon as it is too distance.
    """
    num_neighbours = distances.shape[1]
    for q in range(numbers.shape[0]):
        for k in range(num_neighbours):
            distances[q, k] = np.inf
            places[q, k] = -1
        worst = np.inf
        for row in range(row_numbers.shape[0]):
            if row == skip[q]:
                continue
            distance = 0.0
            for c in range(codes.shape[1]):
                if codes[q, c] != row_codes[row, c]:
                    distance += costs[c]
            if distance >= worst:
                continue
            for m in range(numbers.shape[1]):
                difference = np.float64(numbers[q, m]) - row_numbers[row, m]
                if difference == difference:
                    distance += difference * difference
            if distance >= worst:
                continue
            k = num_neighbours - 1
            while k > 0 and distances[q, k - 1] > distance:
                distances[q, k] = distances[q, k - 1]
                places[q, k] = places[q, k - 1]
                k -= 1
            distances[q, k] = distance
            places[q, k] = row
            worst = distances[q, num_neighbours - 1]

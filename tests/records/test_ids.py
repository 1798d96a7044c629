"""Ids and mixed bits of literals."""

import numpy as np

from gristmill.records.ids import fingerprint, lot_ids, mix_bits, row_id
from gristmill.stages.kernels.mixing import mix


def test_lot_ids_are_row_ids() -> None:
    mark = fingerprint({"a": 1})
    assert lot_ids(mark, 2, 7, 3) == [row_id(mark, 2, 7, row) for row in range(3)]


def test_bits_are_mixed_alike_in_python_numpy_and_numba() -> None:
    values = np.random.default_rng(0).integers(0, 2**64, 1000, np.uint64, endpoint=False)
    values[:2] = 0, 2**64 - 1
    mixed = mix_bits(values)
    assert mixed.dtype == np.uint64
    assert mixed.tolist() == [mix_bits(int(v)) for v in values] == [int(mix(v)) for v in values]
    assert mix_bits(0x9E3779B97F4A7C15) == 0xE220A8397B1DCDAF  # the first output of splitmix64 with seed 0

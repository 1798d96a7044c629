"""Checks the laws of a source that computes its rows (see gristmill.records.functions.contract).

1. columns as declared: every row has the columns of `columns` and no others, none of them reserved;
2. expressible: the values of a row are what JSON can hold;
3. a function: a row depends on its number and draws only, in any order, and from a pickled copy too;
4. identity: literals that JSON can hold, the same each time.
"""

import json
import pickle

from gristmill.records.functions.contract import RowFunction
from gristmill.records.functions.draws import Draws
from gristmill.records.ids import fingerprint
from gristmill.records.schema import RESERVED

NUMBERS = (*range(20), 1000, 10**9, 1 << 40)


def check_row_function(function: RowFunction) -> None:
    """Raise AssertionError, with the law in one line, if a source of computed rows breaks one of its laws."""
    name, columns = type(function).__name__, function.columns
    assert columns and not set(columns) & RESERVED, f"{name} breaks law 1: columns must not be {sorted(RESERVED)}"
    rows = {}
    for number in NUMBERS:
        row = function.row(number, Draws(1, number))
        assert set(row) == set(columns), f"{name} breaks law 1: row {number} has the columns {sorted(row)}"
        try:
            rows[number] = json.dumps(row, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise AssertionError(f"{name} breaks law 2: row {number}: {error}") from None
    copy = pickle.loads(pickle.dumps(function))
    for number in reversed(NUMBERS):
        for again, what in ((function, "in another order"), (copy, "from a pickled copy")):
            text = json.dumps(again.row(number, Draws(1, number)))
            assert text == rows[number], f"{name} breaks law 3: row {number} is another one {what}"
    try:
        is_same = fingerprint(function.identity()) == fingerprint(copy.identity())
    except (TypeError, ValueError) as error:
        raise AssertionError(f"{name} breaks law 4: identity(): {error}") from None
    assert is_same, f"{name} breaks law 4: identity() differs from that of a pickled copy"

"""An output with `limits.exact` is closed once it holds its number of rows: its last lot has dropped the rows after.

The lots before the last do not depend on the number, so it may be changed until then. The footer of the last lot states
it, and the manifest repeats it. Where the last lot was committed under other limits and the output holds exactly the
number that is set later, no row is left to drop: the manifest alone states it then.
"""

from gristmill.cluster.spec import Limits
from gristmill.records.errors import UserError
from gristmill.records.output.shard_reading import read_meta
from gristmill.records.output.shards import CLOSED_AT
from gristmill.records.output.summary import Summary
from gristmill.records.stores.contract import Store


def closed_at(store: Store, num_lots: int) -> int | None:
    """The number of rows at which an output with so many committed lots is closed; None for one that is open.

    Raises UnreadableShard when the footer of its last lot cannot be read.
    """
    return read_meta(store, num_lots - 1).get(CLOSED_AT) if num_lots else None


def check_closed(limits: Limits, closed_rows: int | None, totals: Summary, uri: str) -> None:
    """Raise UserError for limits that the committed rows of an output cannot meet. `closed_rows`: see `closed_at`."""
    if closed_rows is not None and limits.exact_rows != closed_rows:
        words = f"limits.kept_rows = {limits.kept_rows}" if limits.exact else "no limits.exact"
        raise UserError(
            f"{uri} is closed at exactly {closed_rows:,} rows, and the recipe has {words}: set limits.exact = true "
            f"and limits.kept_rows = {closed_rows}, or choose another --out"
        )
    if limits.exact_rows is not None and totals.kept > limits.exact_rows:
        raise UserError(
            f"{uri} holds {totals.kept:,} kept rows, and its committed lots cannot be cut to limits.kept_rows = "
            f"{limits.exact_rows}: raise it to at least {totals.kept}, or choose another --out"
        )


def unreached(limits: Limits, totals: Summary) -> bool:
    """Whether an exact number of rows is stated and not there."""
    return limits.exact_rows is not None and totals.kept < limits.exact_rows

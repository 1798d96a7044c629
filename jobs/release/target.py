"""The place that a release is written to."""

from gristmill.records.errors import UserError
from gristmill.records.stores.contract import Store


def check_target(target: Store, write: bool = True) -> None:
    """Raise UserError when the target is not empty or, with `write`, when it cannot be written."""
    if write:
        target.check(write=True)
    if next(target.list(), None) is not None:
        raise UserError(f"{target.uri} is not empty; choose another --to")

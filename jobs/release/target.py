"""The place that a release is written to."""

from collections.abc import Iterator
from contextlib import contextmanager

from gristmill.records.errors import UserError
from gristmill.records.processes import last_step
from gristmill.records.stores.contract import Store
from gristmill.records.stores.opening import open_output


@contextmanager
def release_target(to: str) -> Iterator[Store]:
    """An empty place for a release. Folders that were made for it and that stay empty are removed after the block.

    Raises UserError when there is something already.
    """
    target = open_output(to)
    check_target(target, write=False)
    with last_step(target.leave):
        try:
            yield target
        finally:
            target.leave()


def check_target(target: Store, write: bool = True) -> None:
    """Raise UserError when the target is not empty or, with `write`, when it cannot be written."""
    if write:
        target.check(write=True)
    if next(target.list(), None) is not None:
        raise UserError(f"{target.uri} is not empty; choose another --to")

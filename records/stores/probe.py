"""Tries whether a store keeps the promise that commits rely on: an if-absent put never replaces an object.

A store that ignores `If-None-Match` answers as if it had checked, so only a second put tells the two apart.
"""

import secrets
import time
from collections.abc import Callable
from contextlib import suppress

from gristmill.records.errors import Conflict, Rejected, UserError
from gristmill.records.stores.contract import PROBE_PREFIX, Store

LEFTOVER_AGE_S = 3600.0  # the probe of a killed process; clocks of two machines differ by less


def check_promises(store: Store, condition: str, remedy: str) -> None:
    """Put a small object twice, if absent: the second put must be refused, and a listing must hold the object.

    The object is deleted in any case. `condition` and `remedy` are parts of the message.

    Raises UserError for a store that breaks a promise or that cannot be written.
    """
    name = _probe_name()
    try:
        _put_twice(store, name, condition, remedy)
        if name not in [entry.name for entry in store.list(name)]:
            raise UserError(f"{store.uri}: this store lists a new object late, so a run could not resume; {remedy}")
    except BaseException:
        with suppress(UserError, OSError):  # the first error is the one to read
            store.delete(name)
        raise
    store.delete(name)


def _put_twice(store: Store, name: str, condition: str, remedy: str) -> None:
    risk = f"so two drivers could overwrite each other's shards; {remedy}"
    try:
        store.put(name, b"first", if_absent=True)
    except (Rejected, Conflict, FileNotFoundError) as error:
        store.put(name, b"first")  # raises when the condition is not to blame
        raise UserError(f"{store.uri}: this store has no {condition}, {risk}") from error
    try:
        store.put(name, b"second", if_absent=True)
    except Conflict:
        return
    raise UserError(f"{store.uri}: this store ignores {condition}, {risk}")


def check_completion(store: Store, complete: Callable[[str], None]) -> bool:
    """Whether an if-absent multipart upload, which `complete` tries with a name, leaves an object as it is.

    This tells a store that ignores the condition. It cannot tell whether the check and the completion are one step.
    """
    name = _probe_name()
    store.put(name, b"first", if_absent=True)
    try:
        complete(name)
    except (Conflict, Rejected, FileNotFoundError) as error:
        return isinstance(error, Conflict)
    finally:
        with suppress(UserError, OSError):
            store.delete(name)
    return False


def _probe_name() -> str:
    return f"{PROBE_PREFIX}{time.time():.0f}-{secrets.token_hex(6)}"


def sweep_probes(store: Store) -> int:
    """Remove what killed checks have left; returns the number. The objects of running checks are left alone."""
    num_removed = 0
    for entry in list(store.list(PROBE_PREFIX)):
        began = entry.name.removeprefix(PROBE_PREFIX).partition("-")[0]
        if began.isdigit() and time.time() - int(began) > LEFTOVER_AGE_S:
            store.delete(entry.name)
            num_removed += 1
    return num_removed

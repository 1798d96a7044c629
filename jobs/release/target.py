"""The place that a release is written to: empty, or with the begun release of the same command."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from gristmill.jobs.terminal.output import refusal
from gristmill.records.errors import Conflict, UserError
from gristmill.records.output.formats import newest, parse
from gristmill.records.printable import json_text
from gristmill.records.processes import last_step
from gristmill.records.stores.contract import Store
from gristmill.records.stores.opening import open_output

BEGUN = "pack.json"  # what is being packed; deleted when the release is complete


@contextmanager
def release_target(to: str, is_public: bool = False) -> Iterator[Store]:
    """A place for a release. Folders that were made for it and that stay empty are removed after the block.

    `is_public`: for hf:// alone, whether everyone may read the release once it is complete. Raises UserError when there
    is something already, but for a release that a pack has begun.
    """
    target = _open(to, is_public)
    check_target(target, write=False)
    with last_step(target.leave):
        try:
            yield target
        finally:
            target.leave()


def _open(to: str, is_public: bool) -> Store:
    if to.startswith("hf://"):
        from gristmill.records.stores.hub_release import HubRelease

        return HubRelease(to, is_public)
    if is_public:
        raise UserError(f"{to}: --public is for releases at hf://datasets/org/name; leave it out")
    return open_output(to)


def check_target(target: Store, write: bool = True) -> None:
    """Raise UserError when the target holds more than a begun release or, with `write`, when it cannot be written."""
    if write:
        target.check(write=True)
    if next(target.list(), None) is not None and not target.exists(BEGUN):
        raise UserError(f"{target.uri} is not empty; choose another --to")


def begin(target: Store, identity: dict[str, Any]) -> bool:
    """Note that the release of this identity is begun; returns whether it was begun before.

    `identity`: what decides the bytes, as literals. Raises UserError for the begun release of another command.
    """
    data = json_text({"format": newest(BEGUN), "release": identity}, indent=2).encode()
    try:
        target.put(BEGUN, data, if_absent=True)
        return False
    except Conflict:
        before = parse(target.read(BEGUN), BEGUN, target.path(BEGUN)).get("release")
    if before != identity:
        raise refusal(target.uri, "holds the begun release of another command", before, identity, flag="--to")
    target.sweep()
    return True


def end(target: Store) -> None:
    """Note that the release is complete. On the hub, this is when readers see it."""
    target.publish(BEGUN)


def abandon(target: Store) -> None:
    """Remove the note of a begun release that has no shard."""
    target.delete(BEGUN)


def columns_digest(schema: pa.Schema) -> str:
    """A digest of names and types, for the identity of a release."""
    return hashlib.sha256(schema.remove_metadata().to_string().encode()).hexdigest()[:16]
